"The project whose trainings are watched: an epoch takes as long as one says, and logs much."
import os
import time

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class Data(pl.LightningDataModule):
    def __init__(self, n: int = 10, ends: bool = False):
        super().__init__()
        if ends: os._exit(7)
        draw = torch.Generator().manual_seed(n)
        x, y = (torch.randn(4 * n, k, generator=draw) for k in (4, 1))
        self.data = TensorDataset(x, y)

    def train_dataloader(self): return DataLoader(self.data, 4, shuffle=True)
    def val_dataloader(self): return DataLoader(self.data, 4)


class Model(pl.LightningModule):
    def __init__(self, wait: float = 0.0, metrics: int = 1, fails: int = -1):
        super().__init__()
        first, last = torch.nn.Linear(4, 8), torch.nn.Linear(8, 1)
        self.net = torch.nn.Sequential(first, torch.nn.Dropout(), last)
        self.wait, self.metrics, self.fails = wait, metrics, fails

    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 0.01)

    def _step(self, batch, stage: str):
        loss = torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])
        names = ["loss", *(f"metric_{i}" for i in range(1, self.metrics))]
        self.log_dict({f"{stage}/{o}": loss * (i + 1) for i, o in enumerate(names)},
                      on_step=False, on_epoch=True)
        return loss

    def training_step(self, batch, i):
        time.sleep(self.wait)
        if self.current_epoch == self.fails: raise ValueError("as it should")
        return self._step(batch, "train")

    def validation_step(self, batch, i): self._step(batch, "val")
