"""A search and its workers: the same table with any number of them, whatever is killed, whoever goes
on with it, and what is said."""
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

import shell
from mlkit.many.search import find_search, grid, search
from mlkit.many.trials import Trials
from mlkit.run.folder import Run

ROOT = Path(__file__).parents[1]
PARTS = '''
import os, time
import pytorch_lightning as pl
from mlkit.data.mnist import MNIST

class Slow(pl.Callback):
    "Waits before each batch."
    def __init__(self, seconds: float = 0): self.seconds = seconds
    def on_train_batch_start(self, trainer, module, batch, index): time.sleep(self.seconds)

class Fail(pl.Callback):
    "Fails as long as a file is there."
    def __init__(self, file: str): self.file = file
    def on_train_batch_start(self, trainer, module, batch, index):
        if os.path.exists(self.file): raise RuntimeError("the file is there")
'''
CONFIG = f"""extends: {ROOT}/configs/mnist.yaml
trainer: {{max_epochs: 3, limit_train_batches: 4, limit_val_batches: 2, limit_test_batches: 2}}
model: {{net: {{widths: [4, 4], dropout: 0.2}}}}
callbacks: {{progress: null, slow: {{_target_: parts.Slow, seconds: 0}}}}
name: tiny
"""
POINTS = ["optimizer.lr=0.1,0.03,0.01", "seed=range(4)"]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    "The current folder: a project of its own, whose `tiny.yaml` trains a moment."
    (tmp_path / "settings.ini").write_text("[DEFAULT]\nlib_path = parts\n")
    (tmp_path / "parts.py").write_text(PARTS)
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MLKIT_TRUST", "parts")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path)]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def start(*args, **kwargs) -> subprocess.Popen:
    "A command in a process of its own, with what it prints."
    return subprocess.Popen([shell.SCRIPTS / "mlkit_train", *map(str, args)],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                            stderr=subprocess.STDOUT, **kwargs)


def results(found: Trials) -> dict:
    "All that a search has come to, without times and names of folders."
    table = pd.read_csv(found.folder / "table.csv").drop(columns=["seconds", "run"])
    return dict(table=table.to_csv(), runs={o.number: bits(o.run) for o in found.trials})


def bits(run: Run) -> tuple:
    files = [torch.load(run.checkpoint(o), weights_only=True) for o in ("last", "best")]
    weights = [[(k, v.numpy().tobytes()) for k, v in o["state_dict"].items()] for o in files]
    return run.status, (run.dir / "metrics.csv").read_bytes(), weights


def the_search(folder: Path) -> Trials:
    path, = folder.glob("runs/tiny/search-*")
    return find_search(path)


def once(found: Trials, n: int):
    "Each trial is done, by a run of its own."
    assert [o.status for o in found.trials] == ["done"] * n
    runs = [*found.folder.parent.glob("*/run.json")]
    assert len(runs) == n and {o.run.dir for o in found.trials} == {o.parent for o in runs}


# -- workers

def test_the_same_table_with_any_number_of_workers(project):
    one = grid("tiny.yaml", *POINTS[:1], "seed=1,2")
    three = grid("tiny.yaml", *POINTS[:1], "seed=1,2", "runs=more", workers=3)
    assert results(one) == results(three) and one.done and three.done
    once(three, 6)
    assert {o.worker for o in three.trials} <= {"1", "2", "3"}


# -- kills

def living(pid: int) -> bool:
    try: return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError: return False


def workers_of(folder: Path) -> dict[int, bool]:
    "Process -> does it train? Of the workers of a search that live."
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try: words = path.read_bytes().split(b"\0")
        except OSError: continue
        if b"mlkit.many.worker" in words and os.fsencode(str(folder)) in b" ".join(words):
            found[int(path.parent.name)] = False
    for path in folder.glob("runs/tiny/*/run.json"):
        info = json.loads(path.read_text())
        pid = (info.get("process") or {}).get("pid")
        if pid in found: found[pid] |= info["status"] == "running"
    return found


def survive(folder: Path, kills: int, seed: int, words: list[str]) -> tuple[Trials, list[str]]:
    "A search that is killed again and again, and gone on with until it is whole."
    draw, told = random.Random(seed), []
    command = start("tiny.yaml", *words, "workers=2", "-m")
    def again() -> subprocess.Popen:
        command.stdout.close()
        made = [*folder.glob("runs/tiny/search-*/search.json")]
        if not made: return start("tiny.yaml", *words, "workers=2", "-m")
        return start("--resume", made[0].parent)
    while len(told) < kills:
        end, what = time.time() + 60, draw.choice(["trains"] * 6 + ["any", "any", "command", "command"])
        while time.time() < end and command.poll() is None:
            processes = workers_of(folder)
            victims = {"command": [command.pid], "any": [*processes],
                       "trains": [k for k, v in processes.items() if v]}[what]
            if victims and processes: break
            time.sleep(0.05)
        if command.poll() is not None: break
        time.sleep(draw.uniform(0, 2.5))
        victims = [o for o in victims if living(o)]
        if not victims: continue
        os.kill(victim := draw.choice(victims), signal.SIGKILL)
        told.append(what)
        if victim == command.pid:
            command.wait()
            command = again()
    said, _ = command.communicate(timeout=300)
    assert command.returncode == 0, said
    end = time.time() + 30
    while workers_of(folder) and time.time() < end: time.sleep(0.1)
    assert not workers_of(folder)  # none is left behind
    return the_search(folder), told


def check_survival(folder: Path, words: list[str], n: int, kills: int, seed: int):
    found, told = survive(folder, kills, seed, words)
    assert len(told) == kills, told
    once(found, n)
    whole = grid("tiny.yaml", *words, "callbacks.slow.seconds=0", "runs=whole", workers=2)
    assert results(whole) == results(found)


def test_a_killed_worker_and_a_killed_command(project):
    check_survival(project, ["seed=1,2,3", "callbacks.slow.seconds=0.2"], 3, kills=3, seed=4)


@pytest.mark.slow
def test_twenty_kills(project):
    check_survival(project, [*POINTS, "callbacks.slow.seconds=0.3"], 12, kills=20, seed=1)
