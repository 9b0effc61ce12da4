"""Every private name of another library that mlkit uses: what a release lacks fails here first.

The names are collected from the three rooms that may use them; the table says where each lives."""
import ast
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import yaml
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer
from pytorch_lightning.callbacks import StochasticWeightAveraging
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.strategies import launchers
from pytorch_lightning.trainer.connectors.logger_connector import result
from pytorch_lightning.utilities import CombinedLoader
from pytorch_lightning.utilities import data as pl_data
from torch.utils.data import DataLoader, dataloader
from torchmetrics import MeanMetric

import mlkit

MLKIT = Path(mlkit.__file__).parent
ROOMS = {o: MLKIT / f"{o}.py" for o in ("fit/lightning", "config/node", "config/yaml")}
OURS = {"_about"}  # an attribute of mlkit's own Config
METHODS = {  # no underscore, and yet no promise: methods of loops that are wrapped, of PyYAML
    "fit/lightning": {"on_advance_start", "on_run_start", "on_advance_end", "val_loop",
                      "batch_progress", "valid_items", "register_signal_handlers", "dataloader"},
    "config/yaml": {"flatten_mapping", "construct_mapping", "construct_object",
                    "construct_document", "yaml_implicit_resolvers", "add_implicit_resolver"}}


@cache
def trainer() -> pl.Trainer:
    return pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)


def wandb_logger() -> WandbLogger:
    pytest.importorskip("wandb")
    return WandbLogger(offline=True)


OPTIMIZER = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)


def averaging() -> StochasticWeightAveraging:
    found = StochasticWeightAveraging(0.1)
    fit = SimpleNamespace(optimizers=[OPTIMIZER], lr_scheduler_configs=[], max_epochs=2,
                          fit_loop=SimpleNamespace(max_epochs=2))
    found.on_fit_start(fit, torch.nn.Linear(1, 1))
    return found


def schedule(name: str, **kwargs):
    return getattr(torch.optim.lr_scheduler, name)(OPTIMIZER, **kwargs)


HOMES = {  # how to come by the owner -> names
    "Trainer": (trainer, {"_accelerator_connector", "_default_root_dir", "_logger_connector",
                           "_signal_connector"}),
    "Trainer._signal_connector": (lambda: trainer()._signal_connector, {
        "register_signal_handlers"}),
    "Trainer._logger_connector": (lambda: trainer()._logger_connector, {
        "_callback_metrics", "_first_loop_iter"}),
    "Trainer.fit_loop": (lambda: trainer().fit_loop, {
        "_combined_loader", "_data_source", "_last_train_dl_reload_epoch", "_restarting",
        "on_advance_start", "on_advance_end"}),
    "Trainer.fit_loop.epoch_loop": (lambda: trainer().fit_loop.epoch_loop, {
        "_batches_that_stepped", "_results", "_should_accumulate", "_should_check_val_fx",
        "on_run_start", "on_advance_end", "val_loop", "batch_progress"}),
    "Trainer.fit_loop.epoch_loop.val_loop": (lambda: trainer().fit_loop.epoch_loop.val_loop, {
        "_last_val_dl_reload_epoch", "_seen_batches_per_dataloader", "batch_progress"}),
    "logger_connector.result": (lambda: result, {
        "_Metadata", "_ResultMetric", "_Sync"}),
    "logger_connector.result._ResultCollection": (lambda: result._ResultCollection, {
        "valid_items", "_forked_name"}),
    "logger_connector.result._Sync": (result._Sync, {"_should"}),
    "strategies.launchers": (lambda: launchers, {"_SubprocessScriptLauncher"}),
    "Trainer.fit_loop._data_source": (lambda: trainer().fit_loop._data_source, {"dataloader"}),
    "pytorch_lightning.utilities.data": (lambda: pl_data, {"_update_dataloader"}),
    "StochasticWeightAveraging": (averaging, {
        "_latest_update_epoch", "_max_epochs", "_scheduler_state"}),
    "WandbLogger": (wandb_logger, {"_wandb_init"}),
    "torchmetrics.Metric": (MeanMetric, {"_forward_cache", "_update_count"}),
    "Tensor": (lambda: torch.zeros(1), {"_version"}),
    "DataLoader": (lambda: DataLoader([0]), {"_iterator"}),
    "torch.utils.data.dataloader": (lambda: dataloader, {"_MultiProcessingDataLoaderIter"}),
    "dataloader._MultiProcessingDataLoaderIter": (
        lambda: iter(DataLoader([0], num_workers=1)), {"_shutdown_workers"}),
    "sys": (lambda: sys, {"_current_frames"}),
    "CombinedLoader": (lambda: CombinedLoader([]), {"_iterator"}),
    "OneCycleLR": (lambda: schedule("OneCycleLR", max_lr=1.0, total_steps=9), {
        "_schedule_phases", "_last_lr"}),
    "SequentialLR": (lambda: schedule("SequentialLR", milestones=[2], schedulers=[
        schedule("ConstantLR"), schedule("ConstantLR")]), {"_schedulers", "_milestones"}),
    "CosineAnnealingLR": (lambda: schedule("CosineAnnealingLR", T_max=9), {
        "_get_closed_form_lr"}),
    "DictConfig": (lambda: OmegaConf.create({"a": 1}), {
        "_dereference_node", "_get_node", "_get_parent", "_get_root", "_key",
        "_maybe_dereference_node", "_value"}),
    "BaseContainer": (lambda: BaseContainer, {"_resolvers"}),
    "ListConfig": (lambda: OmegaConf.create([1]), {
        "_get_node", "_get_parent", "_get_root", "_key", "_value"}),
    "yaml.SafeLoader": (lambda: yaml.SafeLoader, METHODS["config/yaml"])}


def used_in(path: Path) -> set[str]:
    "The private names in a file that are not its own."
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    own = {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    found = {a.name for n in nodes if isinstance(n, ast.ImportFrom) for a in n.names}
    found |= {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    found |= {n.attr for n in nodes if isinstance(n, ast.Attribute)
              and not (isinstance(n.value, ast.Name) and n.value.id == "self")}
    names = {o for o in found if o.isidentifier() and o.startswith("_")}
    return {o for o in names if not o.startswith("__")} - own - OURS


def test_the_table_has_what_is_used():
    used = set().union(*map(used_in, ROOMS.values()))
    listed = set().union(*(names for _, names in HOMES.values()))
    assert used == {o for o in listed if o.startswith("_")}
    for room, names in METHODS.items():
        text = ROOMS[room].read_text(encoding="utf-8")
        assert not [o for o in names if o not in text], room


PLACES = [(home, name) for home, (_, names) in HOMES.items() for name in sorted(names)]


@pytest.mark.parametrize("home, name", PLACES, ids=lambda o: o)
def test_is_still_there(home, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hasattr(HOMES[home][0](), name), f"{home}.{name}: this release has it no more"
