"mlkit's commands as a person types them, each in a process of its own."
import os
import subprocess
import sysconfig
import time
from pathlib import Path

from forked import run_script
from mlkit.run.folder import Run, list_runs

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = Path(sysconfig.get_path("scripts"))

LIGHT = {"--check", "--print", "--explain", "--help", "--completion"}  # these import no Lightning


def command(name: str, *args, cwd=ROOT, code: int | None = None, fresh: bool = False,
            **env) -> subprocess.CompletedProcess:
    """Run a console script of this environment; it must exit with `code`, if that is given.

    If `fresh`, or if it must do without the large libraries, by an interpreter of its own; else
    by a fork of one that has them imported."""
    # another test's, in this process
    own = {k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"} | env
    argv = [SCRIPTS / name, *map(str, args)]
    if fresh or not LIGHT.isdisjoint(argv):
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=900, env=own)
    else: done = run_script(argv, cwd, own)
    assert code in (None, done.returncode), done.stdout + done.stderr
    return done


def job(folder: Path, config: str, *overrides) -> tuple[Run, float]:
    """Train by one of the project's configs, with its runs in `folder`: the run that is done, and
    how many seconds it took."""
    start = time.perf_counter()
    command("mlkit_train", f"configs/{config}.yaml", *overrides, f"runs={folder}", code=0)
    seconds = time.perf_counter() - start
    run, = list_runs(folder)
    assert run.status == "done"
    return run, seconds
