"""Modules and datamodules as other people write them, one thing each, for either Lightning.

Nothing in here knows of mlkit. `parts_of(package)` gives the classes, derived from its own."""
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler as schedules
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    TensorDataset,
    WeightedRandomSampler,
)


def numbers(seed: int, n: int = 96) -> TensorDataset:
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, x[:, :3].sum(1, keepdim=True))


class Stream(IterableDataset):
    def __iter__(self):
        data = numbers(0)
        for i in torch.randperm(96): yield data[i]


class Noisy(Dataset):
    def __init__(self, seed: int): self.data = numbers(seed)
    def __len__(self): return len(self.data)
    def __getitem__(self, i):
        x, y = self.data[i]
        return x + 0.1 * torch.randn(6), y


class Balanced(Sampler):
    "Draws with a generator of NumPy's that is its own."
    def __init__(self, n: int): self.n, self.rng = n, np.random.default_rng(0)
    def __iter__(self): return iter(self.rng.integers(0, self.n, self.n).tolist())
    def __len__(self): return self.n


class OnPolicy(IterableDataset):
    "Has as many items as its last round asked for."
    def __init__(self): self.rounds = 0
    def __iter__(self):
        self.rounds += 1
        for i in range(48 + 8 * self.rounds): yield numbers(self.rounds)[i]


class Item:
    def __init__(self, x, y): self.x, self.y = x, y


def parts_of(package) -> dict[str, type]:  # noqa: C901
    "Classes by their names; `package` is like `lightning`."
    combined = package.pytorch.utilities.CombinedLoader

    class Data(package.LightningDataModule):
        def train_dataloader(self): return DataLoader(numbers(0), 8, shuffle=True)
        def val_dataloader(self): return DataLoader(numbers(1), 8)
        def test_dataloader(self): return DataLoader(numbers(2), 8)

    class NoTest(package.LightningDataModule):
        def train_dataloader(self): return DataLoader(numbers(0), 8, shuffle=True)
        def val_dataloader(self): return DataLoader(numbers(1), 8)

    class NoVal(package.LightningDataModule):
        def train_dataloader(self): return DataLoader(numbers(0), 8, shuffle=True)

    class EmptyVal(Data):
        def val_dataloader(self): return []

    class Lists(Data):
        def val_dataloader(self): return [DataLoader(numbers(i), 8) for i in (1, 3)]
        def test_dataloader(self): return [DataLoader(numbers(i), 8) for i in (2, 4)]

    class Dicts(Data):
        def val_dataloader(self):
            return dict(a=DataLoader(numbers(1), 8), b=DataLoader(numbers(3), 8))
        def test_dataloader(self):
            return dict(a=DataLoader(numbers(2), 8), b=DataLoader(numbers(4), 8))

    class Combined(Data):
        def __init__(self, mode: str = "max_size_cycle"):
            super().__init__()
            self.mode = mode

        def train_dataloader(self):
            small = DataLoader(numbers(5, 40), 4, shuffle=True)
            return combined(dict(a=DataLoader(numbers(0), 8, shuffle=True), b=small), self.mode)

    class Streamed(Data):
        def train_dataloader(self): return DataLoader(Stream(), 8)

    class Growing(Data):
        def __init__(self):
            super().__init__()
            self.played = OnPolicy()
        def train_dataloader(self): return DataLoader(self.played, 8)

    class Workers(Data):
        def __init__(self, train: bool = True, val: bool = True, noisy: bool = False):
            super().__init__()
            self.kept, self.noisy = dict(train=train, val=val), noisy

        def loader(self, stage, seed, **kwargs):
            data = Noisy(seed) if self.noisy else numbers(seed)
            return DataLoader(data, 8, num_workers=1, persistent_workers=self.kept[stage], **kwargs)
        def train_dataloader(self): return self.loader("train", 0, shuffle=True)
        def val_dataloader(self): return self.loader("val", 1)

    class Drawn(Data):
        def train_dataloader(self): return DataLoader(numbers(0), 8, sampler=Balanced(96))

    class Weighted(Data):
        def train_dataloader(self):
            sampler = WeightedRandomSampler(torch.arange(1.0, 97.0), 96)  # pyright: ignore
            return DataLoader(numbers(0), 8, sampler=sampler)

    class Objects(Data):
        def items(self, seed, **kwargs):
            items: list = [Item(*o) for o in numbers(seed)]  # pyright: ignore
            return DataLoader(items, 8, collate_fn=list, **kwargs)
        def train_dataloader(self): return self.items(0, shuffle=True)
        def val_dataloader(self): return self.items(1)
        def test_dataloader(self): return self.items(2)

    class Base(package.LightningModule):
        def __init__(self, drop: float = 0.1):
            super().__init__()
            layers = nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(drop)
            self.backbone, self.head = nn.Sequential(*layers), nn.Linear(12, 1)

        def forward(self, x): return self.head(self.backbone(x))
        def loss(self, batch): return F.mse_loss(self(batch[0]), batch[1])
        def training_step(self, batch, i):
            loss = self.loss(batch)
            self.log("train_loss", loss)
            return loss
        def validation_step(self, batch, i, dataloader_idx=0):
            self.log("val_loss", self.loss(batch))
        def test_step(self, batch, i, dataloader_idx=0): self.log("test_loss", self.loss(batch))
        def configure_optimizers(self): return torch.optim.Adam(self.parameters(), 1e-2)

    class StepAndEpoch(Base):
        def training_step(self, batch, i):
            loss = self.loss(batch)
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            self.log("seen", 8.0, on_epoch=True, on_step=False, reduce_fx="sum")
            self.log("top", loss.detach(), on_epoch=True, on_step=False, reduce_fx="max")
            return loss

    class OfDicts(Base):
        def training_step(self, batch, i):
            loss = sum(self.loss(o) for o in batch.values() if o is not None)
            self.log("train_loss", loss, batch_size=8)
            return loss

    class OfObjects(Base):
        def loss(self, batch):
            return super().loss([torch.stack([getattr(o, k) for o in batch]) for k in "xy"])
        def training_step(self, batch, i):
            loss = self.loss(batch)
            self.log("train_loss", loss, batch_size=len(batch))
            return loss
        def validation_step(self, batch, i):
            self.log("val_loss", self.loss(batch), batch_size=len(batch))
        def test_step(self, batch, i):
            self.log("test_loss", self.loss(batch), batch_size=len(batch))

    class Plateau(Base):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            plateau = schedules.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
            return dict(optimizer=optimizer,
                        lr_scheduler=dict(scheduler=plateau, monitor="val_loss"))

    class Collects(Base):
        "As Lightning's guide to its second version has it."
        def __init__(self):
            super().__init__()
            self.outs = []

        def training_step(self, batch, i):
            loss = self.loss(batch)
            self.outs.append(loss.detach())
            return loss
        def on_train_epoch_end(self):
            self.log("train_loss", torch.stack(self.outs).mean())
            self.log("train_n", float(len(self.outs)))
            self.outs.clear()

    class Cools(Base):
        def __init__(self):
            super().__init__()
            self.temperature = 1.0

        def training_step(self, batch, i):
            self.temperature *= 0.97
            return self.loss(batch) * self.temperature

    class MadeLate(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = None

        def configure_model(self):
            layers = nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)
            if self.net is None: self.net = nn.Sequential(*layers)
        def forward(self, x): return self.net(x)
        training_step, test_step = Base.training_step, Base.test_step
        validation_step, loss = Base.validation_step, Base.loss
        configure_optimizers = Base.configure_optimizers

    class MadeInSetup(MadeLate):
        def configure_model(self): pass
        def setup(self, stage): MadeLate.configure_model(self)

    class Lazy(Base):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Sequential(nn.LazyLinear(12), nn.ReLU())

    class Silent(Base):
        def training_step(self, batch, i): return self.loss(batch)
        def validation_step(self, batch, i): pass
        def test_step(self, batch, i): pass

    class Mute(Silent):
        forward = package.LightningModule.forward
        def loss(self, batch): return F.mse_loss(self.head(self.backbone(batch[0])), batch[1])

    class Whole(Base):
        "A net and a class among the hyperparameters."
        def __init__(self, net: nn.Module, extra: dict | None = None, optimizer=torch.optim.Adam):
            super().__init__()
            self.save_hyperparameters()
            self.head = net
        def configure_optimizers(self): return self.hparams.optimizer(self.parameters(), lr=1e-2)

    class Draws(Base):
        def on_train_epoch_end(self):
            self.logger.experiment.add_histogram("w", self.head.weight.detach(), self.current_epoch)

    class Asks(Base):
        def on_fit_start(self):
            self.logger.log_hyperparams(dict(a=1))
            self.asked = [self.trainer.log_dir, self.logger.save_dir, self.logger.name]

    class OtherName(Base):
        def test_step(self, batch, i, dataloader_idx=0): self.log("acc_of_test", self.loss(batch))

    class Skips(Base):
        def training_step(self, batch, i):
            loss = super().training_step(batch, i)
            return None if i % 3 == 0 else loss

    class Arrays(Base):
        def on_save_checkpoint(self, checkpoint): checkpoint["mine"] = dict(a=np.arange(3), s={1})

    class Two(Base):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def configure_optimizers(self):
            a = torch.optim.Adam(self.backbone.parameters(), 1e-2)
            b = torch.optim.SGD(self.head.parameters(), 1e-2, momentum=0.9)
            return [a, b], [schedules.StepLR(a, 5), schedules.StepLR(b, 5)]
        def training_step(self, batch, i):
            optimizers, loss = self.optimizers(), self.loss(batch)
            for o in optimizers: o.zero_grad()
            self.manual_backward(loss)
            for o, schedule in list(zip(optimizers, self.lr_schedulers()))[:1 + i % 2]:
                o.step()
                schedule.step()
            self.log("train_loss", loss)

    class NotANumber(Base):
        def validation_step(self, batch, i): self.log("val_loss", torch.tensor(float("nan")))

    class Groups(Base):
        def configure_optimizers(self):
            parts = zip((self.backbone, self.head), (1e-4, 1e-2))
            return torch.optim.AdamW([dict(params=o.parameters(), lr=lr) for o, lr in parts])

    class Hooks(Base):
        def backward(self, loss): loss.backward()
        def optimizer_step(self, epoch, i, optimizer, closure): optimizer.step(closure=closure)
        def lr_scheduler_step(self, scheduler, metric): scheduler.step()

    class PredictsPairs(Base):
        def predict_step(self, batch, i): return self(batch[0])

    class ByNumPy(Base):
        def configure_optimizers(self):
            optimizer = torch.optim.Adam(self.parameters(), lr=np.float64(1e-2))  # pyright: ignore
            half = schedules.LambdaLR(optimizer, lambda e: 0.5 * (1 + np.cos(np.pi * e / 10)))
            return [optimizer], [half]

    class Lbfgs(Base):
        def __init__(self): super().__init__(drop=0.0)
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.05, max_iter=2)

    class Compiled(Base):
        def setup(self, stage):
            if stage == "fit": self.head = torch.compile(self.head, backend="eager")

    class Trainable(Base):
        "The backbone joins when a callback says so."
        def __init__(self): super().__init__(drop=0.0)
        def configure_optimizers(self):
            some: Iterable = [o for o in self.parameters() if o.requires_grad]
            return torch.optim.SGD(some, 0.05, momentum=0.9)

    class Unfreeze(package.pytorch.callbacks.BaseFinetuning):
        def freeze_before_training(self, pl_module): self.freeze(pl_module.backbone)
        def finetune_function(self, pl_module, epoch, optimizer):
            if epoch == 1: self.unfreeze_and_add_param_group(pl_module.backbone, optimizer, lr=1e-3)

    class Cut(package.Callback):
        "Ends the fit when a batch begins."
        def __init__(self, at: int | None = None): self.at, self.n = at, 0
        def state_dict(self): return dict(n=self.n)
        def load_state_dict(self, state_dict): self.n = state_dict["n"]
        def on_train_batch_start(self, trainer, pl_module, batch, i):
            self.n += 1
            if self.n == self.at: raise RuntimeError("cut off")

    return {k: v for k, v in locals().items() if getattr(v, "__module__", "") == __name__}
