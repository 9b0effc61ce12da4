"""A user's own project, as `test_resume.py` trains it: all that can be random is, and a callback
ends the process at a moment that the environment names. The tests copy this file into a project of
its own, as `mine.py`."""
import ctypes
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy

from mlkit.data.mnist import MNIST


def jitter(x: Tensor) -> Tensor:
    "Draw from Python's, NumPy's and torch's global generators."
    if random.random() < 0.5: x = x.flip(-1)
    return torch.roll(x, int(np.random.randint(-2, 3)), -1) + 0.1 * torch.randn_like(x)


class Digits(MNIST):
    "mlkit's datamodule with an augmentation of one's own."
    def __init__(self, batch_size: int = 32, seed: int = 0, augment: bool = True):
        super().__init__(batch_size=batch_size, seed=seed)
        self.augment = augment

    def prepare_data(self):
        super().prepare_data()
        if "MEET" in os.environ: meet(Path(os.environ["MEET"]), int(os.environ["MEET_N"]))

    def train_dataloader(self):
        loader = super().train_dataloader()
        plain = loader.transform
        if self.augment: loader.transform = lambda batch: (jitter(plain(batch)[0]), batch[1])
        return loader


def meet(folder: Path, n: int):
    "Wait until `n` processes are here, and then for the next full second."
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < n: time.sleep(0.01)
    time.sleep(1.5 - time.time() % 1 if time.time() % 1 > 0.5 else 1 - time.time() % 1)


class Net(nn.Sequential):
    def __init__(self, size: int = 28):
        super().__init__(nn.Conv2d(1, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.2),
                         nn.Flatten(),
                         nn.Linear(16 * ((size - 1) // 2) ** 2, 10))


class Smooth(nn.Sequential):
    "Without batch norm and dropout: what a batch gives does not depend on how it is divided."
    def __init__(self):
        super().__init__(nn.Conv2d(1, 16, 3, 2), nn.Tanh(), nn.Flatten(),
                         nn.Linear(16 * 13 * 13, 10))


# -- nothing of mlkit in it

class Noise(Dataset):
    "Pictures of ten classes, each disturbed anew whenever it is read."
    def __init__(self, n: int, seed: int, augment: bool):
        generator = torch.Generator().manual_seed(seed)
        self.y, self.augment = torch.randint(10, (n,), generator=generator), augment
        self.x = torch.randn(n, 1, 12, 12, generator=generator) + self.y[:, None, None, None] / 5

    def __len__(self): return len(self.y)
    def __getitem__(self, i): return jitter(self.x[i]) if self.augment else self.x[i], self.y[i]


class PlainData(pl.LightningDataModule):
    def __init__(self, num_workers: int = 0, persistent: bool = False):
        super().__init__()
        self.workers = dict(num_workers=num_workers, persistent_workers=persistent)

    def train_dataloader(self):
        return DataLoader(Noise(320, 0, True), batch_size=16, shuffle=True, **self.workers)
    def val_dataloader(self): return DataLoader(Noise(64, 1, False), batch_size=16)
    def test_dataloader(self): return DataLoader(Noise(64, 2, False), batch_size=16)


class PlainModule(pl.LightningModule):
    """Logs as Lightning's tutorials do: means over the epoch that Lightning keeps, and a metric as
    an object."""
    def __init__(self):
        super().__init__()
        self.net, self.acc = Net(12), MulticlassAccuracy(10)

    def training_step(self, batch, i):
        logits = self.net(batch[0])
        loss = F.cross_entropy(logits, batch[1])
        self.acc(logits, batch[1])
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        self.log("train/seen", float(i), on_epoch=True, reduce_fx="sum")
        self.log("train/acc", self.acc, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, i):
        self.log("val/loss", F.cross_entropy(self.net(batch[0]), batch[1]))
    def test_step(self, batch, i):
        self.log("test/loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        return dict(optimizer=optimizer, lr_scheduler=dict(scheduler=plateau, monitor="val/loss"))


# -- the end, at a moment

class Killer(pl.Callback):
    """`END_AT=hook:n[:what]` sends this process `END_BY` (default: SIGKILL) in the first call of
    the hook that comes when `n` batches have begun. `END_RANK`: in this process of a DDP run only;
    `END_GROUP`: to all of the process group. Hooks that are no hooks of Lightning's: - forward: in
    the middle of the net - write: in the middle of writing a checkpoint, by the kernel, once `what`
    bytes are in a file - rename: a file called `what` is written, under a temporary name still -
    append: the run's file `what` is about to get more rows -
    full: no file can grow beyond `what` bytes any more; nothing is sent - fill: the run's file
    system is filled up to the last `what` bytes; nothing is sent - sleep: the process sleeps for
    `what` seconds; nothing is sent `TRACE` is a file that gets a line a batch, with its number and
    its loss."""
    def __init__(self): self.batches = 0
    def state_dict(self): return dict(batches=self.batches)
    def load_state_dict(self, state): self.batches = state["batches"]

    def setup(self, trainer, pl_module, stage):
        if stage != "fit": return
        self.rank, self.trace = trainer.global_rank, os.environ.get("TRACE")
        hook, n, what, *_ = os.environ.get("END_AT", "nothing:0").split(":") + [""]
        self.hook, self.n, self.what, self.trainer = hook, int(n), what, trainer
        if hook in ("rename", "append"): sys.addaudithook(self.audit)
        if hook == "forward": pl_module.net[2].register_forward_pre_hook(self.forward)

    def forward(self, net, args):
        if net.training: self.at("forward")

    def at(self, hook: str):
        if hook != self.hook or self.batches < self.n or str(
            self.rank) != os.environ.get("END_RANK", str(self.rank)):
            return
        self.hook = None  # once
        if hook in ("write", "full"): limit_files(int(self.what), deadly=hook == "write")
        elif hook == "sleep": time.sleep(float(self.what))
        elif hook == "fill": fill(Path(self.trainer.default_root_dir), int(self.what))
        else: end()

    def audit(self, event: str, args: tuple):
        if event in ("os.rename", "os.link") and Path(os.fsdecode(args[1])).name == self.what:
            self.at("rename")
        if event == "open" and args[2] & os.O_RDWR and os.path.basename(args[0]) == self.what:
            self.at("append")

    def on_train_batch_start(self, trainer, pl_module, batch, i):
        self.batches += 1
        for hook in ("on_train_batch_start", "sleep"): self.at(hook)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, i):
        if self.trace:
            with open(f"{self.trace}.{self.rank}", "a") as f:
                f.write(f"{self.batches} {float(outputs['loss']).hex()}\n")
        self.at("on_train_batch_end")

    def on_before_optimizer_step(self, *args): self.at("on_before_optimizer_step")
    def on_validation_batch_start(self, *args): self.at("on_validation_batch_start")
    def on_validation_end(self, *args): self.at("on_validation_end")
    def on_train_epoch_end(self, *args): self.at("on_train_epoch_end")
    def on_test_batch_start(self, *args): self.at("on_test_batch_start")
    def on_save_checkpoint(self, *args):
        for hook in ("on_save_checkpoint", "write", "full", "fill"): self.at(hook)


def end(*args):
    "Send the signal."
    send = os.killpg if "END_GROUP" in os.environ else os.kill
    send(os.getpgrp() if "END_GROUP" in os.environ else os.getpid(),
         getattr(signal, os.environ.get("END_BY", "SIGKILL")))


def limit_files(size: int, deadly: bool):
    """Let no file grow beyond `size` bytes. The kernel stops the write there: deadly, or with an
    error for the writer. The handler is C's, as Python's would wait for the end of the write; it
    runs in the middle of it."""
    if deadly:
        # kept, or C would call what is gone
        limit_files.handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(end)
        ctypes.CDLL(None).signal(signal.SIGXFSZ, limit_files.handler)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def fill(folder: Path, left: int):
    "Fill a file system."
    stat = os.statvfs(folder)
    with open(folder / "ballast", "wb") as f:
        f.write(bytes(max(stat.f_bavail * stat.f_frsize - left, 0)))
