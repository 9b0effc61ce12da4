"""Runs notebooks as `nbdev_test` does, each in a process of its own.

Most of the time of a short notebook goes into importing torch and its like. Here one process
imports them once, and is forked for each notebook; mlkit itself is imported by the notebook, as
ever.
"""
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LARGE = ["nbdev.test", "IPython.core.completer", "torch", "torch.utils.data", "pytorch_lightning",
         "torchmetrics.classification", "pandas", "matplotlib.pyplot", "omegaconf", "pydantic"]


def execute(path: str, log: str) -> int:
    "In the forked process: run the notebook, its output into a file; 0 if all cells passed."
    from nbdev.test import test_nb
    out = os.open(log, os.O_WRONLY | os.O_CREAT)
    for fd, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, out), (2, out)):
        os.dup2(source, fd)
    os.environ["TMPDIR"], tempfile.tempdir = os.path.dirname(log), None
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs us behind
    os.chdir(ROOT / "nbs")
    passed, _ = test_nb(Path(path), skip_flags=["notest"], basepath=ROOT)
    sys.stdout.flush()
    sys.stderr.flush()
    return 0 if passed else 1


def serve():
    "Read [path, log] lines; answer each with the exit code of the notebook's process."
    for name in LARGE: importlib.import_module(name)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:  # without the end of an interpreter, which takes longer than most notebooks
            code = 1
            try: code = execute(*json.loads(line))
            finally: os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


class Notebooks:
    "The process that waits to be forked; started when the first notebook comes."
    def __init__(self): self.process = None

    def run(self, path: Path, log: Path) -> tuple[bool, str]:
        "Did it pass, and what it printed."
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, text=True)
        self.process.stdin.write(json.dumps([str(path), str(log)]) + "\n")
        self.process.stdin.flush()
        code = self.process.stdout.readline().strip()
        printed = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        return code == "0", printed

    def close(self):
        if self.process: self.process.kill()


if __name__ == "__main__": serve()
