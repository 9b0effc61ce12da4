"""Random models: layers, optimizers, schedulers, Lightning's callbacks, loggers, trainers, drawn by
a seeded generator. Each is trained, killed in an epoch, resumed, evaluated: the same bits, or what
differs was named before.

There are 12 of them, with `MLKIT_TEST_ALL=1` 200; `RANDOM_SEED` draws others."""
import os
import random
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from fixtures import ALL
from mlkit.base.errors import TrainingFailed
from mlkit.run.folder import Run
from mlkit.train import resume, train
from mlkit.use import evaluate, load_run
from power_cut import Cut

HERE = __name__.rpartition(".")[2]
MANY, SEED = 200 if ALL else 12, int(os.environ.get("RANDOM_SEED", 0))
LIGHTNING = "pytorch_lightning.callbacks"


@pytest.fixture(autouse=True)
def tests_are_importable(monkeypatch): monkeypatch.syspath_prepend(str(Path(__file__).parent))


# -- what is drawn from

def rows(seed: int, n: int) -> TensorDataset:
    x = torch.randn(n, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x.mean((1, 2, 3)) > 0).long() + (x[:, 0, 0, 0] > 1).long())


class Data(pl.LightningDataModule):
    def __init__(self, n: int = 44, order: str = "shuffled", workers: int = 0,
                 persistent: bool = False, loaders: int = 1, drop_last: bool = False):
        super().__init__()
        self.n, self.order, self.loaders, self.drop_last = n, order, loaders, drop_last
        self.workers = dict(num_workers=workers, persistent_workers=persistent and workers > 0)

    def train_dataloader(self):
        how = dict(shuffled=dict(shuffle=True), in_order={},
                   weighted=dict(sampler=WeightedRandomSampler(range(1, self.n + 1), self.n)),
                   own=dict(shuffle=True, generator=torch.Generator().manual_seed(3)))[self.order]
        return DataLoader(rows(0, self.n), 6, drop_last=self.drop_last, **how, **self.workers)

    def val_dataloader(self):
        return [DataLoader(rows(1 + i, 18), 6, **self.workers) for i in range(self.loaders)]

    def test_dataloader(self): return DataLoader(rows(9, 18), 6)


LAYERS = ["conv", "linear", "batchnorm", "layernorm", "groupnorm", "dropout", "noise", "residual",
          "recurrent", "lazy", "spectral", "count", "gate", "embedding"]
OPTIMIZERS = ["Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "Adadelta", "NAdam", "RAdam", "Adamax",
              "ASGD", "Rprop", "LBFGS"]
SCHEDULERS = ["", "StepLR", "ExponentialLR", "OneCycleLR", "CosineAnnealingLR", "CyclicLR",
              "CosineAnnealingWarmRestarts", "ReduceLROnPlateau", "LambdaLR", "SequentialLR",
              "MultiStepLR", "LinearLR", "PolynomialLR"]


class Noise(nn.Module):
    "From NumPy's or Python's global generator, or one of its own; it falls with the steps."
    def __init__(self, kind: str):
        super().__init__()
        own = dict(numpy=np.random, python=random, own=np.random.default_rng(4))
        self.draw, self.scale = own[kind].normal if kind != "python" else random.gauss, 0.3

    def forward(self, x):
        if not self.training: return x
        self.scale *= 0.98
        return x + self.scale * float(self.draw(0, 1))


class Residual(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(n, n), nn.GELU(), nn.Dropout(0.1))

    def forward(self, x): return x + self.inner(x)


class Recurrent(nn.Module):
    "Keeps its state from batch to batch."
    def __init__(self, n):
        super().__init__()
        self.cell, self.state = nn.GRUCell(n, n), None

    def forward(self, x):
        start = None if self.state is None else self.state.expand(len(x), -1)
        out = self.cell(x, start)
        if self.training: self.state = out.detach().mean(0, keepdim=True)
        return out


class Count(nn.Module):
    "Counts in a plain number and in a buffer that is not saved."
    def __init__(self):
        super().__init__()
        self.calls = 0
        self.register_buffer("mean", torch.zeros(1), persistent=False)

    def forward(self, x):
        if not self.training: return x
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
        return x * (1 + self.calls / 500) - self.mean


class Gate(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(n))

    def forward(self, x): return x * self.gate.sigmoid()


class Hashed(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.table = nn.Embedding(5, n)

    def forward(self, x): return x + self.table((x.detach()[:, 0].abs() * 10).long() % 5)


def net_of(layers: list[str], width: int, noise: str) -> nn.Sequential:
    n = width
    made: list[nn.Module] = [nn.Conv2d(1, 4, 3), nn.ReLU()] if "conv" in layers else []
    made += [nn.Flatten(), nn.LazyLinear(n) if "lazy" in layers
             else nn.Linear(64 if "conv" in layers else 36, n)]
    makers = dict(linear=lambda: nn.Linear(n, n), batchnorm=lambda: nn.BatchNorm1d(n),
                  layernorm=lambda: nn.LayerNorm(n), groupnorm=lambda: nn.GroupNorm(2, n),
                  dropout=lambda: nn.Dropout(0.2), noise=lambda: Noise(noise),
                  residual=lambda: Residual(n), recurrent=lambda: Recurrent(n), count=Count,
                  spectral=lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(n, n)),
                  gate=lambda: Gate(n), embedding=lambda: Hashed(n))
    for name in layers:
        if name in makers: made += [makers[name](), nn.ReLU()]
    return nn.Sequential(*made, nn.Linear(n, 3))


def schedule_of(name: str, o: torch.optim.Optimizer, steps: int):
    s = torch.optim.lr_scheduler
    return dict(
        StepLR=lambda: s.StepLR(o, 3), ExponentialLR=lambda: s.ExponentialLR(o, 0.9),
        OneCycleLR=lambda: s.OneCycleLR(o, 0.05, total_steps=steps + 2,
                                        cycle_momentum=False),
        CosineAnnealingLR=lambda: s.CosineAnnealingLR(o, steps),
        CyclicLR=lambda: s.CyclicLR(o, 1e-3, 1e-2, step_size_up=4, cycle_momentum=False),
        CosineAnnealingWarmRestarts=lambda: s.CosineAnnealingWarmRestarts(o, 4),
        ReduceLROnPlateau=lambda: s.ReduceLROnPlateau(o, patience=0, factor=0.5),
        LambdaLR=lambda: s.LambdaLR(o, lambda n: float(np.cos(n / 50)) + 1.0),
        SequentialLR=lambda: s.SequentialLR(o, [s.ConstantLR(o, 0.1, 2), s.ExponentialLR(o, 0.95)],
                                            [3]),
        MultiStepLR=lambda: s.MultiStepLR(o, [2, 5, 9]), LinearLR=lambda: s.LinearLR(o, 0.1),
        PolynomialLR=lambda: s.PolynomialLR(o, 20))[name]()


class Model(pl.LightningModule):
    def __init__(self, layers: list[str], width: int = 8, noise: str = "numpy",
                 optimizer: str = "Adam", scheduler: str = "", interval: str = "epoch",
                 style: str = "plain", monitor: str = "val_loss"):
        super().__init__()
        self.save_hyperparameters()
        made = net_of(layers, width, noise)
        self.net = made if style != "configured" else None
        self.made, self.outs = ([made], []) if style == "configured" else (None, [])
        self.best, self.automatic_optimization = 9.0, style != "manual"

    def configure_model(self):
        if self.net is None: self.net, self.made = self.made[0], None

    def forward(self, x): return self.net(x)

    def loss(self, batch): return F.cross_entropy(self(batch[0]), batch[1])

    def training_step(self, batch, i):
        loss = self.loss(batch)
        style = self.hparams.style
        if style == "manual": self.step_self(loss, i)
        if style == "skips" and i % 3 == 1: return None
        if style == "collects": self.outs.append(loss.detach())
        elif style != "silent":
            self.log("train_loss", loss, on_step=True, on_epoch=style == "both")
        return loss

    def step_self(self, loss, i):
        optimizer: object = self.optimizers()
        self.manual_backward(loss)
        if i % 2:
            optimizer.step()
            optimizer.zero_grad()
            if self.lr_schedulers() and not self.hparams.scheduler.startswith("Reduce"):
                self.lr_schedulers().step()

    def on_train_epoch_end(self):
        if not self.outs: return
        self.log("train_loss", torch.stack(self.outs).mean())
        self.outs.clear()

    def validation_step(self, batch, i, dataloader_idx=0):
        loss = self.loss(batch)
        name = f"val_loss{dataloader_idx or ''}"
        self.log(name, loss, add_dataloader_idx=False)
        self.best = min(self.best, float(loss))

    def test_step(self, batch, i): self.log("test_loss", self.loss(batch) + self.best / 100)

    def configure_optimizers(self):
        h = self.hparams
        args = dict(lr=0.02, **(dict(momentum=0.9) if h.optimizer == "SGD" else {}))
        if h.optimizer == "LBFGS": args = dict(lr=0.1, max_iter=2)
        optimizer = getattr(torch.optim, h.optimizer)(self.parameters(), **args)
        if not h.scheduler: return optimizer
        made = schedule_of(h.scheduler, optimizer, 40)
        how = dict(scheduler=made, interval=h.interval, monitor="val_loss")
        return dict(optimizer=optimizer, lr_scheduler=how)


class Averages(WeightAveraging):
    def should_update(self, step_idx=None, epoch_idx=None): return step_idx is not None


class Freezes(pl.callbacks.BaseFinetuning):
    def freeze_before_training(self, pl_module): self.freeze(pl_module.net[:2])

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1: self.unfreeze_and_add_param_group(pl_module.net[:2], optimizer, lr=1e-3)


class Counts(pl.Callback):
    "Changes the training by a number of its own."
    def __init__(self): self.batches = 0

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.batches += 1
        for p in pl_module.parameters():
            if p.grad is not None: p.grad.mul_(1 + self.batches / 100)


CALLBACKS = dict(
    early=dict(_target_=f"{LIGHTNING}.EarlyStopping", monitor="val_loss", patience=2),
    rates=dict(_target_=f"{LIGHTNING}.LearningRateMonitor"),
    accumulate=dict(_target_=f"{LIGHTNING}.GradientAccumulationScheduler", scheduling={0: 1, 1: 2}),
    swa=dict(_target_=f"{LIGHTNING}.StochasticWeightAveraging", swa_lrs=0.01, swa_epoch_start=1,
             annealing_epochs=1),
    ema=dict(_target_=f"{HERE}.Averages"), freezes=dict(_target_=f"{HERE}.Freezes"),
    timer=dict(_target_=f"{LIGHTNING}.Timer", duration="00:12:00:00"),
    theirs=dict(_target_=f"{LIGHTNING}.ModelCheckpoint", monitor="val_loss", save_last=True),
    summary=dict(_target_=f"{LIGHTNING}.ModelSummary"), counts=dict(_target_=f"{HERE}.Counts"),
    pruning=dict(_target_=f"{LIGHTNING}.ModelPruning", pruning_fn="l1_unstructured", amount=0.2,
                 use_global_unstructured=True, parameter_names=["weight"]),
    devices=dict(_target_=f"{LIGHTNING}.DeviceStatsMonitor"))
ALONE = {"swa", "ema", "freezes", "pruning"}  # Lightning lets no two of these be together


def drawn(seed: int) -> dict:
    "A config, but for its runs."
    r = random.Random(seed)
    layers = r.sample(LAYERS, r.randint(1, 5))
    model = dict(_target_=f"{HERE}.Model", layers=layers, width=r.choice([6, 8, 12]),
                 noise=r.choice(["numpy", "python", "own"]), optimizer=r.choice(OPTIMIZERS),
                 scheduler=r.choice(SCHEDULERS), interval=r.choice(["step", "epoch"]),
                 style=r.choice(["plain", "both", "collects", "manual", "skips", "silent",
                                 "configured"]))
    data = dict(_target_=f"{HERE}.Data", n=r.choice([36, 44]), loaders=r.choice([1, 1, 2]),
                order=r.choice(["shuffled", "in_order", "weighted", "own"]),
                workers=r.choice([0, 0, 0, 0, 0, 1]), persistent=r.random() < 0.5,
                drop_last=r.random() < 0.3)
    names = [k for k in r.sample(sorted(CALLBACKS), r.randint(0, 4))]
    alone = [k for k in names if k in ALONE]
    names = [k for k in names if k not in alone[1:]]
    trainer = dict(max_epochs=3, accelerator="cpu", log_every_n_steps=r.choice([1, 3, 50]),
                   val_check_interval=r.choice([1.0, 1.0, 0.5]), check_val_every_n_epoch=1,
                   num_sanity_val_steps=r.choice([0, 2]))
    if model["style"] == "manual": names = [k for k in names if k not in ("swa", "accumulate")]
    elif "accumulate" not in names:
        trainer.update(accumulate_grad_batches=r.choice([1, 1, 2, 3]),
                       gradient_clip_val=r.choice([None, 0.5]))
    if model["optimizer"] == "LBFGS":
        trainer["gradient_clip_val"] = None
        if model["style"] in ("skips", "manual"): model["style"] = "plain"  # it wants a loss
    if "devices" in names: trainer["log_every_n_steps"] = 50
    if r.random() < 0.2: trainer["precision"] = "bf16-mixed"
    if r.random() < 0.2: trainer["reload_dataloaders_every_n_epochs"] = 1
    if model["scheduler"] == "ReduceLROnPlateau": model["interval"] = "epoch"
    lazy_too = model["style"] != "manual" and not {"swa", "freezes", "ema", "pruning"} & {*names}
    lazy_too = lazy_too and model["optimizer"] in ("Adam", "AdamW", "SGD")  # others want shapes
    if not lazy_too: model["layers"] = [o for o in layers if o != "lazy"]
    if model["scheduler"] and "swa" in names: model["scheduler"] = "StepLR"
    looks_at_layers = {"freezes", "pruning"} & {*names}
    if looks_at_layers and model["style"] == "configured": model["style"] = "plain"
    callbacks = {k: CALLBACKS[k] for k in names}
    loggers = {k: v for k, v in dict(
        tensorboard=dict(_target_="mlkit.fit.trackers.tensorboard", _partial_=True),
        csv=dict(_target_="pytorch_lightning.loggers.CSVLogger", save_dir="/dev/null"),
    ).items() if k == "tensorboard" and r.random() < 0.15}
    checkpoint = dict(monitor=r.choice([None, "val_loss"]), every_n_steps=r.choice([1, 2, 3, None]))
    return dict(name="a", seed=seed, model=model, data=data, trainer=trainer,
                **(dict(logger=loggers) if loggers else {}),
                callbacks=dict(progress=None, cut=dict(_target_="power_cut.Cut"),
                               checkpoint=checkpoint, **callbacks))


# -- what must hold

TIMES = ("Timer", "DeviceStatsMonitor", "ModelCheckpoint")  # their states are of times and paths


def flat(o, path: str = "") -> dict:
    if isinstance(o, dict): parts = o.items()
    elif isinstance(o, (list, tuple)): parts = enumerate(o)
    elif isinstance(o, torch.Tensor): return {path: (o.dtype, tuple(o.shape), repr(o.tolist()))}
    else: return {path: repr(o)}
    found = {k: v for key, part in parts for k, v in flat(part, f"{path}/{key}").items()}
    return {k: v for k, v in found.items() if "DeviceStats" not in k}


def differences(a: Run, b: Run) -> list[str]:
    "What is not the same, to the last bit."
    def lasting(run: Run):
        saved = torch.load(run.checkpoint("last"), weights_only=True)
        states = saved["callbacks"].items()
        saved["callbacks"] = {k: v for k, v in states if not k.startswith(TIMES)}
        return flat({k: v for k, v in saved.items() if k not in ("mlkit_config", "loops")}, "")
    x, y = lasting(a), lasting(b)
    found = [k for k in sorted(x.keys() | y.keys()) if x.get(k) != y.get(k)]
    times = {f"metrics {k}" for k in a.metrics if "DeviceStats" in k}
    found += [f"metrics {k}" for k in a.metrics | b.metrics
              if a.metrics.get(k) != b.metrics.get(k) and f"metrics {k}" not in times]
    def rows(run: Run):
        history = run.history
        return history[[c for c in history if "DeviceStats" not in c]].to_csv()
    return found + ["metrics.csv"] * (rows(a) != rows(b))


def judged(seed: int, folder: Path, said) -> tuple[str, list[str]]:
    "How it went: 'exact', 'named' or 'differs', and what differs."
    cfg, Cut.at = dict(drawn(seed), runs=str(folder)), None
    whole = train(cfg)
    r = random.Random(seed)
    Cut.at = (r.choice([0, 1, 1, 2]), r.randint(0, 4))
    said()
    try: run = train(cfg)
    except TrainingFailed as e: run = e.run
    else: return "not cut", []  # early stopping was earlier
    if not isinstance(run.info["error"], str) or "PowerCut" not in run.info["error"]:
        return "differs", [run.info["error"]]
    named = "is not saved, so a resumed run may differ" in said()
    run = resume(run)
    found = differences(whole, run)
    tested = evaluate(run)
    found += [f"evaluate {k}" for k, v in tested.items() if v != run.metrics[k]]
    weights = load_run(run).model.state_dict()
    found += [k for k, v in run.model.state_dict().items() if not v.equal(weights[k])]
    return "exact" if not found else "named" if named else "differs", found


@pytest.mark.slow
def test_random_models(tmp_path, capfd, figure):
    lines, counts = [], {}
    for seed in range(SEED, SEED + MANY):
        def said(): return "".join(capfd.readouterr())
        try: how, found = judged(seed, tmp_path / str(seed), said)
        except Exception as e: how, found = "differs", [f"{type(e).__name__}: {e}"]
        counts[how] = counts.get(how, 0) + 1
        if found: lines.append(f"{seed}: {how}: {found[:4]}")
    figure("\n".join([*lines, f"random models: {counts}"]))
    assert not [o for o in lines if ": differs" in o], "\n".join(lines)
