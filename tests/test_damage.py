"""A bad disk: whatever bit of a run is another than it was written, the run goes on to the same
bits, or is refused by the file's name; and no other weights are loaded."""
import json
import random
import shutil
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from mlkit.base.errors import TrainingFailed, UserError
from mlkit.base.files import check_sums
from mlkit.fit.weights import read_checkpoint
from mlkit.run.folder import Run, list_runs
from mlkit.train import resume, train
from mlkit.use import evaluate, load_run, predict, trained
from power_cut import Cut, PowerCut

HERE = __name__.rpartition(".")[2]


def rows(seed: int) -> DataLoader:
    x = torch.randn(24, 4, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), 8, shuffle=not seed)


class Data(pl.LightningDataModule):
    def train_dataloader(self): return rows(0)
    def val_dataloader(self): return rows(1)
    def test_dataloader(self): return rows(2)


class Model(pl.LightningModule):
    def __init__(self, lr: float = 0.1):
        super().__init__()
        self.lr, self.net = lr, nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2), nn.Linear(4, 1))

    def forward(self, x): return self.net(x)

    def training_step(self, batch, i):
        loss = F.mse_loss(self(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, i): self.log("val_loss", F.mse_loss(self(batch[0]), batch[1]))
    def test_step(self, batch, i): self.log("test_loss", F.mse_loss(self(batch[0]), batch[1]))
    def configure_optimizers(self): return torch.optim.Adam(self.parameters(), lr=self.lr)


def config(runs, **trainer) -> dict:
    return dict(name="a", runs=str(runs), data=dict(_target_=f"{HERE}.Data", ),
                model=dict(_target_=f"{HERE}.Model", lr=0.05),
                trainer=dict(max_epochs=3, accelerator="cpu", log_every_n_steps=1, **trainer),
                callbacks=dict(progress=None, cut=dict(_target_="power_cut.Cut"),
                               checkpoint=dict(monitor="val_loss", every_n_steps=1)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    "One that is done, and the same, cut off."
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        whole, Cut.at = train(config(folder / "whole")), (2, 1)
        with pytest.raises(TrainingFailed) as failed: train(config(folder / "cut"))
    assert isinstance(failed.value.__cause__, PowerCut)
    return dict(whole=whole.dir, cut=failed.value.run.dir)


@pytest.fixture(autouse=True)
def tests_are_importable(monkeypatch): monkeypatch.syspath_prepend(str(Path(__file__).parent))


FILES = {"checkpoints/last.ckpt": 150, "checkpoints/best.ckpt": 100, "checkpoints/previous.ckpt": 30,
         "config.yaml": 80, "run.json": 80, "metrics.csv": 60}


def flips() -> list[tuple[str, int, int]]:
    "500 of them: a file, and what tells which bit."
    rng = random.Random(9)
    some = [(o, rng.randrange(10**9), rng.randrange(8)) for o, n in FILES.items() for _ in range(n)]
    rng.shuffle(some)
    return some


def flip(path: Path, at: int, bit: int):
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1 << bit
    path.write_bytes(data)


def copy(run: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(run, folder / run.parent.name / run.name))


def content(run: Path) -> tuple:
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    torch.set_printoptions(precision=17, threshold=10**6)
    try: text = repr({k: v for k, v in saved.items() if k != "mlkit_config"})
    finally: torch.set_printoptions(profile="default")
    return text, (run / "metrics.csv").read_bytes(), json.loads((run / "run.json").read_text())["metrics"]


def outcome(runs, folder: Path, name: str, at: int, bit: int) -> str:
    "'exact', 'refused', or what is wrong."
    run = copy(runs["cut"], folder)
    flip(run / name, at, bit)
    try: resume(run)
    except (UserError, TrainingFailed) as e:
        return "refused" if Path(name).name in str(e) else f"refused without the name: {e!r}"
    except Exception as e: return f"{type(e).__name__}: {e}"
    return "exact" if content(run) == content(runs["whole"]) else "other bits"


@pytest.mark.parametrize("some", [slice(0, 8), pytest.param(slice(8, 500), marks=pytest.mark.slow)],
                         ids=["8", "492"])
def test_a_flipped_bit_is_exact_or_refused(runs, tmp_path, figure, some):
    found = {o: outcome(runs, tmp_path / "run", *o) for o in flips()[some]}
    counts: dict[tuple, int] = {}
    for (name, *_), says in found.items():
        key = name, says if says in ("exact", "refused") else "WRONG"
        counts[key] = counts.get(key, 0) + 1
    figure(f"{len(found)} flipped bits: {counts}")
    assert not {k: v for k, v in found.items() if v not in ("exact", "refused")}
