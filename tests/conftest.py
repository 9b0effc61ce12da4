"What every test starts from: no tracker on the network, and none of the settings of whoever runs them."
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import hydra_oracle
import pytest

for name in [n for n in os.environ if n.startswith("MLKIT_")] + ["IN_TEST"]: os.environ.pop(name, None)
os.environ["WANDB_MODE"] = "offline"
THREADS = "OMP_NUM_THREADS"
if "PYTEST_XDIST_WORKER" in os.environ: os.environ.setdefault(THREADS, "1")  # a core for each worker


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    "A test that looks at the clock (`slowness`, or marked `alone`) waits until no other runs, and none begins meanwhile."
    if "PYTEST_XDIST_WORKER" not in os.environ: return (yield)
    alone = "slowness" in item.fixturenames or item.get_closest_marker("alone")
    folder = Path(item.config.rootpath) / ".pytest_cache"
    folder.mkdir(exist_ok=True)
    with open(folder / "door.lock", "w") as door, open(folder / "room.lock", "w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)  # who waits to be alone stands in the door
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone: fcntl.flock(door, fcntl.LOCK_UN)
        threads = os.environ.pop(THREADS, None) if alone else None
        try: return (yield)
        finally:
            if threads: os.environ[THREADS] = threads


@pytest.fixture
def figure(record_property):
    "Tells what was measured; it stands in the last lines of all."
    return lambda text: record_property("figure", text)


def pytest_terminal_summary(terminalreporter):
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, [])]
    figures = [text for r in reports for name, text in r.user_properties if name == "figure"]
    if figures: terminalreporter.section("figures")
    for text in figures: terminalreporter.line(text)


@pytest.fixture(scope="session")
def hydra_python(request) -> Path:
    "The Python of an environment with Hydra; it stays in pytest's cache for the next time."
    return hydra_oracle.environment(request.config.cache.mkdir("hydra"))


@pytest.fixture(scope="session")
def slowness() -> float:
    "How much slower this machine is now than one on which `import torch` takes 1.4 s; 1 where it is faster."
    def once():
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        return time.perf_counter() - start
    return max(1.0, min(once() for _ in range(3)) / 1.4)


@pytest.fixture(scope="session")
def root() -> Path:
    "The project's root."
    return Path(__file__).resolve().parent.parent
