"""What a check knows of libraries beyond their signatures: missing packages, and ranges."""
import sys

import pytest
import yaml

from mlkit.cli import mlkit_train
from mlkit.config.load import load_config
from mlkit.parts.check import check, find_problems

BASE = """\
defaults: [data: mnist, model: classifier]
model: {net: {_target_: mlkit.model.nets.MLP, in_shape: 784, num_classes: 10}}
"""


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "main.yaml").write_text(BASE)
    (tmp_path / "lazy_code.py").write_text('''
from torch import nn
_CANNOT_AVAILABLE, _CAN_AVAILABLE = False, True
def plots():
    import no_such_package.of_plots as p
    return p
def asks(a: int = 1):
    if not _CANNOT_AVAILABLE: raise ModuleNotFoundError("no")
def asks_and_has():
    if not _CAN_AVAILABLE: raise ModuleNotFoundError("no")
def may(fast=False):
    if fast: return 1
    import no_such_package
def tries():
    try: import no_such_package
    except ImportError: return 1
class Net(nn.Module):
    def __init__(self):
        from no_such_package import layers
        super().__init__()
class Child(Net): pass
class Works(nn.Module):
    def __init__(self):
        import json, os.path
        super().__init__()
''')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("package, override, line", [
    ("wandb", "logger=wandb", "command line: logger=wandb: "),
    ("tensorboard", "logger=tensorboard", "command line: logger=tensorboard: "),
    ("alembic", "logger=[csv,mlflow]", "logger/mlflow.yaml:3:3: logger.mlflow._target_: "),
    ("rich", "callbacks=[default,rich]", "callbacks/rich.yaml:4:3: callbacks.progress._target_: "),
    ("wandb", "+logger.it={_target_: pytorch_lightning.loggers.WandbLogger}",
     "command line: +logger.it={_target_: pytorch_lightning.loggers.WandbLogger}: "),
    ("comet_ml", "+logger.it={_target_: lightning.pytorch.loggers.CometLogger}", "command line: "),
    ("rich", "+callbacks.it={_target_: pytorch_lightning.callbacks.RichModelSummary}",
     "command line: "),
    ("deepspeed", "+trainer.strategy={_target_: pytorch_lightning.strategies.DeepSpeedStrategy}",
     "command line: "),
])
def test_a_package_that_is_missing_is_found_by_the_check(package, override, line, monkeypatch,
                                                         capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert mlkit_train(["main.yaml", override, "--check"]) == 2
    said, = capsys.readouterr().err.splitlines()
    says = f"needs what is not installed; run: pip install {package.replace('_', '-')}"
    assert said.startswith(line) and said.endswith(says), said
    assert mlkit_train(["main.yaml", "--check"]) == 0


@pytest.mark.parametrize("option", ["logger=wandb", "logger=[csv,tensorboard,mlflow]",
                                    "callbacks=[default,rich]"])
def test_what_is_installed_is_no_problem(option): check("main.yaml", option)


def test_a_file_that_chooses_it_is_named(monkeypatch, capsys, project):
    monkeypatch.setitem(sys.modules, "wandb", None)
    (project / "main.yaml").write_text(BASE.replace("classifier]", "classifier, logger: wandb]"))
    assert mlkit_train(["main.yaml", "--check"]) == 2
    assert capsys.readouterr().err.startswith("main.yaml:1:44: ")


@pytest.mark.parametrize("name, lacks", [
    ("plots", "no-such-package"), ("asks", "cannot"), ("asks_and_has", ""), ("may", ""),
    ("tries", ""), ("Net", "no-such-package"), ("Child", "no-such-package"), ("Works", "")])
def test_what_a_call_begins_with(name, lacks):
    found = find_problems(load_config("main.yaml", f"+extra.it={{_target_: lazy_code.{name}}}"))
    assert [o.message.rpartition(" ")[2] for o in found] == [lacks] * bool(lacks), found


RIGHT = """trainer.max_epochs=-1 trainer.max_epochs=0 trainer.max_epochs=null +trainer.max_steps=-1
+trainer.limit_train_batches=0 +trainer.limit_train_batches=1.0 +trainer.limit_val_batches=0.5
+trainer.val_check_interval=0.25 trainer.num_sanity_val_steps=-1 +trainer.accumulate_grad_batches=1
optimizer.lr=0 optimizer.lr=1 optimizer.weight_decay=0 +optimizer.betas=[0,0.5]
+trainer.gradient_clip_val=0 +trainer.limit_train_batches=2.0 +trainer.limit_val_batches=3
trainer.accelerator=tpu trainer.accelerator=hpu trainer.accelerator=neuron trainer.devices=1
trainer.devices=auto trainer.devices=-1 trainer.devices=[0] trainer.devices='2'""".split()
WRONG = """trainer.max_epochs=-3 trainer.max_epochs=-2 +trainer.max_steps=-2 +trainer.num_nodes=0
+trainer.limit_train_batches=-1 +trainer.limit_val_batches=-0.5 +trainer.overfit_batches=-1
+trainer.accumulate_grad_batches=0 +trainer.check_val_every_n_epoch=0
+trainer.reload_dataloaders_every_n_epochs=-1 optimizer.lr=-0.1 optimizer.weight_decay=-1
+optimizer.eps=-1 +optimizer.betas=[0.9,1] +extra.it={_target_:~torch.nn.Dropout,p:~1.5}
+extra.it={_target_:~torch.optim.SGD,_partial_:~true,momentum:~-1}
data.batch_size=0 data.batch_size=-3""".split()


REFUSED = {"+trainer.limit_train_batches=1.5": "takes a share up to 1 or a whole number",
           "+trainer.limit_test_batches=7.25": "takes a share up to 1 or a whole number",
           "+trainer.val_check_interval=1.5": "takes a share up to 1 or a whole number",
           "+trainer.overfit_batches=1.01": "takes a share up to 1 or a whole number",
           "trainer.devices=0": "trains on one device at least",
           "trainer.devices='0'": "trains on one device at least",
           "trainer.devices=[]": "trains on one device at least",
           "trainer.accelerator=gpuu": "has no accelerator 'gpuu'; did you mean 'gpu'?",
           "trainer.accelerator=GPU": "has no accelerator 'GPU'; did you mean 'gpu'?",
           "trainer.accelerator=cdua": "has no accelerator 'cdua'; did you mean 'cuda'?"}


@pytest.mark.parametrize("override, says", REFUSED.items())
def test_what_the_trainer_would_refuse(override, says, capsys):
    assert mlkit_train(["main.yaml", override, "--check"]) == 2
    said, = capsys.readouterr().err.splitlines()
    assert said.startswith(f"command line: {override}") and says in said, said


def test_an_accelerator_that_is_registered():
    from pytorch_lightning.accelerators import AcceleratorRegistry, CPUAccelerator
    AcceleratorRegistry.register("cpu2", CPUAccelerator)
    try: assert check("main.yaml", "trainer.accelerator=cpu2")
    finally: AcceleratorRegistry.remove("cpu2")


@pytest.mark.parametrize("override", RIGHT)
def test_numbers_within_their_range(override): assert check("main.yaml", override)


@pytest.mark.parametrize("override", WRONG)
def test_numbers_out_of_their_range(override, capsys):
    override = override.replace("~", " ")
    assert mlkit_train(["main.yaml", override, "--check"]) == 2
    said, = capsys.readouterr().err.splitlines()
    assert said.startswith("command line: ") and "which should be " in said, said


def test_a_folder_that_is_not_there(project, capsys):
    said = ["data=image_folder", "data.root=nope"]
    assert mlkit_train(["main.yaml", *said, "--check"]) == 2
    assert capsys.readouterr().err == "command line: data.root=nope: nope: no such folder\n"
    (project / "nope").mkdir()
    assert mlkit_train(["main.yaml", *said, "--check"]) == 0
    (project / "nope").rmdir()
    cfg = check("main.yaml", "data=image_folder", f"data.root={project}")
    assert yaml.safe_load(str(cfg.data.root)) == str(project)
