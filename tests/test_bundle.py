"A bundle in a fresh virtual environment, without a network."
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest

from mlkit.cli import mlkit_bundle
from mlkit.train import train
from mlkit.use import predict

NET = "from torch import nn\n\n\nclass Net(nn.Sequential):\n" \
      "    def __init__(self, k: int): super().__init__(nn.Flatten(), nn.LazyLinear(k))\n"
CONFIG = """\
name: own
defaults: [data: mnist, model: classifier]
model:
  net: {_target_: ownnet.parts.Net, k: 10}
trainer: {max_epochs: 1, accelerator: cpu}
callbacks: {progress: null}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    "With a package of its own, in which a run was made."
    root = tmp_path_factory.mktemp("project")
    (root / "ownnet").mkdir()
    (root / "ownnet" / "__init__.py").write_text("")
    (root / "ownnet" / "parts.py").write_text(NET)
    (root / "settings.ini").write_text("[DEFAULT]\nlib_name = own-net\nversion = 1.5\n")
    (root / "own.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.syspath_prepend(str(root))
        yield root


def fresh_environment(folder: Path) -> Path:
    "A virtual environment with the libraries of this one by links, but without mlkit."
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    place = Path(subprocess.run([python, "-c", ask], capture_output=True, text=True,
                                check=True).stdout.strip())
    for o in {*map(Path, (sysconfig.get_paths()[k] for k in ("purelib", "platlib")))}:
        for lib in o.iterdir():
            is_ours = "mlkit" in lib.name or lib.suffix in (".pth", ".egg-link")
            if not is_ours and not (place / lib.name).exists(): (place / lib.name).symlink_to(lib)
    return python


@pytest.mark.slow
def test_it_predicts_the_same_elsewhere_without_a_network(project, tmp_path, capsys):
    runs = [train("own.yaml"), train("own.yaml", "seed=1")]
    ids = [str(o.dir) for o in runs]
    assert mlkit_bundle([*ids, "-o", str(tmp_path / "own.zip")]) == 0
    pixels = runs[0].datamodule.images[runs[0].datamodule.rows["test"][:20], 0].numpy()
    want = predict(runs, pixels, tta="flip", probabilities=True).table
    away = tmp_path / "away"
    ZipFile(tmp_path / "own.zip").extractall(away)
    np.save(away / "x.npy", pixels)
    python = fresh_environment(tmp_path / "venv")
    alone = ["unshare", "-n"] if shutil.which("unshare") and os.geteuid() == 0 else []
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def run(*words): return subprocess.run([*alone, python, *words], cwd=away, env=env,
                                           capture_output=True, text=True)
    words = ["predict.py", "x.npy", "--tta", "flip", "--probabilities", "-o", "out.csv"]
    assert "these are not installed: mlkit, own-net" in run(*words).stderr
    wheels = [str(o) for o in (away / "wheels").iterdir()]
    assert [Path(o).name for o in sorted(wheels)][1] == "own_net-1.5-py3-none-any.whl"
    done = run("-m", "pip", "install", "-q", "--no-index", "--no-deps", *wheels)
    assert done.returncode == 0, done.stderr
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "20 predictions in out.csv\n"
    found = pd.read_csv(away / "out.csv").filter(like="probability_")
    assert np.array_equal(found, want.filter(like="probability_"))
    done = run("-m", "pip", "show", "-f", "mlkit")
    assert "bin/mlkit_predict" in done.stdout and "mlkit/configs/default.yaml" in done.stdout
