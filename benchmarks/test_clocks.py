"""What looks at the clock: `pytest -n 0 benchmarks`, on a machine that does nothing else.

Bounds are for a machine on which `import torch` takes 1.4 s; `slowness` scales them. Each figure is
printed at the end.
"""
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from draw_samples import write_idx

from hydra_cases import VISION, Case, columns
from hydra_oracle import ask
from mlkit.config.load import load_config
from mlkit.data.images import IDX_FILES, SAMPLES, read_idx
from mlkit.data.loader import ArrayLoader, Normalize
from mlkit.many.table import runs
from mlkit.model import augment
from mlkit.parts.locate import locate
from mlkit.parts.trust import TargetError
from mlkit.run.folder import Run
from shell import ROOT, command

MNIST = "configs/mnist.yaml"


def best(n: int, call, *args) -> float:
    "The shortest of n calls, in seconds."
    def once():
        start = time.perf_counter()
        call(*args)
        return time.perf_counter() - start
    return min(once() for _ in range(n))


# -- configs

TWELVE = {o: VISION[o] for o in columns("""
data/mnist   data/base   data/transform/digits   data/transform/plain   model/cnn   model/net/small
model/optimizer/adam   model/scheduler/plateau   model/loss/cross_entropy   trainer/default
paths/default
""")}
LATER = "callbacks|logger|extras|hydra|experiment|hparams_search|optional local|debug"
TWELVE["config"] = "".join(line for line in VISION["config"].splitlines(True)
                           if not re.match(f"  - ({LATER}):", line))


def test_load_config_takes_a_quarter_of_the_time_of_hydra(hydra_python, tmp_path, figure):
    "All of `load_config`, with mlkit's own layers, against `hydra.compose` alone: 12 files."
    (tmp_path / "pyproject.toml").touch()
    path = Case("", TWELVE).write(tmp_path / "configs")
    overrides = ["model.optimizer.lr=0.01", "trainer=default", "+model.net.depth=2"]
    assert len(list(path.parent.rglob("*.yaml"))) == 12
    def measured(): return [best(1, load_config, path, *overrides) for _ in range(15)]
    load_config(path, *overrides)
    mine = measured()
    asked = [[str(path.parent), path.stem, overrides]]
    theirs = statistics.median(ask(hydra_python, asked, "--time", "15")[0]["seconds"])
    mine = statistics.median(mine + measured())
    told = (f"load_config {mine * 1e3:.1f} ms, hydra.compose {theirs * 1e3:.1f} ms: "
            f"{mine / theirs:.2f}")
    figure(told)
    assert mine <= theirs / 4, told


def test_a_target_is_judged_in_a_millisecond(figure):
    targets = ["torch.nn.Linear", "torch.relu", "pytorch_lightning.Trainer",
               "mlkit.model.lit.LitModel", "logging.os.system", "torch.hub.load", "webbrowser.open"]
    def tried(target):
        try: locate(target, ROOT)
        except TargetError: pass
    took = {target: best(20, tried, target) for target in targets}
    figure(f"locate: at most {max(took.values()) * 1e3:.2f} ms")
    assert max(took.values()) < 1e-3, took


# -- commands

QUICK = [["--help"], [MNIST, "--print"], [MNIST, "--explain", "optimizer.lr"]]


@pytest.mark.parametrize("args", QUICK, ids=["help", "print", "explain"])
def test_quick_answers(args, slowness, figure):
    took = best(5, lambda: command("mlkit_train", *args, code=0))
    figure(f"mlkit_train {' '.join(args)}: {took:.2f} s")
    assert took <= 0.3 * slowness


def test_check_waits_for_torch_alone(slowness, figure):
    mistakes = ["trainer.max_epoch=3", "model.net.chanels=1"]
    took = best(5, lambda: command("mlkit_train", MNIST, *mistakes, "--check", code=2))
    torch_alone = best(5, lambda: command("python", "-c", "import torch", code=0))
    figure(f"mlkit_train --check: {took:.2f} s, import torch: {torch_alone:.2f} s")
    assert took <= torch_alone + 0.5 * slowness


def test_the_main_job_takes_a_minute(tmp_path, slowness, figure):
    took = best(1, lambda: command("mlkit_train", MNIST, f"runs={tmp_path}", code=0))
    figure(f"mlkit_train {MNIST}: {took:.0f} s")
    assert took <= 60 * slowness


# -- tables of runs

def write_runs(folder: Path, n: int):
    "Folders of n runs, done, with nothing but a run.json and empty folders."
    info = Run.new(load_config(ROOT / MNIST, f"runs={folder / 'one'}")).info
    info = {**info, "status": "done", "seconds": 12.3, "device": "cpu", "data": "ab" * 32}
    for i in range(n):
        run = folder / f"job{i % 4}" / f"20260101-{i:06}-abcd"
        for sub in ("checkpoints", "plots"): (run / sub).mkdir(parents=True)
        metrics = {"train/loss": 0.2, "val/loss": 0.3, "val/acc": i / n, "test/acc": 0.91}
        config = {**info["config"], "seed": i}
        (run / "run.json").write_text(json.dumps({**info, "metrics": metrics, "config": config}))


def test_2000_runs_take_2_seconds(tmp_path, slowness, figure):
    write_runs(tmp_path, 2000)
    def table(): return runs(tmp_path, where="val/acc >= 0.5 and optimizer.lr < 1", sort="+val/acc")
    assert len(table()) == 1000 and table()["val/acc"].is_monotonic_increasing
    took = best(3, table)
    figure(f"runs() of 2,000 runs: {took:.2f} s")
    assert took <= 2 * slowness


def test_mlkit_runs_of_200_runs(tmp_path, slowness, figure):
    write_runs(tmp_path, 200)
    took = best(5, lambda: command("mlkit_runs", tmp_path, code=0))
    figure(f"mlkit_runs of 200 runs: {took:.2f} s")
    assert took <= 0.6 * slowness


# -- training

def test_the_loader_is_quick(figure):
    "An epoch of 60,000 images, gathered and normalized; about 0.03 s on an idle core."
    x, y = torch.zeros(60000, 1, 28, 28, dtype=torch.uint8), torch.zeros(60000, dtype=torch.int64)
    normalize = Normalize((0.1307,), (0.3081,))
    loader = ArrayLoader((x, y), 128, True, transform=lambda b: (normalize(b[0]), b[1]))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    took = best(5, lambda: [None for _ in loader])
    torch.set_num_threads(threads)
    figure(f"ArrayLoader, 60,000 images: {took:.3f} s")
    assert took < 0.3


def test_all_augmentations_take_a_few_milliseconds(slowness, figure):
    a = augment
    every = a.Augment(
        a.RandomAffine(shear=5., p=0.5), a.RandomFlip(vertical=True, p=0.5),
        a.RandomBlur((0.5, 2.), p=0.5), a.RandomNoise((0.1, 0.2), p=0.5), a.RandomContrast(p=0.5),
        a.Cutout(p=0.5), a.GridMask(p=0.5), a.MixUp(p=0.5), a.CutMix(p=0.5))
    x, y = torch.randn(64, 1, 64, 64), torch.randint(10, (64,))
    took = best(30, every, x, y)
    figure(f"all augmentations on (64, 1, 64, 64): {took * 1e3:.1f} ms")
    assert took < 0.015 * slowness


def test_overhead(tmp_path, figure):
    "overhead.py on as many images as full MNIST has: the sample, ten times over."
    for name in IDX_FILES:
        sample = read_idx(SAMPLES / "mnist" / f"{name}.gz")
        write_idx(tmp_path / name, np.concatenate([sample] * 10))
    script = [sys.executable, ROOT / "benchmarks" / "overhead.py", "--root", tmp_path]
    done = subprocess.run([*script, "--rounds", "3"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    ratio = float(re.search(r"^ratio ([\d.]+)", done.stdout, re.M)[1])
    figure(f"overhead: ratio {ratio:.2f}")
    assert ratio <= 2
