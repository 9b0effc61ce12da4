"""`import lightning as L`: Lightning's other package, alone and mixed with `pytorch_lightning`.

A run of its modules is the run of the same modules in `pytorch_lightning`, bit by bit."""
import copy
import importlib.util
import pickle
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from mlkit.base.errors import TrainingFailed
from mlkit.config.load import load_config
from mlkit.config.node import ConfigError
from mlkit.parts.build import build
from mlkit.parts.check import find_problems
from mlkit.parts.locate import locate
from mlkit.parts.packages import adopt
from mlkit.train import resume, train
from mlkit.use import evaluate, load_run

PACKAGES = dict(pl="pytorch_lightning", L="lightning")
HERE = __name__.rpartition(".")[2]


def numbers(seed: int) -> TensorDataset:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, x.sum(1, keepdim=True))


def parts_of(package) -> dict:
    "The same classes, derived from those of one of the two packages."
    callbacks, combined = package.pytorch.callbacks, package.pytorch.utilities.CombinedLoader

    class Data(package.LightningDataModule):
        def train_dataloader(self):
            loader = DataLoader(numbers(0), batch_size=16, shuffle=True)
            return combined(dict(a=loader), "max_size_cycle")
        def val_dataloader(self): return DataLoader(numbers(1), batch_size=16)
        def test_dataloader(self): return DataLoader(numbers(2), batch_size=16)

    class Module(package.LightningModule):
        def __init__(self, lr: float = 0.1):
            super().__init__()
            self.save_hyperparameters()
            self.layers = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1), nn.Linear(4, 1))

        def loss(self, batch): return F.mse_loss(self.layers(batch[0]), batch[1])
        def training_step(self, batch, i):
            assert isinstance(self.trainer, package.Trainer)
            assert isinstance(self.trainer.datamodule, package.LightningDataModule | None)
            loss = self.loss(batch["a"])
            self.log("train/loss", loss, on_step=True, on_epoch=True)
            return loss
        def validation_step(self, batch, i): self.log("val/loss", self.loss(batch))
        def test_step(self, batch, i): self.log("test/loss", self.loss(batch))
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), self.hparams.lr, momentum=0.9)
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
            watched = dict(scheduler=plateau, monitor="val/loss")
            return dict(optimizer=optimizer, lr_scheduler=watched)
        def configure_callbacks(self): return [callbacks.EarlyStopping("val/loss", patience=9)]

    class Manual(Module):
        "Steps its optimizer itself, and brings its data."
        def __init__(self, lr: float = 0.1):
            super().__init__(lr)
            self.automatic_optimization, self.data = False, Data()

        def training_step(self, batch, i):
            optimizer, loss = self.optimizers(), self.loss(batch["a"])
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            self.manual_backward(loss)
            self.clip_gradients(optimizer, 1.0, "norm")
            optimizer.step()
            self.untoggle_optimizer(optimizer)
            self.log_dict({"train/loss": loss})
        def on_train_epoch_end(self):
            self.lr_schedulers().step(self.trainer.callback_metrics["val/loss"])
        def train_dataloader(self): return self.data.train_dataloader()
        def val_dataloader(self): return self.data.val_dataloader()
        def test_dataloader(self): return self.data.test_dataloader()

    class Stop(package.Callback):
        "Ends the process's training at a batch, once."
        def __init__(self, at: int | None = None): self.at, self.seen = at, 0
        def state_dict(self): return dict(seen=self.seen)
        def load_state_dict(self, state): self.seen = state["seen"]
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            assert isinstance(pl_module, package.LightningModule)
            kinds = package.pytorch.loggers.TensorBoardLogger, package.pytorch.loggers.Logger
            self.loggers = [isinstance(o, kinds) for o in trainer.loggers[:-1]]
            assert all(self.loggers)
            if trainer.global_step == self.at: raise RuntimeError("cut off")
            self.seen += 1

    class Ema(callbacks.WeightAveraging):
        def __init__(self): super().__init__(avg_fn=lambda old, new, n: 0.9 * old + 0.1 * new)

    class Logger(package.pytorch.loggers.Logger):
        name = version = "mine"
        def log_metrics(self, metrics, step=None): LOGGED.append(metrics)
        def log_hyperparams(self, params, *args): pass

    class Cpu(package.pytorch.strategies.SingleDeviceStrategy):
        def __init__(self): super().__init__("cpu")

    class Trainer(package.Trainer): pass

    return {k: v for k, v in locals().items() if getattr(v, "__module__", "") == __name__}


LOGGED: list = []


class _Old:  # so that `parts_of` reads both alike
    pytorch, Trainer, Callback = pl, pl.Trainer, pl.Callback
    LightningModule, LightningDataModule = pl.LightningModule, pl.LightningDataModule


def publish(prefix: str, package):
    for name, cls in parts_of(package).items():
        cls.__qualname__ = cls.__name__ = f"{prefix}{name}"
        globals()[cls.__name__] = cls


publish("pl", _Old)
L: Any = importlib.import_module("lightning") if importlib.util.find_spec("lightning") else None
if L: publish("L", L)
needs_lightning = pytest.mark.skipif(L is None, reason="lightning is not installed")


@pytest.fixture(autouse=True)
def tests_are_importable(monkeypatch, request):
    monkeypatch.syspath_prepend(str(request.path.parent))


def config(folder, data="L", model="LModule", callback="L", trainer="lightning", **more) -> dict:
    return dict(
        name="a", runs=str(folder), model=dict(_target_=f"{HERE}.{model}"),
        data=data and dict(_target_=f"{HERE}.{data}Data"),
        trainer=dict(_target_=f"{trainer}.Trainer", max_epochs=3, accelerator="cpu",
                     log_every_n_steps=1),
        callbacks=dict(progress=None, stop=dict(_target_=f"{HERE}.{callback}Stop"),
                       checkpoint=dict(every_n_steps=1)), **more)


@needs_lightning
@pytest.mark.parametrize("mix", [
    dict(), dict(trainer="pytorch_lightning"), dict(data="pl"), dict(model="plModule"),
    dict(callback="pl"), dict(model="plModule", callback="pl"), dict(data="pl", callback="pl"),
    dict(data="pl", model="plModule", callback="pl"), dict(data=None, model="LManual"),
    dict(model="LManual")], ids=lambda o: "-".join(f"{k}={v}" for k, v in o.items()) or "all")
def test_either_package_and_both_train_resume_and_are_evaluated(tmp_path, mix):
    is_manual = mix.get("model") == "LManual"
    old = dict(model="plManual") if is_manual else dict(model="plModule")
    whole = train(config(tmp_path, "pl", callback="pl", trainer="pytorch_lightning", **old))
    assert train(config(tmp_path, **mix)).metrics == whole.metrics
    cut = config(tmp_path, **mix)
    cut["callbacks"]["stop"]["at"] = 6
    with pytest.raises(TrainingFailed, match="cut off") as failed: train(cut)
    run = resume(failed.value.run.dir, "callbacks.stop.at=null")
    assert run.metrics == whole.metrics and run.history.equals(whole.history)
    weights, loaded = whole.model.state_dict(), load_run(run.dir)
    for other in (run.model, loaded.model):
        assert all(torch.equal(v.cpu(), weights[k].cpu()) for k, v in other.state_dict().items())
    assert evaluate(run.dir) == {"test/loss": whole.metrics["test/loss"]}


@needs_lightning
def test_callbacks_loggers_and_strategies_of_the_other_package(tmp_path):
    LOGGED.clear()
    ours = dict(_target_="mlkit.fit.trackers.tensorboard", _partial_=True)
    theirs = dict(_target_="lightning.pytorch.loggers.CSVLogger", save_dir=str(tmp_path))
    more = dict(logger=dict(mine=dict(_target_=f"{HERE}.LLogger"), ours=ours, theirs=theirs))
    cfg = config(tmp_path, **more)
    cfg["callbacks"] |= dict(
        ema=dict(_target_=f"{HERE}.LEma"),
        lr=dict(_target_="lightning.pytorch.callbacks.LearningRateMonitor"),
        swa=dict(_target_="lightning.pytorch.callbacks.Timer"),
        best=dict(_target_="lightning.pytorch.callbacks.ModelCheckpoint", monitor="val/loss"))
    cfg["trainer"] |= dict(strategy=dict(_target_=f"{HERE}.LCpu"), plugins=[
        dict(_target_="lightning.pytorch.plugins.precision.Precision")])
    run = train(cfg)
    assert run.status == "done" and any("val/loss" in o for o in LOGGED)
    assert "lr-SGD" in run.history
    assert len(list((run.dir / "checkpoints").glob("epoch*.ckpt"))) == 1


@needs_lightning
def test_objects_stay_what_they_were_and_become_the_others():
    model = build(dict(_target_=f"{HERE}.LModule", lr=0.5))
    assert isinstance(model, globals()["LModule"]) and isinstance(model, L.LightningModule)
    assert isinstance(model, pl.LightningModule) and type(model).__name__ == "LModule"
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other) is type(model) and other.hparams == {"lr": 0.5}
        assert torch.equal(other.layers[0].weight, model.layers[0].weight)
    old = build(dict(_target_=f"{HERE}.plModule"))
    assert isinstance(old, globals()["plModule"]) and isinstance(old, L.LightningModule)
    again = adopt(old)
    assert again is old and type(again) is type(adopt(build(dict(_target_=f"{HERE}.plModule"))))
    assert type(adopt(nn.Linear(1, 1))) is nn.Linear


def make_trainer(**kwargs): return L.Trainer(**kwargs)


@needs_lightning
@pytest.mark.parametrize("name, is_known", [("LTrainer", True), ("make_trainer", False)])
def test_a_trainer_of_ones_own_says_which_import_to_change(tmp_path, name, is_known):
    cfg = config(tmp_path)
    cfg["trainer"]["_target_"] = f"{HERE}.{name}"
    with pytest.raises(ConfigError, match=f"trainer[^:]*: {HERE}.{name} is a Trainer of lightning."
                       "pytorch, .* change its import to `from pytorch_lightning import Trainer`"):
        train(cfg)
    assert len(find_problems(load_config(cfg))) == is_known and not list(tmp_path.iterdir())
    cfg["trainer"]["_target_"] = f"{HERE}.plTrainer"
    assert not find_problems(load_config(cfg))


@pytest.mark.parametrize("name", [
    "Trainer", "pytorch.Trainer", "pytorch.trainer.trainer.Trainer", "LightningModule",
    "pytorch.callbacks.EarlyStopping", "pytorch.callbacks.early_stopping.EarlyStopping",
    "pytorch.loggers.CSVLogger", "pytorch.demos.boring_classes.BoringModel"])
def test_names_of_lightning_mean_the_same_classes_without_it(name):
    there = f"pytorch_lightning.{name.removeprefix('pytorch.')}"
    assert locate(f"lightning.{name}") is locate(there)


def test_a_config_that_names_lightning_trains_without_it(tmp_path):
    cfg = config(tmp_path, "pl", "plModule", "pl")
    cfg["callbacks"]["lr"] = dict(_target_="lightning.pytorch.callbacks.LearningRateMonitor")
    assert train(cfg, "trainer.max_epochs=1").status == "done"
