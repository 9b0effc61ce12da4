"""What a model logs and saves, under whatever names and in whatever numbers, survives a kill."""
import copy
import csv
import io
import random
import resource
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from mlkit.base.errors import TrainingFailed
from mlkit.base.plot import panels_of
from mlkit.fit.job import CSVLogger, Nothing
from mlkit.many.lr_find import lr_find
from mlkit.run.folder import Run
from mlkit.show.columns import metrics_table
from mlkit.train import resume, train
from mlkit.use import evaluate, load_run, predict
from power_cut import Cut, PowerCut

HERE = __name__.rpartition(".")[2]


@pytest.fixture(autouse=True)
def tests_are_importable(monkeypatch): monkeypatch.syspath_prepend(str(Path(__file__).parent))


# -- parts that know nothing of mlkit

def loader(seed: int, n: int = 48) -> DataLoader:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8, shuffle=seed == 0)


class NoVal(pl.LightningDataModule):
    def __init__(self, n: int = 48):
        super().__init__()
        self.n = n

    def train_dataloader(self): return loader(0, self.n)


class NoTest(NoVal):
    def val_dataloader(self): return loader(1)


class EmptyVal(NoVal):
    def val_dataloader(self): return []


class Data(NoTest):
    def test_dataloader(self): return loader(2)


class Silent(pl.LightningModule):
    "Logs nothing."
    def __init__(self):
        super().__init__()
        self.layer, self.drop = nn.Linear(4, 1), nn.Dropout(0.1)

    def loss(self, batch): return F.mse_loss(self.layer(self.drop(batch[0])), batch[1])
    def training_step(self, batch, i): return self.loss(batch)
    def validation_step(self, batch, i): pass
    def test_step(self, batch, i): pass
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=0.05)


class ByStep(Silent):
    def training_step(self, batch, i):
        loss = self.loss(batch)
        self.log("train_loss", loss)
        return loss


class OnlyTest(Silent):
    def test_step(self, batch, i): self.log("test/loss", self.loss(batch))


class OnlyVal(Silent):
    def validation_step(self, batch, i): self.log("val/loss", self.loss(batch))


def config(runs, model: str, data: str = "NoVal", monitor: str | None = None, **more) -> dict:
    return dict(name="a", runs=str(runs), data=dict(_target_=f"{HERE}.{data}", **more),
                model=dict(_target_=f"{HERE}.{model}"), trainer=dict(max_epochs=3),
                callbacks=dict(progress=None, checkpoint=dict(monitor=monitor),
                               cut=dict(_target_="power_cut.Cut")))


def is_same(a: Run, b: Run) -> bool:
    "To the last bit: weights, optimizer, schedules, metrics.csv?"
    def lasting(run: Run):
        saved = torch.load(run.checkpoint("last"), weights_only=True)
        return {k: repr(saved[k]) for k in ("state_dict", "optimizer_states", "lr_schedulers")}
    def rows(run: Run): return (run.dir / "metrics.csv").exists() and run.history.to_csv()
    return lasting(a) == lasting(b) and rows(a) == rows(b) and repr(a.metrics) == repr(b.metrics)


def cut_off(cfg: dict, at=(1, 0)) -> Run:
    "A run that was killed, and has gone on to its end."
    Cut.at = at
    with pytest.raises(TrainingFailed) as failed: train(cfg)
    assert isinstance(failed.value.__cause__, PowerCut)
    run = resume(failed.value.run)
    assert run.status == "done" and repr(Run(run.dir).metrics) == repr(run.metrics)
    return run


# -- nothing is logged

@pytest.mark.parametrize("model, data, more", [
    ("Silent", "NoVal", {}), ("Silent", "Data", {}), ("Silent", "EmptyVal", {}),
    ("ByStep", "NoVal", {}), ("Silent", "NoVal", dict(n=8)), ("OnlyTest", "Data", {}),
    ("OnlyVal", "NoTest", {}), ("OnlyVal", "EmptyVal", {})])
def test_a_run_that_logs_little_goes_on(tmp_path, model, data, more):
    cfg = config(tmp_path, model, data, **more)
    whole = train(cfg)
    assert is_same(cut_off(cfg), whole)
    for run in (whole, cut_off(cfg, at=(0, 0))):  # the latter has no checkpoint yet
        assert (run.dir / "plots" / "curves.png").exists()
        assert repr(run) and "epoch" in run.history or run.history.empty
        assert load_run(run).model.layer.weight.equal(run.model.layer.weight)


# -- metrics.csv is written once: what is there stays, and rows come below it

def whole_file(rows: list[dict]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, dict.fromkeys(k for row in rows for k in row))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def rewrite(logger, how: str):
    "What else may happen to the file, between two writings."
    match how:
        case "gone": logger.path.unlink()
        case "cut": logger.path.write_bytes(logger.path.read_bytes()[:-7])
        case "longer": logger.path.write_bytes(logger.path.read_bytes() + b"more")
        case "empty": logger.path.write_bytes(b"")


@pytest.mark.parametrize("seed", range(4))
def test_the_file_is_always_what_its_rows_are(tmp_path, seed):
    "Rows, figures for the last row, new columns, texts, a resumption, a file that was changed."
    rng, logger, step = random.Random(seed), CSVLogger(tmp_path), 0
    for i in range(150):
        step += rng.random() < 0.7
        name = f"m{rng.randint(0, 3 + i // 50)}"
        value = rng.choice([rng.random(), 1e-300, float("nan"), "a, \"b\"\nç", 2**62, True])
        logger.log_metrics({name: value, "epoch": step // 20}, step)
        match rng.choice(["", "", "save", "flush", "again", "other"]):
            case "save": logger.save()
            case "again":
                logger.flush()
                later = CSVLogger(tmp_path)
                later.go_on(len(logger.rows), dict(logger.rows[-1]))
                assert ([sorted(map(str, o.items())) for o in later.rows]
                        == [sorted(map(str, o.items())) for o in logger.rows])
                logger = later
            case "other" if logger.path.exists():
                logger.flush()
                rewrite(logger, rng.choice(["gone", "cut", "longer", "empty"]))
                logger.log_metrics({name: 1.5}, step)
            case "": continue
        logger.flush()
        assert logger.path.read_bytes() == whole_file(logger.rows)


def test_a_row_costs_the_same_however_many_there_are(tmp_path):
    "The file is the same one; all of it is written anew for a new column alone."
    logger, files = CSVLogger(tmp_path), []
    for step in range(3000):
        logger.log_metrics({"train/loss": 1 / (step + 1), "epoch": step // 100}, step)
        if step == 2000: logger.log_metrics({"val/loss": 0.5}, step)
        logger.flush(sync=False)
        files.append(logger.path.stat().st_ino)
    assert len(set(files[:2000])) == len(set(files[2000:])) == 1 < len(set(files))
    assert logger.path.read_bytes() == whole_file(logger.rows)


def test_the_end_may_be_torn_off_anywhere(tmp_path):
    "Half a row is no row, and does not keep a run from going on."
    run = cut_off(config(tmp_path, "Silent"))
    logger = CSVLogger(run.dir)
    for step in range(5): logger.log_metrics({"val/loss": 0.123456 + step, "note": "ça"}, step)
    logger.flush()
    text, rows = logger.path.read_bytes(), logger.rows
    start = text.rindex(b"0,4,")
    for end in range(start, len(text)):
        logger.path.write_bytes(text[:end])
        assert list(run.history["val/loss"]) == [row["val/loss"] for row in rows[:4]]
        later = CSVLogger(run.dir)
        later.go_on(5, rows[4])
        later.flush()
        assert later.path.read_bytes() == text
    logger.path.write_bytes(text[:start] + bytes(50))  # what a file system may leave
    later.go_on(5, rows[4])
    assert later.rows == rows


def test_no_room_for_a_row_leaves_the_others(tmp_path):
    logger = CSVLogger(tmp_path)
    for step in range(3): logger.log_metrics({"loss": 0.5, "epoch": 0}, step)
    logger.flush()
    size, limits = logger.path.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    logger.log_metrics({"loss": 0.25, "epoch": 0}, 3)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 3, limits[1]))
        with pytest.raises(OSError, match="metrics.csv"): logger.flush()
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert logger.path.read_bytes() == whole_file(logger.rows[:2])
    logger.flush()
    assert logger.path.read_bytes() == whole_file(logger.rows)


def test_a_metrics_csv_without_a_head_is_no_metrics(tmp_path):
    run = cut_off(config(tmp_path, "Silent"))
    (run.dir / "metrics.csv").write_text("\n")  # as earlier versions left it
    assert Run(run.dir).history.empty
    run.update(status="interrupted")
    assert resume(run, "trainer.max_epochs=4").status == "done"


class ByBoth(Silent):
    def training_step(self, batch, i):
        loss = self.loss(batch)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        if i % 4 == 0: self.log("seldom", float(i))
        return loss


class ByValidationStep(Silent):
    def validation_step(self, batch, i):
        self.log("val_loss", self.loss(batch), on_step=True, on_epoch=True)


@pytest.mark.parametrize("at", [(1, 0), (1, 5), (2, 0)])
def test_the_steps_of_a_validation_are_counted_on(tmp_path, at):
    cfg = config(tmp_path, "ByValidationStep", "NoTest", "val_loss")
    whole = train(cfg)
    assert list(whole.history.step) == list(range(18)) and is_same(cut_off(cfg, at), whole)


class CutInValidation(pl.Callback):
    "Cuts the power in the validation that ends an epoch; the last step was saved."
    def on_validation_batch_start(self, trainer, *args):
        if Cut.at != ("validation", trainer.current_epoch): return
        Cut.at = None
        raise PowerCut


@pytest.mark.parametrize("at", [(1, 0), (1, 5), ("validation", 1)])
@pytest.mark.parametrize("model, column", [("ByStep", "train_loss"), ("ByBoth", "seldom")])
def test_the_last_step_of_a_short_epoch_is_in_its_row(tmp_path, model, column, at):
    cfg = config(tmp_path, model, "NoTest")
    cfg["callbacks"] |= dict(checkpoint=dict(monitor=None, every_n_steps=1),
                             later=dict(_target_=f"{HERE}.CutInValidation"))
    whole = train(cfg)
    assert is_same(cut_off(cfg, at), whole)
    assert list(whole.history.epoch) == [0, 1, 2] and whole.history[column].notna().all()
    assert column in whole.metrics and "train_loss_step" not in whole.history
    often = train(cfg, "trainer.log_every_n_steps=2")
    assert len(often.history) == 9
    assert often.history[column].iloc[-1] == whole.history[column].iloc[-1]


# -- numbers of NumPy's

class NumpyLr(OnlyVal):
    def configure_optimizers(self):
        groups = [dict(params=[self.layer.weight], lr=np.float32(0.03)),
                  dict(params=[self.layer.bias], weight_decay=np.float64(0.1))]
        return torch.optim.Adam(groups, lr=np.float64(0.01), betas=(np.float64(0.9), 0.99))


class NumpyLambda(OnlyVal):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=np.float64(0.05), momentum=0.9)
        schedule = lambda epoch: 0.5 * (1 + np.cos(np.pi * epoch / 10))
        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)]


class NumpyStep(OnlyVal):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=np.float32(0.05))
        gamma, milestones = np.float32(0.7), np.arange(1, 3)
        step = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma)
        return [optimizer], [dict(scheduler=step, interval="epoch")]


class NumpyFactor(OnlyVal):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=np.float32(0.05))
        factor = lambda epoch: np.float32(0.9)
        return [optimizer], [torch.optim.lr_scheduler.MultiplicativeLR(optimizer, factor)]


class NumpySequence(OnlyVal):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=np.float64(0.05))
        first = torch.optim.lr_scheduler.ConstantLR(optimizer, np.float64(0.5), total_iters=1)
        then = torch.optim.lr_scheduler.ExponentialLR(optimizer, np.float64(0.9))
        both = torch.optim.lr_scheduler.SequentialLR(optimizer, [first, then], [np.int64(1)])
        return [optimizer], [both]


class NumpyState(OnlyVal):
    def on_save_checkpoint(self, checkpoint):
        checkpoint["mine"] = {np.int64(1): [np.float32(0.5), np.bool_(True)], "s": np.str_("a")}

    def on_load_checkpoint(self, checkpoint):
        assert checkpoint["mine"] == {1: [0.5, True], "s": "a"}


class NumpyHyper(OnlyVal):
    def __init__(self):
        super().__init__()
        self.save_hyperparameters(dict(lr=np.float64(0.1), names=[np.str_("a")]))


@pytest.mark.parametrize("model", ["NumpyLr", "NumpyLambda", "NumpyStep", "NumpyFactor",
                                   "NumpySequence", "NumpyState", "NumpyHyper"])
def test_numpy_numbers_are_saved_as_plain_ones(tmp_path, model):
    cfg = config(tmp_path, model, "NoTest", "val/loss")
    whole = train(cfg)
    assert is_same(cut_off(cfg), whole) and is_same(cut_off(cfg, at=(2, 3)), whole)
    assert evaluate(whole, stage="val") == {"val/loss": pytest.approx(whole.metrics["val/loss"])}
    saved = torch.load(whole.checkpoint("best"), weights_only=True)
    if model == "NumpyHyper": assert saved["hyper_parameters"] == dict(lr=0.1, names=["a"])


LOGGED = {"float": np.float32(0.5), "int": np.int64(3), "big": 2**70, "bool": np.bool_(True),
          "tensor": torch.tensor(0.25), "one": torch.ones(1), "array": np.array(2.5),
          "nan": np.float32("nan"), "text": "done", "list": [1, 2], "many": np.arange(3),
          "none": None}


class LogsItself(OnlyVal):
    "Talks to its logger, with and without a step."
    def on_train_epoch_end(self):
        self.logger.log_metrics(LOGGED, step=self.global_step)
        self.logger.log_metrics(dict(later=np.float16(1)))


def test_what_is_logged_directly_is_kept(tmp_path):
    cfg = config(tmp_path, "LogsItself", "NoTest")
    whole = train(cfg)
    assert is_same(cut_off(cfg, at=(2, 3)), whole)
    kept = Run(whole.dir).metrics
    assert {k: kept.get(k) for k in ("float", "int", "bool", "tensor", "one", "array", "later")} \
        == {"float": 0.5, "int": 3, "bool": 1, "tensor": 0.25, "one": 1, "array": 2.5, "later": 1}
    assert kept["big"] == 2.0**70 and np.isnan(kept["nan"])
    last = whole.history.dropna(subset=["text"]).iloc[-1]
    assert (last["text"], last["list"], last["many"]) == ("done", "[1, 2]", "[0 1 2]")
    assert whole.history.step.notna().all() and list(whole.history.epoch.unique()) == [0, 1, 2]


class Facts(NoTest):
    def fingerprint(self): return {np.int64(1): np.float32(0.5)}
    def facts(self): return dict(mean=np.array([0.5, 1]), std=torch.ones(2), n=np.int64(48))


class OwnWords(NoTest):
    fingerprint, facts = "mine", ["also", "mine"]


def test_attributes_with_the_names_of_those_methods_are_the_users(tmp_path):
    run = Run(train(config(tmp_path, "OnlyVal", "OwnWords")).dir)
    assert run.info["data"] == "mine" and "data_facts" not in run.info


def test_what_a_datamodule_says_of_itself_is_plain(tmp_path):
    cfg = config(tmp_path, "OnlyVal", "Facts")
    run = Run(cut_off(cfg, at=(2, 3)).dir)
    assert "another data" not in (run.dir / "log.txt").read_text()
    assert run.info["data_facts"] == dict(mean=[0.5, 1], std=[1, 1], n=48)
    assert run.info["data"] == {"1": 0.5}


# -- what no checkpoint can hold

class Keeps(pl.Callback):
    what = None
    def state_dict(self): return dict(deep=[dict(it=Keeps.what)])


class KeepsData(NoTest):
    def state_dict(self): return dict(it=date(2026, 1, 2))


class KeepsItself(OnlyVal):
    def on_save_checkpoint(self, checkpoint): checkpoint["mine"] = dict(a=1, it=Keeps.what)


class KeepsExtra(OnlyVal):
    def get_extra_state(self): return dict(it=Keeps.what)
    def set_extra_state(self, state): pass


FOREIGN = [(np.arange(3), "ndarray; save torch.as_tensor"), (Path("a"), "PosixPath; save str"),
           (date(2026, 1, 2), "date; save its isoformat()"), (Cut, "type; save plain data"),
           (lambda: 0, "function; save plain data")]


def refusal(cfg: dict) -> tuple[str, Run]:
    with pytest.raises(TrainingFailed) as failed: train(cfg)
    return str(failed.value.__cause__), failed.value.run


@pytest.mark.parametrize("what, says", FOREIGN, ids=[says.split(";")[0] for _, says in FOREIGN])
def test_what_cannot_be_loaded_again_is_refused_by_its_name(tmp_path, monkeypatch, what, says):
    monkeypatch.setattr(Keeps, "what", what)
    cfg = config(tmp_path, "OnlyVal", "NoTest")
    cfg["callbacks"]["keeps"] = dict(_target_=f"{HERE}.Keeps")
    said, run = refusal(cfg)
    assert "the state of Keeps.deep.0.it could not be" in said and says in said
    assert run.history.empty, "before the first step"
    said, _ = refusal(config(tmp_path, "KeepsItself", "NoTest"))
    assert "the state of mine.it could not be" in said and says in said
    said, _ = refusal(config(tmp_path, "KeepsExtra", "NoTest"))
    assert "state_dict._extra_state.it" in said and says in said


def test_a_datamodules_state_is_looked_at_before_training(tmp_path):
    said, run = refusal(config(tmp_path, "OnlyVal", "KeepsData"))
    assert "the state of KeepsData.it could not be" in said and run.history.empty


# -- any name

class AnyName(Silent):
    "Logs the loss of each stage under a name of its own."
    names: tuple = ()

    def training_step(self, batch, i):
        loss = self.loss(batch)
        self.log(AnyName.names[0], loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, i): self.log(AnyName.names[1], self.loss(batch))
    def test_step(self, batch, i): self.log(AnyName.names[2], self.loss(batch))


@pytest.mark.parametrize("names, shown", [
    (("train/loss", "val/loss", "test/loss"), {"loss": 3}),
    (("train_loss", "val_loss", "test_loss"), {"loss": 3}),
    (("loss/train", "loss/val", "loss/test"), {"loss": 3}),
    (("training_loss", "valid_loss", "test.loss"), {"loss": 3}),
    (("Loss", "acc", "acc_of_test"), {"Loss": 1, "acc": 1, "acc_of": 1}),
    (("loss", "loss_val_x", "loss"), {"loss": 2, "loss_val_x": 1})])
def test_any_name_is_kept_shown_and_drawn(tmp_path, monkeypatch, names, shown):
    monkeypatch.setattr(AnyName, "names", names)
    monitor = "val/loss" if shown == {"loss": 3} else names[1]  # which is what the default says
    cfg = config(tmp_path, "AnyName", "Data", monitor)
    run = train(cfg)
    assert is_same(cut_off(cfg), run)
    assert list(run.history.epoch) == [0, 1, 2], "the test has no row"
    assert set(names[:2]) <= set(run.metrics) and len(run.metrics) == 3
    assert run.metrics[names[1]] == run.history[names[1]].min() == run.info["best"]["value"]
    assert run.info["best"]["monitor"] == names[1]
    table = {row[0]: [o for o in row[1:] if o] for row in metrics_table(run.metrics)}
    assert {k: len(v) for k, v in table.items()} == shown
    drawn = panels_of({0: run.history})
    assert sum(len(panel.curves) for panel in drawn) == 2
    main = [curve for panel in drawn for curve in panel.main]
    assert any(curve.y.tolist() == run.history[names[1]].tolist() for curve in main)
    assert list(evaluate(run)) == [names[2]]


# -- self.logger, as Lightning's documentation has it

class Talks(Silent):
    "To its logger and its loggers, in every stage."
    said: list = []

    def talk(self, stage: str):
        for logger in self.loggers:
            logger.experiment.add_histogram("weights", self.layer.weight, self.global_step)
            logger.experiment.config.update(dict(a=1), allow_val_change=True)
            with logger.experiment.as_default() as writer: writer.scalar("a", 1)
            logger.log_hyperparams(dict(a=1))
            logger.log_graph(self)
        one = self.logger
        folder = Path(one.save_dir, one.name, one.version)
        Talks.said.append((stage, folder, one.root_dir, one.log_dir, one.experiment.log_dir,
                           self.trainer.log_dir))

    def on_fit_start(self): self.talk("fit")
    def on_train_epoch_end(self): self.talk("fit")
    def on_validation_end(self): self.talk("val")
    def on_test_end(self): self.talk("test")
    def on_predict_end(self): self.talk("predict")
    def forward(self, x): return self.layer(x)


def test_a_model_talks_to_its_logger(tmp_path):
    Talks.said = []
    run = train(config(tmp_path, "Talks", "Data"))
    before = sorted(run.dir.rglob("*"))
    metrics = (run.dir / "metrics.csv").exists()
    evaluate(run)
    evaluate(run, stage="val")
    predict(run, torch.randn(2, 4))
    assert {stage for stage, *_ in Talks.said} == {"fit", "val", "test", "predict"}
    for _, folder, root, *logs in Talks.said:
        assert folder == run.dir and Path(root) == run.dir.parent
        assert {Path(o) for o in logs} == {run.dir}
    assert sorted(run.dir.rglob("*")) == before and not metrics  # nothing was logged
    lr_find(config(tmp_path, "Talks", "Data"), steps=20)


def test_nothing_answers_everything():
    nothing = Nothing(log_dir="a")
    assert nothing.log_dir == "a" and nothing.run.log(1).x is nothing
    assert copy.deepcopy(nothing).log_dir == "a" and not hasattr(nothing, "__len__")
    with nothing.open("x") as o: assert o.write(1) is o
