"Three or not: its files, its metrics and experiments, its pictures at W&B, a checkpoint's hparams."
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from sklearn import metrics as sk
from torch import nn

pytest.importorskip("mlkit.recipes.three_or_not")

from mlkit.config.load import load_config
from mlkit.data.mnist import MNIST
from mlkit.model.nets import MLP
from mlkit.parts.build import build
from mlkit.recipes.three_or_not import (
    CLASSES,
    BinaryClassifier,
    RocCurve,
    ThreeOrNot,
    plot_roc,
    write_tree,
)
from mlkit.run.folder import Run
from mlkit.show.answers import answers
from mlkit.show.draw import show_results
from mlkit.use import evaluate, load_run
from shell import SCRIPTS, command, job

EXPERIMENTS = ["001", "002", "003", "debug"]


def config(name: str, *overrides: str):
    return load_config(f"configs/three/{name}.yaml", *overrides)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    "A small tree, to be read only."
    root = tmp_path_factory.mktemp("data") / "digits"
    write_tree(root, 1200)
    return root


@pytest.fixture(scope="module")
def tracked(tree, tmp_path_factory) -> Run:
    "A short run from the shell, reported to W&B offline."
    folder = tmp_path_factory.mktemp("runs")
    return job(folder, "three_or_not", "logger=wandb", "trainer.max_epochs=2",
               f"data.root={tree}")[0]


# The job

@pytest.mark.slow
def test_the_job_from_a_shell(tmp_path, figure):
    run, seconds = job(tmp_path / "runs", "three_or_not", f"data.root={tmp_path / 'data'}")
    figure(f"three_or_not: test/acc {run.metrics['test/acc']:.4f} in {seconds:.0f} s")
    assert run.metrics["test/acc"] >= 0.985 and run.metrics["test/auroc"] > 0.99
    assert run.metrics["test/precision"] > 0.9
    assert run.metrics["test/recall"] > 0.9  # always 'no': 0 and 0
    files = {split: [len(list((tmp_path / "data" / split / c).glob("*.png"))) for c in CLASSES]
             for split in ("train", "test")}
    assert sum(files["train"]) == 6000 and sum(files["test"]) == 1000
    assert 0.89 < files["test"][0] / 1000 < 0.91  # the accuracy of always 'no'


# The tree

def test_the_tree_holds_the_sample(tree):
    data = ThreeOrNot(str(tree), sample=None)
    data.prepare_data()
    digits = MNIST()
    digits.setup()
    first = {"train": 0, "test": 6000}
    for path, target in zip(data.paths, data.targets):
        split, folder, name = Path(path).relative_to(tree).parts
        row = first[split] + int(name.removesuffix(".png"))
        assert (np.asarray(Image.open(path)) == digits.images[row, 0].numpy()).all()
        assert target == (digits.targets[row] == 3) == (folder == "3")
    assert data.classes == ["no3", "3"] and data.in_shape == (1, 28, 28)
    assert [len(data.rows[split]) for split in ("train", "val", "test")] == [1080, 120, 200]
    share = [data.targets[data.rows[split]].float().mean().item() for split in ("train", "val")]
    assert share[0] == pytest.approx(share[1], abs=1 / 120)
    x, y = next(iter(data.val_dataloader()))
    assert x.mean().abs() < 0.1 and abs(x.std() - 1) < 0.1 and set(y.tolist()) == {0, 1}


def test_the_same_sample_has_the_same_fingerprint_anywhere(tree, tmp_path):
    data = ThreeOrNot(str(tmp_path / "a" / "digits"), sample=1200)
    (tmp_path / "a").mkdir()
    data.prepare_data()
    assert data.fingerprint() == ThreeOrNot(str(tree)).fingerprint()
    assert data.fingerprint() != ThreeOrNot(str(tree), seed=1).fingerprint()


@pytest.mark.slow
def test_a_kill_leaves_no_half_tree(tmp_path):
    root = tmp_path / "digits"
    line = ("from mlkit.recipes.three_or_not import write_tree; print('go', flush=True); "
            f"write_tree({str(root)!r})")
    process = subprocess.Popen([sys.executable, "-c", line], stdout=subprocess.PIPE)
    process.stdout.readline()
    while len(list(tmp_path.glob(".digits.*/train/no3/*.png"))) < 100: assert process.poll() is None
    process.kill()
    process.wait()
    assert not root.exists()
    write_tree(root, 120)
    assert len(list(root.glob("*/*/*.png"))) == 140
    write_tree(root, 6000)  # there already
    assert len(list(root.glob("*/*/*.png"))) == 140
    assert sorted(o.name for o in tmp_path.iterdir() if o.name[0] != ".") == ["digits"]


def harm(root: Path, what: str) -> str:
    "Break something in a tree; what must be said of it."
    if what == "a PNG that is none":
        (root / "train/3/0007.png").write_text("no picture")
        return f"{root}/train/3/0007.png: not an image"
    if what == "half a PNG":
        path = root / "test/no3/0000.png"
        path.write_bytes(path.read_bytes()[:100])
        return f"{path}: not an image"
    if what == "an empty class":
        for path in (root / "test/3").iterdir(): path.unlink()
        return f"{root}/test/3: an empty class folder"
    if what == "other classes":
        for path in list(root.glob("*/3")): path.rename(path.with_name("three"))
        return f"{root}/train: the class folders 3, no3 are expected, not no3, three"
    root.rename(root.with_name("elsewhere"))
    return f"{root}: no such folder"


@pytest.mark.parametrize("what",
                         ["a PNG that is none", "half a PNG", "an empty class", "other classes",
                          "no data"])
def test_bad_files(tmp_path, what):
    write_tree(tmp_path / "digits", 120)
    said = harm(tmp_path / "digits", what)
    with pytest.raises((ValueError, OSError)) as error:
        ThreeOrNot(str(tmp_path / "digits"), sample=None).prepare_data()
    assert str(error.value).startswith(said) and "\n" not in str(error.value)


def test_bad_files_from_a_shell(root, tmp_path):
    write_tree(tmp_path / "digits", 120)
    said = harm(tmp_path / "digits", "an empty class")
    done = command("mlkit_train", "configs/three_or_not.yaml", f"data.root={tmp_path / 'digits'}",
                   f"runs={tmp_path / 'runs'}")
    lines = (done.stdout + done.stderr).strip().splitlines()
    assert done.returncode == 2 and len(lines) == 1 and said in lines[0]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("n", [0, 119, 6001])
def test_a_sample_that_cannot_be_had(tmp_path, n):
    with pytest.raises(ValueError, match=f"sample={n}: a number from 120 to 6000"):
        ThreeOrNot(str(tmp_path / "no"), n).prepare_data()
    assert list(tmp_path.iterdir()) == []


# What is measured

def scored(n: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    "Logits of eighths, so that there are ties, and targets of which a tenth are 1."
    torch.manual_seed(0)
    target = (torch.arange(n) % 10 == 0).long()
    of_three = (8 * torch.randn(n)).round() / 8 + 3 * target - 1
    return torch.stack([torch.zeros(n), of_three], 1), target


class Given(pl.LightningDataModule):
    "Batches whose x is what the net shall answer."
    def test_dataloader(self):
        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*scored()), batch_size=64)


@pytest.mark.parametrize("name", ["base", "experiments/002"])
def test_metrics_and_loss_against_scikit_learn(name, tmp_path):
    model = build(config(name).model, net=nn.Identity())
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False,
                         default_root_dir=tmp_path, callbacks=[RocCurve()])
    found = trainer.test(model, Given(), verbose=False)[0]
    logits, target = (o.numpy() for o in scored())
    logits = logits.astype(float)
    score, called = logits[:, 1], logits[:, 1] > 0
    assert found["test/acc"] == pytest.approx(sk.accuracy_score(target, called), abs=1e-6)
    assert found["test/auroc"] == pytest.approx(sk.roc_auc_score(target, score), abs=1e-6)
    assert found["test/precision"] == pytest.approx(sk.precision_score(target, called), abs=1e-6)
    assert found["test/recall"] == pytest.approx(sk.recall_score(target, called), abs=1e-6)
    weight = {"base": (1, 1), "experiments/002": (1, 9)}[name]
    batches, total = np.split(np.arange(400), range(64, 400, 64)), 0
    for rows in batches:  # a weighted mean over each batch, and their mean by size
        each = [np.log(np.exp(logits[i]).sum()) - logits[i, target[i]] for i in rows]
        w = [weight[target[i]] for i in rows]
        total += len(rows) * np.average(each, weights=w)
    assert found["test/loss"] == pytest.approx(total / 400, abs=1e-6)
    assert (tmp_path / "plots/roc.png").read_bytes().startswith(b"\x89PNG")


def test_the_curve_is_that_of_scikit_learn():
    logits, target = scored()
    probability = logits.softmax(1)[:, 1]
    curve, _, dot = plot_roc(probability, target).axes[0].lines
    others, threes, _ = sk.roc_curve(target, probability, drop_intermediate=False)
    assert np.abs(np.asarray(curve.get_data()) - [others, threes]).max() < 1e-6
    called = probability > 0.5
    assert dot.get_data()[0] == pytest.approx([1 - sk.recall_score(target == 0, ~called)])
    assert dot.get_data()[1] == pytest.approx([sk.recall_score(target, called)])


# The experiments

def test_each_experiment_says_only_what_differs(root):
    base = config("base")
    assert (root / "configs/three_or_not.yaml").read_text() == "extends: three/base.yaml\n"
    assert load_config("configs/three_or_not.yaml") == base
    for name in EXPERIMENTS:
        lines = (root / f"configs/three/experiments/{name}.yaml").read_text().splitlines()
        assert "extends: ../base.yaml" in lines and len(lines) < 20
        assert config(f"experiments/{name}").name == "three_or_not"  # they lie side by side


def test_each_experiment_changes_what_is_built(tree):
    base, one, two, three = (config(o)
                             for o in ("base", *(f"experiments/{n}" for n in EXPERIMENTS[:3])))
    kinds = lambda cfg: [type(o).__name__ for o in build(cfg.model.net).body]
    assert "BatchNorm1d" in kinds(base) and kinds(one) == ["Flatten", "Linear", "ReLU", "Dropout"]
    assert build(one.model.net).num_features == 100
    assert build(one.model).augment is None is build(one.model).scheduler
    assert build(two.model.loss).weight.tolist() == [1, 9] and build(base.model.loss).weight is None
    sizes = [build(cfg.data, root=str(tree)).batch_size for cfg in (base, one, two, three)]
    assert sizes == [64, 25, 64, 32]
    assert three.trainer.max_epochs > base.trainer.max_epochs > one.trainer.max_epochs
    for cfg in (base, one, two, three):
        told = build(cfg.model).hparams
        assert told["hidden"] == list(cfg.model.net.hidden)
        assert told["batch_size"] == cfg.data.batch_size
        assert told["lr"] == cfg.optimizer.lr and told["max_epochs"] == cfg.trainer.max_epochs


def test_debug_from_a_shell(root, tree, tmp_path):
    done = command("mlkit_train", "configs/three/experiments/debug.yaml", f"data.root={tree}")
    assert done.returncode == 0 and "run: not kept" in done.stdout, done.stdout + done.stderr


# What a run and its checkpoint tell

def test_what_wandb_was_told(tracked):
    file = next(tracked.dir.glob("wandb/*/*.wandb"))
    text = subprocess.run([SCRIPTS / "wandb", "leet", "inspect", file, "--json"],
                          capture_output=True, text=True, check=True).stdout
    records = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    rows = [o["history"]["item"] for o in records if o["type"] == "history"]
    sent = {k.removesuffix(".filenames"): v[0] for row in rows
            for k, v in row.items() if k.endswith(".filenames")}
    assert {"batch", "results", "mistakes", "confusion", "roc", "curves"} <= set(sent)
    for path in sent.values():
        with Image.open(next(tracked.dir.glob(f"wandb/*/files/{path}"))) as image: image.load()
    (roc,) = tracked.dir.glob(f"wandb/*/files/{sent['roc']}")
    assert roc.read_bytes() == (tracked.dir / "plots/roc.png").read_bytes()


def test_a_model_tells_what_it_was_trained_with(tracked):
    wanted = dict(hidden=[256, 128], dropout=0.1, batch_size=64, lr=0.005, max_epochs=2, seed=42)
    run = load_run(tracked.dir)
    assert dict(run.model.hparams) == wanted
    assert run.cfg.trainer.max_epochs == 2 and run.cfg.optimizer.lr == 0.005
    kept = torch.load(tracked.checkpoint(), weights_only=True)
    assert kept["hyper_parameters"] == wanted
    loaded = BinaryClassifier.load_from_checkpoint(tracked.checkpoint(),
                                                   net=MLP((1, 28, 28), 2, wanted["hidden"]),
                                                   weights_only=True)
    assert dict(loaded.hparams) == wanted
    for name, weight in loaded.state_dict().items():
        assert weight.equal(run.model.state_dict()[name])
    again = evaluate(tracked.dir)
    assert again["test/auroc"] == tracked.metrics["test/auroc"]


def test_grids_of_five_by_five(tracked):
    run = load_run(tracked.dir)
    run.datamodule.prepare_data()
    labels = [ax.get_title() for ax in run.datamodule.show_batch(25, ncols=5).axes]
    x, y = next(iter(run.datamodule.train_dataloader()))
    assert labels == [CLASSES[i] for i in y[:25]]
    judged = answers(run.model, run.datamodule)
    hardest = judged.loss.argsort(descending=True)[:25]
    axes = show_results(judged, 25, worst=True, ncols=5).axes
    assert len(axes) == 25 and len({round(ax.get_position().x0, 3) for ax in axes}) == 5
    for i, ax in zip(hardest, axes):
        right = judged.pred[i] == judged.target[i]
        assert ax.title.get_color() == ("#009E73" if right else "#D55E00")
        assert ax.get_title()[0] == ("✓" if right else "✗")
    assert {ax.get_title()[0] for ax in axes} == {"✓", "✗"}
