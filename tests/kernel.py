"A real kernel of a notebook: `with Kernel(folder) as kernel: kernel.run('1 + 1')`."
import os
import re
import time
from pathlib import Path

from jupyter_client.manager import KernelManager


class Kernel:
    "Runs cells, in a folder. `out`: what the last one has shown so far, as text."
    def __init__(self, folder: Path, **env: str): self.folder, self.env = folder, os.environ | env

    def __enter__(self) -> "Kernel":
        self.manager, self.out, self.cell = KernelManager(), [], ""
        self.manager.start_kernel(cwd=str(self.folder), env=self.env)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(60)
        return self

    def __exit__(self, *_):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def start(self, code: str):
        "Begin with a cell."
        self.out, self.cell = [], self.client.execute(code)

    def run(self, code: str, seconds: float = 120) -> str:
        "Run a cell to its end; what it shows."
        self.start(code)
        return self.wait(seconds)

    def wait(self, seconds: float = 120) -> str:
        "Wait for the end of a cell; what it has shown."
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            message = self.client.get_iopub_msg(timeout=seconds)
            if message["parent_header"].get("msg_id") != self.cell: continue
            kind, o = message["msg_type"], message["content"]
            if kind == "stream": self.out.append(o["text"])
            elif kind == "error": self.out.append("\n".join(o["traceback"]))
            elif "data" in o: self.out.append(o["data"].get("text/plain", ""))
            if kind == "status" and o["execution_state"] == "idle": return self.shown
        raise TimeoutError(self.shown)

    @property
    def shown(self) -> str: return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(self.out))
