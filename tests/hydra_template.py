"A tree of the shape of lightning-hydra-template, under its names; its data is made, not loaded."
from pathlib import Path

TREE = {}

TREE["configs/callbacks/default.yaml"] = """\
defaults:
  - model_checkpoint
  - early_stopping
  - model_summary
  - rich_progress_bar
  - _self_

model_checkpoint:
  dirpath: ${paths.output_dir}/checkpoints
  filename: "epoch_{epoch:03d}"
  monitor: "val/acc"
  mode: "max"
  save_last: True
  auto_insert_metric_name: False

early_stopping:
  monitor: "val/acc"
  patience: 100
  mode: "max"

model_summary:
  max_depth: -1
"""
TREE["configs/callbacks/early_stopping.yaml"] = """\
early_stopping:
  _target_: lightning.pytorch.callbacks.EarlyStopping
  monitor: ??? # quantity to be monitored, must be specified !!!
  min_delta: 0.
  patience: 3
  verbose: False
  mode: "min"
  strict: True
  check_finite: True
  stopping_threshold: null
  divergence_threshold: null
  check_on_train_epoch_end: null
"""
TREE["configs/callbacks/model_checkpoint.yaml"] = """\
model_checkpoint:
  _target_: lightning.pytorch.callbacks.ModelCheckpoint
  dirpath: null
  filename: null
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
"""
TREE["configs/callbacks/model_summary.yaml"] = """\
model_summary:
  _target_: lightning.pytorch.callbacks.RichModelSummary
  max_depth: 1
"""
TREE["configs/callbacks/none.yaml"] = """\

"""
TREE["configs/callbacks/rich_progress_bar.yaml"] = """\
rich_progress_bar:
  _target_: lightning.pytorch.callbacks.RichProgressBar
"""
TREE["configs/data/mnist.yaml"] = """\
_target_: src.data.mnist_datamodule.MNISTDataModule
data_dir: ${paths.data_dir}
batch_size: 128
train_val_test_split: [550, 50, 100]
num_workers: 0
pin_memory: False
"""
TREE["configs/debug/default.yaml"] = """\
# @package _global_
task_name: "debug"
callbacks: null
logger: null
extras:
  ignore_warnings: False
  enforce_tags: False
hydra:
  job_logging:
    root:
      level: DEBUG
trainer:
  max_epochs: 1
  accelerator: cpu
  devices: 1
  detect_anomaly: true
data:
  num_workers: 0
  pin_memory: False
"""
TREE["configs/debug/fdr.yaml"] = """\
# @package _global_
defaults:
  - default
trainer:
  fast_dev_run: true
"""
TREE["configs/debug/limit.yaml"] = """\
# @package _global_
defaults:
  - default
trainer:
  max_epochs: 3
  limit_train_batches: 0.01
  limit_val_batches: 0.05
  limit_test_batches: 0.05
"""
TREE["configs/eval.yaml"] = """\
# @package _global_
defaults:
  - _self_
  - data: mnist
  - model: mnist
  - logger: null
  - trainer: default
  - paths: default
  - extras: default
  - hydra: default
task_name: "eval"
tags: ["dev"]
ckpt_path: ???
"""
TREE["configs/experiment/example.yaml"] = """\
# @package _global_
defaults:
  - override /data: mnist
  - override /model: mnist
  - override /callbacks: default
  - override /trainer: default
tags: ["mnist", "simple_dense_net"]
seed: 12345
trainer:
  min_epochs: 2
  max_epochs: 2
  gradient_clip_val: 0.5
model:
  optimizer:
    lr: 0.002
  net:
    lin1_size: 12
  compile: false
data:
  batch_size: 64
logger:
  wandb:
    tags: ${tags}
    group: "mnist"
  aim:
    experiment: "mnist"
"""
TREE["configs/extras/default.yaml"] = """\
ignore_warnings: False
enforce_tags: True
print_config: True
"""
TREE["configs/hparams_search/mnist_optuna.yaml"] = """\
# @package _global_
defaults:
  - override /hydra/sweeper: optuna

optimized_metric: "val/acc_best"

hydra:
  mode: "MULTIRUN"
  sweeper:
    _target_: hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper
    storage: null
    study_name: null
    n_jobs: 1
    direction: maximize
    n_trials: 20
    sampler:
      _target_: optuna.samplers.TPESampler
      seed: 1234
      n_startup_trials: 10
    params:
      model.optimizer.lr: interval(0.0001, 0.1)
      data.batch_size: choice(32, 64, 128, 256)
      model.net.lin1_size: choice(8, 16, 32)
"""
TREE["configs/hydra/default.yaml"] = """\
# enable color logging
defaults:
  - override hydra_logging: colorlog
  - override job_logging: colorlog

# output directory, generated dynamically on each run
run:
  dir: ${paths.log_dir}/${task_name}/runs/${now:%Y-%m-%d}_${now:%H-%M-%S}
sweep:
  dir: ${paths.log_dir}/${task_name}/multiruns/${now:%Y-%m-%d}_${now:%H-%M-%S}
  subdir: ${hydra.job.num}

job_logging:
  handlers:
    file:
      filename: ${hydra.runtime.output_dir}/${task_name}.log
"""
TREE["configs/logger/csv.yaml"] = """\
csv:
  _target_: lightning.pytorch.loggers.csv_logs.CSVLogger
  save_dir: "${paths.output_dir}"
  name: "csv/"
  prefix: ""
"""
TREE["configs/logger/many_loggers.yaml"] = """\
# train with many loggers at once

defaults:
  # - comet
  - csv
  # - mlflow
  # - neptune
  - tensorboard
  - wandb
"""
TREE["configs/logger/tensorboard.yaml"] = """\
tensorboard:
  _target_: lightning.pytorch.loggers.tensorboard.TensorBoardLogger
  save_dir: "${paths.output_dir}/tensorboard/"
  name: null
  log_graph: False
  default_hp_metric: True
  prefix: ""
  # version: ""
"""
TREE["configs/logger/wandb.yaml"] = """\
wandb:
  _target_: lightning.pytorch.loggers.wandb.WandbLogger
  # name: "" # name of the run (normally generated by wandb)
  save_dir: "${paths.output_dir}"
  offline: False
  id: null # pass correct id to resume experiment!
  anonymous: null # enable anonymous logging
  project: "lightning-hydra-template"
  log_model: False # upload lightning ckpts
  prefix: "" # a string to put at the beginning of metric keys
  # entity: "" # set to name of your wandb team
  group: ""
  tags: []
  job_type: ""
"""
TREE["configs/model/mnist.yaml"] = """\
_target_: src.models.mnist_module.MNISTLitModule

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
  _target_: src.models.components.simple_dense_net.SimpleDenseNet
  input_size: 16
  lin1_size: 8
  output_size: 4

# compile model for faster training with pytorch 2.0
compile: false
"""
TREE["configs/paths/default.yaml"] = """\
# path to root directory
# this requires PROJECT_ROOT environment variable to exist
root_dir: ${oc.env:PROJECT_ROOT}
data_dir: ${paths.root_dir}/data/
log_dir: ${paths.root_dir}/logs/
output_dir: ${hydra:runtime.output_dir}
work_dir: ${hydra:runtime.cwd}
"""
TREE["configs/train.yaml"] = """\
# @package _global_

# specify here default configuration
# order of defaults determines the order in which configs override each other
defaults:
  - _self_
  - data: mnist
  - model: mnist
  - callbacks: default
  - logger: null # set logger here or use command line
  - trainer: default
  - paths: default
  - extras: default
  - hydra: default
  - experiment: null
  - hparams_search: null
  - optional local: default
  - debug: null

task_name: "train"
tags: ["dev"]
train: True
test: True
ckpt_path: null
seed: null
"""
TREE["configs/trainer/cpu.yaml"] = """\
defaults:
  - default

accelerator: cpu
devices: 1
"""
TREE["configs/trainer/ddp.yaml"] = """\
defaults:
  - default

strategy: ddp

accelerator: gpu
devices: 4
num_nodes: 1
sync_batchnorm: True
"""
TREE["configs/trainer/default.yaml"] = """\
_target_: lightning.pytorch.trainer.Trainer

default_root_dir: ${paths.output_dir}

min_epochs: 1 # prevents early stopping
max_epochs: 10

accelerator: cpu
devices: 1

# mixed precision for extra speed-up
# precision: 16

check_val_every_n_epoch: 1
deterministic: False
"""
TREE["configs/trainer/gpu.yaml"] = """\
defaults:
  - default

accelerator: gpu
devices: 1
"""
TREE["src/data/mnist_datamodule.py"] = """\
from typing import Any, Dict, Optional, Tuple

import torch
from PACKAGE import LightningDataModule
from torch.utils.data import ConcatDataset, DataLoader, Dataset, TensorDataset, random_split


class MNISTDataModule(LightningDataModule):
    def __init__(self, data_dir: str = "data/",
                 train_val_test_split: Tuple[int, int, int] = (55_000, 5_000, 10_000),
                 batch_size: int = 64, num_workers: int = 0, pin_memory: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.data_train: Optional[Dataset] = None
        self.data_val: Optional[Dataset] = None
        self.data_test: Optional[Dataset] = None
        self.batch_size_per_device = batch_size

    @property
    def num_classes(self) -> int: return 4

    def prepare_data(self) -> None: pass

    def setup(self, stage: Optional[str] = None) -> None:
        if self.trainer is not None:
            self.batch_size_per_device = self.hparams.batch_size // self.trainer.world_size
        if self.data_train or self.data_val or self.data_test: return
        generator = torch.Generator().manual_seed(42)
        x = torch.randn(sum(self.hparams.train_val_test_split), 1, 4, 4, generator=generator)
        dataset = ConcatDataset([TensorDataset(x, x.flatten(1)[:, :4].argmax(1))])
        self.data_train, self.data_val, self.data_test = random_split(
            dataset, self.hparams.train_val_test_split, generator=generator)

    def loader(self, dataset, shuffle=False) -> DataLoader[Any]:
        return DataLoader(dataset=dataset, batch_size=self.batch_size_per_device,
                          num_workers=self.hparams.num_workers,
                          pin_memory=self.hparams.pin_memory, shuffle=shuffle)

    def train_dataloader(self): return self.loader(self.data_train, shuffle=True)
    def val_dataloader(self): return self.loader(self.data_val)
    def test_dataloader(self): return self.loader(self.data_test)
    def teardown(self, stage: Optional[str] = None) -> None: pass
    def state_dict(self) -> Dict[Any, Any]: return {}
    def load_state_dict(self, state_dict: Dict[str, Any]) -> None: pass
"""
TREE["src/models/components/simple_dense_net.py"] = """\
import torch
from torch import nn


class SimpleDenseNet(nn.Module):
    def __init__(self, input_size: int = 784, lin1_size: int = 256, output_size: int = 10) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(input_size, lin1_size), nn.BatchNorm1d(lin1_size),
                                   nn.ReLU(), nn.Linear(lin1_size, output_size))

    def forward(self, x: torch.Tensor) -> torch.Tensor: return self.model(x.view(x.size(0), -1))
"""
TREE["src/models/mnist_module.py"] = """\
from typing import Any, Dict

import torch
from PACKAGE import LightningModule
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification.accuracy import Accuracy


class MNISTLitModule(LightningModule):
    def __init__(self, net: torch.nn.Module, optimizer: torch.optim.Optimizer,
                 scheduler: torch.optim.lr_scheduler, compile: bool) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["net"])
        self.net = net
        self.criterion = torch.nn.CrossEntropyLoss()
        self.train_acc = Accuracy(task="multiclass", num_classes=4)
        self.val_acc = Accuracy(task="multiclass", num_classes=4)
        self.test_acc = Accuracy(task="multiclass", num_classes=4)
        self.train_loss, self.val_loss, self.test_loss = MeanMetric(), MeanMetric(), MeanMetric()
        self.val_acc_best = MaxMetric()

    def forward(self, x): return self.net(x)

    def on_train_start(self) -> None:
        self.val_loss.reset()
        self.val_acc.reset()
        self.val_acc_best.reset()

    def step(self, stage: str, batch):
        x, y = batch
        logits = self.forward(x)
        loss = self.criterion(logits, y)
        loss_metric, acc = getattr(self, f"{stage}_loss"), getattr(self, f"{stage}_acc")
        loss_metric(loss)
        acc(torch.argmax(logits, dim=1), y)
        self.log(f"{stage}/loss", loss_metric, on_step=False, on_epoch=True, prog_bar=True)
        self.log(f"{stage}/acc", acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def training_step(self, batch, batch_idx: int): return self.step("train", batch)
    def validation_step(self, batch, batch_idx: int) -> None: self.step("val", batch)
    def test_step(self, batch, batch_idx: int) -> None: self.step("test", batch)
    def on_train_epoch_end(self) -> None: pass

    def on_validation_epoch_end(self) -> None:
        self.val_acc_best(self.val_acc.compute())
        self.log("val/acc_best", self.val_acc_best.compute(), sync_dist=True, prog_bar=True)

    def setup(self, stage: str) -> None:
        if self.hparams.compile and stage == "fit": self.net = torch.compile(self.net)

    def configure_optimizers(self) -> Dict[str, Any]:
        optimizer = self.hparams.optimizer(params=self.trainer.model.parameters())
        if self.hparams.scheduler is None: return {"optimizer": optimizer}
        scheduler = self.hparams.scheduler(optimizer=optimizer)
        return {"optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss",
                                 "interval": "epoch", "frequency": 1}}
"""

for _folder in ("", "data/", "models/", "models/components/"):
    TREE[f"src/{_folder}__init__.py"] = ""
TREE[".project-root"] = TREE["configs/local/.gitkeep"] = TREE["pyproject.toml"] = ""


def write(folder: str | Path, package: str = "pytorch_lightning") -> Path:
    "Write the tree into a folder, with this package imported by its code."
    for name, text in TREE.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("from PACKAGE import", f"from {package} import"))
    return Path(folder)
