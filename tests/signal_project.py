"""The project that test_signals.py interrupts: it says where it is, and takes its time there.

PHASE names the place, SAYS the file that is made when it is reached, LASTS the seconds."""
import os
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


def at(phase: str):
    "Here is a phase: it lasts a while, asleep and at work, the first time that it is reached."
    says = Path(os.environ.get("SAYS", "nowhere"))
    if os.environ.get("PHASE") != phase or says.exists(): return
    says.touch()
    end = time.monotonic() + float(os.environ["LASTS"])
    while time.monotonic() < end:
        time.sleep(0.005)
        sum(range(20_000))


at("import")


class Swallows:
    "Python throws away what is raised in its destructor."
    def __del__(self): at("destructor")


class Slow(torch.utils.data.Dataset):
    "Served by workers; one of its batches takes its time."
    def __len__(self): return 32

    def __getitem__(self, i):
        if i == 9: at("worker")
        return torch.ones(4) * i, torch.ones(1)


class Data(pl.LightningDataModule):
    def __init__(self, workers: int = 0):
        super().__init__()
        self.workers = workers
        at("build")

    def prepare_data(self):
        Swallows()
        at("prepare")

    def setup(self, stage): at("setup")

    def _loader(self):
        data = TensorDataset(torch.randn(32, 4), torch.randn(32, 1))
        return DataLoader(Slow() if self.workers else data, 8, num_workers=self.workers)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = _loader


class Model(pl.LightningModule):
    "Where a step is slow, it is so in parts: a step comes to its end within a second."
    def __init__(self, fails: bool = False):
        super().__init__()
        self.net, self.is_tested, self.fails = torch.nn.Linear(4, 1), False, fails

    def forward(self, x): return self.net(x)
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 0.01)

    def _loss(self, batch, name: str):
        loss = torch.nn.functional.mse_loss(self(batch[0]), batch[1])
        self.log(name, loss)
        return loss

    def training_step(self, batch, i):
        if self.fails: raise RuntimeError("as it should")
        if i == 2: at("step")
        time.sleep(0.02)
        return self._loss(batch, "train/loss")

    def validation_step(self, batch, i):
        at("sanity" if self.trainer.sanity_checking else "validation")
        self._loss(batch, "val/loss")

    def test_step(self, batch, i):
        self.is_tested = True
        at("test")
        self._loss(batch, "test/loss")

    def predict_step(self, batch, i=0):
        at("predict")
        return self(batch[0])

    def on_save_checkpoint(self, checkpoint): at("save")
    def on_train_end(self): at("train end")
    def on_fit_end(self): at("fit end")

    def eval(self):
        if self.is_tested: at("report")
        return super().eval()
