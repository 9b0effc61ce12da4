"""A user's project, as `test_hosts.py` trains it: it notes which samples each step has got."""
import os
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from mlkit.data.mnist import MNIST
from mlkit.model.lit import LitModel


class Numbered(MNIST):
    "mlkit's datamodule; a picture's number is in its batch."
    def read_data(self):
        images, targets, rows = super().read_data()
        images[:, 0, 0, 0] = torch.arange(len(images)) % 256  # two pixels hold it
        images[:, 0, 0, 1] = torch.arange(len(images)) // 256
        return images, targets, rows


class Items(Dataset):
    def __len__(self): return 330
    def __getitem__(self, i):
        x = torch.zeros(1, 28, 28)
        x[0, 0, 0], x[0, 0, 1] = i % 256, i // 256
        x[0, 1:] = torch.randn(27, 28, generator=torch.Generator().manual_seed(i))
        return x, i % 10


class OwnLoader(pl.LightningDataModule):
    "A `DataLoader`; its batches are shared out (`batch_size`), or each process has whole ones."
    def __init__(self, how: str = "shuffle", batch_size: int = 30, size: int = 0, workers: int = 0):
        super().__init__()
        self.how, self.size, self.workers = how, size or batch_size, workers

    def train_dataloader(self):
        data = Items()
        own = WeightedRandomSampler(torch.ones(330), 330) if self.how == "sampler" else None
        return DataLoader(data, self.size, shuffle=self.how == "shuffle", sampler=own,
                          num_workers=self.workers)


class Net(nn.Sequential):
    def __init__(self): super().__init__(nn.Flatten(), nn.Linear(28 * 28, 10))


class Model(LitModel):
    "Without what draws: the same samples give the same step, but for the last bits."
    def step(self, batch):
        x, y = batch
        self.seen = x
        return F.cross_entropy(self(x / 255), y), self(x), y


class Seen(pl.Callback):
    "Writes the numbers of the samples of each step, a line a process and a step."
    def on_train_batch_start(self, trainer, pl_module, batch, i):
        x = batch[0]
        if isinstance(trainer.datamodule, Numbered):  # back to pixels
            x = (x * 0.3081 + 0.1307) * 255
        x = x[:, 0, 0, :2].round().long()
        numbers = " ".join(str(int(a + 256 * b)) for a, b in x)
        with open(f"{os.environ['SEEN']}.{trainer.global_rank}", "a") as f:
            f.write(f"{trainer.global_step} {numbers}\n")
        if trainer.global_step != int(os.environ.get("HOLD_AT", -1)): return
        Path(f"{os.environ['SEEN']}.holds.{trainer.global_rank}").touch()
        while not os.path.exists(f"{os.environ['SEEN']}.go"): time.sleep(0.05)
