"A project whose runs take a while, its grid on this machine, and what equals that elsewhere."
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Mapping

import torch

from mlkit.many.find import find_search
from mlkit.many.search import Search
from mlkit.run.folder import Run
from shell import SCRIPTS

TESTS = Path(__file__).parent
CONFIG = """
data: {_target_: mine.Data, n: 10}
model: {_target_: mine.Model, wait: 0.15}
trainer: {max_epochs: 8}
callbacks: {progress: null}
"""
POINTS = ["data.n=8,10,12", "seed=1,2"]


def new_project(folder: Path) -> Path:
    (folder / "slow.yaml").write_text(CONFIG)
    (folder / "settings.ini").touch()  # a project: its modules are the user's own
    shutil.copy(TESTS / "watch_project.py", folder / "mine.py")
    return folder


def wait_for(what: Callable[[], Any], seconds: float = 60, why: Callable[[], str] = str) -> Any:
    "Ask until it is true; its answer."
    end = time.monotonic() + seconds
    while not (answer := what()):
        if time.monotonic() > end: raise AssertionError(f"{what}: not after {seconds} s\n{why()}")
        time.sleep(0.1)
    return answer


def same_run(a: Run, b: Run):
    "Trained to the same bits."
    assert (a.dir / "metrics.csv").read_text() == (b.dir / "metrics.csv").read_text()
    x, y = (torch.load(o.checkpoint("last"), weights_only=True)["state_dict"] for o in (a, b))
    assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def same_search(a: Search, b: Search):
    "The same table, of the same runs, each trained once."
    tables = [o.table.drop(columns=["seconds", "run"]) for o in (a, b)]
    assert tables[0].equals(tables[1]) and {*tables[0]["status"]} == {"done"}, str(a)
    for o in (a, b): assert len([*o.folder.parent.glob("*/run.json")]) == len(o.trials)
    for x, y in zip(a.trials, b.trials): same_run(x.run, y.run)


def begin(project: Path, runs: str, env: Mapping[str, str], *words: str) -> subprocess.Popen:
    "The grid, as a command."
    with open(project / f"{runs}.txt", "w") as out:
        return subprocess.Popen([SCRIPTS / "mlkit_train", "slow.yaml", f"runs={runs}", "-m",
                                 *POINTS, *words], cwd=project, stdout=out, stderr=out,
                                env={**env, "PYTHONPATH": str(TESTS.parent)},
                                stdin=subprocess.DEVNULL, start_new_session=True)


def here(project: Path) -> Search:
    "The grid on this machine, with one worker."
    process = begin(project, "here", os.environ)
    assert process.wait(300) == 0, (project / "here.txt").read_text()
    return the_search(project, "here")


def the_search(project: Path, runs: str) -> Search:
    folder, = wait_for(lambda: [*project.glob(f"{runs}/*/search-*/search.json")])
    return find_search(folder.parent)
