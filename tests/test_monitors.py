"""A monitored metric that nothing logs is found as soon as that is certain, whoever monitors it;
another name of the same metric is taken."""
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mlkit.base.errors import TrainingFailed, UserError
from mlkit.model.lit import LitModel
from mlkit.run.folder import Run
from mlkit.train import resume, train

HERE = __name__


@pytest.fixture(autouse=True)
def tests_are_importable(monkeypatch):
    from pathlib import Path
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def loader(n: int = 32) -> DataLoader:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(n))
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8)


class Data(pl.LightningDataModule):
    def train_dataloader(self): return loader()
    def val_dataloader(self): return loader(40)
class NoVal(pl.LightningDataModule):
    def train_dataloader(self): return loader()
class EmptyVal(NoVal):
    def val_dataloader(self): return []
class TwoVal(Data):
    def val_dataloader(self): return [loader(40), loader(16)]


class Seen:
    "How many batches there were: of training, of validation with the sanity check's."
    train = val = 0


class Model(pl.LightningModule):
    def __init__(self, plateau: str | None = None):
        super().__init__()
        self.layer, self.plateau = nn.Linear(4, 1), plateau
        Seen.train = Seen.val = 0
    def loss(self, batch): return nn.functional.mse_loss(self.layer(batch[0]), batch[1])
    def training_step(self, batch, batch_idx):
        Seen.train += 1
        self.log("train_loss", loss := self.loss(batch))
        return loss
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        Seen.val += 1
        self.log("val_loss", self.loss(batch))
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.01)
        if not self.plateau: return optimizer
        plan = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return dict(optimizer=optimizer, lr_scheduler=dict(scheduler=plan, monitor=self.plateau))


class Ends(Model):
    "Logs at the end of its epochs."
    def on_validation_epoch_end(self): self.log("val_end", 1.0)
class EndsAll(Model):
    def on_train_epoch_end(self): self.log("all_end", 1.0)
class Sometimes(Model):
    "Logs in its last batch alone."
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        super().validation_step(batch, batch_idx)
        if batch_idx == 4: self.log("val_last", 1.0)
class Literal(Model):
    "Spells the name that is watched, and only there."
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.01)
        plan = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return dict(optimizer=optimizer, lr_scheduler=dict(scheduler=plan, monitor="val_los"))
class Mine(LitModel):
    "What it logs is not known to a check."
    def step(self, batch):
        Seen.train += self.training
        Seen.val += not self.training
        return {"loss": nn.functional.mse_loss(self(batch[0]), batch[1])}, *batch


class Logs(pl.Callback):
    def on_validation_batch_end(self, trainer, module, *args): module.log("val_said", 1.0)


def config(tmp_path, model: str, by: str, monitor: str, data: str, sanity: int) -> dict:
    node, Seen.train, Seen.val = dict(_target_=f"{HERE}.{model}"), 0, 0
    if model == "Mine": node |= dict(net=dict(_target_="torch.nn.Linear", _args_=[4, 1]),
                                     optimizer="${optimizer}", scheduler="${scheduler}")
    checkpoint, callbacks, more = dict(monitor=None), {}, {}
    if by == "checkpoint": checkpoint = dict(monitor=monitor)
    elif by == "plateau" and model == "Mine":
        plan = dict(_target_="torch.optim.lr_scheduler.ReduceLROnPlateau", _partial_=True)
        more = dict(scheduler=dict(scheduler=plan, monitor=monitor))
    elif by == "plateau" and model != "Literal": node["plateau"] = monitor
    elif by != "plateau":
        callbacks = dict(it=dict(_target_=f"pytorch_lightning.callbacks.{by}", monitor=monitor))
    return dict(name="a", runs=str(tmp_path / "runs"), data=dict(_target_=f"{HERE}.{data}"),
                model=node, trainer=dict(max_epochs=2, num_sanity_val_steps=sanity),
                callbacks=dict(progress=None, checkpoint=checkpoint, **callbacks), **more)


WATCHERS = ["checkpoint", "EarlyStopping", "ModelCheckpoint", "plateau"]


@pytest.mark.parametrize("by", WATCHERS)
@pytest.mark.parametrize("model, monitor, data, sanity, batches", [
    ("Model", "val_los", "Data", 0, (4, 1)),       # the first batch of the first validation
    ("Model", "val_los", "Data", 2, (0, 2)),       # the sanity check
    ("Model", "val/los", "Data", 2, (0, 2)),
    ("Model", "bleu", "Data", 2, (4, 3)),          # the training might log it
    ("Model", "val_loss", "EmptyVal", 0, (1, 0)),  # the first batch
    ("Model", "val_loss", "NoVal", 0, (1, 0)),
    ("Model", "train_los", "NoVal", 0, (1, 0)),
    ("Model", "val_los", "TwoVal", 0, (4, 7)),     # all loaders
    ("Ends", "val_ent", "Data", 0, (4, 5)),        # the end of the validation
    ("Ends", "val_ent", "Data", 1, (0, 1)),
    ("Sometimes", "val_lust", "Data", 0, (4, 1)),
    ("Mine", "val/los", "Data", 0, (4, 5)),
    ("Mine", "val/los", "Data", 2, (0, 2)),
])
def test_what_nothing_logs_is_found_early(tmp_path, capsys, by, model, monitor, data, sanity,
                                          batches):
    with pytest.raises(TrainingFailed) as failed:
        train(config(tmp_path, model, by, monitor, data, sanity))
    error = failed.value.__cause__
    assert isinstance(error, UserError), error
    assert f"nothing logs the monitored metric '{monitor}'" in str(error)
    assert "\n" not in str(error) and "set " in str(error)
    assert (Seen.train, Seen.val) == batches


def test_a_scheduler_that_the_model_makes_itself(tmp_path):
    with pytest.raises(TrainingFailed) as failed:
        train(config(tmp_path, "Literal", "plateau", "", "Data", 0))
    assert "ReduceLROnPlateau: nothing logs the monitored metric 'val_los'; did you mean " \
        "'val_loss'?" in str(failed.value.__cause__)
    assert (Seen.train, Seen.val) == (4, 1)


@pytest.mark.parametrize("by", WATCHERS)
@pytest.mark.parametrize("model, monitor, data, sanity", [
    ("Model", "val_loss", "Data", 0), ("Model", "val_loss", "Data", 2),
    ("Model", "train_loss", "Data", 2), ("Model", "train_loss", "NoVal", 0),
    ("Model", "train_loss", "EmptyVal", 0), ("Model", "val_loss/dataloader_idx_1", "TwoVal", 2),
    ("Ends", "val_end", "Data", 0), ("EndsAll", "all_end", "Data", 2),
    ("EndsAll", "all_end", "NoVal", 0), ("Sometimes", "val_last", "Data", 2),
    ("Model", "val/loss", "Data", 0), ("Model", "val/loss", "Data", 2),  # the same metric
    ("Model", "train/loss", "NoVal", 0), ("Mine", "val/loss", "Data", 2),
    ("Mine", "val_loss", "Data", 0), ("Mine", "train/loss", "NoVal", 0),
])
def test_what_is_logged_is_found(tmp_path, by, model, monitor, data, sanity):
    assert train(config(tmp_path, model, by, monitor, data, sanity)).status == "done"


def test_a_callback_of_ones_own_may_log_it(tmp_path):
    cfg = config(tmp_path, "Model", "EarlyStopping", "val_said", "Data", 2)
    cfg["callbacks"]["says"] = dict(_target_=f"{HERE}.Logs")
    assert train(cfg).status == "done"


def test_validation_every_second_epoch(tmp_path):
    cfg = config(tmp_path, "Model", "checkpoint", "val_loss", "Data", 0)
    cfg["trainer"]["check_val_every_n_epoch"] = 2
    assert train(cfg).status == "done"


class Stops(pl.Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (2, 1): raise RuntimeError("a power cut")


def test_early_stopping_keeps_its_count_when_its_metric_has_another_name(tmp_path, monkeypatch):
    cfg = config(tmp_path, "Model", "EarlyStopping", "val/loss", "Data", 0)
    cfg["trainer"]["max_epochs"] = 4
    cfg["callbacks"] |= dict(stops=dict(_target_=f"{HERE}.Stops"))
    whole = dict(cfg, callbacks={k: v for k, v in cfg["callbacks"].items() if k != "stops"})
    whole = train(whole)
    with pytest.raises(TrainingFailed) as failed: train(cfg)
    monkeypatch.delattr(Stops, "on_train_batch_end")
    run = resume(failed.value.run)
    def states(run: Run): return torch.load(run.checkpoint("last"), weights_only=True)["callbacks"]
    stopping, = [k for k in states(run) if k.startswith("EarlyStopping")]
    assert states(run)[stopping] == states(whole)[stopping]
    assert states(run)[stopping]["best_score"] < float("inf")


class Silent(Model):
    def training_step(self, batch, batch_idx): return self.loss(batch)
    def validation_step(self, batch, batch_idx): pass


@pytest.mark.parametrize("model, data", [
    ("Silent", "Data"), ("Silent", "NoVal"), ("Silent", "EmptyVal"), ("Model", "NoVal"),
    ("Model", "EmptyVal")])
def test_the_default_monitor_is_no_demand_where_validation_says_nothing(
        model, data, tmp_path, capfd):
    run = train(dict(
        data={"_target_": f"{HERE}.{data}"}, model={"_target_": f"{HERE}.{model}"},
        trainer=dict(max_epochs=2, accelerator="cpu"), runs=str(tmp_path)))
    line = "the last epoch counts as the best"
    assert capfd.readouterr().err.count(line) == 1
    assert run.info["best"]["epoch"] == 1 and run.info["best"]["monitor"] is None
    again = resume(run.dir, "trainer.max_epochs=3")
    assert again.info["best"]["epoch"] == 2 and line not in capfd.readouterr().err
