"A real kernel: cells are run in it, looked at, and interrupted."
import os
import re
import signal
import time
from pathlib import Path
from typing import Any, Callable, NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Cell(NamedTuple):
    "What came of a cell."
    error: str         # the exception's name; '' if there was none
    traceback: str     # what was shown of it, without colours
    text: str          # what was printed
    shown: list[dict]  # the bundles that were displayed, of all kinds; the value comes last
    count: int         # its number, as in `In [3]`

    @property
    def lines(self) -> list[str]:
        "All that is to be read, line by line."
        return [o for o in f"{self.text}\n{self.traceback}".splitlines() if o.strip()]


class Kernel:
    "An IPython kernel of this environment, in a folder."
    def __init__(self, folder: Path, **env: str):
        from jupyter_client.manager import start_new_kernel
        path = os.pathsep.join([str(ROOT), str(folder)])
        env = {**os.environ, "PYTHONPATH": path, "JUPYTER_PLATFORM_DIRS": "1", **env}
        self.manager, self.client = start_new_kernel(env=env, cwd=str(folder))
        self.pid: int = self.manager.provisioner.pid

    def run(self, code: str, meanwhile: Callable[[], Any] = lambda: None, limit=120.0) -> Cell:
        "Run a cell, and call a function while it runs."
        asked = self.client.execute(code, stop_on_error=False)
        meanwhile()
        text, shown, error, traceback, count, end = "", [], "", "", 0, time.time() + limit
        while True:
            message = self.client.get_iopub_msg(timeout=max(end - time.time(), 0.1))
            kind, content = message["msg_type"], message["content"]
            if message["parent_header"].get("msg_id") != asked: continue
            if kind == "execute_input": count = content["execution_count"]
            if kind == "stream": text += content["text"]
            if kind in ("display_data", "execute_result"): shown.append(content["data"])
            if kind == "error":
                error = content["ename"]
                traceback = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(content["traceback"]))
            if kind == "status" and content["execution_state"] == "idle": break
        while self.client.get_shell_msg(timeout=60)["parent_header"].get("msg_id") != asked: pass
        return Cell(error, traceback, text, shown, count)

    def value(self, code: str) -> str:
        "The text of an expression's value; an assertion fails if it raises."
        found = self.run(code)
        assert not found.error, found.traceback
        return found.shown[-1]["text/plain"] if found.shown else ""

    def interrupt(self, times: int = 1):
        for _ in range(times):
            os.kill(self.pid, signal.SIGINT)
            time.sleep(0.3)

    def inspect(self, name: str) -> str:
        "What Shift-Tab shows."
        asked = self.client.inspect(name, detail_level=0)
        while True:
            answer = self.client.get_shell_msg(timeout=60)
            if answer["parent_header"]["msg_id"] == asked: break
        return re.sub(r"\x1b\[[0-9;]*m", "", answer["content"]["data"].get("text/plain", ""))

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
