"""A run in the background is the run of the foreground, in a process that neither a kernel nor a
terminal takes with it; whoever looks at its folder sees how it goes on, and can stop it."""
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from kernel import Kernel
from mlkit.base.errors import TrainingFailed, UserError
from mlkit.config.load import load_config
from mlkit.many.watch import watch
from mlkit.run.board import Now, draw_board, note_now, read_now, watch_run
from mlkit.run.folder import Run
from mlkit.run.log import recording
from mlkit.run.process import process_facts, start_process
from mlkit.train import resume
from shell import command

HERE = Path(__file__).parent
CONFIG = """
data: {_target_: mine.Data}
model: {_target_: mine.Model}
optimizer: null
scheduler: null
trainer: {max_epochs: 3, accelerator: cpu}
"""


@pytest.fixture
def project(tmp_path) -> Path:
    (tmp_path / "pyproject.toml").touch()
    shutil.copy(HERE / "watch_project.py", tmp_path / "mine.py")
    (tmp_path / "c.yaml").write_text(CONFIG)
    return tmp_path


def new_run(folder: Path, **info) -> Run:
    run = Run.new(load_config(dict(name="lab", runs=str(folder / "runs"))))
    run.update(**info)
    return Run(run.dir)


def weights(run: Run | Path) -> dict:
    folder = run if isinstance(run, Path) else run.dir
    return torch.load(folder / "checkpoints" / "last.ckpt")["state_dict"]


def same_bits(*runs: Run) -> bool:
    first, *others = map(weights, runs)
    return all(torch.equal(v, o[k]) for o in others for k, v in first.items())


def until(what, seconds: float = 120):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.05)


# The process

SLEEPS = """
import sys, time, pathlib
folder = pathlib.Path(sys.argv[1])
(folder / "words").write_text(" ".join(sys.argv[2:]))
try: time.sleep(30)
except KeyboardInterrupt: (folder / "interrupted").touch()
"""
STARTS = """
import sys, time
from mlkit.run.folder import Run
from mlkit.run.process import start_process
start_process(Run(sys.argv[1]), "sleeps", "a b", trust=["here.Net"])
time.sleep(30)
"""


def test_the_process_outlives_its_starter_and_its_group(tmp_path):
    (tmp_path / "sleeps.py").write_text(SLEEPS)
    run = new_run(tmp_path, host=platform.node())
    path = os.pathsep.join([str(tmp_path), str(HERE.parent)])
    starter = subprocess.Popen([sys.executable, "-c", STARTS, run.dir], start_new_session=True,
                               env=os.environ | {"PYTHONPATH": path})
    until((run.dir / "words").exists)
    until(lambda: run.info.get("process"))
    assert (run.dir / "words").read_text() == "a b" and run.status == "running"
    os.killpg(starter.pid, signal.SIGKILL)
    starter.wait()
    assert Run(run.dir).status == "running"
    run.stop()
    assert (run.dir / "interrupted").exists() and run.status == "interrupted"


def test_a_process_that_is_gone_is_told_from_one_that_has_its_number(tmp_path):
    child = subprocess.Popen(["sleep", "30"])
    facts = process_facts(child.pid, trains=False)
    run = new_run(tmp_path, host=platform.node(), process=facts)
    assert run.status == "running"
    run.update(process=dict(facts, since="1"))
    assert run.status == "interrupted"
    run.update(process=facts)
    child.kill()
    until(lambda: run.status == "interrupted")  # a zombie does not count
    child.wait()
    run.update(process=dict(facts, pid=1))
    assert run.status == "interrupted", "no number that signals a group"


@pytest.mark.parametrize("info, told", [
    (dict(status="done"), "is not being trained (it is done)"),
    (dict(status="failed"), "is not being trained (it is failed)"),
    (dict(status="interrupted"), "is not being trained (it is interrupted)"),
    (dict(status="running"), "is not being trained (it is interrupted)")])
def test_to_stop_what_is_over_is_harmless(tmp_path, capsys, info, told):
    new_run(tmp_path, host=platform.node(), **info).stop()
    assert told in capsys.readouterr().out


def test_what_cannot_be_stopped_from_here_is_told(tmp_path):
    with pytest.raises(UserError, match="is trained on gpu7: stop it there"):
        new_run(tmp_path, host="gpu7").stop()
    run = new_run(tmp_path, host=platform.node(), process=dict(pid=os.getpid(), since="1"))
    with run.locked(), pytest.raises(UserError, match="cannot be seen from here"):
        Run(run.dir).stop()


def test_a_process_that_cannot_be_started_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    run = new_run(tmp_path, host=platform.node())
    with pytest.raises(UserError, match="no process can be started: No such file"):
        start_process(run, "sleeps")
    assert Run(run.dir).status == "failed"


def test_a_run_elsewhere_is_as_its_folder_says(tmp_path):
    run = new_run(tmp_path, host="gpu7")
    assert (run.status, run.metrics) == ("running", {})
    other = Run(run.dir)
    other.update(status="done", metrics={"val/acc": 0.5})
    assert (run.status, run.metrics) == ("done", {"val/acc": 0.5})


# What is shown

def board(epochs: int, metrics: int, most: int | None = 30, **now) -> str:
    names = [f"{s}/m{i}" for s in ("train", "val") for i in range(metrics // 2)]
    history = pd.DataFrame({"epoch": range(epochs), **{o: 0.5 for o in names}})
    now = dict(epoch=epochs, epochs=most, batch=1, batches=9, what="epoch", took=9, **now)
    return draw_board("lab/1", "running", Now(**now), history if epochs else None, key="k")[0]


@pytest.mark.parametrize("metrics", [0, 2, 6, 18, 60])
def test_the_board_has_its_height_from_the_start(metrics):
    def skeleton(page):  # what has a height
        main = page.partition("<details")[0]
        return [main.count(o) for o in ('class="line"', "<svg", 'style="height:192px"')]
    pages = [board(n, metrics) for n in (0, 1, 7, 8, 9, 30)]
    assert [skeleton(o) for o in pages] == [[2, 3, 1]] * 6
    assert all(o.partition("<details")[0].count("<tr>") <= 9 for o in pages)


def test_a_short_run_has_a_short_table():
    assert 'style="height:72px"' in board(1, 4, most=2)
    assert 'style="height:192px"' in board(1, 4, most=None)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"epoch": "<b>"}', '{"batch": null}', "\0" * 99])
def test_a_damaged_note_is_none(tmp_path, text):
    run = new_run(tmp_path)
    (run.dir / "now.json").write_text(text)
    assert read_now(run) == Now()


def test_a_note_keeps_what_is_no_number(tmp_path):
    run = new_run(tmp_path)
    note_now(run, Now(loss=float("nan"), left=float("inf")))
    found = read_now(run)
    assert found.loss != found.loss and found.left == float("inf")


@pytest.mark.parametrize("end, told", [("done", "done"), ("failed", "as it should")])
def test_watching_ends_with_the_run(tmp_path, capsys, end, told):
    run = new_run(tmp_path, host=platform.node(), seconds=3)
    def train():
        with (own := Run(run.dir)).locked():
            time.sleep(0.3)
            own.update(status=end, error=None if end == "done" else "ValueError: as it should")
    thread = threading.Thread(target=train)
    with run.locked(): thread.start()
    until(lambda: (run.dir / ".lock").exists())
    if end == "done": watch_run(Run(run.dir))
    else:
        with pytest.raises(TrainingFailed, match="as it should"): watch_run(Run(run.dir))
    thread.join()
    assert told in capsys.readouterr().out


def test_a_folder_that_is_removed_meanwhile_is_told(tmp_path, capfd):
    run, config = new_run(tmp_path, host=platform.node()), load_config(dict(name="lab"))
    with run.locked():
        seen = Run(run.dir)
        shutil.rmtree(run.dir)
        for look in (watch_run, lambda o: watch([o, o]), Run.stop): look(seen)
        assert seen.status == "gone" and len(seen.history) == 0 and seen.plot()
        assert capfd.readouterr().out.count("its folder was removed") == 4
    with pytest.raises(UserError, match="no run here .*; its folder is gone$"): resume(seen)
    run = Run.new(load_config(config, f"runs={tmp_path}/runs"))
    with pytest.raises(TrainingFailed, match=r"its folder was removed$") as e, recording(run):
        shutil.rmtree(run.dir)
        run.finish({}, None)
    assert not e.value.__cause__
    assert capfd.readouterr().err == "training failed: its folder was removed\n"
    run = Run.new(load_config(config, f"runs={tmp_path}/runs"))
    with pytest.raises(TrainingFailed, match="ZeroDivisionError"), recording(run):
        shutil.rmtree(run.dir)
        1 / 0
    assert "in test_a_folder_that_is_removed" in capfd.readouterr().err  # its log is gone, too


def test_a_folder_is_watched(tmp_path):
    for status in ("done", "failed"): new_run(tmp_path, status=status)
    (new_run(tmp_path).dir / "run.json").write_text("{")
    said = command("mlkit_runs", "--watch", tmp_path / "runs", code=0).stdout
    header, *rows = said.splitlines()
    assert header.split()[:2] == ["run", "status"]
    assert sorted(row.split()[1] for row in rows) == ["done", "failed"]
    wrong = command("mlkit_runs", "--watch", "--where", "a > 1", code=2).stderr
    assert "--watch takes" in wrong


# In a kernel

CELL = """import time
from mlkit.all import *
from mlkit.run.folder import find_run
from mlkit.run.process import is_alive
cfg = "c.yaml"
slow = dict(data=dict(_target_="mine.Data"), model=dict(_target_="mine.Model", wait=0.05),
            optimizer=None, scheduler=None, name="slow",
            trainer=dict(max_epochs=8, accelerator="cpu"))
"""


def the_run(project: Path, name: str) -> Run:
    run, = (Run(o.parent) for o in project.glob(f"runs/{name}/*/run.json"))
    return run


@pytest.mark.slow
def test_a_kernel_that_is_killed_takes_no_run_with_it(project):
    "And a run is stopped, and goes on."
    with Kernel(project) as kernel:
        kernel.run(CELL + "run = train(slow, background=True)")
        kernel.run("import mine\nlive = train(dict(name='live'), data=mine.Data(), "
                   "model=mine.Model(), epochs=3, background=True)")
        until(lambda: (the_run(project, "slow").dir / "metrics.csv").exists())
        assert kernel.value("run.stop(); run.status") == "'interrupted'"
        kernel.run("run = resume(run, background=True)")
        assert "another process is training it" in kernel.run("resume(run, background=True)").all
        kernel.start("run.watch()")
        until(lambda: read_now(the_run(project, "slow")).epoch)
        kernel.interrupt()
        said = kernel.wait().all
        assert "run.watch() shows it again" in said and "Traceback" not in said
        kernel.kill()
    with Kernel(project) as kernel:
        shown = kernel.run(CELL + "run = find_run('slow/last'); run.watch(); run.status").all
        assert "'done'" in shown and "8 epochs" in shown
        kernel.run("whole = train(dict(slow, name='whole'))")
        kernel.run("import mine\nrun = find_run('live/last'); run.watch()")
        kernel.run("train(dict(name='alive'), data=mine.Data(), model=mine.Model(), epochs=3)")
    for pair in (("slow", "whole"), ("live", "alive")):
        runs = [the_run(project, o) for o in pair]
        csv = [(o.dir / "metrics.csv").read_bytes() for o in runs]
        assert same_bits(*runs) and csv[0] == csv[1]


@pytest.mark.slow
def test_a_process_that_dies_says_why_in_the_cell(project):
    with Kernel(project) as kernel:
        kernel.run(CELL)
        words = {"data.n=-1": "negative dimension", "+data.ends=true": "exit code 7",
                 "+model.fails=1": "as it should"}
        shown = kernel.run(f"runs = [train(cfg, o, background=True) for o in {[*words]}]\n"
                           "for o in runs:\n"
                           "    while is_alive(o.info['process']): time.sleep(0.1)\n"
                           "time.sleep(1)").all
        assert [o for o in words.values() if o not in shown] == []
        shown = kernel.run("class Net(pl.LightningModule): pass\n"
                           "train(slow, 'model={_target_: __main__.Net}', background=True)").all
        assert "__main__.Net is defined in this notebook" in shown
        shown = kernel.run("train(cfg, 'runs=null', background=True)").all
        assert "runs=null: must be a folder" in shown


@pytest.mark.slow
def test_several_devices_from_a_notebook(project):
    words = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.max_epochs=2"]
    with Kernel(project) as kernel:
        shown = kernel.run(CELL + f"run = train(cfg, *{words}, 'name=two', background=True)\n"
                           "run.watch(); run.status, run.log").all
        assert "'done'" in shown, shown
    command("mlkit_train", "c.yaml", *words, "name=shell", cwd=project, code=0)
    assert same_bits(the_run(project, "two"), the_run(project, "shell"))
