"""What mlkit costs: a training by mlkit, against a loop written by hand.

    python benchmarks/overhead.py --root path/to/mnist/idx/files [--rounds 5]
    python benchmarks/overhead.py --job resnet --root path/to/fashion_mnist/idx/files
    python benchmarks/overhead.py --job panorama

- mlp: a small MLP, one epoch of full MNIST: 55,000 images in batches of 128, validation on 5,000
- resnet: `configs/fashion_mnist.yaml` on the full set, 400 batches of 64, validation on 40
- panorama: `configs/panodepth.yaml` on its 350 rooms, an epoch of 69 batches of 8, validation on 7

Both sides hold the data in memory and do the same work in the same order of magnitude of batches:
the config's net, loss, augmentation, fused optimizer and scheduler, its metrics of training and of
validation, a CSV row and a checkpoint. They run in turn, A B A B …, after one round that is not
counted. Times are of the fit alone, without imports and reading the data. The last line is the
ratio of the medians; the exit code is 1 if it is above --limit.
"""
import argparse
import csv
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlkit.config.load import load_config
from mlkit.config.node import Config
from mlkit.model.lit import scheduler_config
from mlkit.parts.build import build
from mlkit.train import train

CONFIGS = Path(__file__).parents[1] / "configs"
MLP = dict(
    defaults=[dict(optimizer="adam")],
    data=dict(_target_="mlkit.data.mnist.MNIST", source="full", batch_size=128, val_size=5000),
    model=dict(_target_="mlkit.model.lit.LitModel", net=dict(_target_="__main__.net"),
               optimizer="${optimizer}",
               metrics=dict(acc=dict(_target_="mlkit.model.losses.accuracy", _partial_=True))))
JOBS: dict[str, Any] = dict(  # what is trained, and the accepted ratio
    mlp=([MLP], 1.15),
    resnet=([CONFIGS / "fashion_mnist.yaml", "data.source=full", "trainer.limit_train_batches=400",
             "trainer.limit_val_batches=40"], 1.03),
    panorama=([CONFIGS / "panodepth.yaml", "data.sample=350"], 1.03))


def net() -> nn.Module:
    sizes = [784, 64, 128, 64]
    hidden = [m for i, o in zip(sizes, sizes[1:])
              for m in (nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, 10))


def right(logits: Tensor, target: Tensor) -> Tensor:  # (1,): how many
    return (logits.argmax(1) == target).sum()[None]


def depth_errors(pred: Tensor, target: Tensor) -> Tensor:  # (4,): sums over the known pixels
    known = target > 0
    error, ratio = pred - target, torch.maximum(pred / target, target / pred)
    return torch.stack([error.abs().where(known, 0).sum(), (error**2).where(known, 0).sum(),
                        ((ratio < 1.25) & known).sum(), known.sum()])


def as_metrics(sums: Tensor, n: int) -> dict[str, float]:
    "By name, of the sums over `n` samples: the loss, and what is above."
    loss, *rest = sums.tolist()
    if len(rest) == 1: return dict(loss=loss / n, acc=rest[0] / n)
    mae, mse, delta1 = (o / rest[3] for o in rest[:3])
    return dict(loss=loss / n, mae=mae, rmse=mse**0.5, delta1=delta1)


def by_hand(cfg: Config, data: Any, folder: Path) -> tuple[float, dict[str, float]]:
    "One epoch as a person would write it who wants it fast: (seconds, metrics)."
    torch.manual_seed(42)
    parts, n = build(cfg.model), cfg.data.batch_size
    model, loss_of, augment = parts.net, parts.loss, parts.augment or (lambda *batch: batch)
    measure = right if "acc" in cfg.model.metrics else depth_errors
    rows = {o: data.rows[o] for o in ("train", "val")}
    batches = {o: r.split(n)[:cfg.trainer.get(f"limit_{o}_batches")] for o, r in rows.items()}
    seen = {o: sum(map(len, r)) for o, r in batches.items()}
    optimizer, scheduler = parts.optimizer(model.parameters()), None
    if parts.scheduler:
        found = scheduler_config(parts.scheduler, optimizer, len(batches["train"]), 1)
        scheduler = found["scheduler"]
    x, y, scale = data.images, data.targets, data.normalize
    start = time.perf_counter()
    sums: dict[str, Any] = dict(train=0, val=0)
    model.train()
    order = rows["train"][torch.randperm(len(rows["train"]))]
    for batch in order.split(n)[:len(batches["train"])]:
        images, target = augment(scale(x[batch]), y[batch])
        output = model(images)
        loss = loss_of(output, target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if scheduler: scheduler.step()
        with torch.no_grad():
            sums["train"] += torch.cat([loss[None] * len(batch), measure(output, target)])
    model.eval()
    with torch.inference_mode():
        for batch in batches["val"]:
            images, target = scale(x[batch]), y[batch]
            output = model(images)
            loss = loss_of(output, target)
            sums["val"] += torch.cat([loss[None] * len(batch), measure(output, target)])
    row = {f"{s}/{k}": v for s, t in sums.items() for k, v in as_metrics(t, seen[s]).items()}
    with open(folder / "metrics.csv", "w", newline="") as f:
        writer = csv.DictWriter(f, row)
        writer.writeheader()
        writer.writerow(row)
    torch.save(dict(model=model.state_dict(), optimizer=optimizer.state_dict()),
               folder / "last.ckpt")
    return time.perf_counter() - start, row


def by_mlkit(cfg: Config) -> tuple[float, dict[str, float]]:
    run = train(cfg)
    return run.info["timings"]["fit"], run.metrics


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--job", choices=[*JOBS], default="mlp", help="(default: mlp)")
    p.add_argument("--root", help="a folder with the IDX files of MNIST, or of Fashion-MNIST")
    p.add_argument("--rounds", type=int, default=5, help="counted rounds (default: 5)")
    p.add_argument("--limit", type=float,
                   help="the largest ratio that is accepted (default: mlp 1.15, else 1.03)")
    args = p.parse_args()
    (what, *words), limit = JOBS[args.job]
    if args.job != "panorama" and not args.root: p.error(f"--job {args.job} needs --root")
    limit = args.limit or limit
    sys.path.insert(0, str(Path(__file__).parent))
    times = dict(hand=[], mlkit=[])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(args.root).absolute() if args.job != "panorama" else f"{folder}/rooms"
        cfg = load_config(what, *words, f"data.root={root}", "name=overhead", f"runs={folder}/runs",
                          "trainer.max_epochs=1", "trainer.accelerator=cpu",
                          "trainer.limit_test_batches=0")
        data: Any = build(cfg.data)
        data.prepare_data()
        data.setup("fit")
        for i in range(args.rounds + 1):
            hand, hand_metrics = by_hand(cfg, data, Path(folder))
            mlkit, metrics = by_mlkit(cfg)
            if i: times["hand"].append(hand), times["mlkit"].append(mlkit)
    for name, v in hand_metrics.items():
        print(f"{name:12}  hand {v:.4f}  mlkit {metrics[name]:.4f}")
    for name, ts in times.items():
        median = statistics.median(ts)
        print(f"{name:6} min {min(ts):.3f}  median {median:.3f}  max {max(ts):.3f} s")
    ratio = statistics.median(times["mlkit"]) / statistics.median(times["hand"])
    print(f"ratio {ratio:.3f} (limit {limit:g})")
    return ratio > limit


if __name__ == "__main__": sys.exit(main())
