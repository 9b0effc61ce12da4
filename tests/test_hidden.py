"""State that no `state_dict` has: after a kill a run has the same bits, or the line that says what
is not saved was there before. And layers that a model makes late are there when it is used."""
import copy
import itertools
import random
from collections import Counter, defaultdict, deque, namedtuple
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    TensorDataset,
    default_collate,
)

from mlkit.base.errors import TrainingFailed, UserError
from mlkit.run.folder import Run
from mlkit.train import resume, train
from mlkit.use import evaluate, load_run, trained
from power_cut import Cut, PowerCut

HERE = __name__.rpartition(".")[2]


@pytest.fixture(autouse=True)
def tests_are_importable(monkeypatch): monkeypatch.syspath_prepend(str(Path(__file__).parent))


# -- data, each with state of another kind

def rows(seed: int, n: int = 48) -> TensorDataset:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, x.sum(1, keepdim=True))


class Data(pl.LightningDataModule):
    def train_dataloader(self): return DataLoader(rows(0), 8, shuffle=True)
    def val_dataloader(self): return DataLoader(rows(1), 8)
    def test_dataloader(self): return DataLoader(rows(2), 8)


class Draws(Sampler):
    "Draws with a generator of its own."
    def __init__(self, rng): self.rng = rng
    def __len__(self): return 48

    def __iter__(self):
        for _ in range(48):
            if isinstance(self.rng, torch.Generator):
                yield int(torch.randint(48, (1,), generator=self.rng))
            elif isinstance(self.rng, random.Random): yield self.rng.randrange(48)
            else: yield int(self.rng.permutation(48)[0])


class OwnGenerator(Data):
    def __init__(self, kind: str):
        super().__init__()
        self.rng = dict(numpy=np.random.default_rng, legacy=np.random.RandomState,
                        python=random.Random, torch=torch.Generator().manual_seed)[kind](3)

    def train_dataloader(self): return DataLoader(rows(0), 8, sampler=Draws(self.rng))


class Batches:
    "A batch sampler that is only iterable."
    def __init__(self): self.rng = np.random.default_rng(1)
    def __len__(self): return 6

    def __iter__(self):
        for _ in range(6): yield self.rng.integers(0, 48, 8).tolist()


class BatchSampled(Data):
    def train_dataloader(self): return DataLoader(rows(0), batch_sampler=Batches())


class Noise(Dataset):
    "The more is read, the less noise there is, from a generator of its own."
    def __init__(self): self.rows, self.rng, self.reads = rows(0), np.random.default_rng(5), 0
    def __len__(self): return 48

    def __getitem__(self, i):
        self.reads += 1
        x, y = self.rows[i]
        return x + torch.from_numpy(self.rng.normal(size=4)).float() / (1 + self.reads), y


class Noisy(Data):
    def __init__(self, workers: int = 0, persistent: bool = False):
        super().__init__()
        self.args = dict(num_workers=workers, persistent_workers=persistent)

    def train_dataloader(self): return DataLoader(Noise(), 8, shuffle=True, **self.args)


class PersistentVal(Data):
    "Its workers draw from the global generator when they start, and only then."
    def val_dataloader(self): return DataLoader(rows(1), 8, num_workers=1, persistent_workers=True)


def counting():
    calls = 0
    def collate(items):
        nonlocal calls
        calls += 1
        x, y = default_collate(items)
        return x * (1 + calls / 50), y
    return collate


class Closure(Data):
    def train_dataloader(self): return DataLoader(rows(0), 8, shuffle=True, collate_fn=counting())


class Stream(IterableDataset):
    def __init__(self, numbers): self.rows, self.numbers = rows(0), numbers

    def __iter__(self):
        for _ in range(48): yield self.rows[next(self.numbers) % 48]


class Forward:
    "An iterator that can be looked into."
    def __init__(self): self.n = 0
    def __iter__(self): return self

    def __next__(self):
        self.n += 5
        return self.n


class Streamed(Data):
    def __init__(self, can_be_saved: bool):
        super().__init__()
        self.can_be_saved = can_be_saved

    def train_dataloader(self):
        return DataLoader(Stream(Forward() if self.can_be_saved else itertools.count(5, 5)), 8)


class Curriculum(Data):
    def __init__(self):
        super().__init__()
        self.stage = 0

    def on_after_batch_transfer(self, batch, i):
        if not self.trainer.training: return batch
        self.stage += 1
        return batch[0] * (1 + self.stage / 30), batch[1]


# -- models, likewise

class Base(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.back = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1))
        self.head = nn.Linear(8, 1)

    def forward(self, x): return self.head(self.back(x))
    def loss(self, batch): return F.mse_loss(self(batch[0]), batch[1])

    def training_step(self, batch, i):
        loss = self.loss(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, i): self.log("val_loss", self.loss(batch))
    def test_step(self, batch, i): self.log("test_loss", self.loss(batch))
    def configure_optimizers(self): return torch.optim.Adam(self.parameters(), 1e-2)


class Cools(Base):
    "By a plain number, a tensor, and a text."
    def __init__(self):
        super().__init__()
        self.temperature, self.center, self.phase = 1.0, torch.zeros(1), "warm"

    def training_step(self, batch, i):
        self.temperature *= 0.97
        self.center = 0.9 * self.center + batch[1].mean()
        self.phase = "cold" if self.temperature < 0.8 else "warm"
        return self.loss(batch) * self.temperature * (2 if self.phase == "cold" else 1)

    def test_step(self, batch, i):
        self.log("test_loss", self.loss(batch) + self.temperature + self.center.item())


class Collects(Base):
    "As Lightning's guide to version 2 has it."
    def __init__(self):
        super().__init__()
        self.outs = []

    def training_step(self, batch, i):
        self.outs.append(self.loss(batch))
        return self.outs[-1]

    def on_train_epoch_end(self):
        self.log("train_loss", torch.stack(self.outs).mean())
        self.log("train_n", float(len(self.outs)))
        self.outs.clear()


Seen = namedtuple("Seen", "mean loss")


@dataclass
class Record:
    loss: float
    tags: list


class Average:
    def __init__(self): self.value = None

    def __call__(self, x):
        self.value = x if self.value is None else 0.9 * self.value + 0.1 * x
        return self.value


class Remembers(Base):
    def __init__(self):
        super().__init__()
        self.last, self.counts, self.by = deque(maxlen=4), Counter(), defaultdict(list)
        self.records, self.seen, self.sums = [], set(), np.zeros(6)
        self.rng, self.average = np.random.default_rng(0), Average()

    def training_step(self, batch, i):
        loss = self.loss(batch)
        self.last.append(Seen(float(batch[0].mean()), loss.detach()))
        self.counts[i % 3] += 1
        self.by[i % 2].append(i)
        self.records.append(Record(float(loss), [i]))
        self.seen.add(int(self.rng.integers(100)))
        self.sums[i] += float(loss)
        sizes = len(self.seen) + len(self.records) + self.counts[0] + len(self.by[1])
        past = sum(o.loss for o in self.last) + self.average(loss.detach())
        return loss * (1 + sizes / 100 + past / 50 + float(self.sums.mean()))


class Teacher(Base):
    "A net that is no layer of the model, and is made as the training starts."
    def on_train_start(self): self.teacher = [copy.deepcopy(self.head)]

    def training_step(self, batch, i):
        h = self.back(batch[0])
        with torch.no_grad():
            for p, q in zip(self.teacher[0].parameters(), self.head.parameters()):
                p.mul_(0.9).add_(0.1 * q)
        out = self.head(h)
        return F.mse_loss(out, batch[1]) + F.mse_loss(out, self.teacher[0](h).detach())


class OwnOptimizer(Base):
    "One that Lightning does not know."
    def __init__(self):
        super().__init__()
        self.scale = torch.zeros(1, requires_grad=True)
        self.other = torch.optim.Adam([self.scale], 0.1)

    def training_step(self, batch, i):
        self.other.zero_grad()
        (self.scale - 1).pow(2).sum().backward()
        self.other.step()
        return self.loss(batch) * (1 + self.scale.detach()).sum()


class Decays(torch.optim.SGD):
    "Its steps are no part of its `state_dict`."
    def __init__(self, params):
        super().__init__(params, lr=0.05)
        self.k = 0

    def step(self, closure=None):
        self.k += 1
        for group in self.param_groups: group["lr"] = 0.05 / (1 + self.k / 10)
        return super().step(closure)


class CountsSteps(Base):
    def configure_optimizers(self): return Decays(self.parameters())


class Accumulates(Base):
    "Gradients are kept from one batch to the next."
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, i):
        optimizer: object = self.optimizers()
        self.manual_backward(self.loss(batch))
        if i % 4 == 3:  # not with the last batch of an epoch
            optimizer.step()
            optimizer.zero_grad()


class Freezes(Base):
    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            self.back[1].eval()
            self.back[0].requires_grad_(False)


class NoPersistentBuffer(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(1), persistent=False)

    def training_step(self, batch, i):
        self.mean = 0.9 * self.mean + batch[0].mean()
        return self.loss(batch) * (1 + self.mean.sum())


class LearnsFromValidation(Base):
    def __init__(self):
        super().__init__()
        self.weight = 1.0

    def on_validation_epoch_end(self): self.weight *= 0.9
    def training_step(self, batch, i): return self.loss(batch) * self.weight


class SavesLess(Base):
    "What is left out of the checkpoint's weights is trained all the same."
    def state_dict(self, *args, **kwargs):
        return {k: v for k, v in super().state_dict(*args, **kwargs).items() if "back.0" not in k}

    strict_loading = False


class Frozen(Base):
    def __init__(self):
        super().__init__()
        self.back = nn.Sequential(nn.Linear(4, 8), nn.ReLU())

    def configure_optimizers(self):
        free = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.SGD(free, 0.05, momentum=0.9)


class Unfreeze(pl.callbacks.BaseFinetuning):
    "Lightning's own, which leaves the net frozen when a fit goes on after it was unfrozen."
    def freeze_before_training(self, pl_module): self.freeze(pl_module.back)

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1: self.unfreeze_and_add_param_group(pl_module.back, optimizer, lr=1e-3)


class Prunes(pl.callbacks.ModelPruning):
    def __init__(self): super().__init__("l1_unstructured", amount=0.3)


class Plays(Base):
    "Reinforcement learning: batches come from a memory, to which each step adds."
    def __init__(self):
        super().__init__()
        self.rng, self.memory = np.random.default_rng(1), Memory()
        for _ in range(20): self.play()

    def play(self): self.memory.items.append(Seen(self.rng.normal(size=4).astype("f"), 1.0))

    def training_step(self, batch, i):
        self.play()
        return self.loss(batch)

    def train_dataloader(self): return DataLoader(Replay(self.memory), 8)


class Memory:
    def __init__(self): self.items = deque(maxlen=100)


class Replay(IterableDataset):
    def __init__(self, memory): self.memory = memory

    def __iter__(self):
        for i in np.random.choice(len(self.memory.items), 48):
            x, y = self.memory.items[i]
            yield torch.from_numpy(x), torch.tensor([y])


# what is not saved

class Generates(Base):
    def __init__(self):
        super().__init__()
        self.numbers = (i / 10 for i in range(1000))

    def training_step(self, batch, i): return self.loss(batch) * (1 + next(self.numbers))


class OfTheClass(Base):
    steps = 0

    def training_step(self, batch, i):
        type(self).steps += 1
        return self.loss(batch) * (1 + self.steps / 100)


STEPS = 0


class Global(Base):
    def training_step(self, batch, i):
        global STEPS
        STEPS += 1
        return self.loss(batch) * (1 + STEPS / 100)


class OnPolicy(Base):
    "Batches come from the model as it is."
    def episodes(self):
        for _ in range(48):
            x = torch.randn(4)
            with torch.no_grad(): yield x, self.head(torch.ones(8)).clamp(-1, 1) + x.sum()

    def train_dataloader(self): return DataLoader(Episodes(self.episodes), 8)


class Episodes(IterableDataset):
    def __init__(self, make): self.make = make
    def __iter__(self): return iter(self.make())


class Banks(Base):
    "A buffer that grows."
    def __init__(self):
        super().__init__()
        self.register_buffer("bank", torch.zeros(0, 1))

    def training_step(self, batch, i):
        self.bank = torch.cat([self.bank, batch[1]])
        return super().training_step(batch, i) * (1 + self.bank.var())

    def test_step(self, batch, i): self.log("test_loss", self.loss(batch) + self.bank.mean())


class Scheduled(Base):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
        return dict(optimizer=optimizer, lr_scheduler=cosine)


class Double(Base):
    "By its own wish."
    def __init__(self):
        super().__init__()
        self.double()

    def loss(self, batch): return F.mse_loss(self(batch[0].double()), batch[1].double())


class Grows(Base):
    def on_train_epoch_start(self):
        if self.current_epoch == 1: self.extra = nn.Linear(1, 1)


# the hook

class Numbers:
    "An iterator that says where it is."
    def __init__(self): self.at, self.numbers = 0, (i / 10 for i in range(1000))

    def next(self):
        self.at += 1
        return next(self.numbers)

    def state_dict(self): return dict(at=self.at)

    def load_state_dict(self, state):
        self.__init__()
        for _ in range(state["at"]): self.next()


class Hooked(Base):
    def __init__(self):
        super().__init__()
        self.numbers = Numbers()

    def training_step(self, batch, i): return self.loss(batch) * (1 + self.numbers.next())


class HookedModule(Generates):
    def __init__(self):
        super().__init__()
        self.at = 0

    def training_step(self, batch, i):
        self.at += 1
        return super().training_step(batch, i)

    def on_save_checkpoint(self, checkpoint): checkpoint["at"] = self.at

    def on_load_checkpoint(self, checkpoint):
        for _ in range(checkpoint["at"]): next(self.numbers)


# layers that are made late

class Configured(Base):
    def __init__(self):
        super().__init__()
        self.head = None

    def configure_model(self):
        if self.head is None: self.head = nn.Linear(8, 1)


class SetUp(Base):
    "Anew in every stage, of a size that the data says."
    def __init__(self):
        super().__init__()
        self.head = None

    def setup(self, stage): self.head = nn.Linear(8, self.trainer.datamodule.size)


class Sized(Data):
    def setup(self, stage): self.size = 1


class SetUpForFit(Configured):
    def configure_model(self): pass

    def setup(self, stage):
        if stage == "fit": self.head = nn.Linear(8, 1)


class Lazy(Base):
    def __init__(self):
        super().__init__()
        self.back = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU())


class Compiled(Base):
    def setup(self, stage):
        if stage == "fit": self.head = torch.compile(self.head, backend="eager")


class Parametrized(Base):
    def setup(self, stage):
        if stage == "fit": nn.utils.parametrizations.weight_norm(self.head)


class Tied(Base):
    def __init__(self):
        super().__init__()
        self.second = nn.Linear(8, 1)
        self.second.weight = self.head.weight

    def forward(self, x): return super().forward(x) + self.second(self.back(x))


class Words(Base):
    "What on_load_checkpoint makes is needed to use it."
    def on_save_checkpoint(self, checkpoint): checkpoint["words"] = dict(a=1.0)
    def on_load_checkpoint(self, checkpoint): self.words = checkpoint["words"]
    def on_fit_start(self): self.words = dict(a=1.0)
    def test_step(self, batch, i): self.log("test_loss", self.loss(batch) + self.words["a"])


# -- the runs


class Counts(Cut):
    "It counts the batches that it has seen."
    def __init__(self): self.batches = 0

    def on_train_batch_start(self, *args):
        self.batches += 1
        super().on_train_batch_start(*args)


def config(runs, model: str, data: str | None = "Data", callback: str = "", **more) -> dict:
    made = dict(_target_=f"{HERE}.{callback}") if callback else None
    return dict(name="a", runs=str(runs), model=dict(_target_=f"{HERE}.{model}"),
                data=data and dict(_target_=f"{HERE}.{data}", **more),
                trainer=dict(max_epochs=3, accelerator="cpu"),
                callbacks=dict(progress=None, cut=dict(_target_=f"{HERE}.Counts"), own=made,
                               checkpoint=dict(monitor=None, every_n_steps=2)))


def is_same(a: Run, b: Run) -> bool:
    "To the last bit: all of the checkpoint, metrics.csv, metrics?"
    def lasting(run: Run):
        saved = torch.load(run.checkpoint("last"), weights_only=True)
        return repr({k: v for k, v in saved.items() if k != "mlkit_config"})
    def rows(run: Run): return (run.dir / "metrics.csv").exists() and run.history.to_csv()
    torch.set_printoptions(precision=17, threshold=10**6)
    try: return lasting(a) == lasting(b) and rows(a) == rows(b) and a.metrics == b.metrics
    finally: torch.set_printoptions(profile="default")


def cut_off(cfg: dict, at: tuple) -> Run:
    Cut.at = at
    with pytest.raises(TrainingFailed) as failed: train(cfg)
    assert isinstance(failed.value.__cause__, PowerCut)
    return failed.value.run


SAVED = [
    *(("Base", "OwnGenerator", dict(kind=k)) for k in ("numpy", "legacy", "python", "torch")),
    ("Base", "BatchSampled", {}), ("Base", "Noisy", {}), ("Base", "Noisy", dict(workers=1)),
    ("Base", "PersistentVal", {}), ("Base", "Closure", {}), ("Base", "Curriculum", {}),
    ("Base", "Streamed", dict(can_be_saved=True)), ("Frozen", "Data", dict(callback="Unfreeze")),
    *((m, "Data", {}) for m in (
        "Cools", "Collects", "Remembers", "Teacher", "OwnOptimizer", "CountsSteps", "Accumulates",
        "Freezes", "NoPersistentBuffer", "LearnsFromValidation", "SavesLess", "Hooked",
        "HookedModule", "Configured", "SetUpForFit", "Lazy", "Compiled", "Parametrized", "Tied",
        "Words", "Banks", "Double")),
    ("SetUp", "Sized", {}), ("Plays", None, {})]


@pytest.mark.parametrize("model, data, more", SAVED, ids=lambda o: str(o))
def test_hidden_state_is_saved(tmp_path, capsys, model, data, more):
    cfg = config(tmp_path, model, data, **more)
    whole = train(cfg)
    run = resume(cut_off(cfg, (1, 3)))
    assert is_same(run, whole)
    assert "is not saved" not in capsys.readouterr().err
    if "test_loss" in whole.metrics: assert evaluate(run)["test_loss"] == whole.metrics["test_loss"]
    weights = load_run(run).model.state_dict()
    assert all(v.equal(weights[k.replace("_orig_mod.", "")])
               for k, v in run.model.state_dict().items())


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_no_digit_is_lost_by_loading(tmp_path, precision):
    cfg = config(tmp_path, "Base")
    cfg["trainer"]["precision"] = precision
    whole = train(cfg)
    run = resume(cut_off(cfg, (1, 3)))
    assert is_same(run, whole) and evaluate(run)["test_loss"] == whole.metrics["test_loss"]
    used = load_run(run).model
    for k, v in used.state_dict().items(): assert v.equal(run.model.state_dict()[k].to(v.dtype)), k
    if precision != "64-true": return
    assert used.head.weight.dtype == torch.float64
    assert trained(str(run.dir)).head.weight.equal(run.model.head.weight)
    less = evaluate(run, "trainer.precision=32-true")["test_loss"]  # it may be asked for
    assert less == pytest.approx(whole.metrics["test_loss"], rel=1e-5)


SWA = dict(_target_="pytorch_lightning.callbacks.StochasticWeightAveraging", swa_lrs=0.01,
           swa_epoch_start=0.5, annealing_epochs=8)


@pytest.mark.parametrize("model, at", [
    ("Scheduled", (2, 3)), *(pytest.param(*o, marks=pytest.mark.slow) for o in itertools.product(
        ("Base", "Scheduled"), [(0, 3), (1, 0), (1, 3), (3, 0), (3, 3), (4, 2)]))])
def test_averaging_goes_on_wherever_it_is_cut_off(tmp_path, capsys, model, at):
    cfg = config(tmp_path, model)
    cfg["trainer"]["max_epochs"], cfg["callbacks"]["own"] = 4, SWA
    whole = train(cfg)
    assert is_same(resume(cut_off(cfg, at)), whole)
    assert "is not saved" not in capsys.readouterr().err


@pytest.mark.parametrize("at", [(0, 3), (2, 0)])
@pytest.mark.parametrize("model, data, more", [
    ("Remembers", "Data", {}), ("Base", "OwnGenerator", dict(kind="numpy")),
    ("Accumulates", "Data", {}), ("Plays", None, {})])
def test_wherever_it_is_cut_off(tmp_path, model, data, more, at):
    cfg = config(tmp_path, model, data, **more)
    whole = train(cfg)
    assert is_same(resume(cut_off(cfg, at)), whole)


@pytest.mark.parametrize("model, data, more, name", [
    ("Generates", "Data", {}, "model.numbers"), ("OfTheClass", "Data", {}, "model.steps"),
    ("Global", "Data", {}, f"module {HERE}.STEPS"), ("Grows", "Data", {}, "model"),
    ("Base", "Noisy", dict(workers=1, persistent=True), "train_dataloader.0"),
    ("Base", "Streamed", dict(can_be_saved=False), "train_dataloader.0.dataset.numbers"),
    ("OnPolicy", None, {}, "train_dataloader.0"),
    ("Base", "Data", dict(callback="Prunes"), "model.head")])
def test_what_is_not_saved_is_said_before(tmp_path, capsys, model, data, more, name):
    run = cut_off(config(tmp_path, model, data, **more), (1, 3))
    said = capsys.readouterr().err
    assert said.count(f"checkpoint: {name} is not saved, so a resumed run may differ (") == 1
    assert "is not saved" in run.log


def test_a_pruned_model_goes_on(tmp_path, capsys):
    run = cut_off(config(tmp_path, "Base", callback="Prunes"), (1, 3))
    assert "checkpoint: model.head is not saved" in capsys.readouterr().err
    assert resume(run).info["status"] == "done"


def test_what_has_not_changed_may_be_overridden(tmp_path):
    run = cut_off(config(tmp_path, "Base", "Noisy", workers=0), (1, 0))
    assert resume(run, "data.workers=1").datamodule.args["num_workers"] == 1


@pytest.mark.parametrize("model, data", [
    ("Configured", "Data"), ("SetUpForFit", "Data"), ("Lazy", "Data"), ("Compiled", "Data"),
    ("Parametrized", "Data"), ("Tied", "Data"), ("Cools", "Data"), ("Words", "Data")])
def test_a_trained_model_without_its_data(tmp_path, monkeypatch, model, data):
    run = train(config(tmp_path, model, data), "trainer.max_epochs=1")
    x = torch.randn(3, 4)
    with torch.no_grad(): assert trained(str(run.dir))(x).equal(run.model(x))


def test_a_checkpoint_of_an_earlier_version_is_refused_in_words(tmp_path):
    run = cut_off(config(tmp_path, "Base"), (1, 3))
    path = run.checkpoint("last")
    saved = torch.load(path, weights_only=True)
    saved["mlkit_state"]["version"] = 1
    torch.save(saved, path)
    with pytest.raises(UserError, match="of an earlier mlkit"): resume(run.dir)
    assert Run(run.dir).info["status"] == run.info["status"]
    assert evaluate(run)["test_loss"] > 0
