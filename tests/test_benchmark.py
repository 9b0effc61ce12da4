"mlkit's loop must stay near one that is written by hand."
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlkit.data.idx import IDX_FILES, SAMPLES, read_idx, write_idx

ROOT = Path(__file__).parents[1]


@pytest.mark.alone
def test_overhead(tmp_path):
    "The benchmark on as many images as full MNIST has: the sample, ten times over."
    for name in IDX_FILES: write_idx(tmp_path / name, np.concatenate([read_idx(SAMPLES / "mnist" / f"{name}.gz")] * 10))
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "overhead.py", "--root", tmp_path, "--rounds", "3"],
                          cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert float(re.search(r"^ratio ([\d.]+)", done.stdout, re.M)[1]) <= 2
