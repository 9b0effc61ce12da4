"Pictures that a table lists, in whole runs: folds, masks, labels, heads, numbers, submissions."
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mlkit.base.errors import UserError
from mlkit.data.files import Changed
from mlkit.data.image_table import ImageTable
from mlkit.many.folds import folds, out_of_fold
from mlkit.ship.submission import submission
from mlkit.show.answers import answers
from mlkit.show.draw import show_batch, show_mistakes, show_results
from mlkit.train import train
from mlkit.use import load_run, predict

LOOK = dict(suffix=".png", size=[8, 8], mode="L", batch_size=16)
LINEAR = {"_target_": "torch.nn.Linear", "in_features": 64, "out_features": "${data.num_classes}"}
NET = {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "torch.nn.Flatten"}, LINEAR]}


@pytest.fixture
def things(tmp_path):
    "60 pictures with a bright left or right half, a table train.csv of them, and test.csv."
    rng, rows = np.random.default_rng(0), []
    for i in range(60):
        pixels = rng.integers(0, 60, (10, 12), dtype=np.uint8)
        half = slice(0, 6) if i % 2 else slice(6, 12)
        pixels[:, half] += 120 + i
        Image.fromarray(pixels).save(tmp_path / f"{i:03}.png")
        mask = np.zeros((10, 12), np.uint8)
        mask[:, half] = 255
        Image.fromarray(mask).save(tmp_path / f"{i:03}_mask.png")
        rows.append(dict(image=f"{i:03}", side="left" if i % 2 else "right", owner=i // 3,
                         level=(120 + i) / 255, mask=f"{i:03}_mask.png",
                         tags=("left" if i % 2 else "right") + " bright" * (i > 30)))
    table = pd.DataFrame(rows)
    table.to_csv(tmp_path / "train.csv", index=False)
    table[["image"]].iloc[:7].to_csv(tmp_path / "test.csv", index=False)
    return tmp_path


def config(things, model: dict | None = None, **data) -> dict:
    data = dict(LOOK, train=str(things / "train.csv"), target="side") | data
    return dict(name="x", runs=str(things / "runs"), trainer=dict(accelerator="cpu", max_epochs=3),
                callbacks=dict(progress=None), optimizer=dict(lr=0.01), data=data,
                defaults=["default", {"data": "image_table"}, {"model": "classifier"}, "_self_"],
                model=dict({"net": NET}, **model or {}))


def test_folds_hold_each_picture_out_once(things):
    found = folds(config(things, group="owner", cache=str(things / "cache")), 3)
    table = out_of_fold(found)
    assert [*table.index] == [f"{i:03}" for i in range(60)]
    read = pd.read_csv(things / "train.csv", dtype={"image": str})
    assert [*table.target] == [*read.side]
    assert (table.groupby(read.owner.to_numpy()).fold.nunique() == 1).all()
    assert (table.target == table.label).mean() > 0.9


def test_a_test_without_targets_is_predicted_and_fills_a_template(things):
    run = train(config(things, test=str(things / "test.csv")))
    own, other = predict(run).table, predict(run, things / "test.csv").table
    assert [*own.index] == [*other.index] == [f"{i:03}" for i in range(7)]
    assert [*own.label] == [*other.label] == ["right", "left"] * 3 + ["right"]
    sample = pd.DataFrame(dict(image=[*own.index][::-1], side="?"))
    filled = submission(predict(run, things / "test.csv"), sample)
    assert [*filled.side] == ["right", "left"] * 3 + ["right"]
    assert len(predict(run, things / "003.png").table) == 1
    loaded = load_run(run)
    said = answers(loaded.model, loaded.datamodule, "val")
    assert {*said.table().index} == {*loaded.datamodule.names("val")}
    for show in (show_results, show_mistakes): assert show(said).axes
    assert show_batch(loaded.datamodule, 4).axes
    moved = things / "elsewhere"
    moved.mkdir()
    (things / "000.png").rename(moved / "000.png")
    found = predict(run, things / "test.csv", f"data.folder={moved}")
    assert [*found.table.label] == ["right"] and len(found.problems) == 6  # the only one there
    problems = predict(run, things / "test.csv").problems
    assert len(problems) == 1 and "test.csv:2: " in problems[0] and "000.png" in problems[0]


def flipped(image, mask):
    flip = torch.rand(()) < 0.5
    return (image.flip(-1), mask.flip(-1)) if flip else (image, mask)


def test_masks_are_learnt_and_turned_with_their_pictures(things):
    net = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "kernel_size": 3, "padding": 1,
           "out_channels": "${data.num_classes}"}
    how = dict(target="mask", task="mask", classes=["dark", "bright"], size=[10, 12])
    run = train(config(things, {"net": net}, **how, cache=str(things / "cache")),
                "trainer.max_epochs=10", "optimizer.lr=0.05")
    loaded = load_run(run)
    said = answers(loaded.model, loaded.datamodule, "val")
    assert said.kind == "masks" and said.dice.mean() > 0.9
    for show in (show_results, show_mistakes): assert show(said).axes
    kinds = [dict(), dict(cache=str(things / "cache"))]
    both = [ImageTable(things / "train.csv", transform=flipped, **dict(LOOK, **how, **o))
            for o in kinds]
    a, b = [list(o.train_dataloader()) for o in both]
    assert all(x.equal(z) and y.equal(w) for (x, y), (z, w) in zip(a, b, strict=True))
    assert both[0].fingerprint() == both[1].fingerprint()
    for x, y in a: assert ((x[:, 0] > 115 / 127.5 - 1) == (y == 1)).all()
    assert len({y[i, 0, 0].item() for _, y in a for i in range(len(y))}) == 2
    bad = np.full((10, 12), 7, np.uint8)
    Image.fromarray(bad).save(things / "015_mask.png")
    with pytest.raises(UserError, match="train.csv:17: .*015_mask.png: has the value 7; of 2"):
        ImageTable(things / "train.csv", **dict(LOOK, **how)).prepare_data()


def test_labels_numbers_and_heads_have_their_losses(things):
    bce = {"_target_": "torch.nn.BCEWithLogitsLoss"}
    run = train(config(things, dict(loss=bce, metrics=None), target="tags", task="labels"))
    found = predict(run, things / "test.csv").table
    known = ["probability_bright", "probability_left", "probability_right"]
    assert [*found.columns[-3:]] == known and run.datamodule.classes == ["bright", "left", "right"]
    mse = dict(loss={"_target_": "torch.nn.MSELoss"}, metrics=None,
               target_scale="${data.target_scale}")
    run = train(config(things, mse, target="level"))
    assert predict(run, things / "test.csv").table.value.between(0, 1).all()
    assert answers(run.model, run.datamodule, "val").kind == "numbers"
    heads = ImageTable(things / "train.csv", ["side", "level"], **LOOK)
    y = next(iter(heads.val_dataloader()))[1]
    assert y["side"].dtype == torch.int64 and y["level"].shape == (6, 1)
    assert heads.num_classes == {"side": 2, "level": 1}


@pytest.mark.parametrize("how", [dict(num_workers=2), dict(cache="cache")])
def test_what_is_drawn_follows_from_seed_epoch_and_picture(things, how):
    def noisy(image): return image ^ torch.randint(0, 8, image.shape, dtype=torch.uint8)

    def epoch(k, **more):
        if "cache" in more: more["cache"] = str(things / more["cache"])
        data = ImageTable(things / "train.csv", "side", transform=noisy, **LOOK, **more)
        loader = data.train_dataloader()
        loader.sampler.set_epoch(k)
        return torch.cat([x for x, _ in loader])

    plain, state = epoch(3), torch.get_rng_state()
    assert plain.equal(epoch(3, **how)) and not plain.equal(epoch(4, **how))
    assert torch.get_rng_state().equal(state)


def test_a_transform_of_a_library_gets_what_it_asks_for():
    albumentations = pytest.importorskip("albumentations")
    image = torch.arange(3 * 64, dtype=torch.uint8).view(3, 8, 8)
    mask = image[0].clone()
    change = Changed(albumentations.Compose([albumentations.HorizontalFlip(p=0.5)]), has_mask=True)
    found = [change(image, mask, (0, 0, i)) for i in range(20)]
    assert all(x[0].equal(y) for x, y in found)
    assert {bool(y.equal(mask)) for _, y in found} == {True, False}
    again = [change(image, mask, (0, 0, i))[1] for i in range(20)]
    assert all(y.equal(z) for (_, y), z in zip(found, again))
