"""A made-up batch through the model of a config: what it must find, at which place, and what it
must leave alone: models and data of which it cannot be known."""
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from mlkit.config.node import ConfigError
from mlkit.data.base import ImageData
from mlkit.data.mnist import MNIST
from mlkit.many.sweep import load_trials
from mlkit.model.lit import LitModel
from mlkit.parts.check import check

HERE = __name__.rpartition(".")[2]
COUNT = dict(made=0)


@pytest.fixture(autouse=True)
def tests_are_importable(monkeypatch, request):
    monkeypatch.syspath_prepend(str(request.path.parent))


def here(name: str, **more) -> dict: return dict(_target_=f"{HERE}.{name}", **more)


# Nets

class Net(nn.Module):
    def __init__(self, in_channels: int = 1, num_classes: int = 10, width: int = 4):
        super().__init__()
        self.conv, self.head = nn.Conv2d(in_channels, width, 3), nn.Linear(width, num_classes)

    def forward(self, x): return self.head(self.conv(x).relu().mean((2, 3)))

class Rgb(Net):
    def __init__(self, in_channels: int = 3): super().__init__(in_channels)

class Dense(nn.Sequential):
    def __init__(self, input_size: int = 784, output_size: int = 10):
        super().__init__(nn.Flatten(), nn.Linear(input_size, 8), nn.Linear(8, output_size))

class Vit(Net):
    def __init__(self, img_size: int = 224, in_channels: int = 1):
        super().__init__(in_channels)
        self.img_size = img_size

    def forward(self, x):
        h = x.shape[2]
        assert h == self.img_size, f"Input height ({h}) doesn't match model ({self.img_size})."
        return super().forward(x)

class Wide(Net):
    def __init__(self, in_channels: int = 1, num_classes: int = 10):
        super().__init__(in_channels, num_classes)
        self.more = nn.Linear(2**13, 2**13)

class TwoHeads(nn.Module):
    def __init__(self, heads: dict[str, int]):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.heads = nn.ModuleDict({k: nn.Linear(4, n) for k, n in heads.items()})

    def forward(self, x):
        return {k: o(self.conv(x).mean((2, 3))) for k, o in self.heads.items()}

class Lazy(nn.Sequential):
    def __init__(self, in_channels: int = 3): super().__init__(nn.Flatten(), nn.LazyLinear(10))

class Items(Net):  # as many stochastic depths are written
    def __init__(self, in_channels: int = 3):
        rates = [o.item() for o in torch.linspace(0, 1, 3)]
        super().__init__(1 if rates else in_channels)

class Depends(Net):
    def __init__(self, in_channels: int = 3): super().__init__(1)
    def forward(self, x): return super().forward(x if x.mean() > -9 else x.flatten())

class Grey(Net):
    def __init__(self, in_channels: int = 3): super().__init__(in_channels)
    def forward(self, x): return super().forward(x.expand(-1, 3, -1, -1))

class Fixed(Net):
    def forward(self, x): return super().forward(x.view(64, -1, 28, 28))

class OnCuda(Net):
    def forward(self, x):
        if not x.is_cuda: raise RuntimeError("expected a CUDA tensor, not 1 of 3")
        return super().forward(x)

class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return torch.from_numpy(x.numpy() * 2)

class ByNumpy(Net):
    def forward(self, x): return super().forward(Double.apply(x))

class Prints(Net):
    def __init__(self, in_channels: int = 1):
        print("made", file=sys.stderr)
        COUNT["made"] += 1
        super().__init__(in_channels)

class Writes(Net):
    def __init__(self, in_channels: int = 1, file: str = ""):
        Path(file).write_text("made")
        super().__init__(in_channels)

class Makes(Net):
    def __init__(self, in_channels: int = 1, file: str = ""):
        os.mkdir(file)
        super().__init__(in_channels)

class Reads(Net):
    def __init__(self, in_channels: int = 1, file: str = ""):
        COUNT["read"] = Path(file).read_bytes()
        super().__init__(in_channels)

class Connects(Net):
    def __init__(self, in_channels: int = 1, port: int = 0):
        try: socket.create_connection(("127.0.0.1", port), 5)
        except PermissionError: pass
        super().__init__(in_channels)

class Starts(Net):
    def __init__(self, in_channels: int = 1, file: str = ""):
        subprocess.run(["touch", file], check=True)
        super().__init__(in_channels)

class Sigmoid(nn.Sequential):
    def __init__(self, num_classes: int = 10):
        super().__init__(nn.Flatten(), nn.Linear(784, num_classes), nn.Sigmoid())


# Models and losses

def one_hot_bce(output, target): return F.binary_cross_entropy(
    output, F.one_hot(target, output.shape[1]).float())

class Arc(nn.Module):  # keeps the classes itself: the net gives features
    def __init__(self, features: int = 16, classes: int = 10):
        super().__init__()
        self.last = nn.Linear(features, classes)

    def forward(self, output, target): return F.cross_entropy(self.last(output), target)

class Own(pl.LightningModule):
    def __init__(self, net: nn.Module, num_classes: int = 10):
        super().__init__()
        self.net, self.acc = net, MulticlassAccuracy(num_classes)

    def training_step(self, batch, i):
        x, y = batch
        loss, out = F.cross_entropy(self.net(x), y), self.net(x)
        self.acc(out, y)
        self.log("train/loss", loss)
        self.log("train/acc", self.acc)
        return loss

    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 0.1)

class Coordinates(LitModel):
    def step(self, batch):
        x, y = batch
        x = torch.cat([x, torch.zeros_like(x), torch.ones_like(x)], 1)
        return super().step((x, y))

class Transfers(Own):
    def on_after_batch_transfer(self, batch, i): return batch[0].expand(-1, 3, -1, -1), batch[1]

class MadeInSetup(Own):
    def __init__(self, in_channels: int = 3):
        super().__init__(nn.Identity())
        self.made = None

    def setup(self, stage): self.made = Net(1)
    def training_step(self, batch, i): return F.cross_entropy(self.made(batch[0]), batch[1])

class AsksTrainer(Own):
    def training_step(self, batch, i):
        return super().training_step(batch, i) * self.trainer.max_epochs


# Data

class Threefold(MNIST):
    def loader(self, split, shuffle=False):
        return [(x.expand(-1, 3, -1, -1), y) for x, y in super().loader(split, shuffle)]

class Coloured(MNIST):
    def __init__(self, batch_size: int = 8):
        super().__init__(batch_size=batch_size)
        grey = self.normalize
        self.normalize = lambda x: grey(x).expand(-1, 3, -1, -1)

def recoloured() -> MNIST: return Coloured()

def make_model(net: nn.Module) -> LitModel:
    return LitModel(nn.Sequential(nn.Conv2d(1, 3, 1), net))

class Undeclared(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.zeros(8, 3, 8, 8), torch.zeros(8).long()), 4)

class Declared(Undeclared):
    in_shape, num_classes = (3, 8, 8), 4

class HeightFirst(Undeclared):
    in_shape, num_classes = (8, 8, 3), 4

class Heads(ImageData):
    def __init__(self, num_classes: dict[str, int]):
        self.in_shape = (1, 28, 28)
        super().__init__(8, 0, (0.5,), (0.5,))
        self.num_classes = num_classes

class Masks(ImageData):
    classes, in_shape = ["no", "yes"], (1, 28, 28)
    def __init__(self): super().__init__(8, 0, (0.5,), (0.5,))


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    "Pictures of three classes, in a project."
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "pets" / name / "1.png")
    return tmp_path


def wild(name: str, **more) -> dict: return dict(_target_=f"batch_parts.{name}", **more)
def config(net, data=None, model="mlkit.model.lit.LitModel", **more) -> dict:
    model = dict(_target_=model, **({"net": net} if net else {}), **more)
    return dict(data=data or dict(_target_="mlkit.data.mnist.MNIST"), model=model)


def found(cfg: dict) -> list[str]:
    try: check(cfg, batch=True, trust=[HERE, "batch_parts"])
    except ConfigError as e: return [f"{o.key}: {o.message}" for o in e.problems]
    return []


LINEAR = dict(_target_="torch.nn.Linear", in_features=784, out_features=10)
FLAT = dict(_target_="torch.nn.Flatten")
CONV = dict(_target_="mlkit.model.nets.ConvNet", in_channels=1, num_classes=10)
MLP = dict(_target_="mlkit.model.nets.MLP", in_shape=[1, 28, 28], num_classes=10)
PETS = dict(_target_="mlkit.data.folder.ImageFolder", root="pets", size=[8, 8])
ACC = dict(_target_="torchmetrics.classification.MulticlassAccuracy", num_classes=10)
OWN, HEADS = f"{HERE}.Own", dict(_target_="mlkit.model.losses.HeadsLoss")

WRONG = {  # name -> (config, the keys that are named, what is right)
    "channels": (config({**CONV, "in_channels": 3}), "model.net.in_channels", "1 does"),
    "classes": (config({**CONV, "num_classes": 7}), "model.net.num_classes", "10 does"),
    "both": (config({**CONV, "in_channels": 3, "num_classes": 9}),
             "model.net.in_channels model.net.num_classes", "does"),
    "shape": (config({**MLP, "in_shape": [3, 28, 28]}), "model.net.in_shape", "[1, 28, 28] does"),
    "size": (config({**MLP, "in_shape": 1024}), "model.net.in_shape", "784 does"),
    "own": (config(here("Net", in_channels=2)), "model.net.in_channels", "1 does"),
    "default": (config(here("Rgb")), "model.net._target_", "in_channels: 1 does"),
    "words": (config(here("Dense", input_size=3072, output_size=5)),
              "model.net.input_size model.net.output_size", "does"),
    "assertion": (config(here("Vit")), "model.net._target_", "img_size: 28 does"),
    "within": (config(dict(_target_="torch.nn.Sequential", _args_=[
        FLAT, {**LINEAR, "out_features": 64}, {**LINEAR, "in_features": 32}])),
        "model.net._args_.1.out_features", "32 does"),
    "positional": (config(dict(_target_="torch.nn.Sequential", _args_=[
        FLAT, {**LINEAR, "in_features": 100}])), "model.net._args_.1.in_features", "784 does"),
    "pictures": (config(CONV, PETS), "model.net.in_channels model.net.num_classes", "3 does"),
    "grey": (config({**CONV, "in_channels": 3, "num_classes": 3}, {**PETS, "mode": "L"}),
             "model.net.in_channels", "1 does"),
    "folders": (config({**CONV, "in_channels": 3, "num_classes": 2}, PETS),
                "model.net.num_classes", "3 does"),
    "named": (config({**CONV, "in_channels": 3, "num_classes": 2}, {**PETS, "classes": [*"abc"]}),
              "model.net.num_classes", "3 does"),
    "resized": (config({**MLP, "in_shape": [3, 9, 9], "num_classes": 3}, PETS),
                "model.net.in_shape", "[3, 8, 8] does"),
    "expected": (config(CONV, dict(_target_="mlkit.data.mnist.MNIST", in_shape=[3, 28, 28])),
                 "data.in_shape", "the data has [1, 28, 28]"),
    "expected classes": (config(CONV, {**PETS, "num_classes": 4}), "data.num_classes",
                         "the data has 3"),
    "metric": (config(CONV, metrics=dict(acc={**ACC, "num_classes": 7})),
               "model.metrics.acc.num_classes", "10 does"),
    "weights": (config(CONV, loss=dict(_target_="torch.nn.CrossEntropyLoss", weight=dict(
        _target_="torch.tensor", data=[1.0, 2.0]))), "model.loss", "fails for MNIST"),
    "a target for each class": (config(CONV, loss=dict(_target_="torch.nn.BCEWithLogitsLoss")),
                                "model.loss", "fails for MNIST"),
    "large": (config(here("Wide", in_channels=3)), "model.net.in_channels", "1 does"),
    "large classes": (config(here("Wide", num_classes=3)), "model.net.num_classes", "10 does"),
    "module": (config(here("Net", in_channels=3), model=OWN), "model.net.in_channels", "1 does"),
    "module's classes": (config(here("Net", num_classes=7), model=OWN), "model.net.num_classes",
                         "10 does"),
    "module's metric": (config(here("Net"), model=OWN, num_classes=7), "model.num_classes",
                        "10 does"),
    "heads": (config(here("TwoHeads", heads=dict(root=5, vowel=3)), here(
        "Heads", num_classes=dict(root=6, vowel=3)), loss=HEADS), "model.net.heads.root", "6 does"),
    "declared": (config({**CONV, "num_classes": 4}, here("Declared")), "model.net.in_channels",
                 "3 does"),
    "recoloured": (config(CONV, here("Coloured")), "model.net.in_channels", "3 does"),
    "row's size": (config(wild("Packed", input_size=27)), "model.net.input_size", "28 does"),
    "sequence": (config(wild("Masked", width=32)), "model.net.width", "28 does"),
    "places": (config(wild("Masked", rows=20)), "model.net.rows", "28 does"),
    "patches": (config(wild("Patches", img_size=56)), "model.net.img_size", "28 does"),
    "features of a layer": (config(wild("ByHand", in_features=28)), "model.net.in_features",
                            "784 does"),
    "classes of a transformer": (config(wild("Masked", num_classes=5)), "model.net.num_classes",
                                 "10 does"),
    "lazy classes": (config(wild("LazyConvs", num_classes=4)), "model.net.num_classes", "10 does"),
    "classes after a loop": (config(wild("Until", num_classes=4)), "model.net.num_classes",
                             "10 does"),
    "two inputs": (config({}, model="batch_parts.Twins", num_classes=7), "model.num_classes",
                   "10 does"),
    "autoencoder": (config({}, model="batch_parts.AutoEncoder", in_features=100),
                    "model.in_features", "784 does"),
    "norm": (config(dict(_target_="torch.nn.Sequential", _args_=[
        dict(_target_="torch.nn.Conv2d", _args_=[1, 8, 3]),
        dict(_target_="torch.nn.BatchNorm2d", num_features=16), FLAT,
        dict(_target_="torch.nn.Linear", in_features=5408, out_features=10)])),
        "model.net._args_.1.num_features", "8 does"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_named(name, root):
    cfg, keys, right = WRONG[name]
    lines = found(cfg)
    assert [o.partition(":")[0] for o in lines] == keys.split(), lines
    assert all(right in o for o in lines), lines


FINE = {
    "conv": config(CONV), "mlp": config(MLP), "pictures": config({**CONV, "in_channels": 3}, PETS),
    "features": config({**CONV, "num_classes": 0}, here("Masks")),
    "embedding": config({**CONV, "num_classes": 16}, loss=here("Arc")),
    "more classes": config({**CONV, "num_classes": 12}),
    "one-hot": config(here("Sigmoid"), loss=here("one_hot_bce", _partial_=True)),
    "metrics": config(CONV, metrics=dict(acc=ACC, off=None)),
    "masks": config(dict(_target_="mlkit.model.nets.UNet", in_channels=1, num_classes=2),
                    here("Masks")),
    "coordinates": config({**CONV, "in_channels": 3}, model=f"{HERE}.Coordinates"),
    "transfer": config(here("Net", in_channels=3), model=f"{HERE}.Transfers"),
    "loader": config({**CONV, "in_channels": 3}, here("Threefold")),
    "recoloured": config({**CONV, "in_channels": 3}, here("Coloured")),
    "made by a function": config({**CONV, "in_channels": 3}, model=f"{HERE}.make_model"),
    "data of a function": config({**CONV, "in_channels": 3}, here("recoloured")),
    "undeclared": config({**CONV, "in_channels": 3}, here("Undeclared")),
    "height first": config({**CONV, "in_channels": 3}, here("HeightFirst")),
    "setup": dict(data=dict(_target_="mlkit.data.mnist.MNIST"), model=here("MadeInSetup")),
    "trainer": config(here("Net"), model=f"{HERE}.AsksTrainer"),
    "module": config(here("Net"), model=OWN),
    "no batches": dict(data=None, model=dict(_target_="pytorch_lightning.demos.boring_classes."
                                             "BoringModel")),
    **{o: config(wild(o)) for o in ("Until", "LazyConvs", "Masked", "Packed", "Stateful", "Queue",
                                    "Moves", "Spectrum", "ByHand", "Numpy", "Patches", "Embedded",
                                    "Scaled")},
    **{o: config({}, model=f"batch_parts.{o}") for o in ("Twins", "Parity", "Gan", "AutoEncoder")},
    "dicts": config({}, wild("Dicts"), model="batch_parts.FromDict"),
    "tokens": config(wild("Reader"), wild("Tokens")),
    "fewer tokens": config(wild("Reader", length=12, vocabulary=50), wild("Tokens")),
    "state of a batch": config(wild("Stateful", batch_size=64)),
    **{o: config(here(o)) for o in ("Lazy", "Items", "Depends", "Grey", "Fixed", "OnCuda",
                                    "ByNumpy", "Prints", "Wide")}}


@pytest.mark.parametrize("name", FINE)
def test_what_may_work_is_left_alone(name, root, capsys):
    assert found(FINE[name]) == []
    assert "made" not in "".join(capsys.readouterr())


def test_more_classes_than_the_data_has_are_a_warning(root, capsys):
    check(config({**CONV, "num_classes": 12}), batch=True)
    says = capsys.readouterr().err
    assert "model.net.num_classes: warning: 12 does not fit" in says and says.count("\n") == 1


@pytest.mark.parametrize("net", ["Writes", "Makes", "Reads", "Connects", "Starts"])
def test_nothing_is_written_read_or_sent(net, root):
    "Such a model, which has a mistake, too, is not known."
    file, server = root / "file", socket.create_server(("127.0.0.1", 0))
    if net == "Reads": file.write_bytes(bytes(2**20 + 1))
    more = dict(port=server.getsockname()[1]) if net == "Connects" else dict(file=str(file))
    before = sorted(root.rglob("*"))
    assert found(config(here(net, in_channels=3, **more))) == []
    server.setblocking(False)
    with server, pytest.raises(BlockingIOError): server.accept()
    assert sorted(root.rglob("*")) == before and "read" not in COUNT


def test_the_generators_are_as_before(root):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert found(config({**CONV, "num_classes": 7}))
    assert torch.equal(before, torch.get_rng_state())


def test_every_combination_is_tried(root):
    with pytest.raises(ConfigError) as e:
        load_trials(config(CONV), "model.net.in_channels=1,3", "model.net.num_classes=10,9")
    assert [(o.key, o.origin.text) for o in e.value.problems] == [
        ("model.net.num_classes", "model.net.num_classes=9"),
        ("model.net.in_channels", "model.net.in_channels=3")]


@pytest.mark.slow
def test_the_shell_names_the_line_without_lightning(root):
    (root / "configs").mkdir()
    text = "defaults: [{data: mnist}, {model: classifier}]\nmodel:\n  net:\n    " \
           "_target_: mlkit.model.nets.ConvNet\n    in_channels: 3\n    num_classes: 10\n"
    (root / "configs" / "a.yaml").write_text(text)
    code = ("import sys\nfrom mlkit.cli import mlkit_train\n"
            "code = mlkit_train(['configs/a.yaml', '--check'])\n"
            "assert 'pytorch_lightning' not in sys.modules\nsys.exit(code)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    line = "configs/a.yaml:5:5: model.net.in_channels: 3 does not fit MNIST, whose batches are " \
           "(B, 1, 28, 28) of 10 classes; 1 does\n"
    assert (done.returncode, done.stderr) == (2, line)
