"""A real kernel of IPython: cells are run in it, looked at, and interrupted.

It is forked from a server that has imported torch and Lightning, which takes longer than most
cells do. `notebook` writes the file of one, for JupyterLab (see `lab`)."""
import json
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from forked import FORKS, end_with_starter

ROOT = Path(__file__).resolve().parent.parent


def surroundings(folder: Path, **env: str) -> dict[str, str]:
    "The variables of a kernel whose notebook lies in a project's folder."
    path = os.pathsep.join([str(ROOT), str(folder)])
    own = {k: o for k, o in os.environ.items() if not k.startswith("PYTEST_")}
    return {**own, "PYTHONPATH": path, "JUPYTER_PLATFORM_DIRS": "1", **env}


def notebook(path: Path, *cells: str):
    "Write a notebook of code cells."
    made = [dict(cell_type="code", id=f"cell{i}", metadata={}, source=o, outputs=[],
                 execution_count=None) for i, o in enumerate(cells)]
    spec = dict(kernelspec=dict(name="python3", display_name="Python 3", language="python"))
    path.write_text(json.dumps(dict(cells=made, metadata=spec, nbformat=4, nbformat_minor=5)))


def serve(file: str, folder: str, env: dict[str, str]):
    "In a process of its own: be a kernel."
    from ipykernel.kernelapp import IPKernelApp
    os.setsid()
    end_with_starter()
    multiprocessing.set_start_method("fork", force=True)  # of workers, as in any other process
    multiprocessing.current_process()._config["daemon"] = False  # which may have none
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None
    sys.path[:0] = env["PYTHONPATH"].split(os.pathsep)
    words = [f"parent_handle={os.getppid()}", "log_level=ERROR"]
    words = [*(f"--IPKernelApp.{o}" for o in words), "--HistoryManager.enabled=False"]
    IPKernelApp.launch_instance(["-f", file, *words])


@dataclass
class Cell:
    "What came of a cell."
    error: str = ""      # the exception's name; '' if there was none
    traceback: str = ""  # what was shown of it, without colours
    text: str = ""       # what was printed
    shown: list[dict] = field(default_factory=list)  # what was displayed; the value comes last
    count: int = 0       # its number, as in `In [3]`

    @property
    def lines(self) -> list[str]:
        "All that was printed, line by line."
        return [o for o in f"{self.text}\n{self.traceback}".splitlines() if o.strip()]

    @property
    def all(self) -> str:
        "All that is to be read."
        return "\n".join([*self.lines, *(o.get("text/plain", "") for o in self.shown)])


class Kernel:
    "A kernel in a folder: `with Kernel(folder) as kernel: kernel.run('1 + 1')`."
    def __init__(self, folder: Path, **env: str):
        from jupyter_client.blocking.client import BlockingKernelClient
        from jupyter_client.connect import write_connection_file
        self.folder, self.home = folder, tempfile.TemporaryDirectory(prefix="kernel-")
        file, _ = write_connection_file(f"{self.home.name}/kernel.json")
        self.process = FORKS.Process(target=serve, daemon=True,
                                     args=(file, str(folder), surroundings(folder, **env)))
        self.process.start()
        self.client = BlockingKernelClient(connection_file=file)
        self.client.load_connection_file()
        self.client.start_channels()
        self.client.wait_for_ready(60)

    def __enter__(self) -> "Kernel": return self

    def __exit__(self, *_):
        self.client.stop_channels()
        self.kill()
        self.home.cleanup()

    def kill(self):
        "End the kernel, and whatever is of its group."
        if self.process.is_alive(): os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()

    def start(self, code: str):
        "Begin to run a cell."
        self.asked = self.client.execute(code, stop_on_error=False)

    def wait(self, limit: float = 120.0) -> Cell:
        "What has come of a cell, at its end."
        cell, shown, end = Cell(), {}, time.time() + limit
        while True:
            message = self.client.get_iopub_msg(timeout=max(end - time.time(), 0.1))
            kind, content = message["msg_type"], message["content"]
            if message["parent_header"].get("msg_id") != self.asked: continue
            if kind == "execute_input": cell.count = content["execution_count"]
            if kind == "stream": cell.text += content["text"]
            if kind in ("display_data", "execute_result", "update_display_data"):
                place = content.get("transient", {}).get("display_id", len(shown))
                shown[place] = content["data"]
            if kind == "error":
                cell.error = content["ename"]
                cell.traceback = plain("\n".join(content["traceback"]))
            if kind == "status" and content["execution_state"] == "idle": break
        self._answer(self.asked)
        cell.shown = [*shown.values()]
        return cell

    def run(self, code: str, meanwhile: Callable[[], Any] = lambda: None, limit=120.0) -> Cell:
        "Run a cell, and call a function while it runs."
        self.start(code)
        meanwhile()
        return self.wait(limit)

    def value(self, code: str) -> str:
        "The text of an expression's value; an assertion fails if it raises."
        found = self.run(code)
        assert not found.error, found.traceback
        return found.shown[-1]["text/plain"] if found.shown else ""

    def interrupt(self, times: int = 1):
        for _ in range(times):
            os.kill(self.process.pid, signal.SIGINT)
            time.sleep(0.3)

    def inspect(self, name: str) -> str:
        "What Shift-Tab shows."
        data = self._answer(self.client.inspect(name, detail_level=0))["content"]["data"]
        return plain(data.get("text/plain", ""))

    def _answer(self, asked: str) -> dict:
        while True:
            answer = self.client.get_shell_msg(timeout=60)
            if answer["parent_header"].get("msg_id") == asked: return answer


def plain(text: str) -> str: return re.sub(r"\x1b\[[0-9;]*m", "", text)
