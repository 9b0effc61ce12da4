"The contrail recipe: its sky, loader, bad files, loss, measure, net and submission; and the job."
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

contrails = pytest.importorskip("mlkit.recipes.contrails")
from mlkit.config.load import load_config
from mlkit.model.lit import LitModel
from mlkit.parts.build import build
from mlkit.train import train
from mlkit.use import evaluate
from shell import command, job

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
CONFIG = "configs/contrails.yaml"


@pytest.fixture(scope="module")
def sky(tmp_path_factory) -> Path:
    "Twelve records: 8 to learn from, 3 to validate, 1 without a mask."
    folder = tmp_path_factory.mktemp("sky") / "contrails"
    contrails.write_records(folder, 12)
    return folder


@pytest.fixture
def copy(sky, tmp_path) -> Path:
    "A copy to break. Its files are links: unlink one before you write another in its place."
    return Path(shutil.copytree(sky, tmp_path / "contrails", copy_function=os.link))


def replace(path: Path, array: np.ndarray):
    path.unlink(missing_ok=True)
    np.save(path, array)


def records(folder: Path) -> list[Path]: return sorted(o for o in folder.iterdir() if o.is_dir())


# The small data

def test_small_data_has_the_layout_of_the_competition(sky):
    assert {o: len(records(sky / o))
            for o in ("train", "validation", "test")} == dict(train=8, validation=3, test=1)
    bands = {f"band_{n}.npy" for n in (11, 14, 15)}
    masks = {"train": {"human_pixel_masks.npy", "human_individual_masks.npy"},
             "validation": {"human_pixel_masks.npy"}, "test": set()}
    for split in masks:
        for record in records(sky / split):
            assert {o.name for o in record.iterdir()} == bands | masks[split]
            for name in bands:
                band = np.load(record / name)
                assert band.shape == (256, 256, 8) and band.dtype == np.float32
                assert 190 < band.min() and band.max() < 320
            if masks[split]:
                agreed = np.load(record / "human_pixel_masks.npy")
                assert agreed.shape == (256, 256, 1) and agreed.dtype.kind == "i"
                assert set(np.unique(agreed)) <= {0, 1}
            if split == "train":
                drawn = np.load(record / "human_individual_masks.npy")
                assert drawn.shape[:3] == (256, 256, 1) and 4 <= drawn.shape[3] <= 6
                assert drawn.dtype.kind == "i"
                assert np.array_equal(agreed, drawn.mean(-1) > 0.5)
    for split in ("train", "validation"):
        listed = json.loads((sky / f"{split}_metadata.json").read_text())
        assert sorted(o["record_id"] for o in listed) == [o.name for o in records(sky / split)]
    with open(sky / "sample_submission.csv", newline="") as f:
        assert [list(o.values()) for o in csv.DictReader(f)] == [[o.name, "-"]
                                                                 for o in records(sky / "test")]


def test_all_nine_bands_if_asked(tmp_path):
    contrails.Contrails(str(tmp_path / "sky"), sample=6, bands="all").prepare_data()
    for record in (tmp_path / "sky").glob("*/*/"):
        assert sorted(o.name for o in record.glob("band_*")) == [f"band_{n:02}.npy"
                                                                 for n in range(8, 17)]


def test_a_record_is_a_pure_function_of_its_arguments():
    digest = lambda seed: [hashlib.sha256(a.tobytes()).hexdigest()
                           for a in contrails.simulate(seed, 3, [14])[0].values()]
    assert digest(5) == digest(5) != digest(6)


def test_contrails_are_cold_and_stand_out_in_the_split_window():
    colder, split = [], []
    for seed in range(6):
        bands, drawn, agreed = contrails.simulate(seed, 3, [14, 15])
        inside = torch.tensor(agreed[None, None, :, :, 0], dtype=torch.float)
        dilated = (torch.nn.functional.max_pool2d(inside, 15, 1, 7)
                   - torch.nn.functional.max_pool2d(inside, 7, 1, 3))
        inside, around = inside[0, 0].bool().numpy(), dilated[0, 0].bool().numpy()
        b14, b15 = bands[14][..., 4], bands[15][..., 4]
        colder.append(b14[around].mean() - b14[inside].mean())
        split.append((b15 - b14)[inside].mean() - (b15 - b14)[around].mean())
    assert min(colder) > 1 and max(split) < -0.3


def test_contrails_drift_with_the_wind_through_the_frames():
    for seed in range(4):
        depth, shapes = contrails.draw_contrails(np.random.default_rng(seed), (5, -3), 3)
        before, after = (np.fft.rfft2(o) for o in (shapes.sum(0), depth[6]))
        shift = np.unravel_index(np.fft.irfft2(before.conj() * after).argmax(), (256, 256))
        assert np.abs((np.array(shift) - (10, -6) + 128) % 256 - 128).max() <= 1


def test_making_that_is_killed_leaves_nothing_half(tmp_path, root):
    code = ("from mlkit.recipes.contrails import write_records; "
            f"write_records({str(tmp_path / 'sky')!r}, 60)")
    maker = subprocess.Popen([sys.executable, "-c", code], cwd=root)
    try:
        while not list(tmp_path.rglob("band_*.npy")):
            assert maker.poll() is None and not time.sleep(0.05)
    finally:
        maker.send_signal(signal.SIGKILL)
        maker.wait()
    assert not (tmp_path / "sky").exists()


# The loader

def test_the_image_is_the_ash_scheme_of_frame_four(sky):
    data = contrails.Contrails(str(sky), sample=None)
    data.setup()
    for i, record in enumerate(data.records["train"][:2]):
        b11, b14, b15 = (np.load(record / f"band_{n}.npy")[:, :, 4].astype(float)
                         for n in (11, 14, 15))
        ash = [(b15 - b14 + 4) / 6, (b14 - b11 + 4) / 9, (b14 - 243) / 60]
        row = data.rows["train"][i:i + 1]
        x, y = data.train_dataloader().transform((data.images[row], data.targets[row]))
        assert np.abs(x[0].numpy() - np.clip(ash, 0, 1)).max() < 0.5 / 255 + 1e-4
        assert np.array_equal(y[0, 0], np.load(record / "human_pixel_masks.npy")[..., 0])


@pytest.mark.parametrize("options, sizes", [
    ({}, dict(train=6, val=2, test=3, predict=1)),
    (dict(validation_split=0.4), dict(train=5, val=3, test=3, predict=1)),
    (dict(frac=0.5), dict(train=3, val=1, test=2, predict=1)),
    (dict(use_val_as_train=True), dict(train=1, val=1, test=1, predict=1))])
def test_shares_of_the_records(sky, options, sizes):
    split = contrails.Contrails(str(sky), sample=None, **options).split()
    assert {k: len(o) for k, o in split.items()} == sizes
    used = [o for folders in split.values() for o in folders]
    assert len(set(used)) == len(used), "no record is used twice"
    learn = "validation" if options.get("use_val_as_train") else "train"
    assert {o.parent.name for k in ("train", "val") for o in split[k]} == {learn}
    assert {o.parent.name for o in split["test"]} == {"validation"}
    assert split == contrails.Contrails(str(sky), sample=None, **options).split()


def test_records_that_are_not_used_are_not_read(copy):
    used = {o for folders in contrails.Contrails(str(copy), sample=None, frac=0.5).split().values()
            for o in folders}
    unused = next(o for o in records(copy / "train") if o not in used)
    (unused / "band_11.npy").unlink()
    contrails.Contrails(str(copy), sample=None, frac=0.5).prepare_data()


def test_binary_asks_for_any_contrail(sky):
    data = contrails.Contrails(str(sky), sample=None, binary=True)
    for x, y in data.train_dataloader(): assert y.shape == (len(x), 1)
    data.setup()
    loader = data.test_dataloader()
    truth = [[int(np.load(o / "human_pixel_masks.npy").any())] for o in data.records["test"]]
    assert torch.cat([y for _, y in loader]).tolist() == truth


def test_the_order_is_a_function_of_seed_and_epoch(sky):
    def order(seed, epoch):
        loader = contrails.Contrails(str(sky), sample=None, batch_size=2,
                                     seed=seed).train_dataloader()
        loader.sampler.set_epoch(epoch)
        return [float(x.sum()) for x, _ in loader]
    assert order(0, 3) == order(0, 3) != order(0, 4)


def test_fingerprint_sees_a_pixel(copy, sky):
    of = lambda root: contrails.Contrails(str(root), sample=None).fingerprint()
    assert of(copy) == of(sky)
    path = records(copy / "train")[0] / "human_pixel_masks.npy"
    mask = np.load(path)
    mask[0, 0] ^= 1
    replace(path, mask)
    assert of(copy) != of(sky)


# Bad files

def truncate(path: Path):
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:len(content) // 2])

BAD = {
    "no such file": ("band_14.npy", Path.unlink),
    "damaged or truncated": ("band_15.npy", truncate),
    "damaged": ("band_11.npy",
                lambda path: (path.unlink(), path.write_text("<html>not found</html>"))),
    "its shape is (256, 256, 1, 4), not (256, 256, 1)":
        ("human_pixel_masks.npy", lambda path: replace(path, np.zeros((256, 256, 1, 4), int))),
    "its shape is (256, 8, 256), not (256, 256, 8)":
        ("band_11.npy", lambda path: replace(path, np.zeros((256, 8, 256), np.float32))),
    "65,536 of 65,536 pixels of frame 4 are NaN":
        ("band_11.npy", lambda path: replace(path, np.full((256, 256, 8), np.nan, np.float32))),
    "a mask has values 0 and 1":
        ("human_pixel_masks.npy", lambda path: replace(path, np.full((256, 256, 1), 255))),
    "holds <U3, not numbers":
        ("band_14.npy", lambda path: replace(path, np.full((256, 256, 8), "280"))),
}

@pytest.mark.parametrize("says", BAD)
def test_a_bad_file_is_named_in_one_line(copy, says):
    name, spoil = BAD[says]
    path = records(copy / "validation")[0] / name
    spoil(path)
    with pytest.raises(ValueError) as e: contrails.Contrails(str(copy), sample=None).prepare_data()
    assert str(e.value).startswith(f"{path}: ") and says in str(e.value)
    assert "\n" not in str(e.value)


def test_bad_files_are_named_before_a_run_begins(copy, tmp_path):
    names = "band_11.npy", "human_pixel_masks.npy"
    paths = [record / name for record, name in zip(records(copy / "train"), names)]
    for path in paths: path.unlink()
    done = command("mlkit_train", CONFIG, f"paths.data_dir={copy.parent}",
                   f"runs={tmp_path / 'runs'}", "data.sample=null", code=2)
    said, = [line for line in (done.stdout + done.stderr).splitlines() if str(paths[0]) in line]
    assert said.count("no such file") == 2 and str(paths[1]) in said
    assert "Traceback" not in done.stderr and not (tmp_path / "runs").exists()


def test_no_data_and_none_to_be_made(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        contrails.Contrails(str(tmp_path / "nowhere"), sample=None).prepare_data()
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="train: no records in it"):
        contrails.Contrails(str(tmp_path / "empty"), sample=None).prepare_data()


# Loss, measure, baseline, net

@pytest.mark.parametrize("shape", [(7, 1, 20, 30), (40, 1)])
def test_global_dice_is_f1_of_all_pixels(shape):
    from sklearn.metrics import f1_score
    torch.manual_seed(0)
    logits, target = torch.randn(shape), (torch.rand(shape) < 0.2).to(torch.uint8)
    metric = contrails.GlobalDice()
    for some in torch.arange(shape[0]).split(3): metric.update(logits[some], target[some])
    assert float(metric.compute()) == pytest.approx(f1_score(target.flatten(),
                                                             logits.flatten() > 0), abs=1e-6)
    metric.reset()
    metric.update(-logits.abs(), 0 * target)
    assert metric.compute() == 1


def test_the_loss_is_cross_entropy_and_dice_over_the_batch():
    from sklearn.metrics import log_loss
    torch.manual_seed(0)
    logits, target = torch.randn(3, 1, 9, 11), (torch.rand(3, 1, 9, 11) < 0.3).to(torch.uint8)
    prob, truth = logits.double().sigmoid().flatten().tolist(), target.flatten().tolist()
    both = sum(p * t for p, t in zip(prob, truth))
    dice = 1 - (2 * both + 1) / (sum(prob) + sum(truth) + 1)
    for share in (0.0, 0.3, 1.0):
        expected = (1 - share) * log_loss(truth, prob) + share * dice
        assert float(contrails.BCEDice(share)(logits, target)) == pytest.approx(expected, abs=1e-6)


def test_the_best_threshold_is_the_best_of_all():
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (2, 3, 12, 12), np.uint8))
    masks = (images[:, 1:2] > 150) & torch.from_numpy(rng.random((2, 1, 12, 12)) < 0.8)
    found, dice = contrails.best_threshold(images, masks.to(torch.uint8))
    def of(color, below, value):
        pred = [(p <= value) == below for p in images[:, color].flatten().tolist()]
        hits = sum(p and t for p, t in zip(pred, masks.flatten().tolist()))
        return 2 * hits / (sum(pred) + int(masks.sum()))
    tried = [of(c, b, v) for c in range(3) for b in (True, False) for v in range(256)]
    assert dice == pytest.approx(max(tried), abs=1e-6) == pytest.approx(of(*found), abs=1e-6)


def test_the_net_takes_any_size_and_learns_in_every_weight():
    net = contrails.LightUNet(3, 1)
    for h, w in [(256, 256), (64, 96), (37, 51)]:
        assert net(torch.rand(2, 3, h, w)).shape == (2, 1, h, w)
    net(torch.rand(2, 3, 64, 64)).square().mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []
    with pytest.raises(ValueError, match="widths is empty"): contrails.LightUNet(widths=[])


def test_a_crop_is_of_image_and_mask_alike():
    torch.manual_seed(0)
    at = torch.arange(40 * 50.0).view(1, 1, 40, 50).expand(8, 1, 40, 50)
    x, target = contrails.RandomCrop(16)(at.clone(), at.long())
    assert x.shape == (8, 1, 16, 16) and torch.equal(x.long(), target)
    assert len({float(o[0, 0, 0]) for o in x}) > 1, "each at a place of its own"
    assert torch.equal(x[0, 0],
                       at[0, 0, int(x[0, 0, 0, 0]) // 50:, int(x[0, 0, 0, 0]) % 50:][:16, :16])


# The submission

def test_run_lengths_go_down_the_columns_and_come_back():
    rng = random.Random(0)
    for _ in range(50):
        h, w, p = rng.randint(1, 9), rng.randint(1, 9), rng.random()
        mask = np.array([[int(rng.random() < p) for _ in range(w)] for _ in range(h)])
        text = contrails.rle_encode(mask)
        covered = [] if text == "-" else [int(o) for o in text.split()]
        pixels = {s + k for s, n in zip(covered[::2], covered[1::2]) for k in range(n)}
        assert pixels == {x * h + y + 1 for y in range(h) for x in range(w) if mask[y, x]}
        starts = sum(1 for p in pixels if p - 1 not in pixels)
        assert len(covered) // 2 == starts, "the runs are as long as can be"
        assert np.array_equal(contrails.rle_decode(text, (h, w)), mask)
    assert contrails.rle_encode(np.zeros((4, 4))) == "-"


@pytest.mark.parametrize("text", ["", "3", "1 2 3", "0 2", "1 0", "5 2 4 1", "8 3", "1 a", "1 -1"])
def test_bad_run_lengths_are_refused(text):
    if text == "": assert not contrails.rle_decode(text, (3, 3)).any()  # what some write for none
    else:
        with pytest.raises(ValueError, match="run-length encoding"):
            contrails.rle_decode(text, (3, 3))


def test_the_submission_says_what_the_model_says(sky, tmp_path):
    class Cold(torch.nn.Module):
        "Calls contrail what is below 273 K."
        def forward(self, x): return 0.5 - x[:, 2:]
    data = contrails.Contrails(str(sky), sample=None)
    contrails.submission(LitModel(Cold()), data, tmp_path / "submission.csv")
    with open(tmp_path / "submission.csv", newline="") as f: rows = list(csv.reader(f))
    record, = records(sky / "test")
    assert rows[0] == ["record_id", "encoded_pixels"] and [o[0] for o in rows[1:]] == [record.name]
    kelvin = np.load(record / "band_14.npy")[..., 4].clip(243, 303)
    expected = np.round((kelvin - 243) / 60 * 255) <= 127
    assert np.array_equal(contrails.rle_decode(rows[1][1]), expected)


# The config, and the job

def test_paths_by_interpolation():
    assert load_config(CONFIG, "paths.data_dir=/mnt/kaggle").data.root == "/mnt/kaggle/contrails"


def test_callbacks_are_options_of_a_group():
    names = lambda *o: {type(c).__name__
                        for c in build(load_config(CONFIG, *o).callbacks).values() if c}
    assert names() == {"Progress", "Checkpoint", "EarlyStopping", "LearningRateMonitor"}
    assert names("callbacks=[default,rich]") == {"RichProgressBar", "Checkpoint"}
    assert names("callbacks=[default,lr_monitor]") == {"Progress", "Checkpoint",
                                                       "LearningRateMonitor"}
    assert names("callbacks.early_stopping=null") == names() - {"EarlyStopping"}
    assert all(load_config(CONFIG, *o).callbacks.checkpoint.monitor == "val/dice"
               for o in ([], ["callbacks=default"]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    "What a person types, on data that is made first: the folder of all, the run, and the seconds."
    folder = tmp_path_factory.mktemp("job")
    return folder, *job(folder / "runs", "contrails", f"paths.data_dir={folder}")


@pytest.mark.slow
def test_the_job(finished, figure):
    folder, run, seconds = finished
    figure(f"contrails: test/dice {run.metrics['test/dice']:.3f} in {seconds:.0f} s")
    data = contrails.Contrails(str(folder / "contrails"), sample=None, seed=42)
    data.setup()
    images, masks = ({split: of[rows] for split, rows in data.rows.items()}
                     for of in (data.images, data.targets))
    threshold, _ = contrails.best_threshold(images["train"], masks["train"])
    found, truth = threshold(images["test"]).numpy(), masks["test"].numpy() > 0
    baseline = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert run.metrics["test/dice"] >= max(0.60, baseline + 0.15)
    assert run.info["best"]["monitor"] == "val/dice" and run.info["data"] == data.fingerprint()
    assert sum(o.stat().st_size for o in (folder / "contrails").rglob("*") if o.is_file()) < 350e6
    with open(run.dir / "metrics.csv", newline="") as f:
        rates = [float(o["lr-AdamW"]) for o in csv.DictReader(f) if o["lr-AdamW"]]
    assert max(rates) > 5 * rates[0] > 0


@pytest.mark.slow
def test_a_past_run_is_measured_from_its_folder(finished):
    _, run, _ = finished
    assert evaluate(run.dir)["test/dice"] == run.metrics["test/dice"]
    assert evaluate(run.dir, stage="val")["val/dice"] == run.metrics["val/dice"]


def test_masks_and_a_table_go_to_wandb(sky, root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    run = train(CONFIG, f"paths.data_dir={sky.parent}", f"runs={tmp_path}", "trainer.max_epochs=1",
                "logger=wandb", "callbacks=default")
    media = [o for o in (run.dir / "wandb").rglob("media/*/*") if o.is_file()]
    pictures = {o.name.split("_")[0] for o in media if o.suffix == ".png"}
    assert {"batch", "results", "mistakes"} <= pictures
    table = json.loads(next(o for o in media if o.name.endswith(".table.json")).read_text())
    assert "dice" in table["columns"] and len(table["data"]) == 3


def test_binary_job(sky, root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    run = train(CONFIG, f"paths.data_dir={sky.parent}", f"runs={tmp_path}", "trainer.max_epochs=1",
                "callbacks=default",
                "data.binary=true", "model=contrails_binary")
    assert 0 <= run.metrics["test/dice"] <= 1
    assert run.datamodule.classes == ["no contrail", "contrail"]
