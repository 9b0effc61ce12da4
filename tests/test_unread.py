"""Keys of the optimizer and the scheduler that the user set and that no part of a run reads."""
import sys
from pathlib import Path

import pytest
import yaml

from mlkit.cli import mlkit_train
from mlkit.parts.check import check, find_problems
from mlkit.train import train
from mlkit.use import evaluate

CODE = '''
import pytorch_lightning as pl
import torch
from torch.nn import functional as F
from mlkit.model.lit import LitModel

class Own(pl.LightningModule):
    def __init__(self, lr: float = 0.1, betas=(0.9, 0.99), make=None):
        super().__init__()
        self.lr, self.net = lr, torch.nn.Linear(784, 10)
    def training_step(self, batch, i):
        return F.cross_entropy(self.net(batch[0].flatten(1)), batch[1])
    def validation_step(self, batch, i): self.log("val_loss", self.training_step(batch, i))
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), self.lr)

class Blind(LitModel):
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 0.1)

class Half(LitModel):
    "Reads the optimizer, and no scheduler."
    def configure_optimizers(self): return self.optimizer(self.parameters())

class Asks(LitModel):
    def configure_optimizers(self): return super().configure_optimizers()

def made(model): return model.optimizer(model.parameters())

class Helped(LitModel):
    def configure_optimizers(self): return self.both()
    def both(self): return made(self), getattr(self, "scheduler", None)

class Steps(LitModel):
    def predict_step(self, batch, i=0, j=0): return 1
'''
STEP = "{_target_: torch.optim.lr_scheduler.StepLR, _partial_: true, step_size: 1}"
# the model, what the file says besides, overrides -> the beginnings of the lines
CASES = [
    ("Own", "", "", ""),
    ("Own", "", "optimizer.lr=0.1", "command line: optimizer.lr=0.1: "),
    ("Own", "", "optimizer=sgd", "command line: optimizer=sgd: "),
    ("Own", "", "scheduler=cosine", "command line: scheduler=cosine: "),
    ("Own", "", "+optimizer.maximize=true", "command line: +optimizer.maximize=true: "),
    ("Own", "", "optimizer=null scheduler=null", ""),
    ("Own", "optimizer: {lr: 0.1, weight_decay: 0}", "", "main.yaml:4:13: optimizer.lr: warning: "),
    ("Own", f"scheduler: {STEP}", "", "main.yaml:4:13: scheduler._target_: warning: "),
    ("Own", "# optimizer: sgd", "", "main.yaml:1:25: optimizer: warning: "),
    ("Own", "extra: {rate: '${optimizer.lr}'}", "optimizer.lr=0.1", ""),
    ("Own", "extra: {rate: '${optimizer.lr}'}", "optimizer.weight_decay=0.1",
     "command line: optimizer.weight_decay=0.1: "),
    ("Own", "extra: {rate: '${oc.select:optimizer.lr}'}", "optimizer.weight_decay=0.1", ""),
    ("Own", "extra: {key: lr, rate: '${optimizer.${extra.key}}'}", "optimizer.lr=0.1", ""),
    ("Own", "extra: {key: lr, rate: '${optimizer.${extra.key}}'}", "optimizer.eps=0.1",
     "command line: optimizer.eps=0.1: "),
    ("Own", "extra: {rate: '${optimizer.${oc.env:NONE_SUCH,lr}}'}", "optimizer.lr=0.1", ""),
    ("Own", "extra: {all: '${optimizer}'}", "optimizer.weight_decay=0.1", ""),
    ("Own", "model: {lr: '${optimizer.lr}'}", "optimizer.lr=0.1", ""),
    ("Own", "model: {make: '${..optimizer}'}", "optimizer.lr=0.1", ""),
    ("Own", "scheduler: {a: '${optimizer.lr}'}", "optimizer.lr=0.1",
     "command line: optimizer.lr=0.1: "),
    ("Own", "data: {batch_size: 32}", "data.val_size=0.1 trainer.max_epochs=1 tags=[a]", ""),
    ("Blind", "", "optimizer.lr=0.1", "command line: optimizer.lr=0.1: "),
    ("Blind", "optimizer: {lr: 0.1}", "", "main.yaml:4:13: optimizer.lr: warning: "),
    ("Half", "", "optimizer.lr=0.1", ""),
    ("Half", "", "scheduler=cosine", "command line: scheduler=cosine: "),
    ("Asks", "", "optimizer.lr=0.1 scheduler=cosine", ""),
    ("Helped", "", "optimizer.lr=0.1 scheduler=cosine", ""),
    ("Steps", "", "optimizer=sgd scheduler=cosine scheduler.interval=epoch", ""),
    ("Steps", "", "scheduler=cosine +scheduler.intervall=step",
     "command line: +scheduler.intervall=step: "),
    ("Steps", f"scheduler: {{scheduler: {STEP}, freqency: 2}}", "",
     "main.yaml:4:100: scheduler.freqency: warning: "),
]


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "unread_models.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("unread_models", None)


def write(model: str, more: str = "") -> Path:
    groups = ["data: mnist", *(["model: classifier"] if model != "Own" else []),
              *([more[2:]] if more.startswith("# ") else [])]
    net = "" if model == "Own" else ", net: {_target_: torch.nn.Identity}"
    text = yaml.safe_load(f"{{{more}}}") if more and more[0] != "#" else {}
    own = "".join(f", {k}: '{v}'" for k, v in (text.pop("model", None) or {}).items())
    node = f"{{_target_: unread_models.{model}{net}{own}}}"
    text = f"defaults: [{', '.join(groups)}]\nmodel:\n  {node}\n"
    if more and more[0] != "#" and not more.startswith("model:"): text += more + "\n"
    Path("main.yaml").write_text(text)
    return Path("main.yaml")


@pytest.mark.parametrize("model, more, overrides, lines", CASES)
def test_what_is_not_read(model, more, overrides, lines, capsys):
    config, said = write(model, more), [o for o in lines.split("|") if o]
    code = mlkit_train([str(config), *overrides.split(), "--check"])
    found = capsys.readouterr().err.splitlines()
    assert [any(o.startswith(s) for o in found) for s in said] == [True] * len(said), found
    assert len(found) == len(said), found
    assert code == (2 if "command line" in lines else 0)
    assert all("reads" in o for o in found)


def test_a_search_over_what_is_not_read_is_refused(capsys):
    assert mlkit_train([str(write("Own")), "-m", "optimizer.lr=0.1,0.9"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert not Path("runs").exists()


def test_a_runs_own_config_is_not_blamed(capsys):
    write("Own", "optimizer: {lr: 0.1}")
    run = train("main.yaml", "trainer.limit_train_batches=2", "trainer.max_epochs=1",
                "trainer.limit_val_batches=1", "trainer.accelerator=cpu",
                "callbacks.checkpoint.monitor=val_loss")
    assert "main.yaml:4:13: optimizer.lr: warning: " in capsys.readouterr().err
    assert not find_problems(check(run.config_file))
    evaluate(run, stage="val")
    assert "warning:" not in capsys.readouterr().err
