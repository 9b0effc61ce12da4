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
                          input=json.dumps(cases), capture_output=True, text=True, timeout=300,
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


@pytest.mark.slow
def test_the_verdict_is_that_of_the_real_classes(tmp_path, project):  # noqa: F811
    cases = []
    for kind, f in mistakes.KINDS.items():
        plain = [m for m in mistakes.corpus(f) if "ours" not in str((m.files(), m.args))]
        for i, m in enumerate(plain[::max(1, len(plain) // 3)]):
            folder = mistakes.write(tmp_path / kind / str(i), {"pyproject.toml": "", **m.files()})
            cases.append([str(folder), "shell", [m.config, *m.args, "--check"], m.env])
    assert len(cases) > 30
    early, real = in_forks(*cases), in_forks(*cases, real=True)
    different = [(c, a, b) for c, a, b in zip(cases, early, real) if a[:2] != b[:2]]
    assert not different, different
    assert sum(not heavy for *_, heavy in early) > len(cases) * 0.8
