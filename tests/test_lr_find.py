"The learning rate range test: what it suggests, and that nothing else notices it."
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from mlkit.base.errors import TrainingFailed
from mlkit.config.node import ConfigError
from mlkit.many.lr_find import _lowest, lr_find
from mlkit.train import train

MNIST = str(Path(__file__).parents[1] / "configs" / "mnist.yaml")
SHORT = ["trainer.max_epochs=2", "trainer.limit_train_batches=6", "trainer.limit_val_batches=2",
         "trainer.limit_test_batches=2",
         "callbacks.progress=null", "model.net.widths=[4, 4]", "trainer.accelerator=cpu"]
MLP = {"defaults": [{"data": "mnist"}, {"model": "classifier"}], "name": "mlp",
       "trainer": {"accelerator": "cpu"},
       "model": {"net": {"_target_": "mlkit.model.nets.MLP", "in_shape": [1, 28, 28],
                         "num_classes": 10, "hidden": [64]}}}


class Own(pl.LightningModule):
    """A model without mlkit: it has its loss, its optimizer and a scheduler; and what can be wrong
    with one."""
    seen: list[tuple[float, float, float]] = []  # of each batch: learning rate, loss

    def __init__(self, optimizers: int = 1, automatic: bool = True, target: str = "y"):
        super().__init__()
        self.net, self.optimizers_wanted, self.target = nn.Linear(784, 10), optimizers, target
        self.automatic_optimization = automatic
        self.save_hyperparameters()
        Own.seen = []

    def training_step(self, batch, index):
        x, y = batch
        if not self.automatic_optimization: return None
        loss = nn.functional.cross_entropy(self.net(x.flatten(1)), y)
        if self.target == "noise": loss = 2.3 + 0.05 * torch.randn(()) + 0 * loss
        if self.target == "nan": loss = loss / 0 * 0
        Own.seen.append((self.trainer.optimizers[0].param_groups[0]["lr"], loss.item()))
        return loss

    def validation_step(self, batch, index): raise AssertionError("nobody validates here")

    def configure_optimizers(self):
        made = [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(self.optimizers_wanted)]
        return made, [torch.optim.lr_scheduler.StepLR(o, 1, 0.5) for o in made]


def own(**kwargs) -> dict:
    return {"defaults": [{"data": "mnist"}], "name": "own",
            "model": {"_target_": f"{__name__}.Own", **kwargs}, "trainer": {"accelerator": "cpu"}}


def find(cfg, *overrides, **kwargs): return lr_find(cfg, *overrides, trust=[__name__], **kwargs)


@pytest.fixture
def empty(tmp_path, monkeypatch):
    "A current folder, a home of runs and one of temporary files, all empty; and so they must stay."
    for name in ("here", "runs", "tmp"): (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("MLKIT_runs", str(tmp_path / "runs"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    yield
    assert [p for p in tmp_path.rglob("*") if p.parent != tmp_path] == []


def test_training_is_the_same_afterwards(tmp_path):
    def run(name): return train(MNIST, *SHORT, f"runs={tmp_path / name}")
    before = run("before")
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert len(lr_find(MNIST, *SHORT, steps=30).table) == 30
    assert (states[:2] == (random.getstate(), np.random.get_state()[1].tolist())
            and torch.equal(states[2], torch.get_rng_state()))
    after = run("after")
    assert ((before.dir / "metrics.csv").read_bytes() == (after.dir / "metrics.csv").read_bytes()
            and before.metrics == after.metrics)
    a, b = (torch.load(o.checkpoint("last"), weights_only=True)["state_dict"]
            for o in (before, after))
    assert a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def test_nothing_is_left_and_nothing_interferes(empty, capsys):
    plain = lr_find(MNIST, *SHORT, "scheduler=null", "callbacks={}", steps=30)
    assert "".join(capsys.readouterr()) == ""
    full = lr_find(MNIST, *[o for o in SHORT if "progress" not in o], "logger=[tensorboard,csv]",
                   "scheduler=one_cycle", "callbacks=early_stopping", "debug=profile", steps=30)
    assert plain.table.equals(full.table)
    said = capsys.readouterr()  # a bar, and nothing else
    assert {o.split(":")[0] for o in said.err.split("\r") if o.strip()} == {"lr_find"}
    assert said.out == ""


def test_a_model_of_ones_own(empty):
    found = find(own(), steps=50, max_lr=10.0)
    assert found.table.lr.tolist() == pytest.approx(np.geomspace(1e-6, 10, 50)[:len(found.table)])
    # of all batches, in spite of the scheduler
    assert found.table.values.tolist() == [list(o) for o in Own.seen]
    assert 1e-3 < found.lr < 1
    with pytest.raises(TrainingFailed, match="nobody validates"):
        train(own(), "callbacks.progress=null", "runs=null", "trainer.max_epochs=1",
              trust=[__name__])


def test_gradients_that_are_accumulated():
    found = find(own(), "+trainer.accumulate_grad_batches=2", steps=20)
    seen = np.array(Own.seen)
    assert len(found.table) == 20 and len(seen) == 40
    assert found.table.loss.to_numpy() == pytest.approx(seen[:, 1].reshape(20, 2).mean(1), rel=1e-6)
    assert found.table.lr.tolist() == seen[::2, 0].tolist() == seen[1::2, 0].tolist()


def test_it_is_over_when_the_loss_breaks_out():
    found = lr_find(MLP, "optimizer=sgd", "model.net.norm=null", max_lr=1e4, steps=60)
    assert (len(found.table) < 60 and found.table.loss.iloc[-1] > found.table.loss.iloc[0]
            and found.lr < 1)


@pytest.mark.parametrize("target,why,rows",
                         [("noise", "does not fall by more than its noise", 30),
                          ("nan", "a finite number for 0 steps", 1)])
def test_a_curve_that_allows_no_suggestion(target, why, rows):
    found = find(own(target=target), steps=30)
    assert found.lr is None and why in found.why and len(found.table) == rows
    assert (repr(found) == f"lr_find: no suggestion: {found.why}"
            and len(repr(found).splitlines()) == 1)
    found.plot()


def test_mistakes(empty):
    with pytest.raises(ValueError, match="of one optimizer, and this model has 2"):
        find(own(optimizers=2, automatic=False), steps=20)
    with pytest.raises(ValueError, match="Own.training_step gives no loss"):
        find(own(automatic=False), steps=20)
    with pytest.raises(ValueError, match="0 < min_lr < max_lr"):
        lr_find(MNIST, min_lr=1.0, max_lr=0.1)
    with pytest.raises(ValueError, match="too few"): lr_find(MNIST, steps=5)
    with pytest.raises(ConfigError, match="max_epoch"): lr_find(MNIST, "trainer.max_epoch=1")
    with pytest.raises(ConfigError, match="nowhere"):
        lr_find({**MLP, "data": {"root": "nowhere"}}, "data=image_folder")


def test_the_picture():
    found = lr_find(MLP, steps=40)
    (ax,) = found.plot().axes
    assert ax.get_xscale() == "log" and ax.get_xlabel() == "learning rate"
    dot = next(o for o in ax.lines if len(o.get_xdata()) == 1)
    assert dot.get_xdata()[0] == found.lr and dot.get_label() == f"suggestion: {found.lr:.2g}"
    low, high = ax.get_ylim()
    assert low < dot.get_ydata()[0] < high


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_suggestion_is_worth_something(tmp_path, optimizer):
    lr = lr_find(MLP, f"optimizer={optimizer}").lr
    def loss(factor):
        return train(MLP, f"optimizer={optimizer}", f"optimizer.lr={lr * factor}",
                     "trainer.max_epochs=1", "trainer.limit_train_batches=40",
                     "trainer.limit_val_batches=4", "trainer.limit_test_batches=1",
                     "callbacks.progress=null", f"runs={tmp_path}").metrics["val/loss"]
    assert loss(1) < min(loss(0.01), loss(100))


def test_noise_is_seldom_taken_for_a_fall():
    dice = np.random.default_rng(0)
    def falls(n, slope):
        try:
            return _lowest(2.3
                           + dice.normal(0, 0.1,
                                         n) - slope * np.r_[np.linspace(0, 1, n - n // 5),
                                                            np.linspace(1, 0, n // 5)], n) > 0
        except ValueError: return False
    for n in (30, 100, 300):
        assert sum(falls(n, 0) for _ in range(200)) <= 10
        assert sum(falls(n, 0.5) for _ in range(200)) >= 190
