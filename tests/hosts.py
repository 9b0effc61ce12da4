"""Two hosts on one machine, for tests: each has a network, a name and processes of its own (Linux
namespaces), and the disk is shared. Needs root and iproute2."""
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

BIN = Path(sys.executable).parent


@dataclass
class Host:
    "One of the two; `address` is its own, `card` its network card."
    name: str
    address: str
    card: str
    init: list[subprocess.Popen] = field(default_factory=list)  # the first processes on it

    def start(self, words: list, log: Path, cwd: Path, **env: str) -> subprocess.Popen:
        "Start a command here; what it says goes into a file."
        inside = f"hostname {self.name} && mount -t proc proc /proc && exec \"$@\""
        command = ["ip", "netns", "exec", self.name, "unshare", "--uts", "--pid", "--mount",
                   "--fork", "--kill-child", "sh", "-c", inside, "sh", *map(str, words)]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": self.card,
               "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", **env}
        with open(log, "w") as out:
            process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out,
                                       stderr=out, env=env, start_new_session=True)
        self.init.append(process)
        return process

    def torchrun(self, *words, first: str, here: bool, nodes: str = "2", restarts: int = 0) -> list:
        "The words of a shell that start `mlkit_train` on this host, one of two."
        conf = f"is_host={int(here)},join_timeout=60"
        return [BIN / "torchrun", "--nnodes", nodes, "--nproc-per-node", "1", "--no-python",
                "--max-restarts", restarts, "--rdzv-backend", "c10d", "--rdzv-id", "r1",
                "--rdzv-endpoint", f"{first}:29400", "--rdzv-conf", conf,
                "--local-addr", self.address, BIN / "mlkit_train", *words]

    def kill(self):
        "All of its processes are gone at once."
        for o in self.init:
            if o.poll() is None: os.killpg(o.pid, signal.SIGKILL)
            o.wait()
        left = ["ip", "netns", "pids", self.name]
        comes(lambda: not subprocess.run(left, capture_output=True).stdout, 10)


def connected(tag: str) -> tuple[Host, Host]:
    "Two hosts, with a cable between them. Raises CalledProcessError where that is not allowed."
    a, b = (Host(f"mlkit-{tag}-{i}", f"10.77.0.{i}", f"v{tag}{i}") for i in (1, 2))
    def ip(*words): subprocess.run(["ip", *words], check=True, capture_output=True)
    for o in (a, b): ip("netns", "add", o.name)
    ip("link", "add", a.card, "netns", a.name, "type", "veth", "peer", b.card, "netns", b.name)
    for o in (a, b):
        ip("-n", o.name, "addr", "add", f"{o.address}/24", "dev", o.card)
        for card in (o.card, "lo"): ip("-n", o.name, "link", "set", card, "up")
    return a, b


def disconnected(hosts: tuple[Host, ...]):
    "Take the hosts away, with all that runs there."
    for o in hosts:
        o.kill()
        subprocess.run(["ip", "netns", "delete", o.name], capture_output=True)


def waited(process: subprocess.Popen, seconds: float = 120) -> int | None:
    "Its exit code; None: it hung, and is killed."
    try: return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def comes(what, seconds: float = 60) -> bool:
    "Wait until something is so."
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end: time.sleep(0.05)
    return bool(what())
