"""The workers of a search and what forks them: whatever prints, stands in the way or is killed."""
import json
import os
import pty
import select
import shlex
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

import test_search
from mlkit.cli import mlkit_train
from mlkit.config.settings import Settings
from mlkit.many.search import grid, search
from mlkit.many.trials import Trials
from mlkit.many.worker import threads_of
from mlkit.run.folder import Run, list_runs
from shell import SCRIPTS
from test_search import PARTS, ROOT, living, once, results, start, the_search, trained, wait_for

project = test_search.project
SHORT = ["tiny.yaml", "-m", "trainer.max_epochs=1", "seed=1,2"]
SLOW = ["tiny.yaml", "-m", "seed=1,2", "workers=2", "callbacks.slow.seconds=0.4"]


def ends(command, code: int, seconds: float = 200) -> str:
    "What a command has said that must end with this code."
    said, _ = command.communicate(timeout=seconds)
    assert command.returncode == code, said
    return said


def server_of(folder: Path) -> int:
    "What forks the workers there: the only one of them that others have for a parent."
    found = test_search.workers_of(folder)
    parents = [int(Path(f"/proc/{o}/stat").read_text().rpartition(")")[2].split()[1])
               for o in found]
    server, = {*parents} & {*found}
    return server


# -- what is around them

def test_what_is_printed_before_a_worker_is_there(project):
    (project / "sitecustomize.py").write_text(
        "import atexit, os, sys\nprint('[1, null]')\nos.write(1, b'[2, 0]\\n' * 9)\n"
        "print('to stderr', file=sys.stderr)\natexit.register(print, 'the end')\n")
    said = ends(start(*SHORT, "workers=2"), 0)
    once(the_search(project), 2)
    assert "[2, 0]" not in said.partition("search-")[2], said


def test_files_that_are_named_as_some_of_pythons(project):
    for name in ("profile", "random", "select", "json"):
        (project / f"{name}.py").write_text("raise SystemExit('this is not the one')\n")
    ends(start(*SHORT, "workers=2", env=os.environ | {"PYTHONPATH": str(ROOT)}), 0)
    once(the_search(project), 2)


@pytest.mark.parametrize("given, threads", [("2,1", 2), ("", 1), ("0", 1), ("many", 1)])
def test_threads_are_what_the_environment_says(project, monkeypatch, given, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert threads_of(Settings()) == threads
    if threads == 1: return
    (project / "parts.py").write_text(PARTS + """
class Threads(pl.Callback):
    def on_fit_end(self, trainer, module):
        import torch
        with open("threads.txt", "a") as f: print(torch.get_num_threads(), file=f)
""")
    for n in (1, 2):
        assert grid("tiny.yaml", "trainer.max_epochs=1", "seed=1,2", f"runs=with{n}", workers=n,
                    *["+callbacks.threads._target_=parts.Threads"]).done
    assert Path("threads.txt").read_text().split() == [str(threads)] * 4


@pytest.mark.parametrize("workers", [1, 2])
def test_no_time_at_all(project, capfd, workers):
    assert mlkit_train([*SHORT, "search.timeout=0", f"workers={workers}"]) == 0
    assert "its time is over; to go on: mlkit_train --resume" in capfd.readouterr().out
    assert [o.status for o in the_search(project).trials] == ["not begun"] * 2


@pytest.mark.skipif(not find_spec("ray"), reason="ray is not installed")
def test_a_ray_that_is_not_there(project):
    words = ["launch=ray", "launch.address=127.0.0.1:1", "workers=2"]
    said = ends(start(*SHORT, *words), 2)  # Ray loads what other tests would see
    head, line = said.strip().splitlines()
    assert head.endswith(": 2 runs") and line.startswith("launch.address=127.0.0.1:1: no Ray there")
    assert not Path("runs").exists()


# -- interrupts and failures

def test_an_interrupt_while_a_trial_is_loaded(project, monkeypatch):
    "A library that is called then may swallow it."
    load = Trials.config
    def interrupted(self, trial):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except BaseException: pass
        return load(self, trial)
    with monkeypatch.context() as patch:
        patch.setattr(Trials, "config", interrupted)
        with pytest.raises(KeyboardInterrupt) as e: grid("tiny.yaml", "seed=1,2,3")
    found = e.value.result
    assert [o.status for o in found.trials] == ["interrupted"] + ["not begun"] * 2
    assert not list_runs("runs")
    found.go_on()
    once(the_search(project), 3)


def test_workers_that_somebody_ends(project):
    command = start(*SLOW)
    wait_for(lambda: len(trained(project)) == 2)
    for o in trained(project): os.kill(o, signal.SIGTERM)
    said = ends(command, 130, 60)
    assert "0 of 2 runs are done; its workers were interrupted; go on with: " in said
    said = ends(start("--resume", the_search(project).folder), 0)
    assert ": done" in said and "interrupted" not in said  # that is no news any more
    once(the_search(project), 2)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_terminal_that_is_closed(project, workers):
    "The system says so to the command, and then its shell does, too."
    line = shlex.join([str(SCRIPTS / "mlkit_train"), *SLOW, f"workers={workers}"])
    shell, terminal = pty.fork()
    if not shell:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
        os.execvp("bash", ["bash", "-ic", f"{line}; true"])
    def is_under_way() -> bool:
        while select.select([terminal], [], [], 0)[0]: os.read(terminal, 2**16)
        return statuses().count("running") == workers
    def statuses() -> list[str]:
        return [Run(o.parent).status for o in project.glob("runs/tiny/*/run.json")]
    wait_for(is_under_way)
    os.close(terminal)
    os.waitpid(shell, 0)
    wait_for(lambda: statuses() == ["interrupted"] * workers, 30)
    wait_for(lambda: [*project.glob("runs/tiny/search-*/table.csv")], 30)  # the command's end
    wait_for(lambda: not test_search.workers_of(project), 30)
    ends(start("--resume", the_search(project).folder), 0)
    once(the_search(project), 2)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_table_of_a_search_that_stops_at_a_failure(project, workers):
    fail = ["+callbacks.fail={_target_: parts.Fail, file: parts.py}"]
    found = search("tiny.yaml", "seed=range(9)", *fail, fail_fast=True, workers=workers)
    table = pd.read_csv(found.folder / "table.csv").set_index("seed")
    assert len(table) == 9
    failed = table[table["status"] == "failed"]
    assert 1 <= len(failed) <= workers
    assert {*failed["error"]} == {"RuntimeError: the file is there (parts.py:15)"}


# -- kills

HOLDS = """
import subprocess
class Holds(pl.Callback):
    "Has a child that holds all that is open here, for longer than this process lives."
    def on_fit_start(self, trainer, module):
        child = subprocess.Popen(["sleep", "600"], close_fds=False)
        with open("children.txt", "a") as f: print(child.pid, file=f)
"""


@pytest.mark.parametrize("victim", ["command", pytest.param("server", marks=pytest.mark.slow)])
def test_all_end_with_what_has_started_them(project, victim):
    (project / "parts.py").write_text(PARTS + HOLDS)
    command = start(*SLOW, "+callbacks.holds._target_=parts.Holds")
    wait_for(lambda: len(trained(project)) == 2)
    before = test_search.workers_of(project)
    assert len(before) == 3
    killed = command.pid if victim == "command" else server_of(project)
    os.kill(killed, signal.SIGKILL)
    try:
        wait_for(lambda: not any(map(living, before)), 30)
        if victim == "command":
            command.wait(5)
            command.stdout.close()
            assert not test_search.workers_of(project)
            statuses = [json.loads(o.read_text())["status"]
                        for o in project.glob("runs/tiny/*/run.json")]
            assert statuses == ["interrupted"] * 2  # each has finished its step
            command = start("--resume", the_search(project).folder)
        command.wait(200)
    finally:
        for o in Path("children.txt").read_text().split(): os.kill(int(o), signal.SIGKILL)
    ends(command, 0)
    once(the_search(project), 2)
    whole = grid("tiny.yaml", "seed=1,2", "callbacks.slow.seconds=0", "runs=whole")
    assert results(whole) == results(the_search(project))
