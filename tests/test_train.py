"""Training in one process: people's own modules, several heads, every packaged option, folders
that must not appear."""
import copy
import functools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from mlkit.base.errors import TrainingFailed, UserError
from mlkit.base.files import packaged_configs
from mlkit.cli import mlkit_eval
from mlkit.config.load import load_config
from mlkit.config.node import ConfigError
from mlkit.fit.randomness import SameBatches
from mlkit.model.lit import LitModel
from mlkit.model.nets import MLP
from mlkit.parts.check import find_problems
from mlkit.parts.locate import register
from mlkit.run.folder import Run, list_runs
from mlkit.train import resume, train
from mlkit.use import evaluate, load_run, predict

MNIST = str(Path(__file__).parents[1] / "configs" / "mnist.yaml")
SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=3", "trainer.limit_val_batches=2",
         "trainer.limit_test_batches=2",
         "callbacks.progress=null"]


def short(tmp_path, *overrides, config=MNIST) -> Run:
    return train(config, *SHORT, f"runs={tmp_path}", *overrides)


# -- modules that know nothing of mlkit

class SavesItsNet(LitModel):
    "As the Lightning + Hydra template does: everything becomes a hyperparameter, the net too."
    def __init__(self, net: nn.Module, width: int = 3):
        super().__init__(net)
        self.save_hyperparameters()


def test_hyperparameters_that_are_no_plain_data_are_left_out(tmp_path):
    here = __name__.rpartition(".")[2]
    run = train(dict(name="a", runs=str(tmp_path), defaults=[dict(data="mnist")],
                     trainer=dict(max_epochs=1, limit_train_batches=2),
                     model=dict(_target_=f"{here}.SavesItsNet",
                                net=dict(_target_="mlkit.model.nets.MLP", in_shape=784,
                                         num_classes=10))))
    assert torch.load(run.checkpoint("best"), weights_only=True)["hyper_parameters"] == {"width": 3}
    assert isinstance(run.model.hparams.net, nn.Module)


class PlainData(pl.LightningDataModule):
    "Shuffled by torch's own DataLoader; no test set."
    def __init__(self, n: int = 64):
        super().__init__()
        self.n = n

    def loader(self, seed, **kwargs):
        x = torch.randn(self.n, 4, generator=torch.Generator().manual_seed(seed))
        return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=16, **kwargs)

    def train_dataloader(self): return self.loader(0, shuffle=True)
    def val_dataloader(self): return self.loader(1)


class RandomSplit(PlainData):
    "Splits as tutorials do: at random, in `setup`, with no generator of its own."
    def setup(self, stage):
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        self.parts = torch.utils.data.random_split(TensorDataset(x, x.sum(1, keepdim=True)),
                                                   [32, 32])

    def train_dataloader(self): return DataLoader(self.parts[0], batch_size=16)
    def val_dataloader(self): return DataLoader(self.parts[1], batch_size=16)


class PlainModule(pl.LightningModule):
    "Logs by step, under names of its own, and steps its optimizer itself."
    def __init__(self, lr: float = 0.1):
        super().__init__()
        self.layer, self.lr, self.automatic_optimization = nn.Linear(4, 1), lr, False

    def training_step(self, batch, i):
        loss = F.mse_loss(self.layer(batch[0]), batch[1])
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.log("loss", loss)

    def validation_step(self, batch, i):
        self.log("val_mse", F.mse_loss(self.layer(batch[0]), batch[1]))
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=self.lr)


def plain(tmp_path, **more) -> dict:
    here = __name__.rpartition(".")[2]
    return dict(name="plain", runs=str(tmp_path), data=dict(_target_=f"{here}.PlainData"),
                model=dict(_target_=f"{here}.PlainModule"),
                trainer=dict(max_epochs=3, log_every_n_steps=2),
                callbacks=dict(progress=None, checkpoint=dict(monitor="val_mse")), **more)


@pytest.fixture(autouse=True)
def tests_are_importable(monkeypatch): monkeypatch.syspath_prepend(str(Path(__file__).parent))


def test_plain_lightning_modules_work_as_they_are(tmp_path):
    run, again = train(plain(tmp_path)), train(plain(tmp_path))
    assert (run.status == "done" and run.metrics["val_mse"] < 1
            and not any(k.startswith("test") for k in run.metrics))
    assert list(run.history["epoch"]) == sorted(run.history["epoch"]) and "loss" in run.history
    assert run.history.equals(again.history)
    weights = again.model.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in run.model.state_dict().items())


class OwnData(PlainModule):
    "Brings its batches itself."
    def __init__(self, stop_at: int | None = None):
        super().__init__()
        self.stop_at, self.source = stop_at, PlainData()

    def training_step(self, batch, i):
        if self.global_step == self.stop_at: raise RuntimeError("cut off")
        super().training_step(batch, i)

    def test_step(self, batch, i): self.log("test_mse", F.mse_loss(self.layer(batch[0]), batch[1]))
    def train_dataloader(self): return self.source.train_dataloader()
    def val_dataloader(self): return self.source.val_dataloader()
    def test_dataloader(self): return self.source.val_dataloader()


class OnlyTrainingData(OwnData):
    val_dataloader = pl.LightningModule.val_dataloader
    test_dataloader = pl.LightningModule.test_dataloader


class PreparedData(OwnData):
    def prepare_data(self): self.prepared = True
    def setup(self, stage): self.ready = PlainData(32)
    def train_dataloader(self): return self.ready.train_dataloader()


class AssignedLoader(OnlyTrainingData):
    train_dataloader = pl.LightningModule.train_dataloader
    def __init__(self, stop_at: int | None = None):
        super().__init__(stop_at)
        self.train_dataloader = self.source.train_dataloader


class Episodes(IterableDataset):
    "What an environment answers, as long as it lasts."
    def __iter__(self):
        for _ in range(40):
            x = torch.randn(4)
            yield x, x.sum(0, keepdim=True)


class Actor(OwnData):
    def train_dataloader(self): return DataLoader(Episodes(), batch_size=8)


class OwnDigits(LitModel):
    def __init__(self, stop_at: int | None = None):
        super().__init__(nn.Linear(4, 1), F.mse_loss)
        self.stop_at = stop_at

    def training_step(self, batch, i):
        if self.global_step == self.stop_at: raise RuntimeError("cut off")
        return super().training_step(batch, i)

    def train_dataloader(self): return PlainData().train_dataloader()
    def val_dataloader(self): return PlainData().val_dataloader()
    def test_dataloader(self): return [PlainData().val_dataloader()]


@pytest.mark.parametrize("model, monitor, tests", [
    ("OwnData", "val_mse", True), ("OnlyTrainingData", None, False),
    ("PreparedData", "val_mse", True), ("AssignedLoader", None, False), ("Actor", "val_mse", True),
    ("OwnDigits", "val/loss", True)])
def test_a_model_may_bring_its_batches(tmp_path, model, monitor, tests):
    config = {**plain(tmp_path), "data": None}
    config["model"]["_target_"] = f"{__name__.rpartition('.')[2]}.{model}"
    config["callbacks"]["checkpoint"] = dict(monitor=monitor, every_n_steps=1)
    whole = train(config)
    with pytest.raises(TrainingFailed, match="cut off") as failed:
        train({**config, "model": {**config["model"], "stop_at": 5}})
    again = resume(failed.value.run.dir, "model.stop_at=null")
    assert again.datamodule is None and again.metrics == whole.metrics
    weights, loaded = whole.model.state_dict(), load_run(again.dir)
    for other in (again.model, loaded.model):
        assert all(torch.equal(v.cpu(), weights[k].cpu()) for k, v in other.state_dict().items())
    measured = {k: v for k, v in whole.metrics.items() if k.startswith("test")}
    if tests: assert measured and evaluate(again.dir) == measured
    else:
        with pytest.raises(UserError, match=f"{model} has no test_dataloader"): evaluate(again.dir)
    with pytest.raises(UserError, match=f"{model} (reads no files|has no predict_step)"):
        predict(again.dir, tmp_path)


@pytest.mark.parametrize("model", ["OwnData", "AssignedLoader", "OwnDigits", "BoringModel"])
def test_a_model_that_may_have_batches_needs_no_data(model):
    home = "pytorch_lightning.demos.boring_classes" if model == "BoringModel" else "test_train"
    trainer = dict(_target_="pytorch_lightning.Trainer")
    config = dict(data=None, trainer=trainer, model=dict(_target_=f"{home}.{model}"))
    assert not find_problems(load_config(config))


def test_a_model_without_batches_needs_data(tmp_path):
    for more in ({}, dict(data=None)):
        config = {**plain(tmp_path), **more}
        if not more: del config["data"]
        with pytest.raises(ConfigError, match="data: a run needs a LightningDataModule.*or a model "
                           "with a train_dataloader"): train(config)
    config["model"] = dict(_target_=f"{__name__.rpartition('.')[2]}.some_model")
    with pytest.raises(ConfigError, match="data: is null, and PlainModule has no train_dataloader"):
        train(config)
    assert not list_runs(tmp_path)


def some_model(): return PlainModule()


def test_best_weights_are_those_of_the_best_epoch(tmp_path):
    """With a step that is far too large the first epoch is the best one; the run's figures and
    weights must be its own."""
    config = plain(tmp_path)
    config["model"]["lr"] = 0.9
    run = train(config)
    values = run.history["val_mse"].dropna()
    assert run.info["best"]["value"] == values.min() == run.metrics["val_mse"]
    assert run.info["best"]["epoch"] == run.history["epoch"][values.idxmin()]
    assert evaluate(run, stage="val")["val_mse"] == pytest.approx(values.min(), rel=1e-6)


def test_epochs_without_validation_are_not_judged(tmp_path):
    run = short(tmp_path, "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2")
    assert run.info["best"]["epoch"] == 1
    # ends before the first validation
    run = short(tmp_path, "+trainer.max_steps=2", "trainer.limit_train_batches=5")
    assert run.status == "done" and run.info["best"] is None and "test/acc" in run.metrics
    # with its last weights, as there are no best ones
    assert evaluate(run)["test/acc"] == run.metrics["test/acc"]


def test_a_random_split_is_the_same_when_a_run_is_evaluated(tmp_path):
    config = plain(tmp_path)
    config["data"]["_target_"] = config["data"]["_target_"].replace("PlainData", "RandomSplit")
    run = train(config)
    assert evaluate(run,
                    stage="val") == evaluate(run,
                                             stage="val") == {"val_mse": pytest.approx(
                                                 run.metrics["val_mse"])}


def test_the_environment_does_not_change_what_a_run_was(tmp_path, monkeypatch):
    run = short(tmp_path)
    monkeypatch.setenv("MLKIT_seed", "7")
    assert load_config(MNIST).seed == 7 and run.cfg.seed == 42


def test_an_optimizer_that_is_spelt_out_inherits_nothing():
    cfg = load_config(dict(optimizer=dict(_target_="torch.optim.RMSprop", _partial_=True, lr=0.1)))
    assert cfg.optimizer == dict(_target_="torch.optim.RMSprop", _partial_=True, lr=0.1)


def test_clipping_with_mixed_precision(tmp_path):
    assert short(tmp_path, "trainer.precision=bf16-mixed",
                 "trainer.gradient_clip_val=0.5").status == "done"


@pytest.mark.parametrize("metrics", [dict(acc=None), dict(a=dict(acc=None)), dict(a=None), None])
def test_a_metric_that_is_null_is_none(metrics):
    model = LitModel(nn.Linear(4, 2), metrics=metrics)
    assert not model.functions and not any(model.metrics.values())
    asks = {"model.metrics": {"acc": None} | (metrics or {}),
            "callbacks.checkpoint.monitor": "val/acc"}
    changes = [f"{'++'}{k}={json.dumps(v)}" for k, v in asks.items()]
    assert "nothing logs 'val/acc'" in str(find_problems(load_config(MNIST, *changes)))


def test_lists_and_mappings_may_be_left_empty():
    assert not find_problems(load_config(MNIST, "tags=null", "extra=null"))


def test_a_runs_folder_is_no_group(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_config(dict(name="a"), "runs=/somewhere").runs == "/somewhere"


def test_batches_with_strings_in_front(tmp_path):
    from mlkit.model.lit import _batch_size
    assert _batch_size({"file": ["a.png", "b.png"], "scale": torch.tensor(1.0),
                        "x": torch.zeros(2, 3)}) == 2
    with pytest.raises(ValueError, match="a batch without a tensor"): _batch_size(["a", 1])


def test_evaluate_without_data_says_so(tmp_path):
    run = train(plain(tmp_path))
    with pytest.raises(ValueError, match="PlainData has no test_dataloader.*--stage val"):
        evaluate(run)


class DataForTests(PlainData):
    def test_dataloader(self): return self.loader(2)

class OnlyTested(PlainModule):
    validation_step = pl.LightningModule.validation_step
    def test_step(self, batch, i): self.log("mse", F.mse_loss(self.layer(batch[0]), batch[1]))

class OnlyTrained(PlainModule): validation_step = pl.LightningModule.validation_step


@pytest.mark.parametrize("data, model, stage, says", [
    ("DataForTests", "PlainModule", "test", "PlainModule has no test_step.* there is --stage val "),
    ("PlainData", "PlainModule", "test", "PlainData has no test_dataloader.* there is --stage val"),
    ("DataForTests", "OnlyTested", "val", "no validation_step.* there is --stage test"),
    ("DataForTests", "OnlyTrained", "test", "no test_step, so there is nothing to measure$"),
    ("PlainData", "OnlyTested", "val", "no validation_step, so there is nothing to measure$")])
def test_what_cannot_be_measured_is_said_in_a_line(tmp_path, capsys, data, model, stage, says):
    config = plain(tmp_path)
    for part, name in (("data", data), ("model", model)):
        config[part]["_target_"] = config[part]["_target_"].replace(f"Plain{part.title()}", name)
    config["model"]["_target_"] = config["model"]["_target_"].replace("PlainModule", model)
    config["callbacks"]["checkpoint"]["monitor"] = None
    config["trainer"]["max_epochs"] = 1
    if model != "PlainModule": config["trainer"]["limit_val_batches"] = 0
    run = train(config)
    capsys.readouterr()
    assert mlkit_eval([str(run.dir), "--stage", stage]) == 2
    said = capsys.readouterr().err.strip()
    assert re.search(says, said) and len(said.splitlines()) == 1, said


class FailingData(PlainData):
    "Raises what is no mistake of a config, at a place."
    def __init__(self, fails: str = ""):
        super().__init__()
        self.fails = fails

    def check(self, place: str):
        if self.fails == place: raise ValueError(f"a bad record in {place}")

    def __len__(self): return 4
    def __getitem__(self, i):
        self.check("item")
        return torch.zeros(4), torch.zeros(1)

    def collate(self, samples):
        self.check("collate")
        return torch.utils.data.default_collate(samples)

    def prepare_data(self): self.check("prepare_data")
    def setup(self, stage): self.check("setup")
    def val_dataloader(self):
        self.check("loader")
        return DataLoader(self, 2, collate_fn=self.collate)


def test_an_error_of_the_users_own_code_keeps_its_traceback(tmp_path, capsys):
    config = plain(tmp_path)
    config["data"]["_target_"] = config["data"]["_target_"].replace("Plain", "Failing")
    run = train(config)
    for place in ("item", "collate", "prepare_data", "setup", "loader"):
        code = mlkit_eval([str(run.dir), "--stage", "val", f"data.fails={place}"])
        said = capsys.readouterr().err
        assert code == 1 and "Traceback" in said and "in check\n" in said, place
        assert said.rstrip().endswith(f"ValueError: a bad record in {place}")


# -- several heads, through a config

@register
class DigitAndParity(LitModel):
    def step(self, batch):
        x, digit = batch
        return super().step((x, dict(digit=digit, even=1 - digit % 2)))


def test_several_heads(tmp_path):
    acc = dict(_target_="mlkit.model.losses.accuracy", _partial_=True)
    f1 = dict(_target_="torchmetrics.F1Score", task="multiclass", num_classes=10, average="macro")
    config = dict(
        name="heads", runs=str(tmp_path), defaults=[dict(data="mnist")], trainer=dict(max_epochs=2),
        callbacks=dict(progress=None),
        model=dict(_target_="DigitAndParity", optimizer="${optimizer}",
                   net=dict(_target_="mlkit.model.nets.Heads", heads=dict(digit=10, even=2),
                            backbone=dict(_target_="mlkit.model.nets.MLP", in_shape=784,
                                          num_classes=0, hidden=[64])),
                   loss=dict(digit=dict(_target_="torch.nn.CrossEntropyLoss", label_smoothing=0.1),
                             even=dict(_target_="torch.nn.CrossEntropyLoss")),
                   metrics=dict(digit=dict(acc=acc, f1=f1), even=dict(acc=acc))))
    run = train(config)
    assert {"val/digit/acc", "val/even/acc", "val/digit/f1", "test/even/loss",
            "train/loss"} <= set(run.metrics)
    assert run.metrics["test/digit/acc"] > 0.8 and run.metrics["test/even/acc"] > 0.8
    assert (
        run.metrics["val/loss"] == pytest.approx(
            run.metrics["val/digit/loss"] + run.metrics["val/even/loss"], rel=1e-5))
    assert run.metrics["test/digit/f1"] != run.metrics["test/digit/acc"]


# -- every packaged option is usable

@pytest.mark.parametrize("choice",
                         [f"{p.parent.name}={p.stem}"
                          for p in sorted(packaged_configs().glob("*/*.yaml"))
                                    if p.parent.name
                                    in ("optimizer", "scheduler", "callbacks")] + ["trainer=cpu",
                                                                                   "data=fashion_mnist"])
def test_packaged_options_train(tmp_path, choice):
    # it adds to others
    run = short(tmp_path, choice.replace("callbacks=lr_monitor", "callbacks=[default,lr_monitor]"))
    assert run.status == "done" and run.metrics["test/loss"] > 0


@pytest.mark.parametrize("path", sorted(packaged_configs().glob("*/*.yaml")),
                         ids=lambda p: f"{p.parent.name}={p.stem}")
def test_packaged_options_have_no_problems(path):
    table = ["data=table", "data.train=train.csv", "data.target=y"]
    pictures = ["data.train=train.csv", "data.target=y"]
    more = dict(image_folder=["data.root=."], image_table=pictures, table=table, tabular=table,
                regression=table)
    overrides = [f"{path.parent.name}={path.stem}", *more.get(path.stem, [])]
    if path.stem in ("classifier", "labels"):
        overrides.append("++model.net={_target_: mlkit.model.nets.ConvNet, in_channels: 1, "
                         "num_classes: 10}")
    base = {} if path.stem in ("tabular", "regression") else MNIST  # which has another net
    assert not find_problems(load_config(base, *overrides))


def test_schedulers_know_the_length_of_the_run(tmp_path):
    run = short(tmp_path, "trainer.max_epochs=2")
    saved = torch.load(run.checkpoint("last"), weights_only=True)["lr_schedulers"][0]
    assert saved["total_steps"] == 6 and saved["last_epoch"] == 6
    run = short(tmp_path, "scheduler=plateau", "trainer.max_epochs=2")
    conf = run.model.trainer.lr_scheduler_configs[0]
    assert (conf.interval, conf.monitor, conf.scheduler.last_epoch) == ("epoch", "val/loss", 2)


@pytest.mark.parametrize("target, key", [("CosineAnnealingLR", "T_max"),
                                         ("OneCycleLR", "total_steps")])
@pytest.mark.parametrize("interval, frequency, length", [
    ("step", 10, 100), ("step", 1, 1000), ("step", 3, 333), ("epoch", 2, 4), ("epoch", 20, 1)])
def test_a_schedulers_length_is_counted_in_its_own_steps(target, key, interval, frequency, length):
    from mlkit.model.lit import scheduler_config
    more = dict(max_lr=0.1) if target == "OneCycleLR" else {}
    make = functools.partial(getattr(torch.optim.lr_scheduler, target), **more)
    conf = dict(scheduler=make, interval=interval, frequency=frequency)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    made = scheduler_config(conf, optimizer, 1000, 8)
    assert getattr(made["scheduler"], key) == length and made["frequency"] == frequency


def test_compiled_nets_keep_the_names_of_their_weights(tmp_path):
    plain, compiled = (LitModel(MLP(784, 10, hidden=[8]), compile=c) for c in (False, True))
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    assert compiled.net._compiled_call_impl is not None


# -- an image folder, trained and used again

def test_image_folder(tmp_path):
    from PIL import Image

    from mlkit.data.images import SAMPLES, read_idx
    images, labels = (read_idx(SAMPLES / "mnist" / f"t10k-{o}-ubyte.gz")
                      for o in ("images-idx3", "labels-idx1"))
    for i in range(600):
        folder = tmp_path / "digits" / ("three" if labels[i] == 3 else "other")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i]).save(folder / f"{i}.png")
    run = train(dict(
        name="three", runs=str(tmp_path / "runs"),
        defaults=[dict(data="image_folder"), dict(model="classifier")],
        data=dict(root=str(tmp_path / "digits"), mode="L", size=[28, 28],
                  cache=str(tmp_path / "cache")),
        model=dict(net=dict(_target_="mlkit.model.nets.ConvNet", in_channels=1, num_classes=2)),
        optimizer=dict(lr=0.01),
        trainer=dict(max_epochs=4), callbacks=dict(progress=None)))
    assert run.metrics["test/acc"] > 0.85
    found = predict(run.dir, tmp_path / "digits" / "three").table
    assert set(found["label"]) <= {"three", "other"} and (found["label"] == "three").mean() > 0.5
    again = (tmp_path / "digits" / "three").rename(tmp_path / "new")
    shutil.rmtree(tmp_path / "digits")  # a run can be used without its data
    assert list(predict(run.dir, again).table["label"]) == list(found["label"])


# -- runs that are loaded, changed, not kept

def test_loaded_weights_are_the_trained_ones(tmp_path):
    run = short(tmp_path)
    loaded = load_run(run.dir, checkpoint="last")
    assert not loaded.model.training
    weights = run.model.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in loaded.model.state_dict().items())
    with pytest.raises(FileNotFoundError, match=r"no checkpoint 'bset' \(there are: best, last\)"):
        load_run(run.dir, checkpoint="bset")


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path):
    run = short(tmp_path)
    class Evil:
        def __reduce__(self): return (Path(tmp_path / "executed").touch, ())
    torch.save(dict(state_dict=Evil()), run.checkpoint("best"))
    with pytest.raises(ValueError, match="best.ckpt: cannot be loaded: it wants getattr") as e:
        load_run(run.dir)
    assert len(str(e.value).splitlines()) == 1
    assert not (tmp_path / "executed").exists()


def test_assigned_values_are_trained_with(tmp_path):
    cfg = load_config(MNIST, *SHORT, f"runs={tmp_path}")
    before = copy.deepcopy(cfg)
    cfg.model.net.widths = [4, 4]
    run = train(cfg)
    assert run.cfg.model.net.widths == [4, 4] and run.model.net.num_features == 4
    assert "widths" not in before.model.net
    # a plain DictConfig will do
    assert train(OmegaConf.create(OmegaConf.to_container(cfg))).metrics == run.metrics


AUGMENT = "+model.augment={{_target_: mlkit.model.augment.{}, {}}}"
FOLDER = "data={{_target_: mlkit.data.folder.ImageFolder, root: x, {}}}"
POSITIVE, AT_LEAST, AT_MOST = "greater than 0", "0 or more", "1 or less"


@pytest.mark.parametrize("override, says", [
    ("data.batch_size=0", POSITIVE), ("data.seed=-1", AT_LEAST), ("data.num_classes=0", POSITIVE),
    ("data.val_size=0", POSITIVE), ("data.val_size=-3", POSITIVE), ("data.val_size=0.0", POSITIVE),
    ("data.val_size=1.0", "less than 1"), ("data.val_size=1", ""), ("data.val_size=0.5", ""),
    (FOLDER.format("size: [0, 0]"), POSITIVE), (FOLDER.format("size: [8, 0]"), POSITIVE),
    (FOLDER.format("num_workers: -1"), AT_LEAST), (FOLDER.format("num_workers: 0"), ""),
    (FOLDER.format("std: 0"), POSITIVE), (FOLDER.format("std: [1, 1, 0.0]"), POSITIVE),
    ("callbacks.checkpoint.every_n_steps=0", POSITIVE),
    ("callbacks.checkpoint.every_n_steps=null", ""),
    ("callbacks.checkpoint.every_minutes=-1", POSITIVE),
    ("model.net.dropout=1.5", AT_MOST), ("model.net.dropout=-0.1", AT_LEAST),
    ("model.net.dropout=nan", AT_LEAST), ("model.net.dropout=0", ""),
    ("model.net.widths=[4,0]", POSITIVE), ("model.net.widths=[0,0]", POSITIVE),
    ("model.net.widths=[1]", ""), ("model.net.num_classes=-1", AT_LEAST),
    (AUGMENT.format("Cutout", "p: 2"), AT_MOST), (AUGMENT.format("Cutout", "n: 0"), POSITIVE),
    (AUGMENT.format("Cutout", "p: 0"), ""), (AUGMENT.format("Cutout", "p: 1"), ""),
    (AUGMENT.format("RandomAffine", "degrees: 200"), "180 or less"),
    (AUGMENT.format("RandomAffine", "shear: 90"), "less than 90"),
    (AUGMENT.format("MixUp", "alpha: 0"), POSITIVE),
    (AUGMENT.format("GridMask", "ratio: 1.0"), "less than 1")])
def test_numbers_say_their_range(override, says):
    found = [str(o) for o in find_problems(load_config(MNIST, override))]
    if "ImageFolder" in override: found = [o for o in found if "which" in o]
    assert bool(found) == bool(says), found
    assert all(o.endswith(f", which should be {says}") for o in found), found


@pytest.mark.parametrize("overrides, says", [
    (["trainer.accelerator=tpu"], "pytorch_lightning.Trainer could not be built"),
    (["model.net.widths=[]"], "widths is empty"),
    (["name=a/b"], "becomes a folder"),
    (["seed=abc"], "must be a whole number"),
    (["data.val_size=1000000"], "val_size=1000000"),
    (["~model"], "a run needs a LightningModule here"),
    (["~seed", "data.seed=1"], "must be a whole number"),
    (["seed=-1"], "must be a whole number"),
    (["+lr=0.1"], "nothing reads this key"),
    (["+callbacks.x=3"], "must be a mapping with a _target_"),
    (["callbacks.checkpoint.mode=minimum"],
     "wants 'min' or 'max', got 'minimum'; did you mean 'min'"),
    (["trainer.fast_dev_run=true"], "say it with 'debug=fast'"),
])
def test_what_cannot_be_built_leaves_no_folder(tmp_path, overrides, says):
    with pytest.raises(ConfigError, match=says) as e: short(tmp_path / "runs", *overrides)
    assert len(str(e.value).splitlines()) == 1
    assert not list((tmp_path / "runs").rglob("run.json"))


def test_runs_are_listed_newest_first_and_damaged_ones_are_named(tmp_path, capsys):
    runs = [short(tmp_path) for _ in range(2)]
    (runs[0].dir / "run.json").write_text("{")
    assert [(r.dir, r.status) for r in list_runs(tmp_path)] == [
        (runs[1].dir, "done"), (runs[0].dir, "damaged")]
    assert "run.json: is damaged" in capsys.readouterr().err


def test_training_leaves_python_as_it_was(tmp_path):
    import logging
    import signal
    import sys
    def state():
        handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
        return sys.stdout, sys.stderr, logging.getLogger("pytorch_lightning").level, handlers
    before = state()
    short(tmp_path)
    with pytest.raises(TrainingFailed, match="IndexError.*out of bounds"):
        short(tmp_path, "model.net.num_classes=5")
    assert before == state()
    statuses = sorted(json.loads(p.read_text())["status"] for p in tmp_path.rglob("run.json"))
    assert statuses == ["done", "failed"]


# -- the same batches in every epoch, of any loader

class OwnOrder(torch.utils.data.Sampler):
    def __iter__(self): return iter(torch.randperm(32).tolist())
    def __len__(self): return 32


class Loaded(PlainData):
    def __init__(self, order: str):
        super().__init__()
        self.order, self.seen = order, []

    def train_dataloader(self):
        data = TensorDataset(torch.randn(32, 4), torch.randn(32, 1))
        def batches(sampler): return torch.utils.data.BatchSampler(sampler, 8, False)
        return DataLoader(data, **{
            "shuffled": dict(batch_size=8, shuffle=True), "in order": dict(batch_size=8),
            "own generator": dict(batch_size=8, shuffle=True, generator=torch.Generator()),
            "weighted": dict(batch_size=8, sampler=WeightedRandomSampler([1.0] * 32, 32)),
            "subset": dict(batch_size=8, sampler=SubsetRandomSampler(range(32))),
            "batches": dict(batch_sampler=batches(RandomSampler(data))),
            "single": dict(batch_size=None, shuffle=True),
            "own order": dict(batch_size=8, sampler=OwnOrder())}[self.order])


@pytest.mark.parametrize("order", ["shuffled", "in order", "own generator", "weighted", "subset",
                                   "batches", "single", "own order"])
def test_any_loader_of_torch_repeats_its_batches(order):
    data, seen = Loaded(order), []
    class Sees(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, i):
            seen.append(batch[0].sum().item())
    trainer = pl.Trainer(max_epochs=5, limit_train_batches=2, limit_val_batches=0, logger=False,
                         callbacks=[SameBatches(), Sees()], enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")
    if order == "own order":
        with pytest.raises(UserError, match="cannot repeat"): trainer.fit(PlainModule(), data)
    else:
        trainer.fit(PlainModule(), data)
        assert len(seen) == 10 and len(set(seen)) == 2


# -- a schedule and a run that goes on for longer

class Scheduled(OwnData):
    "Its schedule is made by itself, with NumPy's numbers in it."
    def __init__(self, kind: str = "one", stop_at: int | None = None):
        super().__init__(stop_at)
        self.kind, self.rates, self.automatic_optimization = kind, [], True

    def training_step(self, batch, i):
        if self.global_step == self.stop_at: raise RuntimeError("cut off")
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        return F.mse_loss(self.layer(batch[0]), batch[1])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        n, of = self.trainer.estimated_stepping_batches, torch.optim.lr_scheduler
        small = np.float32(1e-3)
        made = dict(
            one=lambda: of.OneCycleLR(optimizer, 0.1, total_steps=n),
            cosine=lambda: of.CosineAnnealingLR(optimizer, n, eta_min=small),
            poly=lambda: of.PolynomialLR(optimizer, n, power=2.0),
            step=lambda: of.StepLR(optimizer, 3, gamma=np.float32(0.7)),
            fixed=lambda: of.OneCycleLR(optimizer, 0.1, total_steps=8),
            warm=lambda: of.SequentialLR(optimizer, [
                of.LinearLR(optimizer, np.float32(0.3), total_iters=3),
                of.CosineAnnealingLR(optimizer, n - 3, eta_min=small)], [3]),
            chained=lambda: of.ChainedScheduler([
                of.ConstantLR(optimizer, 0.5, total_iters=2),
                of.ExponentialLR(optimizer, np.float32(0.9))]))[self.kind]()
        return [optimizer], [dict(scheduler=made, interval="step")]


def scheduled(folder: Path, kind: str, epochs: int, **kwargs) -> dict:
    config = {**plain(folder), "data": None}
    config["model"] = dict(_target_=f"{__name__.rpartition('.')[2]}.Scheduled", kind=kind, **kwargs)
    config["trainer"] = {**config["trainer"], "max_epochs": epochs}
    config["callbacks"]["checkpoint"] = dict(monitor=None, every_n_steps=1)
    return config


@pytest.mark.parametrize("kind", ["one", "cosine", "poly", "step", "warm", "chained"])
def test_a_schedule_is_as_long_as_the_run_that_goes_on(tmp_path, kind):
    whole = train(scheduled(tmp_path, kind, 4))
    n = len(whole.model.rates)
    cut = resume(failed_at(tmp_path, kind, 5, 4), "model.stop_at=null")  # nested NumPy numbers, too
    assert cut.model.rates == whole.model.rates[-len(cut.model.rates):]
    assert all(torch.equal(v, cut.model.state_dict()[k])
               for k, v in whole.model.state_dict().items())
    for old, done in ((train(scheduled(tmp_path, kind, 2)), 8), (failed_at(tmp_path, kind, 3), 3)):
        longer = resume(old, "trainer.max_epochs=4", "model.stop_at=null")
        assert longer.status == "done" and n == 16
        assert longer.model.rates[done - n:] == pytest.approx(whole.model.rates[done:])


def failed_at(folder: Path, kind: str, batch: int, epochs: int = 2) -> Run:
    with pytest.raises(TrainingFailed, match="cut off") as e:
        train(scheduled(folder, kind, epochs, stop_at=batch))
    return e.value.run


def test_a_schedule_that_is_over_ends_nothing_that_was_done(tmp_path):
    run = train(scheduled(tmp_path, "fixed", 2))
    before = {k: v.clone() for k, v in torch.load(run.checkpoint("last"))["state_dict"].items()}
    with pytest.raises(UserError, match="OneCycleLR has made all of its 8 steps: .* more"):
        resume(run, "trainer.max_epochs=3")
    assert Run(run.dir).status == "done" and Run(run.dir).metrics == run.metrics
    after = torch.load(run.checkpoint("last"))["state_dict"]
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    assert evaluate(run.dir)


@pytest.mark.parametrize("choice, lengths", [("one_cycle", {"total_steps": 12}),
                                             ("cosine", {"T_max": 12})])
def test_a_packaged_schedule_follows_too(tmp_path, choice, lengths):
    run = short(tmp_path, f"scheduler={choice}", "trainer.max_epochs=2")
    again = resume(run, "trainer.max_epochs=4")
    state = torch.load(again.checkpoint("last"), weights_only=True)["lr_schedulers"][0]
    assert again.status == "done" and {k: state[k] for k in lengths} == lengths
    assert state["_last_lr"][0] < 1e-3


class DrawsAsItSaves(LitModel):
    def on_save_checkpoint(self, checkpoint): torch.rand(3)


def test_saving_changes_no_run(tmp_path):
    def weights(**checkpoint):
        net = dict(_target_="torch.nn.Sequential", _args_=[
            dict(_target_="torch.nn.Flatten"), dict(_target_="torch.nn.Dropout"),
            dict(_target_="torch.nn.Linear", in_features=784, out_features=10)])
        run = train(dict(
            data=dict(_target_="mlkit.data.mnist.MNIST", batch_size=64), runs=str(tmp_path),
            model=dict(_target_=f"{__name__}.DrawsAsItSaves", net=net),
            trainer=dict(max_epochs=1, limit_train_batches=6, limit_val_batches=1,
                         limit_test_batches=1, accelerator="cpu"),
            callbacks=dict(checkpoint=dict(every_n_steps=1) if checkpoint else {})))
        return run.model.state_dict().values()
    assert all(map(torch.equal, weights(), weights(often=True)))
