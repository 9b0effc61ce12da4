"What the benchmarks start from; see test_clocks.py."
import os
import subprocess
import sys
import time

import pytest

from fixtures import figure, hydra_python, pytest_terminal_summary  # noqa: F401

for name in [n for n in os.environ if n.startswith("MLKIT_")]: os.environ.pop(name)


@pytest.fixture(scope="session")
def slowness() -> float:
    "How much slower this machine is than one where `import torch` takes 1.4 s; at least 1."
    def once():
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        return time.perf_counter() - start
    return max(1.0, min(once() for _ in range(3)) / 1.4)
