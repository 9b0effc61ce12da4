"""Runs notebooks and console scripts, each in a process of its own that is quickly there.

Most of the time of a short notebook or command goes into importing torch and its like. Here one
process imports them once, and is forked for each; mlkit itself is imported anew, as ever.
"""
import atexit
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LARGE = ["nbdev.test", "IPython.core.completer", "torch", "torch.utils.data", "pytorch_lightning",
         "torchmetrics.classification", "pandas", "matplotlib.pyplot", "omegaconf", "pydantic"]


def redirect(out: str, err: str):
    "Give this process these files as its output."
    written = os.open(out, os.O_WRONLY | os.O_CREAT)
    errors = written if err == out else os.open(err, os.O_WRONLY | os.O_CREAT)
    for fd, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, written), (2, errors)):
        os.dup2(source, fd)


def notebook(path: str, log: str) -> int:
    "Run a notebook as `nbdev_test` does, its output into a file; 0 if all cells passed."
    from nbdev.test import test_nb
    redirect(log, log)
    os.environ["TMPDIR"], tempfile.tempdir = os.path.dirname(log), None
    os.chdir(ROOT / "nbs")
    passed, _ = test_nb(Path(path), skip_flags=["notest"], basepath=ROOT)
    return 0 if passed else 1


def script(argv: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> int:
    "Run a console script of this environment; its exit code."
    redirect(out, err)
    before, after = (o.get("PYTHONPATH", "").split(os.pathsep) for o in (os.environ, env))
    rest = [o for o in sys.path[1:] if o not in before or o in after]
    sys.path[:] = [os.path.dirname(argv[0]), *(o for o in after if o and o not in rest), *rest]
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None
    os.chdir(cwd)
    sys.argv = argv
    signal.alarm(900)
    try: runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as e: code = e.code or 0
    else: code = 0
    atexit._run_exitfuncs()
    return code


def serve():
    "Read [function, arguments] lines; answer each with the exit code of a process that calls it."
    for name in LARGE: importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        name, args = json.loads(line)
        pid = os.fork()
        if not pid:  # without the end of an interpreter, which takes longer than most notebooks
            code = 1
            try:
                code = dict(notebook=notebook, script=script)[name](*args)
                sys.stdout.flush()
                sys.stderr.flush()
            except BaseException: sys.excepthook(*sys.exc_info())
            finally: os._exit(code)
        print(exit_code(pid), flush=True)


def exit_code(pid: int) -> int:
    "Of a child, once it has ended; it is killed if the process that started us ends."
    starter = select.poll()
    starter.register(0, 0)
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if starter.poll(5): os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(ended[1])


def end_with_starter():
    "In a process of a forkserver, which lives as long as any of its processes: end with the first."
    def end():
        multiprocessing.parent_process().join()
        os._exit(1)
    threading.Thread(target=end, daemon=True).start()


# Forked by `multiprocessing`, for what calls mlkit in Python and need not import it anew.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["mlkit.all", "mlkit.cli", "mlkit.train", "mlkit.use", "pandas",
                              "torchmetrics.classification", "matplotlib.backends.backend_agg",
                              "pytest", "ipykernel.kernelapp"])


class Forks:
    "The process that waits to be forked; started when it is first needed."
    def __init__(self): self.process = None

    def call(self, name: str, *args) -> int:
        "The exit code of a process that calls this function of ours."
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, text=True)
            atexit.register(self.process.kill)
        self.process.stdin.write(json.dumps([name, args]) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


_forks = Forks()


def run_notebook(path: Path, log: Path) -> tuple[bool, str]:
    "Did it pass, and what it printed."
    code = _forks.call("notebook", str(path), str(log))
    return code == 0, log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""


def run_script(argv: list, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess:
    "As `subprocess.run` of one of our console scripts."
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder) / name for name in ("out", "err"))
        argv = [str(o) for o in argv]
        code = _forks.call("script", argv, str(cwd), env, str(out), str(err))
        texts = [o.read_text(encoding="utf-8") if o.exists() else "" for o in (out, err)]
    return subprocess.CompletedProcess(argv, code, *texts)


if __name__ == "__main__": serve()
