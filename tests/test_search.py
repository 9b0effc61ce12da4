"""A search and its workers: the same table with any number of them, whatever is killed, whoever
goes on with it, and what is said."""
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

import shell
from mlkit.base.errors import NotFound, UserError
from mlkit.cli import mlkit_train
from mlkit.config.node import ConfigError
from mlkit.many.find import find_search
from mlkit.many.search import grid, search
from mlkit.many.trial import Trial
from mlkit.many.trials import Trials
from mlkit.run.folder import Run
from mlkit.train import resume, train

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

class Memory(pl.Callback):
    "Notes how many bytes of this process are in memory."
    def on_fit_end(self, trainer, module):
        pages = int(open("/proc/self/statm").read().split()[1])
        with open(f"memory-{os.getpid()}.txt", "a") as f: print(pages, file=f)
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


def works_at(pid: int, words: list[bytes], folder: Path) -> bool:
    "Is it a worker of a search there, or what forks them?"
    said = b" ".join(words)
    if b"mlkit.many.worker" not in said and b"mlkit.many.forks" not in said: return False
    try: return os.readlink(f"/proc/{pid}/cwd") == str(folder)
    except OSError: return False


def workers_of(folder: Path) -> dict[int, bool]:
    "Process -> does it train? Of the workers of a search that live."
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try: words = path.read_bytes().split(b"\0")
        except OSError: continue
        if works_at(int(path.parent.name), words, folder):
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
        end = time.time() + 60
        what = draw.choice([*["trains"] * 6, "any", "any", "command", "command"])
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


# -- interrupts

def wait_for(what, seconds: float = 90):
    end = time.time() + seconds
    while not what():
        assert time.time() < end, "it did not come to that"
        time.sleep(0.05)


def trained(folder: Path) -> list[int]: return [k for k, v in workers_of(folder).items() if v]


@pytest.mark.parametrize("signals", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_ctrl_c_stops_the_workers_and_the_search_goes_on(project, signals):
    words = ["seed=1,2,3", "callbacks.slow.seconds=0.4"]
    command = start("tiny.yaml", *words, "workers=2", "-m")
    wait_for(lambda: len(trained(project)) == 2)
    for _ in range(signals):
        command.send_signal(signal.SIGINT)
        time.sleep(0.3)
    said, _ = command.communicate(timeout=60)
    assert command.returncode == 130 and "Traceback" not in said, said
    found = the_search(project)
    assert f"go on with: mlkit_train --resume {found.folder.relative_to(project)}" in said
    assert [o.status for o in found.trials] == ["interrupted"] * 2 + ["not begun"]
    assert not workers_of(project)
    one = start("--resume", found.id, "workers=1", "callbacks.slow.seconds=0")
    said, _ = one.communicate(timeout=60)
    assert one.returncode == 2 and "a search goes on with its config" in said
    two = [start("--resume", found.folder.name) for _ in range(2)]  # they share it
    for o in two:
        said, _ = o.communicate(timeout=200)
        assert o.returncode == 0 and said.count(" done ") >= 3, said
    once(the_search(project), 3)
    whole = grid("tiny.yaml", *words, "callbacks.slow.seconds=0", "runs=whole")
    assert results(whole) == results(the_search(project))


# -- failures

def test_a_failure_is_said_tried_again_and_may_stop_the_search(project, capfd):
    bad = project / "bad"
    bad.touch()
    words = ["+callbacks.fail._target_=parts.Fail", f"+callbacks.fail.file={bad}", "seed=1,2,3"]
    found = search("tiny.yaml", *words, retry=1)
    assert [(o.status, o.failures) for o in found.trials] == [("failed", 2)] * 3
    said = capfd.readouterr().out
    assert said.count("[1/3] seed=1\n") == 2
    assert "seed=1: RuntimeError: the file is there" in str(found)
    assert not found.done and found.best is None
    stopped = search("tiny.yaml", *words, "runs=stopped", fail_fast=True)
    assert [o.status for o in stopped.trials] == ["failed", "not begun", "not begun"]
    many = search("tiny.yaml", *words, "runs=many", fail_fast=True, workers=2)
    assert "failed" in [o.status for o in many.trials] and "done" not in [o.status
                                                                          for o in many.trials]
    assert "failed  RuntimeError: the file is there" in capfd.readouterr().out
    bad.unlink()
    again = found.go_on("retry=2")
    once(again, 3)
    assert results(again) == results(grid("tiny.yaml", "seed=1,2,3", "runs=good"))


@pytest.mark.parametrize("workers", [None, 2])
def test_data_that_cannot_be_read_ends_the_search(project, capfd, workers):
    (project / "bad.yaml").write_text("extends: tiny.yaml\ndata:\n  source: full\n"
                                      "  root: nowhere\n  mirrors: []\n")
    with pytest.raises(ConfigError) as one: train("bad.yaml")
    with pytest.raises(ConfigError) as e:
        search("bad.yaml", "optimizer.lr=0.1,0.2", "seed=range(50)", workers=workers)
    assert str(e.value) == str(one.value) and str(e.value).startswith("bad.yaml:2:1: data: ")
    assert 2 <= capfd.readouterr().out.count("failed") < 12 and not Path("runs").exists()


@pytest.mark.parametrize("workers", [None, 2])
def test_an_error_of_the_data_ends_the_search(project, capfd, workers):
    (project / "parts.py").write_text(PARTS + """
class Broken(MNIST):
    def __init__(self, file: str = "x", **kwargs):
        super().__init__(**kwargs)
        self.file = file
    def prepare_data(self): open(self.file)
""")
    words = ["data._target_=parts.Broken", "trainer.max_epochs=1"]
    def tried(*more: str) -> list[str]:
        return [o.status for o in search("tiny.yaml", *words, *more, workers=workers).trials]
    if workers is None:
        with pytest.raises(FileNotFoundError): tried("seed=range(20)")
    else: assert tried("seed=range(20)").count("not begun") > 10
    more = ["+data.file=a,b,parts.py", "seed=1,2,3,4"]  # one of them can be read
    assert tried(*more) == ["failed"] * 8 + ["done"] * 4


def test_a_mistake_is_where_the_user_wrote_it(project):
    text = """extends: tiny.yaml
search: {sampler: random, params: {seed: 'int(interval(1,9))'}}
callbacks:
  fail:
    _target_: parts.Fail
    file: tiny.yaml
"""
    (project / "own.yaml").write_text(text)
    found = search("own.yaml", trials=3, fail_fast=True)
    def says(seed: str) -> str:  # of a point that was not checked, in another process
        with pytest.raises(ConfigError) as e: Trials(found.folder).config(Trial(1, {"seed": seed}))
        return str(e.value)
    assert says("-1").startswith("own.yaml:2:36: seed=-1: must be ")
    del sys.modules["parts"].Fail
    assert says("3").startswith("own.yaml:5:5: callbacks.fail._target_: parts")
    (project / "own.yaml").write_text(f"\n{text}")  # its lines are others now
    assert re.search(r"configs/0000.yaml:\d+:5: callbacks.fail._target_: parts", says("3"))


@pytest.mark.parametrize("words, says", [
    (["trials=3"], "there is nothing to search: give a key several values"),
    (["optimizer.lr=0.1,0.01", "search.mode=max"], "is max, and the best val/loss is the min"),
    (["optimizer.lr=0.1,0.01", "search.monitor=val/acc"], "is needed, min or max"),
    (["optimizer.lr=loguniform(1e-4,1)"], "a range is interval"),
    ([{"optimizer.lr": [1, 2]}], "is said by texts")])
def test_what_cannot_be_searched_is_said_first(project, words, says):
    with pytest.raises(UserError, match=says): search("tiny.yaml", *words)
    assert not Path("runs").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sampler_without_its_metric_stops(project, capfd, workers):
    words = ["trainer.max_epochs=1", "optimizer.lr=interval(0.01,0.1)", "search.monitor=val/ac",
             "search.mode=max", "trials=5", f"workers={workers}"]
    assert mlkit_train(["tiny.yaml", "-m", *words]) == 1
    found = the_search(project)
    assert {o.status for o in found.trials} == {"done"} and len(found.trials) <= workers
    said = "no run has the metric val/ac of search.monitor; did you mean 'val/acc'?"
    assert said in capfd.readouterr().out
    assert mlkit_train(["--resume", str(found.folder)]) == 1


def test_exit_codes_of_a_search_that_stops(project, capfd):
    short = ["tiny.yaml", "-m", "trainer.max_epochs=1", "seed=1,2"]
    assert mlkit_train([*short, "timeout=0.001"]) == 0  # as was asked for
    found = the_search(project)
    assert "its time is over; to go on: mlkit_train --resume" in capfd.readouterr().out
    assert not found.done and [o.status for o in found.trials] == ["not begun"] * 2
    assert mlkit_train(["--resume", str(found.folder), "timeout=2h"]) == 0
    assert the_search(project).done
    fail = ["+callbacks.fail={_target_: parts.Fail, file: parts.py}", "runs=failed"]
    assert mlkit_train([*short, *fail]) == 1
    assert mlkit_train([*short, *fail, "fail_fast=true"]) == 1
    assert mlkit_train([*short, *fail, "timeout=2"]) == 1  # it has failed before it was late


def test_a_grid_of_fewer_points_than_trials(project):
    found = search("tiny.yaml", "trainer.max_epochs=1", "optimizer.lr=0.1,0.01", trials=5)
    assert [o.words for o in found.trials] == [{"optimizer.lr": "0.1"}, {"optimizer.lr": "0.01"}]
    with pytest.raises(UserError, match="no more points"): resume(found, "trials=+1")


def test_a_search_by_its_name_and_by_its_last_run(project, capfd):
    cut = ["+callbacks.fail={_target_: parts.Fail, file: there}", "trainer.max_epochs=1"]
    Path("there").touch()
    found = search("tiny.yaml", "seed=1,2", *cut)
    assert [o.status for o in found.trials] == ["failed"] * 2
    with pytest.raises(NotFound, match="it is a search"): resume(str(found.folder))
    capfd.readouterr()
    for words in (["--resume"], ["tiny.yaml", "--resume"], ["--resume", "last"],
                  ["--resume", found.id], ["--resume", str(found.folder)]):
        assert mlkit_train(words) == 1
        assert "nothing is left to be trained; what failed is tried again with retry=1" in \
            capfd.readouterr().out
    Path("there").unlink()
    assert mlkit_train(["--resume", "last", "retry=1"]) == 0
    once(the_search(project), 2)
    search("tiny.yaml", "trainer.max_epochs=1", "optimizer.lr=interval(0.01,0.1)", trials=1,
           trust="parts").go_on("trials=+1", reuse=True)
    path = max(project.glob("runs/tiny/search-*"))
    info = json.loads((path / "search.json").read_text())
    (path / "search.json").write_text(json.dumps({**info, "settings": {**info["settings"],
                                                                       "trials": 3}}))
    assert mlkit_train(["--resume"]) == 0  # all of its runs are done, and yet it is not
    assert [o.status for o in find_search(path).trials] == ["done"] * 3


def test_runs_are_reused_by_a_search_that_goes_on(project):
    old = grid("tiny.yaml", "trainer.max_epochs=1", "seed=1,2")
    Path("there").touch()
    cut = grid("tiny.yaml", "trainer.max_epochs=1", "seed=1,2", reuse=True)
    assert [o.id for o in cut.trials] == [o.id for o in old.trials]
    for o in (project / cut.folder / "trials").glob("*.json"): o.unlink()
    assert [o.id for o in resume(find_search(cut.folder)).trials] == [o.id for o in old.trials]


@pytest.mark.parametrize("words", [
    ["launch=slurm"],
    ["search.storage=postgresql://127.0.0.1:1/none", "search.sampler=random"]])
def test_nothing_is_left_of_a_search_that_is_refused(project, monkeypatch, words):
    monkeypatch.setenv("PATH", "/nowhere")  # there is no sbatch
    with pytest.raises(UserError): search("tiny.yaml", "seed=1,2,3", *words, trials=2)
    assert not Path("runs").exists()


def test_workers_that_cannot_work_are_given_up(project):
    (project / "sitecustomize.py").write_text(
        "import sys\nif 'forks' in str(sys.orig_argv): sys.exit('no!')")
    with pytest.raises(Exception, match="the workers cannot work: .*no!"):
        grid("tiny.yaml", "seed=1,2", workers=2)


# -- what is searched

def test_seeds_are_a_row_with_mean_and_deviation(project):
    found = search("tiny.yaml", "optimizer.lr=0.1,0.01", seeds=3, workers=2)
    assert [o.seed - found.trials[0].seed for o in found.trials] == [0, 1, 2] * 2
    alone = grid("tiny.yaml", "optimizer.lr=0.1,0.01",
                 f"seed={','.join(str(o.seed) for o in found.trials[:3])}", "runs=alone")
    table = found.table.set_index("optimizer.lr")
    for lr, rows in alone.table.groupby("optimizer.lr"):
        assert table.loc[lr, "val/loss"] == pytest.approx(rows["val/loss"].mean())
        assert table.loc[lr, "val/loss std"] == pytest.approx(rows["val/loss"].std())
    assert " ± " in str(found) and found.table["val/loss"].is_monotonic_increasing
    assert found.best.metrics["val/loss"] in set(alone.table["val/loss"])


def test_what_is_not_kept(project):
    found = grid("tiny.yaml", "seed=1,2", "runs=null", workers=2)
    assert found.done and not found.folder.exists() and found.file is None
    assert results_of(found) == results_of(grid("tiny.yaml", "seed=1,2"))
    assert not (project / "search").exists()


def test_runs_that_are_gone_are_said(project, capfd):
    found = grid("tiny.yaml", "seed=1,2", "trainer.max_epochs=1")
    shutil.rmtree(found.trials[0].run.dir)
    assert find_search(found.folder).go_on().best.id == found.trials[1].id
    assert f"are gone, as {found.trials[0].id}: the figures stay" in capfd.readouterr().out
    moved = find_search(found.folder.rename(project / "elsewhere"))
    with pytest.raises(UserError, match="the folders of its runs are gone, such as "):
        moved.best_config()


def results_of(found: Trials) -> list: return [(o.values, o.metrics) for o in found.trials]


def test_a_secret_is_never_written(project):
    (project / ".env").write_text("MY_TOKEN=abcdef123456\n")
    grid("tiny.yaml", "seed=1,2", "+extra.say=${oc.env:MY_TOKEN}", workers=2)
    written = [o for o in project.glob("runs/**/*") if o.is_file()]
    assert len(written) > 20 and not any(b"abcdef123456" in o.read_bytes() for o in written)
    with pytest.raises(ValueError, match="a secret is not written down"):
        grid("tiny.yaml", "+extra.say=abcdef123456,b")


def test_runs_are_reused(project):
    first = grid("tiny.yaml", "seed=1,2")
    again = grid("tiny.yaml", "seed=1,2,3", reuse=True, workers=2)
    assert [o.run.dir for o in again.trials[:2]] == [o.run.dir for o in first.trials]
    assert again.done and len([*project.glob("runs/tiny/*/run.json")]) == 3


def test_objects_and_workers(project):
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset, default_collate
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, (x[:, 0] > 0).long())
    config = dict(data=data, model=nn.Linear(4, 2), trainer=dict(max_epochs=2), name="tiny")
    one = grid(config, "optimizer.lr=0.1,0.01")
    two = grid(config, "optimizer.lr=0.1,0.01", "runs=two", workers=2)
    assert one.done and two.done and results(one) == results(two)
    loader = DataLoader(data, 8, collate_fn=lambda items: default_collate(items))
    assert grid(config | dict(data=loader), "seed=1,2", "runs=odd").done
    with pytest.raises(ValueError, match="or leave out workers"):
        grid(config | dict(data=loader), "seed=1,2", workers=2)


def test_a_thousand_points(project):
    begun = time.time()
    command = start("tiny.yaml", "optimizer.lr=range(0.001,0.101,0.001)", "seed=range(10)", "-m")
    wait_for(lambda: [*project.glob("runs/tiny/*/run.json")])
    seconds = time.time() - begun
    command.send_signal(signal.SIGINT)
    command.communicate(timeout=100)
    found = the_search(project)
    assert len(found.trials) == 1000
    assert len([*found.folder.glob("trials/*.json")]) < 10 and seconds < 90


@pytest.mark.slow
def test_the_memory_of_a_worker_stays(project):
    grid("tiny.yaml", "seed=range(120)", "+callbacks.memory._target_=parts.Memory",
         "trainer.max_epochs=1", workers=2)
    files = [[*map(int, o.read_text().split())] for o in project.glob("memory-*.txt")]
    assert len(files) == 2 and sum(map(len, files)) == 120
    growth = [max(o[-5:]) / max(o[5:10]) for o in files]
    print("memory of two workers:", growth)
    assert max(growth) < 1.05, files
