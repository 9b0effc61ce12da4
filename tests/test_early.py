"""A config that is wrong is told so before torch is imported, in a shell and in a cell.

Signatures come from source then (see parts/outline), and what they say must be what the real
classes would have said: test_target compares the signatures, and here whole reports are compared.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import test_mistakes as mistakes
from fixtures import ALL
from test_mistakes import project  # noqa: F401, a fixture: the corpus looks at its classes

ROOT = Path(__file__).resolve().parents[1]

# Each in a fork of a process that has imported only the command.
FORKS = """
import json, os, sys
from mlkit.cli import mlkit_train
from mlkit.train import train
if "real" in sys.argv: import torch, pytorch_lightning
def in_cell(args):
    try: train(*args)
    except ValueError as e: print(e)
found = []
for folder, f, args, env in json.load(sys.stdin):
    out, into = os.pipe()
    child = os.fork()
    if not child:
        os.chdir(folder)
        os.environ.update(env)
        sys.stdout = sys.stderr = open(into, "w", buffering=1)
        code = mlkit_train(args) if f == "shell" else in_cell(args)
        heavy = [o for o in ("torch", "pytorch_lightning", "numpy", "pandas") if o in sys.modules]
        print(json.dumps([code, heavy]))
        os._exit(0)
    os.close(into)
    *lines, last = open(out).read().splitlines()
    os.waitpid(child, 0)
    found.append([lines, *json.loads(last)])
json.dump(found, sys.stdout)
"""


def in_forks(*cases, real: bool = False) -> list:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKS, *["real"] * real],
                          input=json.dumps(cases), capture_output=True, text=True, timeout=3000,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


EARLY = {  # arguments -> the beginning of what is told
    "configs/missing.yaml": "configs/missing.yaml: no such config file",
    "configs/mnist.yaml trainer.max_epoch=1":
        "command line: trainer.max_epoch=1: pytorch_lightning.Trainer has no argument 'max_epoch'",
    "configs/mnist.yaml -m trainer.max_epoch=1,2":
        "command line: trainer.max_epoch=1: pytorch_lightning.Trainer has no argument 'max_epoch'",
    "configs/mnist.yaml model.net.chanels=1":
        "command line: model.net.chanels=1: mlkit.model.nets.ConvNet has no argument 'chanels'",
    "configs/mnist.yaml optimizer.lrate=1":
        "command line: optimizer.lrate=1: torch.optim.AdamW has no argument 'lrate'",
    "configs/mnist.yaml trainer.max_epochs=many":
        "command line: trainer.max_epochs=many: pytorch_lightning.Trainer wants int or null",
    "configs/mnist.yaml +model.loss.weight=3":
        "command line: +model.loss.weight=3: torch.nn.CrossEntropyLoss wants torch.Tensor or null",
    "configs/mnist.yaml optimizer=adamm": "command line: optimizer=adamm: ",
    "configs/mnist.yaml sede=1": "command line: sede=1: there is no key 'sede'",
    "configs/mnist.yaml callbacks.checkpoint.monitor=val/accu":
        "command line: callbacks.checkpoint.monitor=val/accu: nothing logs 'val/accu'",
    "configs/mnist.yaml model.net._target_=mlkit.model.nets.ConvNett":
        "command line: model.net._target_=mlkit.model.nets.ConvNett: mlkit.model.nets has no "
        "'ConvNett'; did you mean 'ConvNet'?",
    "configs/mnist.yaml model.net._target_=mlkit.model.nett.ConvNet":
        "command line: model.net._target_=mlkit.model.nett.ConvNet: mlkit.model has no 'nett'; did "
        "you mean 'nets'?",
    "configs/mnist.yaml optimizer._target_=torch.optim.Adamm":
        "command line: optimizer._target_=torch.optim.Adamm: torch.optim has no 'Adamm'; did you "
        "mean 'Adam'?",
    "configs/mnist.yaml model.net=null": "command line: model.net=null: mlkit.model.lit.LitModel",
    "configs/three_or_not.yaml --check data.batchsize=1": "command line: data.batchsize=1: ",
}


def test_it_is_told_before_torch_is_imported():
    found = in_forks(*([str(ROOT), "shell", o.split(), {}] for o in EARLY))
    for (args, says), (lines, code, heavy) in zip(EARLY.items(), found):
        assert lines and lines[0].startswith(says), (args, lines)
        assert (code, heavy) == (2, []), (args, code, heavy)


def test_in_a_cell_too():
    cases = [["configs/mnist.yaml", "trainer.max_epoch=1"], ["configs/missing.yaml"],
             [{"trainer": {"max_epoch": 1}}]]
    found = in_forks(*([str(ROOT), "cell", o, {}] for o in cases))
    assert all(lines and not heavy for lines, _, heavy in found), found
    assert "has no argument 'max_epoch'" in str(found[0]) and "no such config" in str(found[1])


ALL_OF_IT = """
defaults: [data: mnist, model: classifier, optimizer: "${nope}", scheduler: nonesuch]
model: {net: {_target_: mlkit.model.nets.MLP, in_shape: 784, num_clases: 10}}
optimizer: {lr: 3, width: "${data.size}"}
trainer: {max_epoch: 3}
width: 3
sede: 3
"""


def test_an_option_that_cannot_be_read_hides_nothing_else(tmp_path):
    "And what may be its consequence is not told: what is missing, or read by nobody."
    mistakes.write(tmp_path, {"pyproject.toml": "", "all.yaml": ALL_OF_IT})
    (lines, code, heavy), = in_forks([str(tmp_path), "shell", ["all.yaml", "optimizer.x=1"], {}])
    at = ["2:44: optimizer", "2:66: scheduler", "3:62: model.net.num_clases",
          "5:11: trainer.max_epoch", "7:1: sede"]
    assert [o.split(": ")[:2] for o in lines] == [f"all.yaml:{o}".split(": ") for o in at], lines
    assert (code, heavy) == (2, [])


# -- modules of the project's own

NETS = """
import logging
import torch
from torch import nn
from mlkit.model.lit import LitModel
from .base import Base, WIDTH
log = logging.getLogger(__name__)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
class Net(Base):
    def __init__(self, width: int = 8, act: nn.Module = nn.ReLU(), size: str = WIDTH):
        super().__init__(width)
class Model(LitModel):
    pass
class Other(LitModel):
    step = print
def make(width: int = 8) -> nn.Module: return Net(width)
if __name__ == "__main__": print(Net())
"""
BASE = """
import torch.nn as nn
WIDTH = 8
class Base(nn.Module):
    def __init__(self, width: int): super().__init__()
"""
OWN_CONFIG = """
defaults: [data: mnist, model: classifier]
model: {_target_: ours.nets.Model, net: {_target_: ours.nets.Net}}
"""
OWN = {  # override -> what is told; None: nothing, after all was imported
    "model.net.widht=9": "ours.nets.Net has no argument 'widht'; did you mean 'width'?",
    "model.net.width=x": "ours.nets.Net wants int, got 'x'",
    "model.net._target_=ours.nets.Nett": "ours.nets has no 'Nett'; did you mean 'Net'?",
    "model.net._target_=ours.netz.Net": "ours has no 'netz'; did you mean 'Net'?",
    "model.net._target_=ours.nets.__name__": "a target may not lead through __name__",
    "model.net={_target_:ours.nets.make,widht:9}":
        "ours.nets.make has no argument 'widht'; did you mean 'width'?",
    "callbacks.checkpoint.monitor=val/accu": "nothing logs 'val/accu' during the fit",
    "sede=3": "there is no key 'sede'; did you mean 'seed'?",
    "optimizer=adamm": "command line: optimizer=adamm: group 'optimizer' has no option 'adamm'",
    "model.los=3": "ours.nets.Model has no argument 'los'; did you mean 'loss'?",
    "model.net.size=8": None, "model._target_=ours.nets.Other": None, "model.net.act=null": "wants"}


def own_project(folder: Path, nets: str = NETS, base: str = BASE) -> Path:
    ours = {"ours/__init__.py": "from .nets import *\n", "ours/nets.py": nets}
    files = {"pyproject.toml": "", "own.yaml": OWN_CONFIG, **ours, "ours/base.py": base,
             "configs/optimizer/mine.yaml": "_target_: torch.optim.Adam\n_partial_: true\n"}
    return mistakes.write(folder, files)


@pytest.mark.slow
def test_modules_of_the_project(tmp_path):
    own_project(tmp_path)
    cases = [[str(tmp_path), "shell", ["own.yaml", o, "--check"], {}] for o in OWN]
    early, real = in_forks(*cases), in_forks(*cases, real=True)
    for (arg, says), (lines, code, heavy), as_real in zip(OWN.items(), early, real):
        assert [lines, code] == as_real[:2], arg
        assert says in lines[0] if says else code == 0, (arg, lines)
        if says not in (None, "wants"): assert not heavy, (arg, heavy)


LEFT_TO_IT = {  # what importing might change
    "fails": (NETS + "1 / 0\n", BASE), "in base": (NETS, BASE + "raise ValueError\n"),
    "no module": ("import nowhere\n" + NETS, BASE), "cut": (NETS + "def f(:\n", BASE),
    "no name": (NETS.replace("import Base,", "import Bass,"), BASE),
    "patched": (NETS + "Net.__init__ = lambda self, widht=1: Base.__init__(self, 1)\n", BASE),
    "wrapped": (NETS + "def wrap(c): return make\nNet = wrap(Net)\n", BASE),
    "decorated": (NETS.replace("class Net", "@str\nclass Net"), BASE),
    "another": (NETS, BASE + "import sys, ours\nsys.widht = setattr(ours, 'x', 1)\n"),
    "conditional": (NETS + "if DEVICE: Net = make\n", BASE),
    "library": (NETS.replace("nn.Module = nn.ReLU()", "'np.ndarray'").replace(
        "import torch\n", "import torch\nimport numpy as np\n"), BASE)}
ALONE = """
import json, sys
from pathlib import Path
from unittest.mock import patch
import mlkit.parts.outline as room
for folder in json.loads(sys.argv[1]):
    room.forget_project()
    kept = [*sys.path]
    with patch.object(room, "locate", lambda *_: "left"):
        print(folder, room.outline("ours.nets.Net", Path(folder), early=True))
    sys.path[:] = kept
print("torch" in sys.modules)
"""


def test_what_importing_might_change_is_left_to_it(tmp_path):
    folders = [str(own_project(tmp_path / o, *texts)) for o, texts in LEFT_TO_IT.items()]
    plain = str(own_project(tmp_path / "plain"))
    done = subprocess.run([sys.executable, "-c", ALONE, json.dumps([*folders, plain])], text=True,
                          capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    told = [f"{plain} <class 'ours.nets.Net'>", "False"]
    assert done.stdout.splitlines() == [*(f"{o} left" for o in folders), *told], done


def test_a_file_that_has_changed_is_read_anew(tmp_path):
    own_project(tmp_path)
    code = """
from pathlib import Path
from mlkit.train import train
for text in ("width", "widht"):
    file = Path("ours/nets.py")
    file.write_text(file.read_text().replace("width", text))
    try: train("own.yaml", "model.net.depth=9")
    except ValueError as e: print(e)
    try: train("own.yaml", "model.net.widht=9", "model.net.x=9")
    except ValueError as e: print(e)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    says = done.stdout
    assert says.count("no argument 'depth'") == 2 and says.count("'widht';") == 1, done


@pytest.mark.slow
def test_the_verdict_is_that_of_the_real_classes(tmp_path, project, figure):  # noqa: F811
    cases = []
    for kind, f in mistakes.KINDS.items():
        found = mistakes.corpus(f)
        for i, m in enumerate(found[::max(1, len(found) // (30 if ALL else 2))]):
            folder = mistakes.write(tmp_path / kind / str(i), {**mistakes.CODE, **m.files()})
            cases.append([str(folder), "shell", [m.config, *m.args, "--check"], m.env])
    assert len(cases) > 25
    early, real = in_forks(*cases), in_forks(*cases, real=True)
    different = [(c, a, b) for c, a, b in zip(cases, early, real) if a[:2] != b[:2]]
    assert not different, different
    quick = sum(not heavy for *_, heavy in early)
    figure(f"told before torch is imported: {quick} / {len(cases)} mistakes")
    assert quick > len(cases) * 0.6  # not those whose own modules use pydantic
