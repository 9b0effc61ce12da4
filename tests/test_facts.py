"""What only the data can tell: `${data.num_classes}` of a stranger's datamodule and of pictures."""
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mlkit.all import check, load_run, resume, train
from mlkit.base.errors import UserError
from mlkit.config.node import about
from mlkit.fit.live import with_objects
from mlkit.run.folder import list_runs
from shell import command

MINE = """
import torch, pytorch_lightning as pl
from torch.utils.data import DataLoader, TensorDataset

class Drawn(pl.LightningDataModule):
    "It draws from the global generator, and keeps what it has drawn, as many do."
    def __init__(self, batch_size=8):
        super().__init__()
        self.batch_size, self.ds = batch_size, None

    def setup(self, stage=None):
        if self.ds is not None: return
        x, y = torch.randn(60, 5), torch.randint(0, 4, (60,))
        self.ds, self.n_features, self.counts = TensorDataset(x, y), x.shape[1], y.bincount()
        self.num_classes, self.nothing, self.odd = len(self.counts), None, object()

    def train_dataloader(self): return DataLoader(self.ds, self.batch_size, shuffle=True)
    def val_dataloader(self): return DataLoader(self.ds, self.batch_size)
"""
CONFIG = """
defaults: [{model: classifier}, {optimizer: adam}]
data: {_target_: mine.Drawn}
extra: {n: "${data.num_classes}"}
model:
  net:
    _target_: mlkit.model.nets.MLP
    in_shape: "${data.n_features}"
    num_classes: "${extra.n}"
    hidden: [8]
    dropout: 0.5
trainer: {max_epochs: 2, accelerator: cpu}
"""
PICTURES = """
defaults: [{data: image_folder}, {model: classifier}]
data: {root: pics, size: [8, 8]}
model:
  net:
    _target_: mlkit.model.nets.ConvNet
    in_channels: "${data.in_shape[0]}"
    num_classes: "${data.num_classes}"
    widths: [4]
  loss: {_target_: torch.nn.CrossEntropyLoss, weight: "${data.class_weights}"}
trainer: {max_epochs: 1, accelerator: cpu}
"""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "a.yaml").write_text(CONFIG)
    (tmp_path / "b.yaml").write_text(PICTURES)
    rng = np.random.default_rng(0)
    for name, n in dict(cat=30, dog=60, owl=10).items():
        (tmp_path / "pics" / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 255, (9, 7, 3), dtype="uint8")
            Image.fromarray(pixels).save(tmp_path / "pics" / name / f"{i}.png")
    return tmp_path


def same(a, b) -> bool:
    ours, others = a.model.state_dict(), b.model.state_dict()
    return list(ours) == list(others) and all(torch.equal(ours[k], others[k]) for k in ours)


def test_a_run_has_what_its_data_told(place):
    run = train("a.yaml")
    assert (run.cfg.data.n_features, run.cfg.data.num_classes) == (5, 4)
    said = train("a.yaml", "extra.n=4", "model.net.in_shape=5")  # without any question to the data
    assert same(run, said) and run.history.equals(said.history)
    shutil.copy(run.config_file, "again.yaml")
    assert same(run, train("again.yaml")) and same(run, load_run(run))
    longer = resume(run, "trainer.max_epochs=3")
    assert longer.cfg.data.num_classes == 4 and len(longer.history) == 3


def test_it_is_reused_and_goes_on_behind(place):
    first = train("a.yaml", background=True)
    first.watch()
    assert first.cfg.data.num_classes == 4
    assert train("a.yaml", reuse=True).id == first.id


def test_pictures_tell_classes_channels_and_weights(place):
    run = train("b.yaml")
    assert [*run.cfg.data.in_shape] == [3, 8, 8] and run.cfg.data.num_classes == 3
    counts = run.datamodule.targets[run.datamodule.rows["train"]].bincount()
    torch.testing.assert_close(run.model.loss.weight * counts, torch.full((3,), counts.sum() / 3))
    shutil.copytree("pics/dog", "pics/fox")
    with pytest.raises(UserError, match="num_classes=3 is expected, the data has 4"):
        train(str(run.config_file))


def test_a_live_datamodule_tells_them(place):
    from mine import Drawn
    data = Drawn(batch_size=4)
    run = train("a.yaml", data=data)
    assert run.model.net.head.out_features == 4 and run.datamodule.batch_size == 4
    assert about(with_objects("a.yaml", data=data)).live


@pytest.mark.parametrize("override, says", [
    ("extra.n=${data.num_clases}", "Drawn does not tell it; did you mean 'num_classes'"),
    ("extra.n=${data.setup}", "has no key 'setup'"),
    ("data._target_=mine.Drown", "mine has no 'Drown'; did you mean 'Drawn'"),
])
def test_what_no_datamodule_tells_is_a_mistake(place, override, says):
    with pytest.raises(UserError, match=says): check("a.yaml", override)


@pytest.mark.parametrize("name, says", [("nothing", "Drawn does not tell it, once its data were"),
                                        ("odd", "Drawn.odd is a object")])
def test_what_it_does_not_tell_is_said_before_a_run_is_there(place, name, says):
    with pytest.raises(UserError, match=says): train("a.yaml", f"extra.n=${{data.{name}}}")
    assert not (place / "runs").exists()


def test_null_may_be_meant(place):
    (place / "mine.py").write_text(MINE.replace("batch_size=8", "batch_size=8, norm='x'"))
    run = train("a.yaml", "+data.norm=null", "+model.net.norm=${data.norm}")
    assert not any(isinstance(o, torch.nn.BatchNorm1d) for o in run.model.modules())


def test_workers_are_told_too(place):
    command("mlkit_train", "a.yaml", "-m", "seed=1,2", "workers=2", cwd=place, code=0)
    one, two = list_runs(place / "runs")
    assert {one.status, two.status} == {"done"} and one.cfg.data.num_classes == 4


@pytest.mark.slow
@pytest.mark.parametrize("starter", [["mlkit_train"], ["torchrun", "--nproc-per-node", "2"]])
def test_two_processes_are_told_alike(place, starter):
    script = [shutil.which("mlkit_train")] if len(starter) > 1 else ["trainer.devices=2"]
    words = ["a.yaml", "trainer.strategy=ddp", "trainer.accelerator=cpu"]
    args = [*script, *words] if len(starter) > 1 else [*words, *script]
    command(starter[0], *starter[1:], *args, cwd=place, code=0, fresh=True)
    run, = list_runs(place / "runs")
    assert run.status == "done" and run.cfg.data.num_classes == 4
