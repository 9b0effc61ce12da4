"What every test starts from: no tracker on the network, and none of the settings of whoever runs them."
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

for name in [n for n in os.environ if n.startswith("MLKIT_")] + ["IN_TEST"]: os.environ.pop(name, None)
os.environ["WANDB_MODE"] = "offline"


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
