#!/usr/bin/env python3
"""A grid of eight learning rates, as whole commands: one worker, two, and a peer's multirun.

    python benchmarks/search.py --root path/to/idx/files [--template CHECKOUT --python ITS_PYTHON]

Each trains the same MLP (784, 64, 128, 64, 10, with batch norm) for one epoch on full MNIST, with
55,000 images in batches of 128, a validation on 5,000, a test on 10,000 and checkpoints. CHECKOUT
is one of github.com/ashleve/lightning-hydra-template, ITS_PYTHON has what it requires; its MNIST is
where it looks for it. Commands take turns, A B C A B C; a ratio is one of medians. On two cores,
idle, the ratios are to be at most 0.62 and 0.17 (--limits).
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RATES = "0.0005,0.001,0.002,0.003,0.004,0.006,0.008,0.01"
CONFIG = """
defaults:
  - data: mnist
  - model: classifier
  - optimizer: adam
data: {{source: full, root: {root}, batch_size: 128, val_size: 5000}}
model:
  net: {{_target_: mlkit.model.nets.MLP, in_shape: 784, num_classes: 10, hidden: [64, 128, 64]}}
trainer: {{max_epochs: 1, accelerator: cpu}}
"""


def seconds(command: list, folder: Path, **env: str) -> float:
    start = time.perf_counter()
    with open(folder / "out.txt", "w") as out:
        done = subprocess.run(list(map(str, command)), cwd=folder, stdout=out, stderr=out,
                              env={**os.environ, **env})
    taken = time.perf_counter() - start
    if done.returncode: sys.exit((folder / "out.txt").read_text()[-2000:])
    return taken


def main() -> bool:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--root", required=True, help="a folder with the IDX files of MNIST")
    p.add_argument("--template", type=Path, help="a checkout of lightning-hydra-template")
    p.add_argument("--python", default=sys.executable, help="the template's Python")
    p.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    p.add_argument("--limits", type=float, nargs=2, default=(0.62, 1 / 6), help="of the ratios")
    args = p.parse_args()
    train = [Path(sys.executable).parent / "mlkit_train", "a.yaml", "-m", f"optimizer.lr={RATES}"]
    theirs = [args.python, "src/train.py", "-m", "trainer=cpu", "trainer.max_epochs=1",
              f"model.optimizer.lr={RATES}"]
    found: dict[str, list[float]] = {"1 worker": [], "2 workers": [], "template": []}
    for _ in range(args.rounds):
        for n in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder)
                (place / "pyproject.toml").touch()
                (place / "a.yaml").write_text(CONFIG.format(root=os.path.abspath(args.root)))
                name = f"{n} worker{'s' * (n > 1)}"
                found[name].append(seconds([*train, f"search.workers={n}"], place))
        if args.template:  # of what it does not allow itself, it loads its own checkpoints
            env = dict(PROJECT_ROOT=str(args.template), TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1")
            found["template"].append(seconds(theirs, args.template, **env))
    for name, ts in found.items():
        if ts: print(f"{name:10} {' '.join(f'{t:7.1f}' for t in ts)} s")
    middle = {k: statistics.median(ts) for k, ts in found.items() if ts}
    pairs = [("2 workers", "1 worker"), ("2 workers", "template")]
    worse = False
    for (a, b), limit in zip(pairs, args.limits):
        if b not in middle: continue
        ratio = middle[a] / middle[b]
        print(f"{a} / {b}: {ratio:.3f} (limit {limit:.3f})")
        worse |= ratio > limit
    return worse


if __name__ == "__main__": sys.exit(main())
