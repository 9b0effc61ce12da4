#!/usr/bin/env python3
"""One epoch of a small MLP on full MNIST, as whole commands: mlkit, bare Lightning, a template.

    python benchmarks/peers.py --root path/to/idx/files [--template CHECKOUT --python ITS_PYTHON]

All train the same MLP (784, 64, 128, 64, 10, with batch norm) on 55,000 images in batches of 128
with Adam, validate it on 5,000, count loss and accuracy of both, and write a CSV and a checkpoint.
The bare loop is as people write it: a DataLoader over a TensorDataset of floats, `self.log` and
torchmetrics in each step. CHECKOUT is one of github.com/ashleve/lightning-hydra-template, and
ITS_PYTHON has what it requires; it logs to CSV. (PyPI's torchvision is built for CUDA. Beside a
torch for the CPU it is imported once the lines `_autograd_registrations` and `_meta_registrations`
are taken out of its `__init__.py`; datasets and transforms do not need them.)

Commands take turns, A B C A B C, after a round that is not counted. One callback measures the epoch
in all of them: training, validation and checkpoint, without imports and reading. CPU is that of the
whole command. Figures are medians; the exit code is 1 if a ratio is below its limit (--limits).
"""
import argparse
import gzip
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from search import CONFIG

N_TRAIN, BATCH = 55_000, 128
CLOCK = "callbacks: {clock: {_target_: peers.clock}}\n"


def clock():
    "A callback of the Lightning that is there already: it writes how long the epoch took."
    name = "lightning.pytorch" if "lightning.pytorch" in sys.modules else "pytorch_lightning"

    class Clock(sys.modules[name].Callback):
        def on_train_epoch_start(self, *_): self.start = time.perf_counter()
        def on_train_end(self, *_):  # after the checkpoint
            Path(os.environ["CLOCK"]).write_text(str(time.perf_counter() - self.start))
    return Clock()


def read_idx(root: Path, name: str, skip: int):
    import numpy as np
    import torch
    plain, packed = root / name, root / f"{name}.gz"
    data = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=skip).copy())


def bare(root: Path, folder: str):
    "A LightningModule and a DataLoader, without mlkit."
    import pytorch_lightning as pl
    import torch
    import torchmetrics
    from pytorch_lightning.callbacks import ModelCheckpoint
    from pytorch_lightning.loggers import CSVLogger
    from torch import nn
    from torch.nn import functional as F
    from torch.utils.data import DataLoader, TensorDataset, random_split

    class Model(pl.LightningModule):
        def __init__(self):
            super().__init__()
            sizes = [784, 64, 128, 64]
            hidden = [m for i, o in zip(sizes, sizes[1:])
                      for m in (nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU())]
            self.net = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, 10))
            self.train_acc = torchmetrics.Accuracy(task="multiclass", num_classes=10)
            self.val_acc = torchmetrics.Accuracy(task="multiclass", num_classes=10)

        def training_step(self, batch, batch_idx):
            x, y = batch
            logits = self.net(x)
            loss = F.cross_entropy(logits, y)
            self.train_acc(logits, y)
            self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True)
            self.log("train/acc", self.train_acc, on_step=True, on_epoch=True, prog_bar=True)
            return loss

        def validation_step(self, batch, batch_idx):
            x, y = batch
            logits = self.net(x)
            self.val_acc(logits, y)
            self.log("val/loss", F.cross_entropy(logits, y), prog_bar=True)
            self.log("val/acc", self.val_acc, prog_bar=True)

        def configure_optimizers(self): return torch.optim.Adam(self.parameters(), lr=1e-3)

    pl.seed_everything(42)
    images = read_idx(root, "train-images-idx3-ubyte", 16).view(-1, 1, 28, 28)
    x = images.float().div_(255).sub_(0.1307).div_(0.3081)
    y = read_idx(root, "train-labels-idx1-ubyte", 8).long()
    train, val = random_split(TensorDataset(x, y), [N_TRAIN, len(x) - N_TRAIN])
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=CSVLogger(folder),
        callbacks=[ModelCheckpoint(monitor="val/acc", mode="max", save_last=True), clock()])
    trainer.fit(Model(), DataLoader(train, BATCH, shuffle=True), DataLoader(val, BATCH))


def measure(command: list, folder: Path, **env: str) -> tuple[float, float]:
    "(images per second in the epoch, CPU seconds of the whole command)"
    taken = folder / "seconds.txt"
    with open(folder / "out.txt", "w") as out:
        done = subprocess.Popen(list(map(str, command)), cwd=folder, stdout=out, stderr=out, env={
            **os.environ, "PYTHONPATH": os.pathsep.join(
                [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "CLOCK": str(taken), **env})
        _, status, used = os.wait4(done.pid, 0)
    done.returncode = os.waitstatus_to_exitcode(status)
    if done.returncode: sys.exit((folder / "out.txt").read_text()[-2000:])
    return N_TRAIN / float(taken.read_text()), used.ru_utime + used.ru_stime


def by_mlkit(root: Path, folder: Path):
    (folder / "pyproject.toml").touch()
    (folder / "a.yaml").write_text(CONFIG.format(root=root) + CLOCK)
    command = Path(sys.executable).parent / "mlkit_train"
    return measure([command, "a.yaml", "trainer.limit_test_batches=0"], folder, MLKIT_TRUST="peers")


def by_bare(root: Path, folder: Path):
    return measure([sys.executable, __file__, "--root", root, "--bare", folder], folder)


def by_template(root: Path, folder: Path, checkout: Path, python: str):
    raw = folder / "data" / "MNIST" / "raw"  # where torchvision looks for it
    raw.mkdir(parents=True)
    for o in root.glob("*-ubyte*"):
        opened = gzip.open(o) if o.suffix == ".gz" else open(o, "rb")
        with opened, open(raw / o.name.removesuffix(".gz"), "wb") as f:
            shutil.copyfileobj(opened, f)
    return measure([
        python, checkout / "src" / "train.py", "trainer=cpu", "trainer.max_epochs=1", "test=False",
        "logger=csv", f"paths.data_dir={folder}/data/", f"paths.log_dir={folder}/logs/",
        "+callbacks.clock._target_=peers.clock"], folder)


def main() -> bool:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--root", required=True, type=Path, help="a folder with MNIST's IDX files")
    p.add_argument("--template", type=Path, help="a checkout of lightning-hydra-template")
    p.add_argument("--python", default=sys.executable, help="the template's Python")
    p.add_argument("--rounds", type=int, default=3, help="counted rounds (default: 3)")
    p.add_argument("--limits", type=float, nargs=3, default=(6, 1.5, 2.5), help="the least: of the "
                   "speed of the template, of the bare loop's, of the template's CPU")
    p.add_argument("--bare", metavar="FOLDER", help=argparse.SUPPRESS)  # this process is the peer
    args = p.parse_args()
    if args.bare: return bool(bare(args.root, args.bare))
    root, sides = args.root.absolute(), dict(mlkit=by_mlkit, bare=by_bare)
    if args.template:
        sides["template"] = lambda *where: by_template(
            *where, args.template.absolute(), args.python)
    found = {name: [] for name in sides}
    for i in range(args.rounds + 1):
        for name, by in sides.items():
            with tempfile.TemporaryDirectory() as folder:
                figures = by(root, Path(folder).resolve())
            if i: found[name].append(figures)
    middle = {}
    for name, figures in found.items():
        speeds, cpu = zip(*figures)
        middle[name] = statistics.median(speeds), statistics.median(cpu)
        print(f"{name:9} images/s {' '.join(f'{o:8,.0f}' for o in speeds)}   "
              f"CPU {' '.join(f'{o:5.1f}' for o in cpu)} s")
    worse = False
    for name, what, limit in (("template", 0, args.limits[0]), ("bare", 0, args.limits[1]),
                              ("template", 1, args.limits[2])):
        if name not in middle: continue
        ratio = middle["mlkit"][what] / middle[name][what]
        if what: ratio = 1 / ratio
        says = f"CPU of {name} / mlkit" if what else f"images per second, mlkit / {name}"
        print(f"{says}: {ratio:.2f} (at least {limit:g})")
        worse |= ratio < limit
    return worse


if __name__ == "__main__": sys.exit(main())
