"Several runs as one, folds, submissions: against plain loops, and what cannot be."
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mlkit.base.errors import UserError
from mlkit.cli import mlkit_predict
from mlkit.data.folder import ImageFolder
from mlkit.data.mnist import MNIST
from mlkit.many.find import find_search
from mlkit.many.folds import folds, out_of_fold
from mlkit.run.folder import Run
from mlkit.use import predict, trained
from test_predict import TABLE, X, run_of


@pytest.fixture(scope="module", autouse=True)
def tests_are_importable():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    homes = [tmp_path_factory.mktemp(f"runs{i}") for i in range(2)]
    return [run_of(o, data="Named", k=3) for o in homes]


def chances(found) -> np.ndarray: return found.table.filter(like="probability_").to_numpy(float)


def logits(run: Path) -> torch.Tensor:
    with torch.inference_mode(): return trained(str(run)).net(X)


def changed(run: Path, folder: Path, **facts) -> Path:
    other = shutil.copytree(run, folder / "b" / "20260101-000000-abcd")
    Run(other).update(data_facts=Run(run).info["data_facts"] | facts)
    return other


def test_the_mean_of_runs_is_that_of_a_loop(runs):
    a, b = map(logits, runs)
    for how, want in ((dict(), (a.softmax(1) + b.softmax(1)) / 2),
                      (dict(weights=[1, 3]), a.softmax(1) / 4 + b.softmax(1) * 3 / 4),
                      (dict(mean="logits"), ((a + b) / 2).softmax(1))):
        for inputs in (X, TABLE):
            found = predict([*runs], inputs, probabilities=True, **how)
            assert np.allclose(chances(found), want, atol=1e-6)
        assert [*found.table.index] == [*TABLE.index]


def test_classes_in_another_order_are_put_in_order(runs, tmp_path):
    turned = changed(runs[1], tmp_path, classes=["cat", "bee", "ant"])
    want = (logits(runs[0]).softmax(1) + logits(runs[1]).softmax(1).flip(1)) / 2
    assert np.allclose(chances(predict([runs[0], turned], X, probabilities=True)), want, atol=1e-6)


def test_numbers_have_a_mean(tmp_path):
    (tmp_path / "a").mkdir()
    run = run_of(tmp_path / "a")
    assert predict([run, run], X).table["value"].tolist() == predict(run, X).table["value"].tolist()


@pytest.mark.parametrize("model, facts, inputs, how, says", [
    ("Net", dict(classes=["ant", "bee", "cow"]), X, {}, "has other classes .*, such as cat, cow"),
    ("Net", {}, X, dict(weights=[1]), "weights: 2 are expected, not 1"),
    ("Net", {}, X, dict(mean="sum"), "mean='sum': probabilities or logits"),
    ("Net", {}, X, dict(tta="flop"), "tta='flop': there are flip, flips, d4"),
    ("Net", {}, X, dict(tta="flip"), "holds no pictures"),
    ("Net", {}, iter([X]), {}, "can be read once"),
    ("Net", {}, torch.utils.data.DataLoader(X.clone(), shuffle=True), {}, "the loader shuffles"),
    ("Texts", {}, X, {}, "of texts there is no mean"),
    ("Numbers", {}, X, {}, "of class numbers, or other whole ones, there is no mean")])
def test_what_has_no_mean_is_one_line(runs, tmp_path, model, facts, inputs, how, says):
    first = runs[0] if model == "Net" else run_of(tmp_path, model, data="Named", k=3)
    with pytest.raises(UserError, match=says) as e:
        predict([first, changed(first, tmp_path, **facts)], inputs, **how)
    assert "\n" not in str(e.value)


def test_the_shell_asks_several(runs, tmp_path, capsys):
    np.save(tmp_path / "x.npy", X.numpy())
    a, b = map(str, runs)
    words = [a, str(tmp_path / "x.npy"), b, "--probabilities", "--weights", "1,3"]
    assert mlkit_predict([*words, "-o", str(tmp_path / "out.csv")]) == 0
    want = chances(predict([*runs], X, probabilities=True, weights=[1, 3]))
    table = pd.read_csv(tmp_path / "out.csv")
    assert np.allclose(table.filter(like="probability_"), want, atol=1e-6)
    pd.DataFrame(dict(row=range(11, -1, -1), cat=0)).to_csv(tmp_path / "t.csv", index=False)
    words = [a, b, str(tmp_path / "x.npy"), "--template", str(tmp_path / "t.csv")]
    assert mlkit_predict([*words, "-o", str(tmp_path / "s.csv")]) == 0
    filled = pd.read_csv(tmp_path / "s.csv")
    assert [*filled] == ["row", "cat"] and filled.row.tolist() == [*range(11, -1, -1)]
    assert np.allclose(filled.cat, chances(predict([*runs], X, probabilities=True))[::-1, 2])
    pd.DataFrame(dict(row=range(20), cat=0)).to_csv(tmp_path / "t.csv", index=False)
    capsys.readouterr()
    assert mlkit_predict(words) == 2
    assert "8 of 20 ids have no prediction: 12, 13, 14, …" in capsys.readouterr().err


# -- folds

def test_folds_of_mnist_are_dealt_by_class():
    held = []
    for fold in range(3):
        data = MNIST(folds=3, fold=fold)
        data.setup()
        counts = torch.bincount(data.targets[data.rows["val"]])
        held.append((data.rows["val"], counts))
        assert len(data.rows["train"]) == 4000 and len(data.rows["test"]) == 1000
    assert torch.equal(torch.cat([rows for rows, _ in held]).sort().values, torch.arange(6000))
    many = torch.stack([counts for _, counts in held])
    assert (many.amax(0) - many.amin(0)).max() <= 1


@pytest.fixture
def pictures(tmp_path) -> Path:
    "Two classes; six people with three pictures each in both."
    for name, grey in (("dark", 0), ("bright", 200)):
        (tmp_path / "pics" / name).mkdir(parents=True)
        for person in range(6):
            for i in range(3):
                path = tmp_path / "pics" / name / f"p{person}_{i}.png"
                Image.new("L", (4, 4), grey + 5 * person + i).save(path)
    return tmp_path / "pics"


def names_of(pictures: Path) -> list[str]:
    return sorted(o.relative_to(pictures).as_posix() for o in pictures.rglob("*.png"))


def test_groups_of_pictures_stay_together(pictures):
    seen = []
    for fold in range(3):
        data = ImageFolder(str(pictures), size=(4, 4), mode="L", folds=3, fold=fold, group=r"^p\d+")
        data.setup()
        people = {k: {Path(o).name[:2] for o in data.names(k)} for k in ("train", "val")}
        assert not people["train"] & people["val"] and "test" not in data.rows
        seen += data.names("val")
    assert sorted(seen) == names_of(pictures)


@pytest.mark.parametrize("kwargs, says", [
    (dict(folds=7, group=r"^p\d+"), "folds=7: of 6 groups some would be empty"),
    (dict(folds=3, fold=3), "fold=3: from 0 to 2"), (dict(folds=1), "folds=1: 2 or more"),
    (dict(folds=3, group="x"), "group='x' is not in its name"), (dict(group="("), "is no pattern"),
    (dict(fold=1), "fold=1: of how many")])
def test_what_cannot_be_dealt_is_one_line(pictures, kwargs, says):
    with pytest.raises(UserError, match=says.replace("(", r"\(")):
        ImageFolder(str(pictures), size=(4, 4), mode="L", **kwargs).setup()


def test_folds_of_pictures_and_their_predictions(pictures, tmp_path, capsys):
    cfg = dict(name="s", runs=str(tmp_path / "runs"), defaults=[dict(model="classifier")],
               data=dict(_target_="mlkit.data.folder.ImageFolder", root=str(pictures), size=[4, 4],
                         mode="L", group=r"^p\d+"),
               model=dict(net=dict(_target_="mlkit.model.nets.MLP", in_shape=[1, 4, 4],
                                   num_classes=2)),
               trainer=dict(max_epochs=1, accelerator="cpu"), callbacks=dict(progress=None))
    found = folds(cfg, 3)
    assert found.table["val/loss"][0] == pytest.approx(
        np.mean([o.metrics["val/loss"] for o in found.trials]))
    assert [o.values["data.fold"] for o in found.trials] == [0, 1, 2]
    table = out_of_fold(found)
    assert sorted(table.index) == names_of(pictures)
    assert [*table][:4] == ["fold", "target", "label", "probability"]
    assert all(str(name).startswith(str(is_)) for name, is_ in table.target.items())
    again = out_of_fold(find_search(found.folder).runs)
    assert np.allclose(again.sort_index().probability, table.sort_index().probability)
    everyone = predict(found, str(pictures), probabilities=True)
    each = [chances(predict(o, str(pictures), probabilities=True)) for o in found.members]
    assert np.allclose(chances(everyone), sum(each) / 3, atol=1e-6)
    found.members[0].update(status="interrupted")
    with pytest.raises(UserError, match="is interrupted: go on with it first"):
        out_of_fold([o.run for o in found.trials])


def test_folds_of_a_table_from_its_file_to_the_submission(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 3))
    table = pd.DataFrame(x, columns=["a", "b", "c"]).assign(
        id=[f"r{i:03}" for i in range(90)], who=np.arange(90) // 3,
        y=np.where(x[:, 0] > 0, "yes", "no"))
    table[:75].to_csv(tmp_path / "train.csv", index=False)
    table[75:].drop(columns="y").to_csv(tmp_path / "test.csv", index=False)
    table[75:][::-1][["id"]].assign(y=0.5).to_csv(tmp_path / "sample.csv", index=False)
    cfg = dict(name="t", runs=str(tmp_path / "runs"),
               defaults=[dict(data="table"), dict(model="tabular")],
               data=dict(train=str(tmp_path / "train.csv"), target="y", id="id", group="who"),
               trainer=dict(max_epochs=2, accelerator="cpu"), callbacks=dict(progress=None))
    found = folds(cfg, 5)
    oof = out_of_fold(found)
    assert [*oof.index] == [*table.id[:75]] and [*oof.target] == [*table.y[:75]]
    assert oof.groupby(np.arange(75) // 3).fold.nunique().max() == 1
    words = [str(found.folder), str(tmp_path / "test.csv"), "-o", str(tmp_path / "out.csv"),
             "--template", str(tmp_path / "sample.csv"), "--column", "y=yes"]
    assert mlkit_predict(words) == 0
    filled = pd.read_csv(tmp_path / "out.csv")
    each = [predict(o, tmp_path / "test.csv", probabilities=True).table for o in found.members]
    want = sum(o.probability_yes for o in each) / 5
    assert [*filled.id] == [*table.id[75:]][::-1]
    assert np.allclose(filled.y, want[filled.id], atol=1e-6)
