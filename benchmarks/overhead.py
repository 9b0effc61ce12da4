"""What mlkit costs: one epoch of a small MLP on full MNIST, against a loop written by hand.

    python benchmarks/overhead.py --root path/to/idx/files [--rounds 5]

Both sides hold the data in memory and do the same work in the same order of magnitude of batches:
55,000 images in batches of 128 with fused Adam, a validation on 5,000, loss and accuracy of both, a
CSV row and a checkpoint. They run in turn, A B A B …, after one round that is not counted. Times
are of the fit alone, without imports and reading the data. The last line is the ratio of the
medians; the exit code is 1 if it is above --limit.
"""
import argparse
import csv
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from mlkit.data.mnist import MNIST
from mlkit.train import train

N_VAL, BATCH = 5_000, 128


def net() -> nn.Module:
    sizes = [784, 64, 128, 64]
    hidden = [m for i, o in zip(sizes, sizes[1:])
              for m in (nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, 10))


def by_hand(x, y, x_val, y_val, folder: Path) -> tuple[float, dict[str, float]]:
    "One epoch as a person would write it who wants it fast: (seconds, metrics)."
    torch.manual_seed(42)
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    scale = lambda t: t.float().div_(255).sub_(0.1307).div_(0.3081)
    start = time.perf_counter()
    sums = {s: torch.zeros(2) for s in ("train", "val")}
    model.train()
    for batch in torch.randperm(len(x)).split(BATCH):
        images, target = scale(x[batch]), y[batch]
        logits = model(images)
        loss = F.cross_entropy(logits, target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        sums["train"] += torch.stack([loss.detach() * len(batch),
                                      (logits.argmax(1) == target).sum()])
    model.eval()
    with torch.inference_mode():
        for batch in torch.arange(len(x_val)).split(BATCH):
            images, target = scale(x_val[batch]), y_val[batch]
            logits = model(images)
            sums["val"] += torch.stack([F.cross_entropy(logits, target) * len(batch),
                                        (logits.argmax(1) == target).sum()])
    row = {f"{s}/{n}": (v / len(d)).item() for (s, t), d in zip(sums.items(), (x, x_val))
           for n, v in zip(("loss", "acc"), t)}
    with open(folder / "metrics.csv", "w", newline="") as f:
        writer = csv.DictWriter(f, row)
        writer.writeheader()
        writer.writerow(row)
    torch.save(dict(model=model.state_dict(), optimizer=optimizer.state_dict()),
               folder / "last.ckpt")
    return time.perf_counter() - start, row


def by_mlkit(root: str, folder: Path) -> tuple[float, dict[str, float]]:
    run = train(dict(
        defaults=[dict(optimizer="adam")],
        name="overhead", runs=str(folder),
        data=dict(_target_="mlkit.data.mnist.MNIST", source="full", root=root, batch_size=BATCH,
                  val_size=N_VAL),
        model=dict(_target_="mlkit.model.lit.LitModel", net=dict(_target_="__main__.net"),
                   optimizer="${optimizer}",
                   metrics=dict(acc=dict(_target_="mlkit.model.losses.accuracy", _partial_=True))),
        trainer=dict(max_epochs=1, accelerator="cpu", limit_test_batches=0)))
    return run.info["timings"]["fit"], run.metrics


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--root", required=True, help="a folder with the IDX files of MNIST")
    p.add_argument("--rounds", type=int, default=5, help="counted rounds (default: 5)")
    p.add_argument("--limit", type=float, default=2.0,
                   help="the largest ratio that is accepted (default: 2)")
    args = p.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    data = MNIST(source="full", root=args.root, batch_size=BATCH, val_size=N_VAL)
    data.prepare_data()
    data.setup("fit")
    (x, y), (x_val, y_val) = ((data.images[rows], data.targets[rows])
                              for rows in (data.rows["train"], data.rows["val"]))
    times = dict(hand=[], mlkit=[])
    with tempfile.TemporaryDirectory() as folder:
        for i in range(args.rounds + 1):
            hand, hand_metrics = by_hand(x, y, x_val, y_val, Path(folder))
            mlkit, metrics = by_mlkit(args.root, Path(folder))
            if i: times["hand"].append(hand), times["mlkit"].append(mlkit)
    for name, v in hand_metrics.items():
        print(f"{name:10}  hand {v:.4f}  mlkit {metrics[name]:.4f}")
    for name, ts in times.items():
        median = statistics.median(ts)
        print(f"{name:6} min {min(ts):.3f}  median {median:.3f}  max {max(ts):.3f} s")
    ratio = statistics.median(times["mlkit"]) / statistics.median(times["hand"])
    print(f"ratio {ratio:.2f} (limit {args.limit:g})")
    return ratio > args.limit


if __name__ == "__main__": sys.exit(main())
