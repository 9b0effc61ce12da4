"""Other people's code: every kind trains, is killed within an epoch, goes on to the same bits or
was said not to, is measured, loaded and asked; the same in both of Lightning's packages."""
import importlib
import importlib.util
import re
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch

from foreign_parts import parts_of
from mlkit.base.errors import TrainingFailed, UserError
from mlkit.train import resume, train
from mlkit.use import evaluate, load_run, predict

HERE = __name__.rpartition(".")[2]
PACKAGES = dict(pl=SimpleNamespace(pytorch=pl, Callback=pl.Callback,
                                   LightningModule=pl.LightningModule,
                                   LightningDataModule=pl.LightningDataModule))
if importlib.util.find_spec("lightning"): PACKAGES["L"] = importlib.import_module("lightning")


def publish(prefix: str, package):
    for name, cls in parts_of(package).items():
        cls.__name__ = cls.__qualname__ = f"{prefix}{name}"
        cls.__module__ = __name__
        globals()[cls.__name__] = cls


for prefix, package in PACKAGES.items(): publish(prefix, package)

MODELS = """Base StepAndEpoch Plateau Collects Cools MadeLate MadeInSetup Lazy Silent Mute Draws
Asks OtherName Skips Two NotANumber Groups Hooks PredictsPairs ByNumPy Lbfgs Compiled""".split()
DATA = "NoTest NoVal EmptyVal Lists Dicts Streamed Growing Drawn Weighted".split()
KINDS = {  # name -> the config's model, data and callbacks
    **{o: (dict(_target_=o), dict(_target_="Data"), {}) for o in MODELS},
    **{o: (dict(_target_="Base"), dict(_target_=o), {}) for o in DATA},
    **{f"Combined-{o}": (dict(_target_="OfDicts"), dict(_target_="Combined", mode=o), {})
       for o in ("max_size_cycle", "min_size", "max_size")},
    **{f"Workers-{train:d}{val:d}{noisy:d}": (dict(_target_="Base"), dict(
        _target_="Workers", train=train, val=val, noisy=noisy), {}) for train, val, noisy in (
            (False, False, False), (False, False, True), (True, False, False),
            (False, True, False), (True, True, True))},
    "Objects": (dict(_target_="OfObjects"), dict(_target_="Objects"), {}),
    "Whole": (dict(_target_="Whole", extra=dict(a=1), net=dict(
        _target_="torch.nn.Linear", in_features=12, out_features=1)), dict(_target_="Data"), {}),
    "Unfreeze": (dict(_target_="Base"), dict(_target_="Data"), dict(
        own=dict(_target_="Unfreeze"))),
    "BackboneFinetuning": (dict(_target_="Trainable"), dict(_target_="Data"), dict(own=dict(
        _target_="pytorch_lightning.callbacks.BackboneFinetuning", unfreeze_backbone_at_epoch=1)))}
NAMED = r"(\S+) is not saved, so a resumed run may differ|what they draw from now on is not"


@pytest.fixture(autouse=True)
def tests_are_importable(monkeypatch, request):
    monkeypatch.syspath_prepend(str(request.path.parent))


def config(folder, prefix: str, model: dict, data: dict, callbacks: dict) -> dict:
    def named(part):
        name = part["_target_"]
        return part if "." in name else {**part, "_target_": f"{HERE}.{prefix}{name}"}
    own = {k: named(o) for k, o in callbacks.items()}
    return dict(
        name="a", runs=str(folder), model=named(model), data=named(data),
        trainer=dict(max_epochs=3, accelerator="cpu", log_every_n_steps=1),
        callbacks=dict(progress=None, checkpoint=dict(every_n_steps=1, monitor=None),
                       cut=named(dict(_target_="Cut")), **own))


def same(a, b) -> bool:
    "Are the weights equal, bit by bit, whether or not a part is compiled?"
    a, b = ({k.replace("_orig_mod.", ""): v for k, v in o.items()} for o in (a, b))
    return a.keys() == b.keys() and all(torch.equal(v.cpu(), b[k].cpu()) for k, v in a.items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", [
    "pl", pytest.param("L", marks=pytest.mark.skipif(
        "L" not in PACKAGES, reason="lightning is not installed"))])
def test_every_kind(tmp_path, capfd, prefix, kind):
    cfg = config(tmp_path, prefix, *KINDS[kind])
    whole = train(cfg)
    capfd.readouterr()
    cfg["callbacks"]["cut"]["at"] = 18  # in the second epoch
    with pytest.raises(TrainingFailed, match="cut off") as failed: train(cfg)
    said = capfd.readouterr()
    named = re.findall(NAMED, said.out + said.err)
    run = resume(failed.value.run.dir, "callbacks.cut.at=null")
    weights = run.model.state_dict()
    exact = (same(weights, whole.model.state_dict()) and run.history.equals(whole.history)
             and str(run.metrics) == str(whole.metrics))
    assert run.status == "done" and (exact or named)

    if kind in ("NoTest", "NoVal"):
        with pytest.raises(UserError, match=f"{kind} has no test_dataloader"): evaluate(run.dir)
    else: assert all(run.metrics[k] == v for k, v in evaluate(run.dir).items())
    loaded = load_run(run.dir)
    assert same(loaded.model.state_dict(), weights) and not loaded.model.training
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(9))
    if kind == "Mute":
        with pytest.raises(UserError, match="has no predict_step and no forward"):
            predict(run.dir, x)
        return
    with torch.inference_mode(): want = run.model.eval()(x)[:, 0].tolist()
    assert predict(run.dir, x).table["value"].tolist() == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("model, data, says", [
    ("Arrays", dict(_target_="Data"), "the state of mine.a could not be loaded again"),
    ("OfDicts", dict(_target_="Combined", mode="sequential"), "does not support the `Combined")])
def test_what_cannot_go_on_or_begin_says_so_before_a_step_is_lost(tmp_path, model, data, says):
    with pytest.raises(TrainingFailed, match=says) as e:
        train(config(tmp_path, "pl", dict(_target_=model), data, {}))
    assert not (e.value.run.dir / "checkpoints" / "best.ckpt").exists()
