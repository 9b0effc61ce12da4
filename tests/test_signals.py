"""Ctrl-C and SIGTERM at seeded moments of each phase, in a shell, in a script and in a notebook's
kernel: soon the right thing happens, and afterwards the handlers are the user's.

`signal_project.py` is what is interrupted. The processes are forked from a server that has the
imports behind it."""
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest

from fixtures import ALL
from forked import FORKS, end_with_starter
from mlkit.run.folder import Run

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
    end_with_starter()
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
        code, ended = getattr(mlkit.cli, name)(words), time.time()
        for by in SIGNALS: signal.signal(getattr(signal, by), signal.SIG_IGN)
        Path(place["log"] + "json").write_text(json.dumps(dict(ended=ended)))
        os._exit(code)
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


def limit() -> float: return 3 * max(1, os.getloadavg()[0] / (os.cpu_count() or 1))  # seconds


def problems(how: str, what: str, by: str, o: dict) -> list[str]:
    "What was not as it should be."
    found = []
    if not o["reached"]: found.append("the phase was not reached")
    if o["over"]: return found
    if o["seconds"] > limit(): found.append(f"took {o['seconds']:.1f} s")
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


LAST = """
import atexit, os, signal, sys
atexit.register(os.kill, os.getpid(), signal.SIGINT)  # while torch's modules are taken apart
from mlkit.cli import mlkit_runs
sys.exit(mlkit_runs(sys.argv[1:]))
"""


def test_a_command_that_is_over_has_no_traceback(tmp_path):
    done = subprocess.run([sys.executable, "-c", LAST, tmp_path], capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT and "Traceback" not in done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_stopped_at_many_moments(project, tmp_path, phase):
    found = sweep(project, tmp_path, phase, 60 if ALL else 2)
    assert not found, "\n\n".join(found)


CELL = """
import os, signal, sys, traceback
os.environ.update(PHASE={phase!r}, SAYS={says!r}, LASTS='{lasts}')
os.chdir({project!r})
sys.path[:] = [{project!r}, *(o for o in sys.path if o != {project!r})]
sys.modules.pop("mine", None)
from test_signals import handlers, work
before = handlers()
try: work({what!r}, {runs!r}, {done!r})
finally: kept = handlers() == before
"""


@pytest.fixture(scope="module")
def kernel():
    from jupyter_client.manager import start_new_kernel
    env = os.environ | dict(PYTHONPATH=os.pathsep.join([str(HERE), *sys.path]))
    manager, client = start_new_kernel(env=env)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def cell(kernel, code: str, send=lambda: None) -> tuple[str, float]:
    "Run a cell, and meanwhile call `send`: the name of its error, and how long it took after that."
    client = kernel[1]
    asked = client.execute(code, stop_on_error=False)
    send()
    sent = time.time()
    while (answer := client.get_shell_msg(timeout=60))["parent_header"]["msg_id"] != asked: pass
    return answer["content"].get("ename", ""), time.time() - sent


def stop_cell(kernel, project: Path, folder: Path, phase: str, by: str, wait: float) -> list[str]:
    "What was not as it should be when a cell was stopped."
    folder.mkdir(parents=True)
    says, pid = folder / "says", kernel[0].provisioner.pid
    def send():
        end = time.time() + 60
        while not says.exists() and time.time() < end: time.sleep(0.005)
        time.sleep(wait)
        os.kill(pid, getattr(signal, by))
    place = dict(project=str(project), runs=str(folder / "runs"),
                 done=next(str(o.parent) for o in (project / "done").rglob("run.json")))
    error, seconds = cell(kernel, CELL.format(
        phase=OTHERS.get(phase, phase), what=phase, says=str(says),
        lasts=1 if phase in NOTED else 12, **place), send)
    found = []
    if seconds > limit(): found.append(f"took {seconds:.1f} s")
    if error not in ("Interrupted", "KeyboardInterrupt"): found.append(f"ended with {error!r}")
    states = {Run(o.parent).status for o in (folder / "runs").rglob("run.json")}
    if {"running", "failed", "done"} & states: found.append(f"status {states}")
    if cell(kernel, "assert kept")[0]: found.append("the handlers are not as before")
    def again(): time.sleep(0.2), os.kill(pid, signal.SIGINT)
    if cell(kernel, "import time; time.sleep(5)", again)[0] != "KeyboardInterrupt":
        found.append("the next Ctrl-C is lost")
    return found


@pytest.mark.slow
def test_stopped_in_a_kernel(project, tmp_path, kernel):
    found = []
    for phase in PHASES if ALL else PHASES[::2]:
        for i, o in enumerate(moments(phase, 60 if ALL else 1)):
            by, wait = SIGNALS[(i + PHASES.index(phase)) % 2], o["wait"] % 0.3
            if phase in (*OTHERS, "import"): by = "SIGINT"  # of the other the kernel would die
            why = stop_cell(kernel, project, tmp_path / phase / str(i), phase, by, wait)
            found += [f"{phase}, {i}, {by}, {wait}: {o}" for o in why]
    assert not found, "\n".join(found)

