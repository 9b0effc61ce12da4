#!/usr/bin/env python3
"""A small training alone, and beside one busy program on each core: with mlkit's threads, without.

    python benchmarks/busy.py [--rounds 5]

It trains a small MLP (784, 64, 128, 64, 10, with batch norm) on the embedded sample of MNIST for
six epochs, as `mlkit_train`. Without means torch's own number of threads, which spin 300,000 times
while they wait, as they do where nothing is said. The four take turns, after a round that is not
counted. The others are loops of Python, as nice as this. Measured are the fit, of which the ratios
are, and the whole command; figures are medians. The exit code is 1 if with mlkit's threads the
busy machine is more than --limits[0] times slower than the idle one, or if the idle one is more
than --limits[1] times slower than without. Run it on an idle machine.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = """
defaults:
  - data: mnist
  - model: classifier
  - optimizer: adam
data: {batch_size: 128}
model:
  net: {_target_: mlkit.model.nets.MLP, in_shape: 784, num_classes: 10, hidden: [64, 128, 64]}
trainer: {max_epochs: 6, accelerator: cpu, limit_test_batches: 0}
callbacks: {progress: null}
"""
SETS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def measure(env: dict[str, str]) -> tuple[float, float, int]:
    "(seconds of the fit, of the command; threads)"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "pyproject.toml").touch()
        Path(folder, "a.yaml").write_text(CONFIG)
        start = time.perf_counter()
        done = subprocess.run([Path(sys.executable).parent / "mlkit_train", "a.yaml"], env=env,
                              cwd=folder, capture_output=True, text=True)
        taken = time.perf_counter() - start
        if done.returncode: sys.exit(done.stderr[-2000:])
        run = json.loads(next(Path(folder).glob("runs/*/*/run.json")).read_text())
    return run["timings"]["fit"], taken, run["machine"]["threads"]


def main() -> bool:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--rounds", type=int, default=5, help="counted rounds (default: 5)")
    p.add_argument("--limits", type=float, nargs=2, default=(2.2, 1.03), help="of the two ratios")
    args = p.parse_args()
    free = {k: v for k, v in os.environ.items() if k not in SETS}
    asked = [sys.executable, "-c", "import torch; print(torch.get_num_threads())"]
    n = subprocess.run(asked, env=free, capture_output=True, text=True, check=True).stdout.strip()
    sides = {"with": free, "without": {**free, "OMP_NUM_THREADS": n, "GOMP_SPINCOUNT": "300000"}}
    cores, found = len(os.sched_getaffinity(0)), {}
    for i in range(args.rounds + 1):
        for others in (0, cores):
            spinning = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
                        for _ in range(others)]
            try:
                for side, env in sides.items():
                    figures = measure(env)
                    if i: found.setdefault((side, others), []).append(figures)
            finally:
                for o in spinning:
                    o.kill()
                    o.wait()
    fit = {}
    for (side, others), figures in sorted(found.items()):
        fits, whole, threads = zip(*figures)
        fit[side, others > 0] = statistics.median(fits)
        print(f"{side:8} beside {others}:  fit {' '.join(f'{o:6.2f}' for o in fits)}  "
              f"command {statistics.median(whole):5.1f} s  threads {sorted({*threads})}")
    busy = fit["with", True] / fit["with", False]
    print(f"without, busy / idle: {fit['without', True] / fit['without', False]:.2f}")
    print(f"with, busy / idle: {busy:.2f} (limit {args.limits[0]:g})")
    idle = fit["with", False] / fit["without", False]
    print(f"idle, with / without: {idle:.2f} (limit {args.limits[1]:g})")
    return busy > args.limits[0] or idle > args.limits[1]


if __name__ == "__main__": sys.exit(main())
