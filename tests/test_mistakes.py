"""A corpus of config mistakes, made by class from configs that are right, each with the place that
must be named.

Every mistake exits with 2 and is told in one line that begins with its place; there is no traceback
and no run folder. And the other way round: configs that are right pass, and really build.
"""
import contextlib
import inspect
import io
import re
import shutil
import signal
import sys
from dataclasses import dataclass, field
from difflib import unified_diff
from functools import cache
from pathlib import Path
from pydoc import locate
from typing import Iterator

import pytest
import pytorch_lightning as pl
import torch
import yaml
from omegaconf import OmegaConf

from mlkit.base.files import packaged_configs
from mlkit.cli import mlkit_train
from mlkit.config.load import load_config
from mlkit.model.lit import scheduler_config
from mlkit.parts.batch import batch_mistakes
from mlkit.parts.build import build
from mlkit.parts.check import find_problems
from notebooks import without_recipes
from shell import command

ROOT = Path(__file__).resolve().parents[1]

# -- a project with classes and functions of its own

CODE = {"pyproject.toml": "", "ours/__init__.py": "", "ours/unseen.py": "def nothing(): pass\n",
        "ours/parts.py": '''
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Callable, Literal, Mapping, Optional, Sequence, Union

import pytorch_lightning as pl
import torch
from pydantic import BaseModel, DirectoryPath, Field, FilePath, PositiveInt, validate_call
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from mlkit.parts.locate import register
from mlkit.model.lit import LitModel


class Colour(Enum):
    RED = "red"
    BLUE = "blue"

@dataclass
class Options:
    width: int
    rate: float = 0.1
    mode: Literal["fast", "slow"] = "fast"
    level: Literal[1, 2, 3] = 1
    colour: Colour = Colour.RED
    folder: Path = Path(".")
    limit: Optional[int] = None
    sizes: dict[str, int] = field(default_factory=dict)
    pair: tuple[int, float] = (1, 2.0)
    grid: list[list[int]] = field(default_factory=list)
    names: Sequence[str] = ()
    kinds: set[str] = frozenset()
    either: Union[int, list[int]] = 1
    act: Callable[[Tensor], Tensor] = torch.relu
    shuffle: bool = True
    free: Any = None

class Settings(BaseModel):
    steps: PositiveInt
    share: float = Field(0.5, ge=0, le=1)
    label: str = "a"

class MoreSettings(Settings):
    colour: Colour = Colour.RED
    tags: list[str] = []

def load(file: FilePath, folder: DirectoryPath | None = None, lines: int = 1) -> str:
    return Path(file).read_text()
@validate_call
def scaled(times: int, by: float = 1.0): return times * by
def ranged(n: Annotated[int, Field(ge=1, le=9)], name: Annotated[str, "what it is called"] = ""):
    return n, name
def painted(colour: Colour | Literal["none"], shade: "float | None" = None): return colour, shade
def untyped(a, b=1, *, c=None): return a, b, c
def several(*args: int, sep: str = ","): return sep.join(map(str, args))
def anything(first: int, **kwargs): return kwargs
def in_pairs(pairs: list[tuple[str, int]], table: Mapping[str, list[float]] = {}):
    return pairs, table
def maker(make: Callable[[int], nn.Module], n: int = 2): return make(n)
def typed(kind: type[nn.Module] | None = None): return kind

class Encoder(nn.Module):
    def __init__(self, width: int, depth: int = 1):
        super().__init__()
        hidden = [nn.Linear(width, width)] * depth
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(4, width), *hidden)
        self.width = width

    def forward(self, x): return self.layers(x)

    @classmethod
    def small(cls, depth: int = 1) -> "Encoder": return cls(4, depth)

class WideEncoder(Encoder):
    "Its __init__ is the parent's."

class Decoder(nn.Module):
    def __init__(self, width: int, classes: int = 2):
        super().__init__()
        self.last = nn.Linear(width, classes)

    def forward(self, x): return self.last(x)

def make_encoder(width: int) -> Encoder: return Encoder(width)
def make_decoder(width: int) -> Decoder: return Decoder(width)

class Pair(nn.Module):
    def __init__(self, encoder: Encoder, decoder: Decoder | None = None,
                 act: Callable[[Tensor], Tensor] = torch.relu,
                 more: Sequence[nn.Module] = (), named: dict[str, nn.Module] | None = None):
        super().__init__()
        self.encoder, self.decoder, self.act = encoder, decoder or Decoder(encoder.width), act

    def forward(self, x): return self.decoder(self.act(self.encoder(x)))

@register
class Tiny(nn.Sequential):
    def __init__(self, width: int = 2): super().__init__(nn.Flatten(), nn.Linear(4, width))

class Numbers(Dataset):
    def __init__(self, n: int): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i): return float(i)

class Toy(pl.LightningDataModule):
    def __init__(self, n: int, batch_size: int = 8, shares: tuple[float, float] = (0.5, 0.5),
                 seed: int = 0):
        super().__init__()
        self.n, self.batch_size = n, batch_size

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.randn(self.n, 4), torch.arange(self.n) % 2),
                          self.batch_size)
    val_dataloader = train_dataloader

class Task(pl.LightningModule):
    "What it logs is its own affair."
    def __init__(self, net: nn.Module, lr: float = 0.1):
        super().__init__()
        self.net, self.lr = net, lr

    def training_step(self, batch, batch_idx):
        loss = self.net(batch[0]).square().mean()
        self.log("bleu", loss)
        return loss

    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), self.lr)

class MyLitModel(LitModel):
    "Logs more than its parent."
    def step(self, batch):
        loss, logits, target = super().step(batch)
        return {"loss": loss, "more": logits.norm()}, logits, target

class Says(pl.Callback):
    "Logs a figure of its own."
    def __init__(self, name: str = "val/said"): self.name = name
    def on_validation_epoch_end(self, trainer, pl_module): pl_module.log(self.name, 1.0)

class TwoLosses(nn.Module):
    def forward(self, logits, target):
        return {"loss": nn.functional.cross_entropy(logits, target), "size": logits.norm()}
''', "ours/late.py": '''
from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING: from nowhere import Thing


class Late(nn.Module):
    def __init__(self, width: int, thing: Thing | None = None, sizes: tuple[int, ...] = (1,),
                 top: Late | None = None):
        super().__init__()
'''}

CODE["ours/broken.py"] = "import nothing_like_this"
CODE["ours/unfinished.py"] = "def f(:"
CODE["ours/odd.py"] = '''
import functools
from dataclasses import InitVar, dataclass, field
from enum import IntEnum
from typing import Generic, Iterable, Literal, NamedTuple, NewType, Protocol, TypedDict, TypeVar

import pydantic
import torch
from torch import nn

T = TypeVar("T")
Width = NewType("Width", int)
Size = int | tuple[int, int]

class Level(IntEnum):
    LOW, HIGH = 1, 2

class Box(TypedDict, total=False):
    width: int
    name: str

class Point(NamedTuple):
    x: int
    y: float = 0.0

class Runs(Protocol):
    def run(self): ...

class Runner:
    def run(self): pass

class Scale:
    def __init__(self, by: float = 2): self.by = by
    def __call__(self, x): return x * self.by

class Outer:
    class Inner:
        def __init__(self, n: int): self.n = n
    @staticmethod
    def still(n: int = 1): return n
    @classmethod
    def named(cls, **kwargs: int): return kwargs

class New:
    def __new__(cls, n: int): return super().__new__(cls)

class Holder(Generic[T]):
    def __init__(self, item: T, more: list[T] | None = None): self.item = item

class Later:
    def __init__(self, other: "Last | None" = None, n: "int" = 1): self.other = other

class Last: pass

@dataclass(kw_only=True)
class Record:
    n: int
    scale: InitVar[float] = 1.0
    made: int = field(init=False, default=0)

@pydantic.dataclasses.dataclass
class Checked:
    n: int
    share: float = 0.5

class Open(pydantic.BaseModel, extra="allow"):
    n: int = pydantic.Field(1, alias="number")

def implicit(n: int = None, name: str = None): return n, name
def only_by_place(a: int, b: float = 1.0, /, *, c: bool = False): return a, b, c
def plain(n: Width, level: Level = Level.LOW, box: Box | None = None, size: Size = 1): return n
def shaped(dtype: torch.dtype | None = None, device: torch.device | str = "cpu",
           weight: torch.Tensor = None):
    pass
def auto(n: int | Literal["auto"] = "auto", say: bool | None = None, many: Iterable[int] = ()):
    return n
def runs(it: Runs, point: Point | None = None): return it
def wrapped(f):
    @functools.wraps(f)
    def g(*args, **kwargs): return f(*args, **kwargs)
    return g
@wrapped
def decorated(n: int, name: str = ""): return n
@functools.lru_cache
def cached(n: int): return n
instance, ready = Scale(3), functools.partial(decorated, name="a")
'''

# -- configs that are right; `#: int` says what a value's type is

DIGITS = {"main.yaml": """\
# Packaged groups, and a few keys of one's own.
defaults:
  - data: mnist
  - model: classifier
  - scheduler: one_cycle

model:
  net:
    _target_: mlkit.model.nets.ConvNet
    in_channels: 1           #: int
    num_classes: 10          #: int
    widths: [8, 16]          #: [int]
    dropout: 0.1             #: float

data:
  batch_size: 64             #: int
  val_size: 0.2              #: number
  source: sample             #: choice
  mirrors: [here, there]     #: [str]

optimizer:
  lr: 0.01                   #: number
  betas: [0.9, 0.99]         #: [number]
  fused: true                #: bool?

trainer:
  max_epochs: 2              #: int?
  limit_train_batches: 3     #: number?
  log_every_n_steps: 10      #: int?
  precision: 32-true         #: choice
  accumulate_grad_batches: 1 #: int
  detect_anomaly: false      #: bool
  gradient_clip_val: 0.5     #: number?
  enable_model_summary: false #: bool?

callbacks:
  checkpoint:
    mode: min                #: choice
"""}

OWN = {"main.yaml": """\
# Groups and classes of the project's own.
defaults:
  - data: toy
  - model: pair
  - optimizer: quick
  - _self_

trainer:
  max_steps: 4               #: int
  inference_mode: true       #: bool

extra:
  options:
    _target_: ours.parts.Options
    width: 3                 #: int
    rate: 1e-3               #: float
    mode: slow               #: choice
    level: 2                 #: choice
    colour: blue             #: choice
    folder: some/where       #: path
    limit: null              #: int?
    sizes: {a: 1, b: 2}      #: {int}
    pair: [1, 0.5]           #: [number]
    grid: [[1, 2], [3]]      #: [[int]]
    names: [a, b]            #: [str]
    kinds: [a, b]            #: [str]
    either: [1, 2]           #: [int]|
    shuffle: false           #: bool
  settings:
    _target_: ours.parts.MoreSettings
    steps: 3                 #: positive
    share: 0.25              #: share
    label: b                 #: str
    colour: red              #: choice
  late:
    _target_: ours.late.Late
    width: 3                 #: int
    sizes: [1, 2]            #: [int]
""", "data/toy.yaml": """\
_target_: ours.parts.Toy
n: 32                        #: int
batch_size: 8                #: int
shares: [0.5, 0.5]           #: [float]
seed: ${seed}
""", "model/pair.yaml": """\
defaults:
  - net: pair
  - _self_
_target_: mlkit.model.lit.LitModel
loss:
  _target_: torch.nn.CrossEntropyLoss
  label_smoothing: 0.1       #: float
  reduction: mean            #: str
optimizer: ${optimizer}
metrics:
  acc:
    _target_: mlkit.model.losses.accuracy
    _partial_: true
  f1:
    _target_: torchmetrics.classification.MulticlassF1Score
    num_classes: 2           #: int?
    average: macro           #: choice?
compile: false               #: bool
""", "model/net/pair.yaml": """\
# Of a group within a group.
_target_: ours.parts.Pair
encoder:
  _target_: ours.parts.WideEncoder
  width: 4                   #: int
  depth: 2                   #: int
decoder:
  _target_: ours.parts.Decoder
  width: 4                   #: int
act:
  _target_: torch.nn.LeakyReLU
  negative_slope: 0.1        #: float
""", "optimizer/quick.yaml": """\
_target_: torch.optim.SGD
_partial_: true
lr: 0.1                      #: number
momentum: 0.9                #: float
nesterov: true               #: bool
"""}

WHOLE = {"main.yaml": """\
# Everything is spelt out.
defaults: []
name: whole                  #: str
seed: 7                      #: seed
runs: runs                   #: path?
tags: [a, b]
extra: {size: 16}
data:
  _target_: mlkit.data.mnist.MNIST
  name: mnist                #: choice
  batch_size: ${extra.size}
  val_size: 500              #: number
  seed: ${seed}
model:
  _target_: mlkit.model.lit.LitModel
  net:
    _target_: torch.nn.Sequential
    _args_:
      - _target_: torch.nn.Conv2d
        in_channels: 1       #: int
        out_channels: 4      #: int
        kernel_size: [3, 3]  #: [int]|
        padding_mode: zeros  #: choice
        bias: true           #: bool
      - _target_: torch.nn.Flatten
      - _target_: torch.nn.Linear
        _args_: [2704, 16]
      - _target_: torch.nn.Dropout
        p: 0.25              #: float
      - _target_: torch.nn.Linear
        in_features: 16      #: int
        out_features: 10     #: int
  loss:
    _target_: torch.nn.functional.cross_entropy
    _partial_: true
    label_smoothing: 0.1     #: float
  optimizer:
    _target_: torch.optim.Adam
    _partial_: true
    lr: 1e-3                 #: number
    eps: 1e-8                #: float
  scheduler:
    _target_: torch.optim.lr_scheduler.StepLR
    _partial_: true
    step_size: 2             #: int
    gamma: 0.5               #: float
trainer:
  _target_: pytorch_lightning.Trainer
  accelerator: cpu
  max_epochs: 1              #: int?
  min_epochs: 1              #: int?
  check_val_every_n_epoch: 1 #: int?
  profiler: simple
callbacks:
  checkpoint:
    _target_: mlkit.fit.checkpoint.Checkpoint
    monitor: val/loss
logger: {}
"""}

LAB = {"main.yaml": """\
# An experiment that reaches everywhere.
defaults:
  - data: mnist
  - model: classifier
  - experiment: wide
  - _self_

trainer:
  max_epochs: 1              #: int?
""", "experiment/wide.yaml": """\
# @package _global_
model:
  net:
    _target_: mlkit.model.nets.MLP
    in_shape: [1, 28, 28]    #: [int]|
    num_classes: 10          #: int
    hidden: [64]             #: [int]
    dropout: ${extra.dropout}
    norm:
      _target_: torch.nn.BatchNorm1d
      _partial_: true
      momentum: 0.2          #: float?
optimizer:
  weight_decay: 0.1          #: float
extra:
  dropout: 0.5
"""}

WATCHED = {"main.yaml": """\
# Callbacks, loggers, and a scheduler that looks at a metric.
defaults:
  - data: mnist
  - model: classifier
  - scheduler: plateau
  - callbacks: early_stopping

model:
  net: {_target_: mlkit.model.nets.ConvNet, in_channels: 1, num_classes: 10}
  metrics:
    top2:
      _target_: torchmetrics.classification.MulticlassAccuracy
      num_classes: 10        #: int?
      top_k: 2               #: int

scheduler:
  monitor: val/acc
  scheduler:
    mode: max                #: choice
    factor: 0.5              #: float

callbacks:
  checkpoint:
    monitor: val/acc
    mode: max
  early_stopping:
    monitor: val/top2
    patience: 3              #: int
    min_delta: 0.01          #: float
    strict: true             #: bool
  keeper:
    _target_: pytorch_lightning.callbacks.ModelCheckpoint
    monitor: train/loss
    save_top_k: 2            #: int
    save_last: link          #: choice?
  rates:
    _target_: pytorch_lightning.callbacks.LearningRateMonitor
    logging_interval: step   #: choice?
  timer:
    _target_: pytorch_lightning.callbacks.Timer
    duration: {hours: 1}     #: {int}|

logger:
  csv:
    _target_: pytorch_lightning.loggers.CSVLogger
    save_dir: logs           #: path
    flush_logs_every_n_steps: 50 #: int
"""}

BASES = dict(digits=DIGITS, own=OWN, whole=WHOLE, lab=LAB, watched=WATCHED)
PACKAGED = {("trainer",): "pytorch_lightning.Trainer", ("data",): "mlkit.data.mnist.MNIST",
            ("optimizer",): "torch.optim.AdamW",
            ("callbacks", "checkpoint"): "mlkit.fit.checkpoint.Checkpoint",
            ("callbacks", "early_stopping"): "pytorch_lightning.callbacks.EarlyStopping",
            ("scheduler", "scheduler"): "torch.optim.lr_scheduler.ReduceLROnPlateau"}

# -- short names, for the tables below

MODULES = dict(nn="torch.nn", f="torch.nn.functional", optim="torch.optim",
               sched="torch.optim.lr_scheduler",
               data="torch.utils.data", m="torchmetrics.classification",
               mf="torchmetrics.functional",
               cb="pytorch_lightning.callbacks", log="pytorch_lightning.loggers",
               nets="mlkit.model.nets", ours="ours.parts",
               odd="ours.odd")
WORDS = dict(IDENTITY="{_target_: torch.nn.Identity}", FLAT="{_target_: torch.nn.Flatten}",
             RELU="{_target_: torch.nn.ReLU}",
             LINEAR="{_target_: torch.nn.Linear, _args_: [784, 10]}",
             STEEP="{_target_: torch.nn.LeakyReLU, _partial_: true, negative_slope: 0.2}",
             GELU="{_target_: torch.nn.functional.gelu, _partial_: true}",
             RECALL="{_target_: torchmetrics.classification.MulticlassRecall, num_classes: 10}",
             THIS_FILE=__file__,
             WRITER="{_target_: pytorch_lightning.plugins.io.TorchCheckpointIO}",
             ITS_FOLDER=str(Path(__file__).parent),
             DIGITS_DATA="{_target_: mlkit.data.mnist.MNIST}",
             NUMBERS="{_target_: ours.parts.Numbers, n: 4}")


def spell_out(text: str) -> str: return re.sub("[A-Z_]{4,}", lambda m: WORDS.get(m[0], m[0]), text)


def target_node(target: str, arguments: str = "") -> str:
    "'~nn:Linear', 'bias: true' -> '{_target_: torch.nn.Linear, _partial_: true, bias: true}'"
    name = re.sub(r"^(\w+):", lambda m: MODULES[m[1]] + ".", target.lstrip("~"))
    parts = [f"_target_: {name}", "_partial_: true" * (target[0] == "~"), arguments]
    return f"{{{', '.join(filter(None, parts))}}}"


def table(text: str) -> Iterator[list[str]]:
    "The columns of each line, which two spaces or more divide."
    for line in spell_out(text).strip().splitlines(): yield re.split(r"\s{2,}", line.strip())


# -- YAML as text: where its keys and values stand, and how to change one

@dataclass
class Spot:
    """A key (of a list: an item): its line and column, and where it and its value begin and end in
    the text."""
    line: int
    col: int
    key: tuple[int, int]
    value: tuple[int, int]


@cache
def spots(text: str) -> dict[tuple, Spot]:
    "Every key and item of a YAML text, by its path."
    found, ends = {}, lambda node: (node.start_mark.index, len(text[:node.end_mark.index].rstrip()))
    def walk(node, path):
        for i, pair in enumerate(node.value):
            key, value = pair if isinstance(node, yaml.MappingNode) else (pair, pair)
            here = (*path, key.value if key is not value else i)
            found[here] = Spot(key.start_mark.line + 1, key.start_mark.column + 1, ends(key),
                               ends(value))
            if not isinstance(value, yaml.ScalarNode): walk(value, here)
    walk(yaml.compose(text, yaml.SafeLoader), ())
    return found


def splice(text: str, ends: tuple[int, int], new: str) -> str:
    return text[:ends[0]] + new + text[ends[1]:]
def set_value(text: str, path: tuple, new: str) -> str:
    return splice(text, spots(text)[path].value, new)
def set_key(text: str, path: tuple, new: str) -> str:
    return splice(text, spots(text)[path].key, new)
def value_at(text: str, path: tuple) -> str: return text[slice(*spots(text)[path].value)]


def starts_line(text: str, path: tuple) -> bool:
    "Is a key the first thing of its line, and so one of a block?"
    at = spots(text)[path].key[0]
    return not text[text.rfind("\n", 0, at) + 1:at].strip()


def drop(text: str, path: tuple) -> str:
    "The text without a key of a block, and all that belongs to it."
    spot = spots(text)[path]
    return splice(text, (text.rfind("\n", 0, spot.key[0]) + 1, text.find("\n", spot.value[1]) + 1),
                  "")


def add(text: str, path: tuple, line: str) -> str:
    "The text with one more key, after the first one of the mapping at `path`."
    first = next(o for p, o in spots(text).items() if p[:-1] == path)
    if path and value_at(text, path)[0] == "{":
        return splice(text, (first.value[1],) * 2, f", {line}")
    end = text.find("\n", first.value[1])
    return splice(text, (end, end), "\n" + " " * (first.col - 1) + line)


def typo(word: str, i: int = 0) -> str:
    "One slip of a finger: a letter left out or written twice."
    n = len(word) // 2
    return [word[:n] + word[n + 1:], word + word[-1],
            word[:n] + word[n] + word[n:]][1 if len(word) < 4 else i % 3]


# -- where a mistake must be reported

def package(file: str, text: str) -> tuple:
    "Where the keys of a file go."
    return () if "@package _global_" in text else tuple(file.split("/")[:-1])


def place(file: str, text: str, path: tuple, about: tuple | None = None) -> str:
    """How the line about a key begins; `about`: it is enough if the key that it names begins with
    that."""
    key = ".".join(map(str, (*package(file, text), *(path if about is None else about))))
    return entry(file, text, path) + key + (": " if about is None else "")


def entry(file: str, text: str, path: tuple) -> str:
    "As `place`, with any key."
    return f"{file}:{spots(text)[path].line}:{spots(text)[path].col}: "


def places(file: str, text: str, *paths: tuple) -> tuple[str, ...]:
    "Any of these places is right."
    return tuple(place(file, text, o, paths[0]) for o in paths if o in spots(text))


def node(file: str, text: str, path: tuple) -> tuple[str, ...]:
    "A node may be named by its own key, or by those of its target."
    return places(file, text, path, (*path, "_target_"), (*path, "_partial_"))


def targets(text: str) -> dict[tuple, str]:
    "Path of every node with a target -> the target."
    return {path[:-1]: value_at(text, path) for path in spots(text) if path[-1] == "_target_"}


def parameters(target: str) -> list[inspect.Parameter]:
    return list(inspect.signature(locate(target)).parameters.values())


def takes_all(target: str) -> bool: return any(p.kind == p.VAR_KEYWORD for p in parameters(target))


# -- the corpus: a function for each class

@dataclass
class Mistake:
    base: str
    # file -> its text with the mistake in it; None: the file is not there
    edits: dict[str, str | None]
    # for each line of the report: how it begins, or how it may begin
    at: list[str | tuple[str, ...]]
    args: list[str] = field(default_factory=list)
    says: tuple[str, ...] = ()           # what the report must have in it
    config: str = "main.yaml"
    env: dict[str, str] = field(default_factory=dict)
    dotenv: str = ""

    def files(self) -> dict[str, str]:
        return {f: t for f, t in (BASES[self.base] | self.edits).items() if t is not None}

    def __str__(self):
        line = " ".join([*(f"{k}={v}" for k, v in self.env.items()), "mlkit_train", self.config,
                         *self.args])
        lines = lambda text: (text or "").splitlines()
        diffs = [unified_diff(lines(BASES[self.base].get(f)), lines(t), f, f"{self.base}/{f}", n=1,
                              lineterm="")
                 for f, t in self.edits.items()]
        return "\n".join([line, *filter(None, [self.dotenv]), *(o for diff in diffs for o in diff)])


def changed(base: str, file: str, text: str, *at, says=()) -> Mistake:
    return Mistake(base, {file: text}, list(at), says=says)


def overridden(base: str, *args: str, says=()) -> Mistake:
    "Each argument is a mistake of its own."
    return Mistake(base, {}, [f"command line: {a}: " for a in args], list(args), says)


def elsewhere(key: str, value: str, says=()) -> Iterator[Mistake]:
    "The same mistake on the command line, in the environment, and in `.env`."
    name = f"MLKIT_{key.replace('.', '__')}"
    yield overridden("digits", f"{key}={value}", says=says)
    yield Mistake("digits", {}, [f"environment: {name}={value}: "], says=says, env={name: value})
    yield Mistake("digits", {}, [f".env:3: {key}"], says=says,
                  dotenv=f"# ours\nTOKEN=1\n{name}={value}\n")


def files() -> list[tuple[str, str, str]]:
    return [(base, file, text) for base, of in BASES.items() for file, text in of.items()]


def meant(word: str) -> tuple[str]: return (f"did you mean '{word}'?",)


def misspelt_key():
    for n, (base, file, text) in enumerate(files()):
        nodes = targets(text) | ({} if base == "whole" or package(file, text) else PACKAGED)
        keys = [p for p in spots(text) if p[:-1] in nodes and not takes_all(nodes[p[:-1]])
                and p[-1] not in ("_target_", "_partial_", "_args_", "defaults")]
        for i, path in enumerate(keys, n):
            bad = (*path[:-1], typo(path[-1], i))
            new = set_key(text, path, bad[-1])
            yield changed(base, file, new, place(file, new, bad), says=meant(path[-1]))
    for base, key in [("digits", "trainer"), ("digits", "optimizer"), ("digits", "callbacks"),
                      ("own", "extra"),
                      ("whole", "data"), ("whole", "model"), ("whole", "trainer")]:
        new = set_key(BASES[base]["main.yaml"], (key,), typo(key))
        yield changed(base, "main.yaml", new, place("main.yaml", new, (typo(key),)),
                      says=meant(key))
    for path in [("model", "net"), ("data",), ("callbacks", "checkpoint")]:
        new = set_key(WHOLE["main.yaml"], (*path, "_target_"), "_taget_")
        yield changed("whole", "main.yaml", new, places("main.yaml", new, path, (*path, "_taget_")))
    file = "optimizer/quick.yaml"
    new = set_key(OWN[file], ("_partial_",), "_partal_")
    yield changed("own", file, new, place(file, new, ("_partal_",)), says=meant("_partial_"))
    for head, last, value in [("trainer", "max_epochs", "3"), ("model.net", "widths", "[8]"),
                              ("data", "batch_size", "3")]:
        yield from elsewhere(f"{head}.{typo(last)}", value, says=meant(last))
    for arg, right in {"sede=3": "seed", "trainr.max_epochs=3": "trainer",
                       "model.nett.widths=[3]": "net",
                       "~trainer.max_epoch": "max_epochs",
                       "++optimizer.weight_deca=0.1": "weight_decay",
                       "callbacks.chekpoint.mode=max": "checkpoint"}.items():
        yield overridden("digits", arg, says=meant(right))


def misspelt_target():
    for n, (base, file, text) in enumerate(files()):
        for i, (path, target) in enumerate(targets(text).items()):
            *module, last = target.split(".")
            bads = {".".join([*module, typo(last, i)]): last}
            if i % 2 and len(module) > 1:
                bads[".".join([module[0], typo(module[1], n), *module[2:], last])] = module[1]
            for bad, right in bads.items():
                new = set_value(text, (*path, "_target_"), bad)
                yield changed(base, file, new, place(file, new, (*path, "_target_")),
                              says=meant(right))
    for path, bad in {("data",): "mlkti.datamodule.MNIST", ("model", "net"): "torch.nn",
                      ("model", "loss"): "torch.pi",
                      ("trainer",): "3", ("model", "optimizer"): "torch.optim.Adam()",
                      ("model", "scheduler"): "StepLr",
                      ("callbacks", "checkpoint"): "null"}.items():
        new = set_value(WHOLE["main.yaml"], (*path, "_target_"), bad)
        yield changed("whole", "main.yaml", new, place("main.yaml", new, (*path, "_target_")))
    for bad, *says in [("ours.unsen.nothing", *meant("unseen")),
                       ("ours.broken.f", "nothing_like_this"),
                       ("ours.unfinished.f",), ("ours.parts",), ("ours.parts.Colour.RED.value",),
                       ("nosuchpackage.f",),
                       ("Tiiny",)]:
        new = LAB["main.yaml"] + f"extra: {{it: {{_target_: {bad}}}}}\n"
        yield changed("lab", "main.yaml", new, place("main.yaml", new, ("extra", "it", "_target_")),
                      says=tuple(says))
    yield from elsewhere("model.net._target_", "mlkit.model.nets.ConvNett", says=meant("ConvNet"))
    yield overridden("digits", "optimizer._target_=torch.optim.AdmW", says=meant("AdamW"))


WRONG = {  # type -> values of other types; those of a list or mapping end up in its last item
    "int": ["three", "'3'", "3.5", "true", "null", "3.0", "[3]", "{a: 3}"],
    "bool": ["maybe", "'true'", "null", "[true]"],
    "float": ["high", "'0.1'", "true", "null", "[0.1]"],
    "number": ["high", "'0.1'", "true", "{a: 1}"], "str": ["3", "true", "null", "[a]"],
    "path": ["3", "true", "[a]"], "choice": ["nonesuch", "3.5", "[a]"],
    "positive": ["0", "-3", "three"],
    "share": ["1.5", "-0.1", "half"], "seed": ["abc", "-1", "1.5", "null"]}
PART = "_target_: ours.parts"
MORE_WRONG = """
ours:ranged        n: 10                               n
ours:ranged        n: 1, name: 3                       name
ours:scaled        times: x                            times
ours:several       _args_: [1, x]                      _args_.1
nn:Linear          _args_: [four, 2]                   _args_.0
ours:painted       colour: green                       colour
ours:painted       colour: red, shade: dark            shade
ours:in_pairs      pairs: [[a, 1], [b, x]]             pairs.1.1
ours:in_pairs      pairs: [], table: {a: [1, x]}       table.a.1
ours:anything      first: x, other: 3                  first
ours:load          file: THIS_FILE, lines: few         lines
ours:Options       width: 1, pair: [1]                 pair
ours:Options       width: 1, act: 3                    act
ours:Options       width: 1, sizes: [a]                sizes
ours:Options       width: 1, kinds: {a: 1}             kinds
ours:Options       width: 1, names: {a: 1}             names
ours:Options       width: 1, grid: [[1, 2.5]]          grid.0.1
ours:maker         make: 3                             make
ours:Encoder.small  depth: deep                        depth
ours:make_encoder  width: wide                         width
odd:Outer.Inner    n: x                                n
odd:Outer.still    n: x                                n
odd:Outer.named    a: 1, b: x                          b
odd:New            n: x                                n
odd:Later          n: x                                n
odd:Later          other: 3                            other
odd:Record         n: x                                n
odd:Record         n: 1, made: 2                       made
odd:Checked        n: 1, share: half                   share
odd:Open           number: x                           number
odd:implicit       n: x                                n
odd:only_by_place  _args_: [1, x]                      _args_.1
odd:only_by_place  _args_: [1], c: 3                   c
odd:plain          n: wide                             n
odd:plain          n: 1, level: 3                      level
odd:plain          n: 1, size: wide                    size
odd:auto           n: automatic                        n
odd:shaped         weight: heavy                       weight
odd:decorated      n: x                                n
odd:cached         n: x                                n
data:DataLoader    dataset: NUMBERS, batch_size: few   batch_size
~sched:MultiStepLR  milestones: [2, x]                 milestones.1
~sched:OneCycleLR  max_lr: 1, anneal_strategy: cosine  anneal_strategy
~f:cross_entropy   ignore_index: none                  ignore_index
~mf:accuracy       task: many                          task
"""  # target, arguments, and which of them is wrong


def typed_keys() -> Iterator[tuple]:
    "Every key whose type is noted beside it: (base, file, text, path, type)."
    for base, file, text in files():
        for path, spot in spots(text).items():
            noted = re.search("#: (.*)", text.split("\n")[spot.line - 1])
            if noted and starts_line(text, path): yield base, file, text, path, noted[1]


def wrong_type():
    for i, (base, file, text, path, kind) in enumerate(typed_keys()):
        values = [o for o in WRONG[kind.strip("[{}]|?")]
                  if not (o == "null" and kind.endswith("?"))]
        if kind[0] in "[{":
            new = set_value(text, path,
                            re.sub(r"[^\s\[\]]+(?=[]}]+$)", values[i % 2], value_at(text, path)))
            item = [p for p in spots(new) if p[:len(path)] == path][-1]
            # a union: which one was meant?
            also = [place(file, new, path, path)] if kind.endswith("|") else []
            yield changed(base, file, new, (place(file, new, item, path), *also))
            values = ["3.5"]
        for value in dict.fromkeys(values[(i + k) % len(values)] for k in (0, 1)):
            new = set_value(text, path, value)
            yield changed(base, file, new, place(file, new, path))
    for key, value in [("trainer.max_epochs", "abc"), ("data.batch_size", "64.0"),
                       ("model.net.widths", "[8, x]"),
                       ("optimizer.lr", "fast")]: yield from elsewhere(key, value)
    for arg in ["seed=abc", "tags=a", "extra=3", "runs=3", "model.net.norm=3",
                "optimizer={lr: fast}",
                "trainer.devices={a: 1}", "trainer.precision=33-true", "data.batch_size=${name}",
                "data.batch_size='${seed}0'", "seed=4294967296", "trainer.max_epochs=1e3",
                "optimizer.lr=1e",
                "optimizer.lr=0,01", "model.net.widths=8,16"]:
        yield overridden("digits", arg)
    yield overridden("whole", "model.net._args_.0.in_channels=x")
    for key, value in [("_args_", "3"), ("_partial_", "maybe"), ("_args_", "{a: 1}")]:
        new = add(LAB["experiment/wide.yaml"], ("model", "net"), f"{key}: {value}")
        yield changed("lab", "experiment/wide.yaml", new,
                      place("experiment/wide.yaml", new, ("model", "net", key)))
    for value in ["64.0", "sixty", "'6'"]:  # what an interpolation leads to
        new = WHOLE["main.yaml"].replace("{size: 16}", f"{{size: {value}}}")
        either = [("data", "batch_size"), ("extra", "size")]
        yield changed("whole", "main.yaml", new, tuple(place("main.yaml", new, o) for o in either))
    for target, arguments, wrong in table(MORE_WRONG):
        new = LAB["main.yaml"] + f"extra:\n  it: {target_node(target, arguments)}\n"
        path = ("extra", "it", *(int(o) if o.isdigit() else o for o in wrong.split(".")))
        yield changed("lab", "main.yaml", new, node("main.yaml", new, path))
    new = add(LAB["main.yaml"], ("trainer",), "devices: [0, one]")
    yield changed("lab", "main.yaml", new,
                  places("main.yaml", new, ("trainer", "devices"), ("trainer", "devices", 1)))
    for line in ["optimizer: sgd", "logger: wandb", "callbacks: early_stopping",
                 "scheduler: cosine"]:
        new = LAB["main.yaml"] + f"{line}\n"  # as if it were an entry of `defaults:`
        yield changed("lab", "main.yaml", new, place("main.yaml", new, (line.split(":")[0],)))


def missing_argument():
    for base, file, text in files():
        for path, target in targets(text).items():
            for p in () if (*path, "_partial_") in spots(text) else parameters(target):
                key = (*path, p.name)
                if p.default is not p.empty or key not in spots(text) or not starts_line(text, key):
                    continue
                new = drop(text, key)
                yield changed(base, file, new, place(file, new, (*path, "_target_")),
                              says=(f"'{p.name}'",))
    for base, file, path, needs in [("whole", "main.yaml", ("model", "loss"), "target"),
                                    ("own", "optimizer/quick.yaml", (), "params"),
                                    ("own", "model/pair.yaml", ("metrics", "acc"), "logits")]:
        new = drop(BASES[base][file], (*path, "_partial_"))
        yield changed(base, file, new, place(file, new, (*path, "_target_")), says=(f"'{needs}'",))
    linear = ("model", "net", "_args_", 2)
    new = set_value(WHOLE["main.yaml"], (*linear, "_args_"), "[2704]")
    yield changed("whole", "main.yaml", new, place("main.yaml", new, (*linear, "_target_")),
                  says=("'out_features'",))
    at = place("main.yaml", DIGITS["main.yaml"], ("model", "net", "_target_"))
    for name in ["in_channels", "num_classes"]:
        yield Mistake("digits", {}, [at], [f"~model.net.{name}"], says=(f"'{name}'",))
    new = drop(DIGITS["main.yaml"], ("model",))
    yield changed("digits", "main.yaml", new, in_package("model/classifier.yaml", "net"))
    yield Mistake("lab", {}, [in_package("data/image_folder.yaml", "root")], ["data=image_folder"])
    for part in ["data", "model", "trainer"]:
        nowhere = (f"main.yaml: {part}: ", f"main.yaml:1:1: {part}: ")
        yield changed("whole", "main.yaml", drop(WHOLE["main.yaml"], (part,)), nowhere)
        yield Mistake("whole", {}, [(f"command line: ~{part}: ", *nowhere)], [f"~{part}"])
    yield overridden("digits", "model.net.in_channels=???")


def in_package(file: str, key: str) -> str:
    "The place of a key in one of mlkit's own files."
    return place(file, (packaged_configs() / file).read_text(), (key,))


def extra_argument():
    for base, file, text in files():
        for path, target in targets(text).items():
            if takes_all(target): continue
            new = add(text, path, "flavour: red")
            yield changed(base, file, new, place(file, new, (*path, "flavour")),
                          says=("'flavour'",))
    linear = ("model", "net", "_args_", 2)
    for args in ["[2704, 16, true, cpu, null, 6]", "[2704, 16]\n        in_features: 2704"]:
        new = set_value(WHOLE["main.yaml"], (*linear, "_args_"), args)
        either = places("main.yaml", new, linear, (*linear, "_args_"), (*linear, "in_features"))
        yield changed("whole", "main.yaml", new, either[1:])
    new = add(WHOLE["main.yaml"], ("model", "net"), "_recursion_: false")
    yield changed("whole", "main.yaml", new,
                  place("main.yaml", new, ("model", "net", "_recursion_")))
    for key in ["model.net.colour", "trainer.colour"]:
        yield from elsewhere(key, "red", says=("'colour'",))
    for arg in ["+optimizer.colour=red", "++model.metrics.acc.colour=red"]:
        yield overridden("digits", arg, says=("'colour'",))


WRONG_KIND = """
whole  main.yaml  data  IDENTITY | ~optim:SGD | 3 | null | ~mlkit.data.mnist.MNIST
whole  main.yaml  model  nn:Linear in_features: 1, out_features: 2 | DIGITS_DATA
whole  main.yaml  model.net  ~optim:Adam | ~nn:Linear in_features: 3 | torch.nn.Identity | \
DIGITS_DATA | 3 | [1, 2]
whole  main.yaml  model.net  ~mlkit.model.losses.accuracy | {in_channels: 1}
whole  main.yaml  model.optimizer  adam | {lr: 0.1} | ~nn:Linear | DIGITS_DATA | ~sched:StepLR \
step_size: 1
whole  main.yaml  model.loss  cross_entropy | 3 | DIGITS_DATA
whole  main.yaml  model.scheduler  step | 3
whole  main.yaml  trainer  IDENTITY | ~pytorch_lightning.Trainer | 5 | null
whole  main.yaml  trainer.profiler  IDENTITY | 3
whole  main.yaml  callbacks.checkpoint  IDENTITY | ~mlkit.fit.checkpoint.Checkpoint | 3 | \
{monitor: val/loss}
whole  main.yaml  callbacks.checkpoint  log:CSVLogger save_dir: logs | ours:Says _partial_: true
watched  main.yaml  logger.csv  cb:Timer | IDENTITY | csv
watched  main.yaml  callbacks.timer  ~optim:SGD | timer
own  model/net/pair.yaml  encoder  {width: 4} | 4 | null
own  model/net/pair.yaml  act  relu | ours:Options width: 3 | NUMBERS
own  model/net/pair.yaml  encoder.width  IDENTITY | ours:make_encoder width: 4
"""  # of a base, in a file, at a key: what is of another kind than what is asked there


LOOKS_WRONG = """
own  model/net/pair.yaml  encoder  ours:Decoder width: 4 | IDENTITY | ours:make_decoder width: 4
own  model/net/pair.yaml  encoder  ~ours:Encoder
own  model/net/pair.yaml  decoder  ours:Encoder.small | ours:make_encoder width: 4
own  main.yaml  extra.late  odd:shaped weight: RELU
"""  # likewise: code that says so may be content with it (see parts/certainty)


def replaced(rows: str) -> Iterator[tuple]:
    "(base, file, its text with another value at a key, where that is)"
    for base, file, key, values in table(rows):
        for value in values.split(" | "):
            target, path = re.fullmatch(r"(~\S+|\w+:\S+) ?(.*)", value), tuple(key.split("."))
            new = set_value(BASES[base][file], path, target_node(*target.groups()) if target
                            else value)
            if "weight" in value: path = (*path, "weight")
            yield base, file, new, node(file, new, path)


def only_looks_wrong():
    for base, file, new, at in replaced(LOOKS_WRONG):
        yield Mistake(base, {file: new}, [at], ["--strict"])


def wrong_kind():
    for base, file, new, at in replaced(WRONG_KIND): yield changed(base, file, new, at)
    file = "model/net/pair.yaml"
    for line, *path in [("more: [IDENTITY, NUMBERS]", "more", 1),
                        ("named: {a: IDENTITY, b: NUMBERS}", "named", "b")]:
        new = add(OWN[file], (), spell_out(line))
        yield changed("own", file, new, node(file, new, tuple(path)))
    for arg in ["model.net.norm=batch", "model.net.act=relu", "model.metrics=acc",
                "trainer.profiler=IDENTITY"]:
        yield overridden("digits", spell_out(arg))
    # the file is right in itself, but no optimizer
    new = "_target_: torch.nn.Dropout\n_partial_: true\np: 0.1\n"
    asked = place("model/pair.yaml", OWN["model/pair.yaml"], ("optimizer",))
    yield changed("own", "optimizer/quick.yaml", new, ("optimizer/quick.yaml:1:1: optimizer", asked,
                                                       entry("main.yaml", OWN["main.yaml"],
                                                             ("defaults", 2))))


def broken_interpolation():
    for base, file, text in files():
        for path in spots(text):
            if not (value := value_at(text, path)).startswith("${"): continue
            new = set_value(text, path, "${" + typo(value[2:-1]) + "}")
            yield changed(base, file, new, place(file, new, path))
    for base, path in [("digits", ("model", "net", "dropout")), ("digits", ("optimizer", "lr")),
                       ("whole", ("model", "loss", "label_smoothing"))]:
        for value in ["${nothing}", "${data.val_siz}", "${..nothing}",
                      "${oc.env:NOT_SET_ANYWHERE}", "${nosuch:1}",
                      "${" + ".".join(path) + "}", "${data.name.x}", "'${trainer.max_epochs'",
                      "'${}'", "'${a b}'",
                      "1${nothing}"]:
            new = set_value(BASES[base]["main.yaml"], path, value)
            yield changed(base, "main.yaml", new, place("main.yaml", new, path))
    path = ("model", "net", "widths")
    new = set_value(DIGITS["main.yaml"], path, "[8, '${nothing}']")
    yield changed("digits", "main.yaml", new, places("main.yaml", new, path, (*path, 1)))
    for base, path, value in [("watched", ("logger", "csv", "save_dir"), "logs/${nme}"),
                              ("whole", ("seed",), "${nothing}")]:
        new = set_value(BASES[base]["main.yaml"], path, value)
        yield changed(base, "main.yaml", new, place("main.yaml", new, path))
    yield from elsewhere("model.net.dropout", "${nothing}")
    yield from elsewhere("data.batch_size", "${extra.size}")
    yield overridden("digits", "name=${nothing}")


def unknown_option():
    for base, file, text in files():
        # ("defaults", 0, "data")
        for path in [p for p in spots(text) if len(p) == 3 and p[0] == "defaults"]:
            option, group = value_at(text, path), path[-1]
            misspelt = {option: set_value(text, path, typo(option)),
                        group: set_key(text, path, typo(group))}
            for right, new in misspelt.items():
                yield changed(base, file, new, entry(file, new, path[:2]),
                              says=("did you mean '", f"{right}'?"))
    for bad, right in {"optimizer=adamm": "adam", "scheduler=one_cylce": "one_cycle",
                       "debug=fats": "fast"}.items():
        yield from elsewhere(*bad.split("="), says=meant(right))
    for arg in ["optimizer=nonesuch", "trainer/max_epochs=3", "optimizer=",
                "callbacks=[default, nonesuch]",
                "callbacks=3", "debug=[fast, profil]", "data=None", "model/net=pair"]:
        yield overridden("digits", arg)
    for line in ["- [data]", "- 3", "- data: mnist\n    model: classifier", "- nonesuch",
                 "- data: ???",
                 "- data model: mnist"]:
        new = f"defaults:\n  {line}\n  - _self_\n"
        yield changed("lab", "main.yaml", new, entry("main.yaml", new, ("defaults", 0)))
    for value in ["mnist", "{data: mnist}", "3"]:
        new = f"defaults: {value}\n"
        yield changed("lab", "main.yaml", new, entry("main.yaml", new, ("defaults",)))


def marks(text: str) -> set[str]:
    "Where PyYAML stops, be it in Python or in C; nowhere where it reads the text."
    found = set()
    for loader in (yaml.SafeLoader, yaml.CSafeLoader):
        try: yaml.load(text, loader)
        except yaml.MarkedYAMLError as e:
            found.add(f"{e.problem_mark.line + 1}:{e.problem_mark.column + 1}")
    return found


def broken_yaml():
    for base, file, path in [("digits", "main.yaml", ("trainer", "max_epochs")),
                             ("own", "data/toy.yaml", ("n",)),
                             ("lab", "experiment/wide.yaml", ("extra", "dropout"))]:
        text, key = BASES[base][file], path[-1]
        for value in ["[1, 2", "{a: 1", "'1", "1: 2", "*one", "@one", "`1`", "%1", "!one 1",
                      '"\\q"', "]", "[1, 2]]",
                      "- 1"]:
            new = set_value(text, path, value)
            yield changed(base, file, new, tuple(f"{file}:{o}: " for o in marks(new)))
        for bad in [f"\t{key}", f"{key}\nother", f" {key}", f"{key} 1\n{key}"]:
            at = marks(new := set_key(text, path, bad))
            if at: yield changed(base, file, new, tuple(f"{file}:{o}: " for o in at))
        new = add(text, path[:-1], f"{key}: 1") if len(path) == 1 else text + f"{path[0]}: 1\n"
        twice = [e for e in re.finditer(rf"^{path[0]}:", new, re.M)][1].start()
        yield changed(base, file, new, f"{file}:{new[:twice].count(chr(10)) + 1}:1: ",
                      says=(f"'{path[0]}'",))
    for new in ["- a\n- b\n", "just a word\n", "3\n"]:
        yield changed("digits", "main.yaml", new, "main.yaml:1:1: ")
    yield changed("own", "data/toy.yaml", "- a\n", "data/toy.yaml:1:1: ")


def bad_grammar():
    for arg in ["trainer.max_epochs", "trainer.max_epochs:3", "=3", "+=3", "trainer..max_epochs=3",
                ".seed=3",
                "+++seed=3", "trainer.=3", "~", "~~seed", "seed = 3", "a b=3",
                "trainer.max_epochs=[1,2", "tags={a: 1",
                "name='abc", 'name="a', "optimizer=[sgd", "optimizer/=sgd", "/=1", "+seed",
                "seed,name=3",
                "trainer[max_epochs]=3", "~optimizer.lr=5", "trainer.max_epochs.x=3",
                "model.optimizer.lr=3",
                "data.nope.deep=3", "~nothing"]:
        yield overridden("digits", arg)
    for words in ["trainer.max_epochs =3", "trainer.max_epochs = 3", "trainer.max_epochs= 3"]:
        right, torn = "trainer.max_epochs=3", "command line: trainer.max_epochs = 3: "
        yield Mistake("digits", {}, [torn], words.split(), (f"leave out the blanks: {right}",))
    for name, value in [("MLKIT_trainer__max_epochs", "[1,2"), ("MLKIT_trainer____max_epochs", "3"),
                        ("MLKIT_name", "'a")]:
        yield Mistake("digits", {}, [f"environment: {name}={value}: "], env={name: value})
    yield Mistake("digits", {}, [".env:2: "], dotenv="A=1\nMLKIT_trainer__max_epochs={a: 1\n")
    yield Mistake("digits", {}, [".env:1: "], dotenv="MLKIT_trainer__=3\n")


def missing_file():
    yield Mistake("digits", {}, ["mian.yaml: "], config="mian.yaml", says=meant("main.yaml"))
    for config in ["main.yml", "nowhere/main.yaml", "data"]:
        yield Mistake("own", {}, [f"{config}: "], config=config)
    for base, gone, file, i in [("own", "data/toy.yaml", "main.yaml", 0),
                                ("own", "model/pair.yaml", "main.yaml", 1),
                                ("own", "optimizer/quick.yaml", "main.yaml", 2),
                                ("own", "model/net/pair.yaml", "model/pair.yaml", 0),
                                ("lab", "experiment/wide.yaml", "main.yaml", 2)]:
        at = entry(file, BASES[base][file], ("defaults", i))
        yield Mistake(base, {gone: None}, [at])
    for args, key in [("file: nowhere.txt", "file"), ("file: THIS_FILE, folder: nowhere", "folder"),
                      ("file: .", "file"), ("file: /nowhere/a.txt, lines: 3", "file"),
                      ("file: THIS_FILE, folder: THIS_FILE", "folder")]:
        new = LAB["main.yaml"] + f"extra:\n  text: {target_node('ours:load', spell_out(args))}\n"
        yield changed("lab", "main.yaml", new, place("main.yaml", new, ("extra", "text", key)))
    yield overridden("own", f"+extra.text={{{PART}.load, file: nowhere.txt}}")
    for root in ["nowhere", "/dev/null/nowhere"]:
        full = set_value(DIGITS["main.yaml"], ("data",),
                         f"{{source: full, root: {root}, mirrors: []}}")
        yield changed("digits", "main.yaml", full,
                      places("main.yaml", full, ("data",), ("data", "root")))
        folder = LAB["main.yaml"].replace("data: mnist",
                                          "data: image_folder") + f"data: {{root: {root}}}\n"
        yield changed("lab", "main.yaml", folder,
                      places("main.yaml", folder, ("data",), ("data", "root")))
    args = ["data=image_folder", "data.root=nowhere"]
    yield Mistake("lab", {}, [tuple(f"command line: {a}: " for a in args)], args)


def wrong_monitor():
    text = WATCHED["main.yaml"]
    for path, pairs in {
        ("callbacks", "checkpoint", "monitor"): {"val/accu": "val/acc", "val_acc": "val/acc",
                                                 "vall/acc": "val/acc",
                                                 "val/los": "val/loss", "acc": "", "val/f1": ""},
        ("callbacks", "early_stopping", "monitor"): {"val/topp2": "val/top2", "valloss": "val/loss",
                                                     "bleu": ""},
        ("callbacks", "keeper", "monitor"): {"train/los": "train/loss", "train_loss": "train/loss",
                                             "epoch_loss": ""},
        ("scheduler", "monitor"): {"val/ac": "val/acc", "val/top": "val/top2",
                                   "val/perplexity": ""}}.items():
        for bad, right in pairs.items():
            new = set_value(text, path, bad)
            yield changed("watched", "main.yaml", new, place("main.yaml", new, path),
                          says=meant(right) * bool(right))
    new = set_key(text, ("model", "metrics", "top2"), "top3")
    yield changed("watched", "main.yaml", new,
                  place("main.yaml", new, ("callbacks", "early_stopping", "monitor")))
    new = set_value(WHOLE["main.yaml"], ("callbacks", "checkpoint", "monitor"), "val/acc")
    yield changed("whole", "main.yaml", new,
                  place("main.yaml", new, ("callbacks", "checkpoint", "monitor")))
    no_monitor = target_node("~sched:ReduceLROnPlateau") + "\n"  # which it cannot do without
    new = set_value(WHOLE["main.yaml"], ("model", "scheduler"), no_monitor)
    yield changed("whole", "main.yaml", new, node("main.yaml", new, ("model", "scheduler")))
    # there is no validation to give val/loss
    default = (packaged_configs() / "callbacks" / "default.yaml").read_text()
    at = place("callbacks/default.yaml", default, ("checkpoint", "monitor"))
    yield Mistake("lab", {}, [(at, "command line: trainer.limit_val_batches=0: ")],
                  ["trainer.limit_val_batches=0"])
    yield from elsewhere("callbacks.checkpoint.monitor", "val/accu", says=meant("val/acc"))
    for base, group, arg, right in [
        ("digits", ["callbacks=early_stopping"], "callbacks.checkpoint.monitor=val/accu",
         "val/acc"),
        ("digits", ["scheduler=plateau"], "scheduler.monitor=val/accu", "val/acc"),
        ("own", [], "callbacks.checkpoint.monitor=val/f2", "val/f1")]:
        yield Mistake(base, {}, [f"command line: {arg}: "], [*group, arg], says=meant(right))


def two_at_once():
    "Any two of the others: in two files, or in a file and on the command line."
    kinds = (misspelt_key, misspelt_target, wrong_type, missing_argument, extra_argument,
             wrong_monitor)
    single = [m for kind in kinds for m in corpus(kind) if m.edits and not m.args]
    inner = [m for m in single if "model/net/pair.yaml" in m.edits]
    outer = [m for m in single if m.base == "own"
             and not m.edits.keys() & {"model/net/pair.yaml", "model/pair.yaml"}]
    for a, b in zip(outer[::6], inner[::3]):
        yield Mistake("own", a.edits | b.edits, a.at + b.at, says=a.says + b.says)
    for base, arg in {"digits": "callbacks.checkpoint.monitor=val/accu",
                      "watched": "optimizer.weight_decay=high",
                      "lab": "data.batch_size=few", "whole": "seed=abc"}.items():
        for m in [m for m in single if m.base == base and arg.split("=")[0] not in str(m.at)][::9]:
            yield Mistake(base, m.edits, [*m.at, f"command line: {arg}: "], [arg], says=m.says)
    for args in ["trainer.max_epoch=3 model.net.channels=1 optimizer.learning_rate=1 "
                 "data.batch_size=few",
                 "name='a sede=3", "sede=3 trainr.max_epochs=3",
                 "optimizer=adamm scheduler=nonesuch"]:
        yield overridden("digits", *args.split())
    nowhere = [(f"main.yaml: {part}: ", f"main.yaml:1:1: {part}: ") for part in ("data", "model")]
    yield changed("lab", "main.yaml", "# nothing at all\n", *nowhere)
    new = LAB["main.yaml"].replace("mnist", "mnits").replace("classifier", "clasifier")
    yield changed("lab", "main.yaml", new,
                  *(entry("main.yaml", new, ("defaults", i)) for i in (0, 1)))


@cache
def corpus(kind) -> list[Mistake]: return list(kind())


KINDS = {f.__name__.replace("_", " "): f for f in (
    misspelt_key, misspelt_target, wrong_type, missing_argument, extra_argument, wrong_kind,
    only_looks_wrong, broken_interpolation,
    unknown_option, broken_yaml, bad_grammar, missing_file, wrong_monitor, two_at_once)}


# -- making them

@pytest.fixture(scope="module")
def project(tmp_path_factory):
    "A project's folder, without configs; its package is forgotten afterwards."
    root = write(tmp_path_factory.mktemp("project"), CODE)
    before, handler = list(sys.path), signal.getsignal(signal.SIGTERM)
    sys.path.append(str(root))
    yield root
    sys.path[:] = before
    signal.signal(signal.SIGTERM, handler)
    for name in [o for o in sys.modules if o.split(".")[0] == "ours"]: del sys.modules[name]


def write(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def complaints(m: Mistake, code, out: str, err: str, root: Path) -> str:
    "What is wrong with the report of a mistake; '' if nothing is."
    found, lines = [], err.splitlines()
    if code != 2: found.append(f"exit code {code}")
    if "Traceback" in err: found.append("a traceback")
    if out: found.append("something on stdout")
    if len(lines) != len(m.at): found.append(f"{len(lines)} lines, not {len(m.at)}")
    for at in m.at:
        line = next((o for o in lines if o.startswith(at)), None)
        if line: lines.remove(line)
        else: found.append(f"no line begins with {at!r}")
    found += [f"nothing says {o}" for o in m.says if o not in err]
    if (root / "runs").exists(): found.append("a run folder")
    return "; ".join(found) and f"{'; '.join(found)}\n{m}\n=> {err.strip()[:1500]}"


def in_process(m: Mistake, folder: Path, root: Path) -> str:
    "Run the command here. What gets as far as training was not caught."
    def fit(*args, **kwargs): raise RuntimeError("it trained")
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(
        out), contextlib.redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr(pl.Trainer, "fit", fit)
        for k, v in m.env.items(): patch.setenv(k, v)
        if m.dotenv: (root / ".env").write_text(m.dotenv)
        try: code = mlkit_train([m.config, *m.args])
        except SystemExit as e: code = e.code
        except Exception as e: code = f"1, after a traceback: {type(e).__name__}: {e}"
        finally: (root / ".env").unlink(missing_ok=True)
    found = complaints(m, code, out.getvalue(), err.getvalue(), root)
    shutil.rmtree(root / "runs", ignore_errors=True)
    return found


def in_a_shell(m: Mistake, folder: Path, root: Path) -> str:
    done = command("mlkit_train", m.config, *m.args, cwd=folder, **m.env)
    return complaints(m, done.returncode, done.stdout, done.stderr, root)


@pytest.mark.parametrize("kind", KINDS)
def test_mistake(kind, project, figure):
    mistakes = corpus(KINDS[kind])
    home = project / kind.replace(" ", "_")
    missed = [in_process(m, write(home / str(i), m.files()), project)
              for i, m in enumerate(mistakes)]
    missed = list(filter(None, missed))
    told = f"{kind}: caught {len(mistakes) - len(missed)} / {len(mistakes)}"
    figure(told)
    assert not missed, "\n\n".join([told, *missed])


def test_what_only_looks_wrong_is_a_warning(project, capsys, monkeypatch):
    for i, m in enumerate(corpus(only_looks_wrong)):
        monkeypatch.chdir(write(project / "looks_wrong" / str(i), m.files()))
        assert mlkit_train([m.config, "--check"]) == 0
        out, err = capsys.readouterr()
        line, = err.splitlines()
        assert line.startswith(m.at[0]) and ": warning: " in line, line
        assert out == "no mistakes, 1 to look at\n"


def test_the_corpus_is_large(project):
    assert sum(len(corpus(f)) for f in KINDS.values()) >= 150


def test_mistakes_in_a_shell(project, figure):
    "Two of each class, as a person meets them."
    reports = []
    for kind, f in KINDS.items():
        mistakes = [m for m in corpus(f) if not m.dotenv]
        for i in {0, len(mistakes) // 2}:
            folder = write(project / "shell" / f"{kind}_{i}", mistakes[i].files())
            reports.append(in_a_shell(mistakes[i], folder, project))
    missed = list(filter(None, reports))
    figure(f"in a shell: caught {len(reports) - len(missed)} / {len(reports)}")
    assert not missed, "\n\n".join(missed)


# -- no false alarm

RIGHT = """\
defaults: [data: mnist, model: classifier]
data: {batch_size: 16}
model: {net: NET, loss: LOSS, metrics: METRICS}
optimizer: OPTIMIZER
scheduler: SCHEDULER
trainer: {accelerator: cpu, TRAINER}
callbacks: CALLBACKS
logger: LOGGER
extra: {n: 3, share: 0.5, flag: true, words: [a, b], it: EXTRA}
"""
USUAL = dict(net="{_target_: mlkit.model.nets.MLP, in_shape: 784, num_classes: 10}",
             loss="{_target_: torch.nn.CrossEntropyLoss}", metrics="{}",
             optimizer="{_target_: torch.optim.SGD, _partial_: true, lr: 0.1}", scheduler="null",
             trainer="max_epochs: 1", callbacks="{}", logger="{}", extra="null")

# where -> what is right there: targets (partial ones after '~') with their arguments, or other '='
# values
VALID = {
    "net": """
nn:Conv2d        in_channels: 1, out_channels: 2, kernel_size: 3 | in_channels: 1, out_channels: \
2, kernel_size: [3, 5]
nn:Conv2d        _args_: [1, 2, 3], stride: [2, 1], padding: [1, 1] | _args_: [1, 2, [3, 3]], \
padding: same
nn:Conv2d        _args_: [1, 2, 5], dtype: null, padding_mode: reflect, bias: false, dilation: 2, \
groups: 1
nn:MaxPool2d       kernel_size: 2 | kernel_size: [2, 2], stride: 2 | kernel_size: 2, stride: null, \
ceil_mode: true
nn:Linear        _args_: [4, 2] | in_features: 4, out_features: 2, bias: false | _args_: [4], \
out_features: '${extra.n}'
nn:BatchNorm2d     num_features: 3 | num_features: 3, momentum: null, eps: 1e-3 | num_features: 3, \
momentum: 1
nn:LayerNorm       normalized_shape: 4 | normalized_shape: [4, 4], elementwise_affine: false
nn:TransformerEncoderLayer d_model: 8, nhead: 2 | d_model: 8, nhead: 2, activation: gelu, \
batch_first: true
nn:TransformerEncoderLayer d_model: 8, nhead: 2, activation: GELU, dropout: 0
nn:LSTM            input_size: 3, hidden_size: 4, num_layers: 2, dropout: 0.1 | _args_: [3, 4]
nn:Embedding       num_embeddings: 3, embedding_dim: 2, padding_idx: 0 | _args_: [3, 2], max_norm: 1
nn:Upsample        scale_factor: 2 | scale_factor: 2.5, mode: bilinear | size: [8, 8]
nn:Sequential      - | _args_: [FLAT, LINEAR, RELU] | _args_: [FLAT, '${model.net._args_.0}']
nn:ModuleList      modules: [FLAT, RELU]
nn:ModuleDict      modules: {a: FLAT}
nets:ConvNet       in_channels: 1, num_classes: 10, widths: [4, 8], norm: null, dropout: 0
nets:ConvNet       in_channels: 1, num_classes: 10, norm: {_target_: torch.nn.BatchNorm2d, \
_partial_: true, eps: 1e-3}
nets:ConvNet       in_channels: 1, num_classes: 10, act: STEEP
nets:Heads         backbone: {_target_: mlkit.model.nets.MLP, in_shape: [1, 28, 28], num_classes: \
0}, heads: {a: 3, b: 2}
nets:Heads         backbone: FLAT, heads: 10, num_features: 784, hidden: []
ours:Pair          encoder: {_target_: ours.parts.Encoder, width: 4}, decoder: null
ours:Pair          encoder: {_target_: ours.parts.WideEncoder, width: 4, depth: 2}, act: RELU, \
more: [RELU]
ours:Pair          encoder: {_target_: ours.parts.Encoder.small}, act: GELU
ours:Pair          encoder: {_target_: ours.parts.make_encoder, width: 4}, named: {a: RELU, b: FLAT}
Tiny               - | width: 3
ours.late.Late     width: 3, sizes: [1, 2, 3] | width: 3, thing: any, top: null
""", "loss": """
nn:CrossEntropyLoss label_smoothing: 0.1 | label_smoothing: 1, reduction: sum, weight: null
nn:CrossEntropyLoss weight: {_target_: torch.tensor, data: [1.0, 2.0]}
nn:SmoothL1Loss    beta: 2
nn:BCEWithLogitsLoss
ours:TwoLosses
""", "metrics": """
= null
it m:MulticlassAccuracy num_classes: 10 | num_classes: 10, top_k: 2, average: micro, \
sync_on_compute: false
it m:MulticlassF1Score num_classes: 10, average: none | num_classes: 10, average: null
it m:MulticlassConfusionMatrix num_classes: 10, normalize: 'true'
it m:BinaryAUROC   thresholds: [0.1, 0.5] | thresholds: 5 | thresholds: null
it torchmetrics.Accuracy task: multiclass, num_classes: 10
it torchmetrics.MeanMetric - | nan_strategy: 0.0
it torchmetrics.MetricCollection metrics: [RECALL] | metrics: {r: RECALL}, prefix: a_
it ~mf:accuracy    task: multiclass, num_classes: 10
it ~mf:classification.multiclass_f1_score num_classes: 10, average: macro, ignore_index: 0
it ~mlkit.model.losses.accuracy
it ~f:cross_entropy label_smoothing: 0.1
it = {a: RECALL}
""", "optimizer": """
~optim:SGD         lr: 0.1 | lr: 1, momentum: 0.9, nesterov: true | lr: 1e-1, weight_decay: 0, \
foreach: null
~optim:Adam        - | betas: [0.9, 0.99], eps: 1e-6 | lr: 1e-3, amsgrad: true, fused: true
~optim:AdamW       lr: 0.1, betas: [0.0, 0.9] | maximize: false
~optim:RMSprop     alpha: 0.9, centered: true
~optim:LBFGS       max_iter: 2, line_search_fn: strong_wolfe | tolerance_change: 1e-9, max_eval: \
null
~optim:Adagrad     lr_decay: 0
~optim:NAdam
~optim:Adadelta    rho: 0.8
""", "scheduler": """
~sched:StepLR      step_size: 3 | step_size: 3, gamma: 1
~sched:MultiStepLR milestones: [2, 4], gamma: 0.5
~sched:ExponentialLR gamma: 0.9
~sched:ConstantLR  factor: 1
~sched:CosineAnnealingLR - | T_max: 10, eta_min: 1e-5
~sched:OneCycleLR  max_lr: '${optimizer.lr}' | max_lr: [0.1], pct_start: 0.2, anneal_strategy: \
linear
scheduler ~sched:ReduceLROnPlateau mode: max, patience: 2 | min_lr: [0.1] | min_lr: 0, \
threshold_mode: abs
""", "trainer": """
= precision: 32 | precision: 16-mixed | precision: bf16-mixed | precision: 32-true | precision: \
'32' | precision: bf16
= precision: 64-true | precision: null | devices: auto | devices: 1 | devices: '1' | strategy: \
auto | num_nodes: 1
= limit_train_batches: 0.5 | limit_train_batches: 3 | limit_train_batches: null | \
limit_val_batches: 2
= overfit_batches: 1 | limit_test_batches: 0.1 | val_check_interval: 0.5 | val_check_interval: 10
= val_check_interval: 00:12:00:00 | val_check_interval: {minutes: 5} | check_val_every_n_epoch: 2
= check_val_every_n_epoch: null, val_check_interval: 5 | use_distributed_sampler: false
= max_time: 00:00:01:00 | max_time: {hours: 2, minutes: 3} | max_time: null | max_epochs: -1 | \
max_epochs: null
= min_epochs: 1, max_epochs: 3 | max_steps: 10, min_steps: 2 | profiler: simple | profiler: \
advanced | profiler: null
= profiler: {_target_: pytorch_lightning.profilers.AdvancedProfiler, filename: a} | \
gradient_clip_val: 0.5
= gradient_clip_val: 1, gradient_clip_algorithm: norm | gradient_clip_val: null | deterministic: \
warn
= deterministic: null | benchmark: null | log_every_n_steps: 1 | accumulate_grad_batches: 4 | \
inference_mode: false
= detect_anomaly: false | enable_model_summary: null | num_sanity_val_steps: -1
= reload_dataloaders_every_n_epochs: 1 | sync_batchnorm: false | plugins: null | plugins: WRITER | \
plugins: [WRITER]
""", "callbacks": """
= null | {progress: null} | {checkpoint: {monitor: val/acc, mode: max}, x: null}
it cb:EarlyStopping monitor: val/loss | monitor: val/acc, mode: max, patience: 2, min_delta: 0
it cb:EarlyStopping monitor: '${callbacks.checkpoint.monitor}', stopping_threshold: 0.1, \
check_on_train_epoch_end: null
it cb:ModelCheckpoint monitor: null | monitor: train/loss, save_top_k: -1, save_last: link, \
dirpath: logs
it cb:ModelCheckpoint monitor: val/acc, filename: best, every_n_epochs: 2, save_last: true
it cb:LearningRateMonitor - | logging_interval: step, log_momentum: true
it cb:Timer        duration: 00:00:10:00 | duration: {minutes: 5}, interval: epoch | duration: null
it cb:StochasticWeightAveraging swa_lrs: 1e-2 | swa_lrs: [0.1], swa_epoch_start: 3 | swa_lrs: 0.1, \
device: null
it cb:GradientAccumulationScheduler scheduling: {0: 1, 4: 2}
it cb:TQDMProgressBar refresh_rate: 5
it cb:DeviceStatsMonitor cpu_stats: null
it cb:ModelSummary max_depth: 2
it cb:LambdaCallback - | on_fit_start: {_target_: ours.parts.anything, _partial_: true}
it mlkit.fit.checkpoint.Checkpoint monitor: null | monitor: val/acc, mode: max
it mlkit.fit.randomness.SameBatches
it ours:Says       name: a
""", "logger": """
= null | {it: null}
it log:CSVLogger   save_dir: logs | save_dir: logs, name: null, version: 3 | save_dir: logs, \
version: a, prefix: ''
""", "extra": """
= [1, x, {a: null}] | {deep: {er: [RELU]}} | 'a ${name} b' | '${trainer}' | \
"${oc.env:HOW_FAST,fast}"
ours:Options       width: 3 | width: 3, rate: 1 | _args_: [3, 0.5] | width: 3, mode: slow, level: \
3, colour: blue
ours:Options       width: 3, folder: /a/b, names: [a]
ours:Options       width: '${extra.n}', rate: '${extra.share}', names: '${extra.words}', shuffle: \
'${extra.flag}'
ours:Options       width: 3, limit: 4, sizes: {}, pair: [1, 2] | width: 3, grid: [], names: [], \
kinds: [a], either: 4
ours:Options       width: 3, grid: [[], [1]], either: [4] | width: 3, act: RELU, free: {a: [1, x]}
ours:Options       width: 3, act: {_target_: torch.sigmoid, _partial_: true}
ours:Options       width: 3, act: {_target_: ours.parts.anything, _partial_: true, first: 1}
ours:Options       width: '${seed}', limit: '${trainer.max_epochs}', mode: "${oc.env:HOW_FAST,fast}"
~ours:Options      - | rate: 0.5
ours:Settings      steps: 3 | steps: 3, share: 1 | steps: '${extra.n}', label: \
'${extra.words.0}${extra.n}'
ours:MoreSettings  steps: 3, colour: red, tags: [a]
ours:ranged        n: 1 | n: 9, name: it
ours:load          file: THIS_FILE, folder: ITS_FOLDER | file: THIS_FILE
~ours:load         - | lines: 2
ours:scaled        times: 3 | times: 3, by: 2 | _args_: [3, 0.5]
ours:painted       colour: red | colour: none, shade: 1 | colour: blue, shade: null
ours:Options       width: 3, act: {_target_: ours.odd.Scale, by: 3}
odd:Outer.Inner    n: 1
odd:Outer.still    - | n: 2
odd:Outer.named    - | a: 1, b: 2
odd:New            n: 1
odd:Holder         item: 1, more: [2] | item: a | item: RELU, more: null
odd:Later          - | other: {_target_: ours.odd.Last}, n: 2
odd:Record         n: 1 | n: 1, scale: 2
odd:Checked        n: 1 | n: 1, share: 1
odd:Open           - | number: 2, other: [x]
odd:implicit       - | n: null | n: 1, name: null
odd:only_by_place  _args_: [1] | _args_: [1, 2], c: true
odd:plain          n: 1 | n: 1, level: 2 | n: 1, box: {width: 1} | n: 1, size: [1, 2] | n: 1, \
size: 2
odd:shaped         - | device: cpu | dtype: null | weight: {_target_: torch.ones, _args_: [2]}
odd:auto           - | n: auto | n: 3, say: null | many: [1, 2]
odd:runs           it: {_target_: ours.odd.Runner} | it: {_target_: ours.odd.Runner}, point: null
odd:decorated      n: 1 | n: 1, name: a
odd:cached         n: 1
odd:instance       _args_: [2]
odd:ready          n: 1 | n: 1, name: b
ours:untyped       a: 1 | a: [x], b: {c: 1}, c: '3' | a: '${extra.n}'
ours:typed         - | kind: null
ours:several       - | _args_: [1, 2, 3], sep: '-'
ours:anything      first: 1 | first: 1, second: x, third: [3]
ours:in_pairs      pairs: [[a, 1], [b, 2]] | pairs: [], table: {a: [1, 2.5], b: []}
ours:maker         make: {_target_: ours.parts.Tiny, _partial_: true} | make: {_target_: Tiny, \
_partial_: true}, n: 3
ours:maker         make: {_target_: torch.nn.Linear, _partial_: true, out_features: 2}
data:DataLoader    dataset: NUMBERS, batch_size: 2, shuffle: true | dataset: NUMBERS, batch_size: \
null, timeout: 0
data:DataLoader    dataset: NUMBERS, num_workers: 0, collate_fn: null, drop_last: false
data:TensorDataset _args_: [{_target_: torch.ones, _args_: [2]}]
torch.zeros        _args_: [2, 3]
torch.arange       _args_: [0, 4]
torch.linspace     start: 0, end: 1, steps: 5
torch.nn.init.calculate_gain nonlinearity: leaky_relu, param: 0.2
"""}
def valid(where: str) -> list[str]:
    "The values that are right at a place, as YAML."
    found = []
    for line in spell_out(VALID[where]).strip().splitlines():
        key, what, arguments = re.fullmatch(r"(?:(it|scheduler) )?(~?\S+) *(.*)", line).groups()
        for o in arguments.split(" | "):
            value = o if what == "=" else target_node(what, "" if o == "-" else o)
            more = ", interval: step, frequency: 2, monitor: val/loss" if key == "scheduler" else ""
            found.append(f"{{{key}: {value}{more}}}" if key else value)
    return found


def monitored(text: str, metric: str) -> str:
    return set_value(text, ("callbacks", "checkpoint", "monitor"), metric)


def with_metric(text: str, metric: str) -> str:
    return text.replace("  optimizer:\n", f"  metrics: {{it: {metric}}}\n  optimizer:\n")


ALSO_VALID = {  # why -> (base, what to do to it)
    "a model of one's own logs what it likes": ("whole", lambda t: monitored(
        set_value(t, ("model",),
                  f"{{{PART}.Task, net: {target_node('nn:Linear', '_args_: [28, 2]')}}}\n"),
                                                                             "bleu")),
    "so does a subclass": ("whole",
                           lambda t: monitored(t.replace("mlkit.model.lit.Lit", "ours.parts.MyLit"),
                                               "val/more")),
    "a loss may give more than one figure": (
        "whole",
        lambda t: monitored(set_value(t, ("model", "loss"), f"{{{PART}.TwoLosses}}"), "val/size")),
    "a callback may log": (
        "whole",
        lambda t: monitored(t, "val/said").replace("callbacks:\n",
                                                   f"callbacks:\n  says: {{{PART}.Says}}\n")),
    "heads have metrics of their own": (
        "whole",
        lambda t: monitored(with_metric(t,
                                        f"{{acc: {target_node('~mlkit.model.losses.accuracy')}}}"),
                            "val/it/acc")),
    "a collection gives several figures": ("whole", lambda t: monitored(with_metric(
        t, target_node("torchmetrics.MetricCollection", f"metrics: {{r: {WORDS['RECALL']}}}")),
                                                                        "val/it/r")),
    "a vector gives one a class": ("whole", lambda t: monitored(
        with_metric(t, target_node("m:MulticlassRecall", "num_classes: 10, average: none")),
        "val/it/3")),
    "an optional group need not be there": (
        "lab", lambda t: t.replace("  - exp", "  - optional nothing: here\n  - exp")),
    "anchors and merges": ("whole",
                           lambda t: t.replace("{size: 16}",
                                               "{size: 16, a: &a {n: 1}, b: {<<: *a, m: 2}}")),
}


def right(where: str, value: str) -> str:
    "A config with a value that is right at a place."
    return re.sub("[A-Z]{3,}", lambda m: {**USUAL, where: value}[m[0].lower()], RIGHT)


def build_it(where: str, cfg):
    "Make what was said to be right."
    at = dict(net="model.net", loss="model.loss", metrics="model.metrics",
              extra="extra.it").get(where, where)
    if where == "trainer":
        build(cfg.trainer, logger=False)
        return torch.use_deterministic_algorithms(False)  # some trainers leave them on
    made = build(OmegaConf.select(cfg, at))
    if where not in ("optimizer", "scheduler"): return made
    optimizer = build(cfg.optimizer)([torch.nn.Parameter(torch.zeros(2))])
    return optimizer if where == "optimizer" else scheduler_config(made, optimizer, 100, 10)


@pytest.mark.parametrize("where", VALID)
def test_no_false_alarm(where, project, monkeypatch):
    monkeypatch.chdir(project)
    wrong, values = [], valid(where)
    for i, value in enumerate(values):
        text, file = right(where, value), f"valid/{where}{i}.yaml"
        cfg = load_config(write(project, {file: text}) / file)
        if problems := find_problems(cfg): wrong.append(f"{value}\n=> {problems}")
        try: build_it(where, cfg)  # it is right indeed
        except Exception as e: wrong.append(f"{value}\n=> cannot be built: {e}")
    print(f"\nvalid {where}: {len(values) - len(wrong)} / {len(values)} pass")
    assert not wrong, "\n".join(wrong)


def test_there_is_enough_that_is_valid(): assert sum(len(valid(o)) for o in VALID) >= 50


@pytest.mark.parametrize("base", BASES)
def test_bases_are_right(base, project, monkeypatch):
    monkeypatch.chdir(write(project / "right" / base, BASES[base]))
    cfg = load_config("main.yaml")
    assert find_problems(cfg) == batch_mistakes(cfg) == []
    build(cfg.extra)
    assert mlkit_train(["main.yaml", "debug=fast"]) == 0


@pytest.mark.parametrize("why", ALSO_VALID)
def test_no_false_alarm_as(why, project, monkeypatch):
    base, edit = ALSO_VALID[why]
    texts = BASES[base] | {"main.yaml": edit(BASES[base]["main.yaml"])}
    monkeypatch.chdir(write(project / "right" / why.replace(" ", "_"), texts))
    cfg = load_config("main.yaml")
    assert find_problems(cfg) == batch_mistakes(cfg) == [], find_problems(cfg)
    # the digits have but one
    if "heads" not in why: assert mlkit_train(["main.yaml", "debug=fast"]) == 0


@pytest.mark.parametrize("recipe", [o.name for o in sorted((ROOT / "configs").glob("*.yaml"))])
def test_recipes_are_right(recipe):
    cfg = load_config(ROOT / "configs" / recipe)
    if without_recipes(str(cfg)): pytest.skip("there are no recipes here")
    assert find_problems(cfg) == batch_mistakes(cfg) == []


@pytest.mark.parametrize("option",
                         [f"{o.parent.name}={o.stem}"
                          for o in sorted(packaged_configs().glob("*/*.yaml"))])
def test_packaged_options_are_right(option, tmp_path):
    group, name = option.split("=")
    is_table = option in ("model=tabular", "model=regression")  # with a net of their own
    options = ["data=table" if is_table else "data=mnist", "model=classifier", option]
    text = (packaged_configs() / group / f"{name}.yaml").read_text()
    blanks = [f"{group}.{k}={tmp_path}" for k, v in yaml.safe_load(text).items() if v == "???"
              and group != "model"]
    if is_table: blanks += ["data.train=train.csv", "data.target=y"]
    own = "{}\n" if is_table else f"model: {{net: {USUAL['net']}}}\n"
    config = write(tmp_path, {"a.yaml": own}) / "a.yaml"
    cfg = load_config(config, *[o for o in options if o == option or not o.startswith(f"{group}=")],
                      *blanks)
    assert find_problems(cfg) == [], find_problems(cfg)


def test_an_own_file_of_a_packaged_name_is_blamed_itself(tmp_path, monkeypatch):
    "`optimizer/sgd.yaml` is also the name of one of mlkit's files, which nobody can change."
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "optimizer").mkdir()
    option = "_target_: torch.optim.SGD\n_partial_: true\nlr: ${name}\n"
    (tmp_path / "optimizer" / "sgd.yaml").write_text(option)
    (tmp_path / "lab.yaml").write_text(
        "defaults:\n  - data: mnist\n  - model: classifier\n  - optimizer: sgd\n\n"
        "model:\n  net: {_target_: mlkit.model.nets.MLP, in_shape: 784, num_classes: 10}\n")
    monkeypatch.chdir(tmp_path)
    places = [str(o.origin) for o in find_problems(load_config("lab.yaml"))]
    assert places == ["optimizer/sgd.yaml:3:1"]
