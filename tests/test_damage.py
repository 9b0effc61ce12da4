"""A bad disk: whatever bit of a run is another than it was written, the run goes on to the same
bits, or is refused by the file's name; and no other weights are loaded."""
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from fixtures import ALL
from mlkit.base.errors import TrainingFailed, UserError
from mlkit.base.files import check_sums
from mlkit.fit.weights import read_checkpoint
from mlkit.run.folder import Run, list_runs
from mlkit.run.info import config_edit
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


FILES = {"checkpoints/last.ckpt": 150, "checkpoints/best.ckpt": 100,
         "checkpoints/previous.ckpt": 30, "config.yaml": 80, "run.json": 80, "metrics.csv": 60}


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
    return text, (run / "metrics.csv").read_bytes(), Run(run).metrics


def outcome(runs, folder: Path, name: str, damage: Callable[[Path], object]) -> str:
    "'exact', 'refused', or what is wrong."
    run = copy(runs["cut"], folder)
    damage(run / name)
    try: resume(run)
    except (UserError, TrainingFailed) as e:
        return "refused" if Path(name).name in str(e) else f"refused without the name: {e!r}"
    except Exception as e: return f"{type(e).__name__}: {e}"
    return "exact" if content(run) == content(runs["whole"]) else "other bits"


@pytest.mark.slow
def test_a_key_that_is_missing(runs, tmp_path):
    "A flipped bit in run.json may give an entry another name."
    info, found = json.loads((runs["cut"] / "run.json").read_text()), {}
    parts = {k: v for k, v in info.items() if isinstance(v, dict) and k not in ("config", "code")}
    for part, name in [*((None, o) for o in info), *((p, o) for p in parts for o in parts[p])]:
        def edit(o):
            owner = json.loads(o.read_text())
            (owner[part] if part else owner).pop(name)
            o.write_text(json.dumps(owner))
        found[part, name] = outcome(runs, tmp_path / "run", "run.json", edit)
    assert not {k: v for k, v in found.items() if v not in ("exact", "refused")}


@pytest.mark.parametrize("some", [slice(0, 4), pytest.param(slice(4, 500 if ALL else 60),
                                                            marks=pytest.mark.slow)],
                         ids=["few", "many"])
def test_a_flipped_bit_is_exact_or_refused(runs, tmp_path, figure, some):
    found = {o: outcome(runs, tmp_path / "run", o[0], lambda p: flip(p, *o[1:]))
             for o in flips()[some]}
    counts: dict[tuple, int] = {}
    for (name, *_), says in found.items():
        key = name, says if says in ("exact", "refused") else "WRONG"
        counts[key] = counts.get(key, 0) + 1
    figure(f"{len(found)} flipped bits: {counts}")
    assert not {k: v for k, v in found.items() if v not in ("exact", "refused")}


LOADS = [lambda run: load_run(run).model.state_dict(), lambda run: trained(str(run)).state_dict(),
         lambda run: evaluate(run), lambda run: predict(run, torch.ones(2, 4)).table.to_dict()]


@pytest.mark.parametrize("use", LOADS, ids=["load_run", "trained", "evaluate", "predict"])
def test_no_other_weights_are_loaded(runs, tmp_path, use):
    run, path = runs["whole"], Path("checkpoints/best.ckpt")
    damaged, file = copy(run, tmp_path / "a"), run / path
    weight = torch.load(file, weights_only=True)["state_dict"]["net.0.weight"]
    at = file.read_bytes().find(weight.numpy().tobytes())
    assert repr(use(damaged)) == repr(use(run))
    flip(damaged / path, at + 5, 3)
    with pytest.raises(UserError, match="best.ckpt: cannot be loaded: it is damaged"): use(damaged)


def zeros(data: bytes) -> bytes:
    n = len(data) // 2
    return data[:n] + bytes(512) + data[n + 512:]


def folder_bit(data: bytes) -> bytes:
    at = data.rfind(b"PK\1\2", 0, data.rfind(b"data/0")) + 38
    return data[:at] + b"\x10" + data[at + 1:]


HARMS = {"a block of zeros": zeros, "a tensor is a folder": folder_bit,
         "short": lambda data: data[:-1], "no start": lambda data: data[100:],
         "empty": lambda data: b"", "twice": lambda data: data + data,
         "zeros": lambda data: bytes(len(data)), "no zip": lambda data: data.replace(b"PK", b"KP")}


@pytest.mark.parametrize("harm", [pytest.param(o, marks=[pytest.mark.slow] * (i > 1), id=name)
                                  for i, (name, o) in enumerate(HARMS.items())])
def test_a_bad_last_falls_back_to_the_one_before(runs, tmp_path, capsys, harm):
    run = copy(runs["cut"], tmp_path)
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(harm(last.read_bytes()))
    resume(run)
    said = capsys.readouterr().out
    if harm(b"ab") != b"abab":  # a zip file twice is the second
        assert "last.ckpt: cannot be loaded: it is damaged" in said
        assert "goes on from previous.ckpt" in said
    assert content(run) == content(runs["whole"])


def test_checkpoints_have_sums_whatever_torch_is_told(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        run = train(config(tmp_path), "trainer.max_epochs=1")
        torch.save(dict(state_dict=run.model.state_dict()), tmp_path / "plain.ckpt")
        assert not torch.serialization.get_crc32_options()
    finally: torch.serialization.set_crc32_options(True)
    check_sums(run.checkpoint())
    assert read_checkpoint(tmp_path / "plain.ckpt")  # has none, and may be loaded


def test_without_a_best_the_next_best_counts(runs, tmp_path):
    run = copy(runs["cut"], tmp_path)
    best = run / "checkpoints" / "best.ckpt"
    flip(best, 3000, 1)
    with pytest.raises(UserError, match="best.ckpt: cannot be loaded: .*delete it to go on"):
        resume(run)
    assert Run(run).info["status"] == "failed" and not Run(run).info.get("resumed")
    best.unlink()
    assert resume(run).info["best"]["epoch"] == 2
    assert content(run)[0] != content(runs["whole"])[0] or best.exists()


# -- what is changed by hand

EDITS = [  # in config.yaml; what is said
    ("  lr: 0.05", "  lr: 0.5", "model.lr is 0.5, but the run was trained with 0.05"),
    ("max_epochs: 3", "max_epochs: 9", "trainer.max_epochs is 9, but the run was trained with 3"),
    ("seed: 42", "seed: 1", "seed is 1, but the run was trained with 42"),
    ("    monitor: val_loss\n", "", "monitor is not there, but the run was trained with"),
    ("every_n_steps: 1", "every_n_steps: 2", "callbacks.checkpoint.every_n_steps is 2"),
    ("tags: []", "tags: [x]", "tags is ['x'], but the run was trained with []"),
    ("scheduler: null", "scheduler: nul", "scheduler is 'nul', but the run was trained with null"),
    ("log_every_n_steps: 1", "log_every_n_steps: null", "log_every_n_steps is null")]


def edit(run: Path, old: str, new: str):
    text = (run / "config.yaml").read_text()
    assert text.count(old) == 1 or old.startswith("every")
    (run / "config.yaml").write_text(text.replace(old, new))


def edit_of(run: Path) -> str: return config_edit(Run(run).config_file, Run(run).info)


@pytest.mark.parametrize("old, new, says", EDITS, ids=[new or old for old, new, _ in EDITS])
def test_an_edited_config_is_not_gone_on_with(runs, tmp_path, old, new, says):
    run = copy(runs["cut"], tmp_path)
    edit(run, old, new)
    with pytest.raises(UserError) as e: resume(run)
    assert "config.yaml" in str(e.value) and len(str(e.value).splitlines()) == 1
    if "nul" not in new: assert says in str(e.value) and "put it back, or give it" in str(e.value)
    assert Run(run).info == Run(runs["cut"]).info


def test_an_edit_that_is_also_an_override_counts(runs, tmp_path, capsys):
    run = copy(runs["cut"], tmp_path)
    edit(run, "  lr: 0.05", "  lr: 0.5")
    edit(run, "# Complete", "# My own, complete")
    assert load_run(run).model.lr == 0.5  # for another use it is enough to say so
    assert "config.yaml: model.lr is 0.5" in capsys.readouterr().err
    assert resume(run, "model.lr=0.5").cfg.model.lr == 0.5
    assert edit_of(run) == ""


@pytest.mark.parametrize("written", [False, True])
def test_cut_off_while_an_override_is_noted(runs, tmp_path, written):
    run = Run(copy(runs["cut"], tmp_path))
    was = json.loads(json.dumps(run.info["config"]))
    run.update(config={**was, "seed": 7}, config_before=was)
    if written: edit(run.dir, "seed: 42", "seed: 7")
    assert edit_of(run.dir) == ""


def test_other_code_and_versions_are_said_before(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "settings.ini").write_text("[DEFAULT]\nlib_path = its_code\n")
    (tmp_path / "its_code.py").write_text("from test_damage import Model as Mine\n")
    cfg = config(tmp_path / "runs", limit_val_batches=1)
    cfg["model"]["_target_"] = "its_code.Mine"
    Cut.at = (1, 1)
    with pytest.raises(TrainingFailed) as failed: train(cfg, trust=["test_damage", "power_cut"])
    run = failed.value.run
    assert "its_code.py" in run.info["code"] and not any("site-p" in o for o in run.info["code"])
    (tmp_path / "its_code.py").write_text("from test_damage import Model as Mine  # changed\n")
    run.update(versions={**run.info["versions"], "torch": "1.0"})
    resume(run, trust=["test_damage", "power_cut"])
    said = capsys.readouterr().out
    line = "another versions (torch), code (its_code.py) than when it started: the result may"
    assert 0 < said.index(line) < said.rindex("parameters on cpu")


class Diverges(Model):
    def training_step(self, batch, i): return super().training_step(batch, i) * float("nan")


def no_such_number(name): raise AssertionError(f"{name} is no JSON")


def test_what_is_no_number_is_said_and_is_json(tmp_path, capsys):
    cfg = config(tmp_path)
    cfg["model"]["_target_"], cfg["extra"] = f"{HERE}.Diverges", dict(limit=float("inf"))
    run = train(cfg)
    said = capsys.readouterr()
    assert said.err.count("not a number since epoch 0, step") == 3  # by step, of the epochs, val
    assert "val_loss was never a number, so no epoch is the best" in said.out
    info = json.loads((run.dir / "run.json").read_text(), parse_constant=no_such_number)
    assert info["status"] == "done" and info["metrics"]["val_loss"] == "nan"
    assert list_runs(tmp_path)[0].metrics["val_loss"] != Run(run.dir).metrics["val_loss"]
    assert edit_of(run.dir) == ""
    assert resume(run, "trainer.max_epochs=4").info["status"] == "done"


@pytest.mark.parametrize("harm", [
    lambda text: text.replace("\r\n", ",1\r\n", 2),  # one more cell
    lambda text: text.replace("\r\n0,", "\r\n0\r\n", 1),  # one row is two
    lambda text: text.replace("\r\n0,0,", "\r\n0,1,"), lambda text: text.replace(",", '"', 1),
    lambda text: text.replace("train", "\0rain"), lambda text: re.sub(r"\.\d", ".", text, count=1),
    lambda text: text[:len(text) // 2], lambda text: text[30:]],
    ids=["cell", "row", "step", "quote", "nul", "figure", "short", "no head"])
def test_another_metrics_csv_is_refused(runs, tmp_path, harm):
    run = copy(runs["cut"], tmp_path)
    path = run / "metrics.csv"
    text = path.read_bytes().decode()
    path.write_bytes(harm(text).encode())
    with pytest.raises(UserError, match="metrics.csv: is not as it was written: put it back"):
        resume(run)
    assert Run(run).info["status"] == "failed"


def test_without_metrics_csv_the_weights_are_the_same(runs, tmp_path, capsys):
    run = copy(runs["cut"], tmp_path)
    (run / "metrics.csv").unlink()
    resume(run)
    assert "metrics.csv: is gone, with" in capsys.readouterr().err
    a, b = (torch.load(o / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
            for o in (run, runs["whole"]))
    assert all(v.equal(b[k]) for k, v in a.items())
