"""A training does not fail because of what becomes of its output; another command says that its
output is not whole."""
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from forked import FORKS, end_with_starter
from mlkit.base.shown import Unfailing
from mlkit.run.folder import Run
from shell import SCRIPTS
from test_signals import project  # noqa: F401


class Broken(io.StringIO):
    "A stream of the user's, in which everything fails."
    def write(self, text): raise RuntimeError("no ink")
    def flush(self): raise RuntimeError("no ink")
    isatty = fileno = None


def to_file(path: str, *fds: int):
    for fd in fds: os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), fd)


def closed(*fds: int):
    for fd in fds: os.close(fd)


def reader_gone(*fds: int):
    read, write = os.pipe()
    for fd in fds: os.dup2(write, fd)
    os.close(read)


def terminal_gone(*fds: int):
    main, other = os.openpty()
    for fd in fds: os.dup2(other, fd)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.close(main)


def stuck(*fds: int):
    "A pipe that nobody reads, which does not block."
    _, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True: os.write(write, b"x" * 4096)
    except BlockingIOError: pass
    for fd in fds: os.dup2(write, fd)


WAYS = {
    "stdout full": lambda: to_file("/dev/full", 1),
    "stderr full": lambda: to_file("/dev/full", 2),
    "both full": lambda: to_file("/dev/full", 1, 2),
    "stdout closed": lambda: closed(1),
    "stderr closed": lambda: closed(2),
    "all closed": lambda: closed(0, 1, 2),
    "reader gone": lambda: reader_gone(1),
    "both readers gone": lambda: reader_gone(1, 2),
    "terminal gone": lambda: terminal_gone(0, 1, 2),
    "stuck": lambda: stuck(1, 2),
    "ascii": lambda: None,
    "the user's stream": lambda: None,
    "python's closed": lambda: None,
}


def streams(way: str):
    "What Python would make of it at its start."
    for fd, name in ((1, "stdout"), (2, "stderr")):
        try: os.fstat(fd)
        except OSError: setattr(sys, name, None)
        else: setattr(sys, name, open(fd, "w", closefd=False, errors="strict",
                                      encoding="ascii" if way == "ascii" else "utf-8"))
    if way == "the user's stream": sys.stdout, sys.stderr = Broken(), Broken()
    if way == "python's closed": [o.close() for o in (sys.stdout, sys.stderr)]


def forked(way: str, how: str, words: list[str], folder: str, result: str):
    end_with_starter()
    os.chdir(folder)
    sys.path.insert(0, folder)
    from mlkit import all as mlkit
    from mlkit import cli
    to_file(os.devnull, 1, 2)
    WAYS[way]()
    streams(way)
    found = {}
    try:
        if how == "script": found["code"] = 0 * len(mlkit.train(*words).id)
        elif how == "grid": found["code"] = int(not mlkit.grid(*words, "seed=1,2").done)
        else: found["code"] = getattr(cli, how)(words)
    except BaseException as e: found["error"] = repr(e)
    Path(result).write_text(json.dumps(found))
    os._exit(0)


def outcome(project: Path, tmp_path: Path, way: str, how: str, *words: str) -> dict:  # noqa: F811
    result = tmp_path / "result"
    args = way, how, [str(o) for o in words], str(project), str(result)
    process = FORKS.Process(target=forked, args=args)
    process.start()
    process.join(120)
    process.kill()
    return json.loads(result.read_text())


TINY = ("slow.yaml", "trainer.max_epochs=1", "name=naïve",
        "callbacks.progress={_target_: mlkit.fit.progress.Progress}")
HOW = "mlkit_train", "script", "grid"
SOME = [(way, HOW[i % 2]) for i, way in enumerate(WAYS)]
REST = [(way, how) for way in WAYS for how in HOW if (way, how) not in SOME]


def is_done(project: Path, tmp_path: Path, way: str, how: str):  # noqa: F811
    found = outcome(project, tmp_path, way, how, *TINY, f"runs={tmp_path / 'runs'}")
    assert found == dict(code=0)
    runs = [Run(o.parent) for o in tmp_path.rglob("run.json")]
    assert runs and {o.status for o in runs} == {"done"}
    assert all(f"run: {os.path.relpath(o.dir, project)}" in o.log or str(o.dir) in o.log
               for o in runs)


@pytest.mark.parametrize("way, how", SOME)
def test_a_training_is_done(project, tmp_path, way, how):  # noqa: F811
    is_done(project, tmp_path, way, how)


@pytest.mark.slow
@pytest.mark.parametrize("way, how", REST)
def test_a_training_is_done_whatever_starts_it(project, tmp_path, way, how):  # noqa: F811
    is_done(project, tmp_path, way, how)


@pytest.mark.parametrize("way", ["both full", "all closed"])
def test_a_failure_is_told_by_the_log(project, tmp_path, way):  # noqa: F811
    runs = f"runs={tmp_path / 'runs'}"
    found = outcome(project, tmp_path, way, "mlkit_train", *TINY, runs, "+model.fails=true")
    assert found == dict(code=1)
    run, = (Run(o.parent) for o in tmp_path.rglob("run.json"))
    assert run.status == "failed" and "RuntimeError: as it should" in run.log


@pytest.mark.parametrize("wrapped", [Unfailing, lambda o: Unfailing(Unfailing(o)), lambda o: o])
def test_a_line_does_not_come_into_the_middle_of_a_bar(monkeypatch, wrapped):
    seen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", wrapped(seen))
    bar = tqdm(total=9, file=Unfailing(sys.stderr))
    bar.update()
    tqdm.write("a line", file=sys.stderr)
    bar.close()
    assert "a line" in re.split("[\r\n]", seen.getvalue())


def test_other_commands_say_that_their_output_is_not_whole():
    def code(line: str) -> tuple[int, str]:
        done = subprocess.run(["bash", "-c", line], cwd=SCRIPTS, capture_output=True, text=True)
        return done.returncode, done.stderr
    print_ = f"./mlkit_train {Path(__file__).parents[1]}/configs/mnist.yaml --print"
    says = "the output is not whole: [Errno 28] No space left on device\n"
    assert code(f"{print_} > /dev/full") == (1, says)
    assert code(f"{print_} 2> /dev/full") == (0, "")
    assert code(f"{print_} | head -1; exit ${{PIPESTATUS[0]}}") == (0, "")
    assert code(f"{print_} >&-") == (1, "the output is not whole: it is closed\n")
    assert code(f"{print_} >&- 2>&-")[0] in (0, 1)
    assert code(f"{print_}=1 > /dev/full 2> /dev/full")[0] == 2
