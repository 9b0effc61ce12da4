"""No false alarm: configs in the styles of four templates pass the check without a word, and what
they describe is built."""
import inspect
import re
import sys
from enum import Enum
from pathlib import Path
from pydoc import locate

import pytest
import torch
import yaml

from mlkit.config.load import load_config
from mlkit.parts.build import Parts, build
from mlkit.parts.check import check, find_problems

# -- lightning-hydra-template: a tree of groups; the optimizer and the scheduler are partials

TREE = {"parts_of_template.py": '''
from typing import Any, Dict, Optional, Tuple

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

class SimpleDenseNet(nn.Module):
    def __init__(self, input_size: int = 784, lin1_size: int = 256, lin2_size: int = 256,
                 lin3_size: int = 256, output_size: int = 10) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(input_size, lin1_size), nn.BatchNorm1d(lin1_size),
                                   nn.ReLU(), nn.Linear(lin1_size, output_size))
    def forward(self, x: torch.Tensor) -> torch.Tensor: return self.model(x.flatten(1))

class MNISTLitModule(pl.LightningModule):
    def __init__(self, net: torch.nn.Module, optimizer: torch.optim.Optimizer,
                 scheduler: torch.optim.lr_scheduler, compile: bool) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.net = net
    def training_step(self, batch: Tuple[torch.Tensor, torch.Tensor], batch_idx: int):
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss
    def configure_optimizers(self) -> Dict[str, Any]:
        optimizer = self.hparams.optimizer(params=self.parameters())
        if self.hparams.scheduler is None: return {"optimizer": optimizer}
        return {"optimizer": optimizer, "lr_scheduler": self.hparams.scheduler(optimizer=optimizer)}

class MNISTDataModule(pl.LightningDataModule):
    def __init__(self, data_dir: str = "data/",
                 train_val_test_split: Tuple[int, int, int] = (55_000, 5_000, 10_000),
                 batch_size: int = 64, num_workers: int = 0, pin_memory: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
    def train_dataloader(self):
        assert sum(self.hparams.train_val_test_split + (0,)) and self.hparams.batch_size
        return DataLoader(TensorDataset(torch.rand(8, 784), torch.arange(8)), 4)
''', "configs/train.yaml": """\
defaults:
  - _self_
  - data: digits
  - model: dense
  - watch: default
  - trainer: default
  - optional experiment: null
  - optional local: default
name: train
tags: [dev]
seed: 12345
paths:
  root_dir: ${oc.env:PROJECT_ROOT,.}
  data_dir: ${paths.root_dir}/data/
extra: {compile: false, ckpt_path: null, print_config: true}
""", "configs/data/digits.yaml": """\
_target_: parts_of_template.MNISTDataModule
data_dir: ${paths.data_dir}
batch_size: 128 # Needs to be divisible by the number of devices
train_val_test_split: [55_000, 5_000, 10_000]
num_workers: 0
pin_memory: False
""", "configs/model/dense.yaml": """\
_target_: parts_of_template.MNISTLitModule
optimizer:
  _target_: torch.optim.Adam
  _partial_: true
  lr: 0.001
  weight_decay: 0.0
scheduler:
  _target_: torch.optim.lr_scheduler.ReduceLROnPlateau
  _partial_: true
  mode: min
  factor: 0.1
  patience: 10
net:
  _target_: parts_of_template.SimpleDenseNet
  input_size: 784
  lin1_size: 64
  lin2_size: 128
  lin3_size: 64
  output_size: 10
compile: ${extra.compile}
""", "configs/watch/default.yaml": """\
# @package callbacks
defaults: [model_checkpoint, early_stopping, model_summary, _self_]
model_checkpoint: {monitor: "train/loss", mode: "max", save_last: True}
early_stopping: {monitor: "train/loss", patience: 100, mode: "max"}
model_summary: {max_depth: -1}
""", "configs/watch/model_checkpoint.yaml": """\
# @package callbacks
model_checkpoint:
  _target_: lightning.pytorch.callbacks.ModelCheckpoint
  dirpath: null
  filename: "epoch_{epoch:03d}"
  monitor: null
  verbose: False
  save_last: null
  save_top_k: 1
  mode: "min"
  auto_insert_metric_name: True
  save_weights_only: False
  every_n_train_steps: null
  train_time_interval: null
  every_n_epochs: null
  save_on_train_epoch_end: null
""", "configs/watch/early_stopping.yaml": """\
# @package callbacks
early_stopping:
  _target_: lightning.pytorch.callbacks.EarlyStopping
  monitor: ??? # must be specified
  min_delta: 0.
  patience: 3
  verbose: False
  mode: "min"
  strict: True
  check_finite: True
  stopping_threshold: null
  divergence_threshold: null
  check_on_train_epoch_end: null
""", "configs/watch/model_summary.yaml": """\
# @package callbacks
model_summary:
  _target_: lightning.pytorch.callbacks.RichModelSummary
  max_depth: 1
""", "configs/watch/none.yaml": "", "configs/trainer/ddp_sim.yaml": """\
defaults: [default]
accelerator: cpu
devices: 2
strategy: ddp_spawn
""", "configs/trainer/mps.yaml": "defaults: [default]\naccelerator: mps\ndevices: 1\n",
    "configs/experiment/example.yaml": """\
# @package _global_
defaults:
  - override /data: digits
  - override /model: dense
  - override /watch: default
  - override /trainer: default
tags: ["mnist", "simple_dense_net"]
seed: 12345
trainer: {min_epochs: 10, max_epochs: 10, gradient_clip_val: 0.5}
model:
  optimizer: {lr: 0.002}
  net: {lin1_size: 128, lin2_size: 256, lin3_size: 64}
  compile: false
data: {batch_size: 64}
logger: {}
""", "configs/experiment/no_plan.yaml": "# @package _global_\nmodel: {scheduler: null}\n",
    "configs/experiment/sgd.yaml": """\
# @package _global_
model:
  optimizer: {_target_: torch.optim.SGD, lr: 0.1, momentum: 0.9}
trainer: {max_epochs: 3, check_val_every_n_epoch: 1, deterministic: False}
"""}
TEMPLATE = """
| trainer.max_epochs=3 | trainer=cpu | trainer=gpu | trainer=ddp | trainer=mps | trainer=ddp_sim
experiment=example | experiment=no_plan | experiment=sgd | experiment=sgd model.optimizer.lr=0.01
watch=none | watch=model_summary | logger=csv | logger=tensorboard | logger=[csv,tensorboard]
debug=fast | debug=profile | model.scheduler=null | data.train_val_test_split=[6,1,1]
model.optimizer._target_=torch.optim.AdamW +model.optimizer.betas=[0.9,0.95] | name=mine tags=[a,b]
+trainer.limit_train_batches=0.25 +trainer.val_check_interval=0.5 | ~model.scheduler.patience
callbacks.early_stopping.monitor=train/acc | model.net={_target_: torch.nn.Identity}
"""

# -- LightningCLI: typed to the last argument; what it calls class_path is a _target_

CLI = {"parts_of_cli.py": '''
from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from os import PathLike
from pathlib import Path
from typing import (Any, Callable, Dict, Iterable, List, Literal, Mapping, NewType, Optional,
                    Protocol, Sequence, Tuple, Type, TypedDict, TypeVar, Union)

import pytorch_lightning as pl
import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

OptimizerCallable = Callable[[Iterable], Optimizer]
LRSchedulerCallable = Callable[[Optimizer], Union[LRScheduler, ReduceLROnPlateau]]
Width = NewType("Width", int)
Net = TypeVar("Net", bound=nn.Module)
ActLike = Union[nn.Module, Callable[[torch.Tensor], torch.Tensor], None]

class Norm(str, Enum): BATCH, LAYER = "batch", "layer"

class Extras(TypedDict, total=False):
    momentum: float
    nesterov: bool

@dataclass
class Augment:
    flip: bool = True
    crop: Optional[Tuple[int, int]] = None
    scale: tuple[float, float] = (0.8, 1.0)
    ops: List[str] = field(default_factory=list)

class Transform(Protocol):
    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...

class Encoder(nn.Module):
    def __init__(self, width: Width = Width(8), depth: PositiveInt = 1, norm: Norm = Norm.BATCH,
                 act: ActLike = None, dims: Sequence[int] = (), extra: Mapping[str, Any] = {}):
        super().__init__()
class Wide(Encoder): pass

class Model(pl.LightningModule):
    def __init__(self, encoder: Encoder, head: Optional[nn.Module] = None,
                 optimizer: OptimizerCallable = torch.optim.Adam,
                 scheduler: Optional[LRSchedulerCallable] = None,
                 lr: PositiveFloat = 1e-3, warmup: NonNegativeInt = 0,
                 loss: Literal["mse", "l1"] = "mse",
                 weights: Union[float, List[float], None] = None,
                 blocks: Dict[str, Encoder] | None = None, layers: List[nn.Module] | None = None,
                 augment: Augment | None = None, kernel: int | Tuple[int, int] = 3,
                 file: str | PathLike | None = None, out: Path = Path("."),
                 act: Type[nn.Module] = nn.ReLU, transform: Transform | None = None,
                 sgd: Extras | None = None, net: Net | None = None, **kwargs: float):
        super().__init__()
        self.given = dict(locals())
    def training_step(self, batch, i): return batch[0].sum()
    def configure_optimizers(self): return self.given["optimizer"](self.parameters())

class Data(pl.LightningDataModule):
    def __init__(self, batch_size: int = 4, sizes: Tuple[int, ...] = (1,),
                 split: Tuple[float, float, float] = (0.8, 0.1, 0.1),
                 workers: Optional[int] = None):
        super().__init__()
    def train_dataloader(self): return DataLoader(TensorDataset(torch.rand(8, 4)), 4)
''', "cli.yaml": """\
seed: 42
trainer: {accelerator: auto, strategy: auto, devices: auto, num_nodes: 1, precision: null,
          max_epochs: 2, fast_dev_run: false, callbacks: null, deterministic: null,
          benchmark: null, profiler: null}
model:
  _target_: parts_of_cli.Model
  encoder: {_target_: parts_of_cli.Encoder, width: 16, norm: layer}
data: {_target_: parts_of_cli.Data}
"""}
ADAM = "{_target_: torch.optim.AdamW, _partial_: true, lr: 1e-3}"
COSINE = "{_target_: torch.optim.lr_scheduler.CosineAnnealingLR, _partial_: true, T_max: 10}"
RELU = "{_target_: torch.nn.ReLU}"
LIGHTNING_CLI = f"""
| trainer.max_epochs=null trainer.precision=16-mixed | trainer.devices=[0] | data.workers=2
model.encoder._target_=parts_of_cli.Wide | model.encoder.norm=batch +model.encoder.depth=3
+model.encoder.act={RELU} | +model.encoder.act={{_target_: torch.relu, _partial_: true}}
+model.encoder.act=null | +model.encoder.dims=[1,2] +model.encoder.extra={{a: 1, b: [x]}}
+model.optimizer={ADAM} | +model.optimizer={ADAM} +model.scheduler={COSINE}
+model.scheduler=null | +model.head={RELU} | +model.lr=1 | +model.lr=0.1 +model.warmup=0
+model.loss=l1 | +model.weights=0.5 | +model.weights=[0.5,1] | +model.weights=null
+model.blocks={{a: {{_target_: parts_of_cli.Wide}}}} | +model.layers=[{RELU},{RELU}]
+model.augment={{flip: false, crop: [1, 2], ops: [a, b]}} | +model.augment=null | +model.kernel=5
+model.augment={{_target_: parts_of_cli.Augment, scale: [0.5, 1]}} | +model.kernel=[3,5]
+model.file=a/b.txt +model.out=c | +model.act={{_target_: torch.nn.GELU, _partial_: true}}
+model.transform={RELU} | +model.sgd={{momentum: 0.9}} | +model.net={RELU} | +model.beta=0.5
+data.sizes=[1,2,3] | +data.split=[0.6,0.2,0.2] | +data.batch_size=8
"""

# -- hydra-zen: `builds(..., populate_full_signature=True)` says every argument, defaults too

FULL = """torch.nn.Linear torch.nn.Conv2d torch.nn.BatchNorm2d torch.nn.LayerNorm torch.nn.Dropout
torch.nn.MultiheadAttention torch.nn.TransformerEncoderLayer torch.nn.Embedding torch.nn.MaxPool2d
torch.nn.Upsample torch.nn.GELU torch.nn.CrossEntropyLoss torch.nn.BCEWithLogitsLoss
torch.nn.SmoothL1Loss torch.nn.AdaptiveAvgPool2d torch.nn.GroupNorm torch.nn.ConvTranspose2d
~torch.optim.Adam ~torch.optim.AdamW ~torch.optim.SGD ~torch.optim.RMSprop ~torch.optim.NAdam
~torch.optim.Adagrad ~torch.optim.LBFGS ~torch.optim.RAdam ~torch.optim.Adafactor
~torch.optim.lr_scheduler.StepLR ~torch.optim.lr_scheduler.CosineAnnealingLR
~torch.optim.lr_scheduler.OneCycleLR ~torch.optim.lr_scheduler.ReduceLROnPlateau
~torch.optim.lr_scheduler.CyclicLR ~torch.nn.functional.cross_entropy
torchmetrics.classification.MulticlassAccuracy torchmetrics.classification.BinaryF1Score
torchmetrics.MeanSquaredError torchmetrics.classification.MulticlassAUROC
pytorch_lightning.callbacks.EarlyStopping pytorch_lightning.callbacks.ModelCheckpoint
pytorch_lightning.callbacks.LearningRateMonitor pytorch_lightning.callbacks.Timer
pytorch_lightning.callbacks.StochasticWeightAveraging
pytorch_lightning.callbacks.GradientAccumulationScheduler
pytorch_lightning.loggers.CSVLogger pytorch_lightning.profilers.SimpleProfiler""".split()
REQUIRED = dict(
    in_features=4, out_features=2, in_channels=1, out_channels=2, kernel_size=3, num_features=3,
    normalized_shape=[4], embed_dim=8, num_heads=2, d_model=8, nhead=2, num_embeddings=3,
    embedding_dim=2, output_size=[1, 1], num_groups=1, num_channels=3, step_size=2, T_max=5,
    max_lr=0.1, total_steps=10, base_lr=0.01, monitor="train/loss", swa_lrs=0.01,
    scheduling={0: 1}, save_dir="logs", num_classes=3)

# -- argparse: one Namespace of everything, as `vars(parser.parse_args())` prints it

ARGPARSE = {"parts_of_argparse.py": '''
import argparse
from argparse import ArgumentParser, Namespace
from types import SimpleNamespace

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader, TensorDataset

class Model(pl.LightningModule):
    def __init__(self, args: Namespace):
        super().__init__()
        if isinstance(args, Namespace): self.save_hyperparameters(args)
        self.args, self.layer = args, torch.nn.Linear(getattr(args, "width", 4), 1)
    @staticmethod
    def add_model_specific_args(parent_parser):
        parent_parser.add_argument("--lr", type=float, default=0.1)
        return parent_parser
    def training_step(self, batch, i): return batch[0].sum() * self.args.lr
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), self.args.lr)
class Optional(Model):
    def __init__(self, args: "argparse.Namespace | None" = None): super().__init__(args)
class Hparams(Model):
    def __init__(self, hparams: Namespace, **kwargs): super().__init__(hparams)
class Simple(Model):
    def __init__(self, args: SimpleNamespace = SimpleNamespace(lr=1)): super().__init__(args)
class Flat(Model):
    def __init__(self, lr=0.1, width=4, milestones=(30, 60), resume="", gpus=None, amp=False,
                 betas=(0.9, 0.999), **kwargs):
        super().__init__(Namespace(lr=lr, width=width, all=milestones + betas))
class Conf(Model):
    def __init__(self, args: DictConfig): super().__init__(args)

class Data(pl.LightningDataModule):
    def __init__(self, args: Namespace):
        super().__init__()
        self.args = args
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.rand(8, 4)), self.args.batch_size)
''', "args.yaml": """\
data: {_target_: parts_of_argparse.Data, args: "${extra.args}"}
model: {_target_: parts_of_argparse.Model, args: "${extra.args}"}
trainer: {max_epochs: "${extra.args.epochs}"}
seed: ${extra.args.seed}
extra:
  args: {lr: 0.1, batch_size: 4, epochs: 2, seed: 1, resume: "", gpus: null, amp: false,
         milestones: [30, 60], opt: sgd, opt_kwargs: {nesterov: true}, data_dir: data/}
"""}
NAMESPACES = """
| extra.args.lr=1 | extra.args.lr=1e-3 extra.args.epochs=10 | extra.args.gpus=[0,1] | seed=3
+extra.args.width=8 | extra.args.opt_kwargs={nesterov: false} | +extra.args.a={b: [1, 2]}
+extra.args.net={_target_: torch.nn.ReLU} | model._target_=parts_of_argparse.Conf
model._target_=parts_of_argparse.Optional | model._target_=parts_of_argparse.Simple
model={_target_: parts_of_argparse.Hparams, hparams: "${extra.args}", unused: 1}
model={_target_: parts_of_argparse.Flat} | model={_target_: parts_of_argparse.Flat, lr: 1, gpus: 2}
model={_target_: parts_of_argparse.Flat, milestones: [1, 2, 3], betas: [0.9, 0.99]}
model={_target_: parts_of_argparse.Flat, resume: a.ckpt, amp: true, other: [x]}
model={_target_: parts_of_argparse.Model, args: {lr: 0.1}} | data.args={batch_size: 2}
"""


def cases(file: str, text: str) -> list[tuple[str, str]]:
    return [(file, o.strip()) for line in text.strip("\n").splitlines() for o in line.split(" | ")]


def words(overrides: str) -> list[str]:
    "Split at blanks before a key."
    return [o for o in re.split(r" (?=[+~]?[\w.]+=|~)", overrides.strip(" |")) if o]


ALL = [*cases("configs/train.yaml", TEMPLATE), *cases("cli.yaml", LIGHTNING_CLI),
       *cases("args.yaml", NAMESPACES)]


def full_signature(target: str) -> dict:
    "A target's node with all its arguments."
    node: dict = dict(_target_=target.lstrip("~"))
    if target[0] == "~": node["_partial_"] = True
    for p in inspect.signature(locate(target.lstrip("~"))).parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD): continue
        plain = p.default is None or isinstance(p.default, (bool, int, float, str, tuple, list))
        if isinstance(p.default, Enum): node[p.name] = p.default.value
        elif p.name in REQUIRED: node[p.name] = REQUIRED[p.name]
        elif p.default is not p.empty and plain:
            node[p.name] = list(p.default) if isinstance(p.default, tuple) else p.default
    return node


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("templates")
    for name, text in {**TREE, **CLI, **ARGPARSE, "pyproject.toml": ""}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    sys.path.insert(0, str(root))
    yield root
    sys.path.remove(str(root))


@pytest.mark.parametrize("file, overrides", ALL, ids=[f"{f}-{o}"[:70] for f, o in ALL])
def test_a_template_is_right(file, overrides, project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    cfg = check(Path(file), *words(overrides))
    assert capsys.readouterr().err == ""
    if "devices" not in str(cfg.trainer): build(cfg.trainer, logger=False)
    datamodule, model = Parts.data_and_model(cfg)
    assert next(iter(datamodule.train_dataloader())) and model.configure_optimizers


@pytest.mark.parametrize("target", FULL)
def test_a_full_signature_is_right(target):
    cfg = load_config(dict(extra=yaml.safe_load(yaml.safe_dump(full_signature(target)))))
    found = find_problems(cfg.extra)
    assert not found, found
    made = build(cfg.extra)
    if "torch.optim." in target and "lr_scheduler" not in target:
        assert made([torch.nn.Parameter(torch.zeros(2))])


def test_there_are_enough(figure):
    figure(f"configs in the styles of templates: {len(ALL)} + {len(FULL)}")
    assert len(ALL) + len(FULL) >= 100
