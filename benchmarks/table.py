"""An epoch of a table of a million rows by thirty columns: by mlkit, and by a loop written by hand.

    python benchmarks/table.py [rows] [batch sizes …]

Both train the same net from the same tensors in memory, one after the other, twice; the figure is the
ratio of the faster of each.
"""
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch

from mlkit.train import train


class Clock(pl.Callback):
    "The seconds of each epoch's training."
    seconds: list[float] = []

    def on_train_epoch_start(self, *_): self.start = time.perf_counter()
    def on_train_epoch_end(self, *_): Clock.seconds.append(time.perf_counter() - self.start)


def by_hand(net, data, size: int) -> float:
    "The seconds of an epoch."
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    rows, (x, y) = data.rows["train"], (data.x, data.y)
    net.train()
    start = time.perf_counter()
    order = rows[torch.randperm(len(rows))]
    for of in order.split(size):
        loss = torch.nn.functional.cross_entropy(net({k: o[of] for k, o in x.items()}), y[of])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - start


def main(rows: int = 1_000_000, *sizes: int):
    rng, home = np.random.default_rng(0), Path(tempfile.mkdtemp())
    frame = pd.DataFrame(rng.normal(size=(rows, 28)).astype(np.float32)).add_prefix("n")
    for k in "ab": frame[k] = rng.choice([*"uvwxyz"], rows)
    frame["y"] = (frame.n0 + rng.normal(size=rows) > 0).astype(int)
    frame.to_parquet(home / "train.parquet")
    print(f"{rows:,} rows")
    for size in sizes or (256, 1024, 4096):
        Clock.seconds, hand = [], []
        for _ in range(2):
            run = train(dict(
                name="t", runs=None, defaults=[dict(data="table"), dict(model="tabular")],
                data=dict(train=str(home / "train.parquet"), target="y", batch_size=size),
                trainer=dict(max_epochs=1, accelerator="cpu", limit_val_batches=1),
                callbacks=dict(progress=None, clock=dict(_target_="__main__.Clock"))))
            hand.append(by_hand(run.model.net, run.datamodule, size))
        a, b = min(Clock.seconds), min(hand)
        print(f"batch {size:5}: mlkit {a:5.1f} s, by hand {b:5.1f} s, ratio {a / b:.2f}", flush=True)


if __name__ == "__main__": main(*map(int, sys.argv[1:]))
