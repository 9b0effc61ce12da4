"""Models and data as they are found in the wild, for test_batch: what a made-up batch must get
through, or be silent about, and what it must find."""
import math

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC


class Until(nn.Module):
    "Goes on until its values say so."
    def __init__(self, width: int = 28, num_classes: int = 10):
        super().__init__()
        self.cell, self.head = nn.Linear(width, width), nn.Linear(width, num_classes)

    def forward(self, x):
        x, n = x.mean((1, 2)), 0
        while x.abs().max().item() > 1e-3 and n < 50: x, n = 0.5 * self.cell(x).tanh(), n + 1
        return self.head(x)


class LazyConvs(nn.Sequential):
    def __init__(self, in_channels: int = 3, num_classes: int = 10):
        super().__init__(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(),
                         nn.LazyLinear(num_classes))


class Masked(nn.Module):
    "A transformer over rows, with a mask, a token of its own and places that are learned."
    def __init__(self, rows: int = 28, width: int = 28, dim: int = 16, num_classes: int = 10):
        super().__init__()
        self.token, self.into = nn.Parameter(torch.zeros(1, 1, dim)), nn.Linear(width, dim)
        self.places = nn.Parameter(torch.randn(1, rows + 1, dim))
        layer = nn.TransformerEncoderLayer(dim, 2, 32, batch_first=True)
        self.layers, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(dim, num_classes)

    def forward(self, x, mask=None):
        x = self.into(x[:, 0])
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        mask = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
        return self.head(self.layers(x, src_key_padding_mask=mask)[:, 0])


class Packed(nn.Module):
    "Rows as a sequence whose length is where the picture ends."
    def __init__(self, input_size: int = 28, hidden_size: int = 8, num_classes: int = 10):
        super().__init__()
        self.rnn = nn.GRU(input_size, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        lengths = (x[:, 0].sum(-1) > -1e9).sum(1).clamp(1).cpu()
        packed = pack_padded_sequence(x[:, 0], lengths, batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.head(out[torch.arange(len(x)), lengths - 1])


class Stateful(nn.Module):
    "Keeps its state from batch to batch, and so wants batches of one size."
    def __init__(self, batch_size: int = 64, hidden: int = 8, num_classes: int = 10):
        super().__init__()
        self.rnn, self.head = nn.GRU(28, hidden, batch_first=True), nn.Linear(hidden, num_classes)
        self.register_buffer("state", torch.zeros(1, batch_size, hidden))

    def forward(self, x):
        out, state = self.rnn(x[:, 0], self.state)
        self.state = state.detach()
        return self.head(out[:, -1])


class Queue(nn.Module):
    "Remembers what it has seen, in place."
    def __init__(self, size: int = 64, num_classes: int = 10):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(784, num_classes))
        self.register_buffer("seen", torch.zeros(size, num_classes))
        self.register_buffer("at", torch.zeros(1, dtype=torch.long))

    def forward(self, x):
        out, n = self.net(x), int(self.at)
        self.seen[n:n + len(x)] = out.detach()
        self.at[0] = (n + len(x)) % len(self.seen)
        return out + self.seen.mean(0)


class Moves(nn.Module):
    def __init__(self, in_channels: int = 1, num_classes: int = 10):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(784 * in_channels, num_classes))

    def forward(self, x):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return self.to(device).net(x.to(device))


class Spectrum(nn.Module):
    "Computes with complex numbers."
    def __init__(self, num_classes: int = 10):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(28, 15, dtype=torch.cfloat))
        self.head = nn.Linear(784, num_classes)

    def forward(self, x):
        waves = torch.fft.rfft2(x) * self.weight
        return self.head(torch.fft.irfft2(waves, s=x.shape[-2:]).flatten(1))


class Clip(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, limit):
        ctx.save_for_backward(x)
        return x.clamp(-limit, limit)

    @staticmethod
    def backward(ctx, grad): return grad * (ctx.saved_tensors[0].abs() < 1), None


class ByHand(nn.Module):
    def __init__(self, in_features: int = 784, num_classes: int = 10):
        super().__init__()
        self.net = nn.Linear(in_features, num_classes)

    def forward(self, x): return Clip.apply(self.net(x.flatten(1)), 3.0)


class Numpy(nn.Module):
    "Its features are numpy's."
    def __init__(self, bins: int = 16, num_classes: int = 10):
        super().__init__()
        self.bins, self.head = bins, nn.Linear(bins, num_classes)

    def forward(self, x):
        found = [np.histogram(o.cpu().numpy(), self.bins)[0] for o in x.detach()]
        return self.head(torch.tensor(np.stack(found), dtype=x.dtype, device=x.device))


class Patches(nn.Module):
    "Asserts what it was made for, as timm does."
    def __init__(self, patch_size: int = 7, img_size: int = 28, num_classes: int = 10):
        super().__init__()
        self.patch, n = patch_size, (img_size // patch_size)**2
        self.places = nn.Parameter(torch.zeros(n, 8))
        self.into, self.head = nn.Conv2d(1, 8, patch_size, patch_size), nn.Linear(8, num_classes)

    def forward(self, x):
        assert x.shape[-1] % self.patch == 0, f"{x.shape[-1]} by {self.patch}"
        return self.head((self.into(x).flatten(2).mT + self.places).mean(1))


class Embedded(nn.Module):
    "Looks each level of grey up."
    def __init__(self, num_embeddings: int = 256, dim: int = 4, num_classes: int = 10):
        super().__init__()
        self.table, self.head = nn.Embedding(num_embeddings, dim), nn.Linear(dim, num_classes)

    def forward(self, x): return self.head(self.table((x.sigmoid() * 255).long()).mean((1, 2, 3)))


class Twins(pl.LightningModule):
    "A net of two inputs."
    def __init__(self, in_channels: int = 3, num_classes: int = 10):
        super().__init__()
        self.net = nn.Bilinear(784, 784, num_classes)

    def forward(self, a, b): return self.net(a.flatten(1), b.flatten(1))

    def training_step(self, batch, i):
        x, y = batch
        return F.cross_entropy(self(x, x.roll(1, 0)), y)

    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 0.1)


class Parity(pl.LightningModule):
    "Has other classes than the data."
    def __init__(self, num_classes: int = 2):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(784, num_classes))
        self.metrics = MetricCollection([MulticlassAccuracy(num_classes),
                                         MulticlassAUROC(num_classes)], prefix="val/")

    def training_step(self, batch, i): return F.cross_entropy(self.net(batch[0]), batch[1] % 2)

    def validation_step(self, batch, i):
        self.metrics.update(self.net(batch[0]).softmax(1), batch[1] % 2)
        self.log_dict(self.metrics, on_epoch=True)

    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 0.1)


class Gan(pl.LightningModule):
    "Two optimizers, by hand."
    def __init__(self, latent: int = 16, channels: int = 3):
        super().__init__()
        self.automatic_optimization = False
        self.maker = nn.Sequential(nn.Linear(latent, 784), nn.Tanh())
        self.critic, self.latent = nn.Linear(784, 1), latent

    def training_step(self, batch, i):
        one, two = self.optimizers()
        real, made = batch[0].flatten(1), self.maker(torch.randn(len(batch[0]), self.latent))
        loss = self.critic(made).mean() - self.critic(real).mean()
        one.zero_grad()
        self.manual_backward(loss)
        one.step()
        self.toggle_optimizer(two)

    def configure_optimizers(self):
        return [torch.optim.Adam(o.parameters()) for o in (self.maker, self.critic)], []


class AutoEncoder(pl.LightningModule):
    def __init__(self, in_features: int = 784, num_classes: int = 3):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(in_features, num_classes), nn.Linear(num_classes, 784))

    def training_step(self, batch, i):
        x = batch[0].flatten(1)
        return F.mse_loss(self.net(x), x)

    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 0.1)


class FromDict(pl.LightningModule):
    def __init__(self, in_channels: int = 1, num_classes: int = 3):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))

    def training_step(self, batch, i): return F.cross_entropy(self.net(batch["x"]), batch["label"])
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 0.1)


class Dicts(pl.LightningDataModule):
    "Batches are dicts; what it declares is another model's."
    in_shape, num_classes = (3, 8, 8), 4

    def train_dataloader(self):
        rows = [dict(x=torch.zeros(1, 8, 8), label=torch.tensor(0))] * 8
        return DataLoader(rows, 4)


class Tokens(pl.LightningDataModule):
    "Texts, as numbers of words."
    in_shape, num_classes, vocabulary = (12,), 4, 100

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.zeros(8, 12).long(), torch.zeros(8).long()), 4)


class Reader(nn.Module):
    def __init__(self, vocabulary: int = 100, length: int = 12, num_classes: int = 4):
        super().__init__()
        self.table, self.places = nn.Embedding(vocabulary, 8), nn.Embedding(length, 8)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.head((self.table(x) + self.places(torch.arange(x.shape[1]))).mean(1))


class Scaled(nn.Module):
    "Counts on there being as many as in training."
    def __init__(self, num_classes: int = 10, steps: int = 4):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(784, num_classes))
        self.steps, self.noise = steps, math.sqrt(steps)

    def forward(self, x):
        if self.training: return self.net(x), self.noise
        return torch.stack([self.net(x + self.noise * torch.randn_like(x))
                            for _ in range(self.steps)]).mean(0)
