"""Ctrl-C and SIGTERM at seeded moments of each phase, in a shell, in a script and in a notebook's
kernel: soon the right thing happens, and afterwards the handlers are the user's.

`signal_project.py` is what is interrupted. The processes are forked from a server that has the
imports behind it."""
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import pytest

from mlkit.run.folder import Run
from test_resume import FORKS

HERE = Path(__file__).parent
CONFIG = """
data: {_target_: mine.Data}
model: {_target_: mine.Model}
optimizer: null
scheduler: null
callbacks: {progress: null}
trainer: {max_epochs: 3, accelerator: cpu, num_sanity_val_steps: 1}
"""
TRAINS = ("import", "build", "prepare", "setup", "sanity", "step", "destructor", "validation",
          "save", "worker", "train end", "fit end", "test", "report")
OTHERS = {"sweep": "build", "evaluate": "test", "predict": "predict", "lr_find": "step"}
PHASES = (*TRAINS, *OTHERS)
NOTED = ("step", "save", "validation")  # what comes to its end first
SIGNALS = ("SIGINT", "SIGTERM")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "pyproject.toml").touch()
    shutil.copy(HERE / "signal_project.py", folder / "mine.py")
    (folder / "slow.yaml").write_text(CONFIG)
    run(folder, "script", "prepare", "nowhere", folder / "done")
    return folder


def work(what: str, runs: str, done: str):
    "What is interrupted, as a script would say it."
    from mlkit import all as mlkit
    words = ["slow.yaml", f"runs={runs}"]
    if what == "worker": words.append("data.workers=1")
    if what in TRAINS: return mlkit.train(*words)
    if what == "sweep": return mlkit.grid(*words, "seed=1,2")
    if what == "lr_find": return mlkit.lr_find(*words, steps=20)
    return dict(evaluate=mlkit.evaluate, predict=mlkit.predict)[what](done)


def line(what: str, runs: str, done: str) -> tuple[str, list[str]]:
    "The same as a command."
    words = ["slow.yaml", f"runs={runs}", *["data.workers=1"] * (what == "worker")]
    if what == "sweep": return "mlkit_train", [*words, "-m", "seed=1,2"]
    if what in ("evaluate", "predict"): return f"mlkit_{what.removesuffix('uate')}", [done]
    return "mlkit_train", words


def forked(how: str, what: str, place: dict, env: dict):
    "In a process of its own: do it, and write down how it ended."
    for fd, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(place["log"] + name, os.O_WRONLY | os.O_CREAT, 0o666), fd)
    sys.stdout, sys.stderr = (open(fd, "w", buffering=1, closefd=False) for fd in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(env)
    os.chdir(place["project"])
    sys.path.insert(0, place["project"])
    if how == "shell":
        import mlkit.cli
        name, words = line(what, place["runs"], place["done"])
        sys.exit(getattr(mlkit.cli, name)(words))
    before, found = handlers(), {}
    try: work(what, place["runs"], place["done"])
    except BaseException as e:
        found = dict(error=type(e).__name__, story=traceback.format_exc())
    found |= dict(kept=handlers() == before, ended=time.time(), caught=False)
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except KeyboardInterrupt: found["caught"] = True  # the next Ctrl-C is the program's own
    Path(place["log"] + "json").write_text(json.dumps(found))
    os._exit(0)


def handlers() -> list[str]: return [str(signal.getsignal(s)) for s in (2, 15)]


def run(project: Path, how: str, what: str, phase: str, folder: Path, by: str = "",
        wait: float = 0, lasts: float = 12) -> dict:
    "Do it, and send a signal so many seconds after a phase is reached: how it went."
    folder.mkdir(parents=True)
    place = dict(project=str(project), runs=str(folder / "runs"), log=f"{folder}/",
                 done=next((str(o.parent) for o in (project / "done").rglob("run.json")), ""))
    says = folder / "says"
    env = dict(PHASE=phase, SAYS=str(says), LASTS=str(lasts), OMP_NUM_THREADS="1")
    process = FORKS.Process(target=forked, args=(how, what, place, env))
    process.start()
    while not says.exists() and process.is_alive(): time.sleep(0.005)
    time.sleep(wait)
    sent = time.time()
    over = not process.is_alive()
    if by and not over: os.kill(process.pid, getattr(signal, by))
    process.join(60)
    seconds, code = time.time() - sent, process.exitcode
    process.kill()
    story = folder / "json"
    found = json.loads(story.read_text()) if story.exists() else {}
    if found: seconds, over = found["ended"] - sent, found["ended"] < sent
    said = {o: (folder / o).read_text(errors="replace") for o in ("out", "err")}
    states = [Run(o.parent).status for o in (folder / "runs").rglob("run.json")]
    return dict(found, over=over, code=code, seconds=seconds, states=states,
                reached=says.exists(), **said)


def problems(how: str, what: str, by: str, o: dict) -> list[str]:
    "What was not as it should be."
    found = []
    if not o["reached"]: found.append("the phase was not reached")
    if o["over"]: return found
    limit = 3 * max(1, os.getloadavg()[0] / (os.cpu_count() or 1))
    if o["seconds"] > limit: found.append(f"took {o['seconds']:.1f} s")
    if how == "shell":
        if o["code"] != 130:
            found.append(f"exit code {o['code']}, {o['states']}")
        torchs = "Exception ignored in: <function _MultiProcessingDataLoaderIter.__del__"
        if "Traceback" in o["err"] and torchs not in o["err"]: found.append("a traceback")
    elif what in (*OTHERS, "import") and o["code"] == -signal.SIGTERM: pass  # the system's
    else:
        if o.get("error") not in ("Interrupted", "KeyboardInterrupt"):
            found.append(f"{o.get('error')}: code {o['code']}")
        if not (o.get("kept") and o.get("caught")): found.append("the handlers are not as before")
    wrong = {"running", "failed"} & {*o["states"]}
    if wrong: found.append(f"status {wrong}")
    return found


def moments(phase: str, n: int):
    rng, lasts = random.Random(phase), 1 if phase in NOTED else 12
    for i in range(n):
        short = rng.random() < 0.5  # the signal may come after the phase
        yield dict(by=SIGNALS[i % 2], wait=rng.uniform(0, 1 if short else 0.3),
                   lasts=0.1 if short else lasts)


def sweep(project: Path, folder: Path, phase: str, n: int) -> list[str]:
    found, slowest = [], 0.0
    place = OTHERS.get(phase, phase)
    for how in ("shell", "script"):
        if (how, phase) == ("shell", "lr_find"): continue
        for i, o in enumerate(moments(phase, n)):
            got = run(project, how, phase, place, folder / how / str(i), **o)
            slowest = max(slowest, got["seconds"])
            for why in problems(how, phase, o["by"], got):
                found.append(f"{how}, {phase}, {i} {o}: {why}\n{got['err'][-3000:]}"
                             f"\n{got.get('story', '')[-3000:]}")
    print(f"{phase}: slowest {slowest:.1f} s, {len(found)} wrong")
    return found


@pytest.mark.parametrize("phase", ["prepare", "step", "test", "predict"])
def test_stopped(project, tmp_path, phase):
    found = sweep(project, tmp_path, phase, 1)
    assert not found, "\n\n".join(found)


@pytest.mark.slow  # MOMENTS=60: an hour
@pytest.mark.parametrize("phase", PHASES)
def test_stopped_at_many_moments(project, tmp_path, phase):
    found = sweep(project, tmp_path, phase, int(os.environ.get("MOMENTS", 4)))
    assert not found, "\n\n".join(found)
