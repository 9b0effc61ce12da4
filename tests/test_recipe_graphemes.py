"The grapheme recipe: its files and bad ones, squares, nets, losses, measures, submission; the job."
import csv
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

from mlkit.config.load import load_config
from mlkit.model.augment import CutMix, MixUp
from mlkit.model.lit import LitModel
from mlkit.parts.build import build
from mlkit.recipes import graphemes
from mlkit.train import train
from mlkit.use import evaluate, load_run
from shell import command, job

HEADS = graphemes.HEADS
SIZES = dict(zip(HEADS, (16, 7, 5)))
CONFIG = Path(__file__).parents[1] / "configs" / "graphemes.yaml"


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    "Eighty pictures to learn from, in two files, and five to be asked about."
    folder = tmp_path_factory.mktemp("data") / "bengali"
    graphemes.write_sample(folder, 80, n_test=5, files=2, seed=3)
    return folder


@pytest.fixture(scope="module")
def data(small):
    "The same, read."
    data = data_of(small)
    data.prepare_data()
    return data


@cache
def columns_in(path: Path) -> list: return pq.read_table(path).columns[1:]


def picture_in(path: Path, row: int) -> np.ndarray:
    "One picture of a file, read in another way."
    return np.array([o[row].as_py() for o in columns_in(path)], np.uint8).reshape(137, 236)


@pytest.fixture
def copy(small, tmp_path) -> Path:
    "A copy to break. Its files are links: write another in the place of one, never into it."
    return Path(shutil.copytree(small, tmp_path / "bengali", copy_function=os.link))


def data_of(root: Path, **kwargs):
    return graphemes.Graphemes(str(root), sample=None, **{"size": 32, **kwargs})


def refused(root: Path) -> str:
    "What is said of a folder."
    with pytest.raises((ValueError, OSError)) as e: data_of(root).prepare_data()
    assert "\n" not in str(e.value)
    return str(e.value).replace(f"{root}/", "")


def edit(path: Path, change):
    table = change(pd.read_csv(path, dtype=str, keep_default_na=False))
    path.unlink()
    table.to_csv(path, index=False)


# The files

def test_small_data_has_the_layout_of_the_competition(small):
    assert sorted(o.name for o in small.iterdir()) == ["class_map.csv", "sample_submission.csv",
                                                       "test.csv", "test_image_data_0.parquet",
                                                       "train.csv", "train_image_data_0.parquet",
                                                       "train_image_data_1.parquet"]
    table = pq.ParquetFile(small / "train_image_data_1.parquet")
    assert table.schema_arrow.names == ["image_id", *map(str, range(137 * 236))]
    assert set(table.schema_arrow.types[1:]) == {pa.uint8()}
    assert table.read(["image_id"])["image_id"].to_pylist() == [f"Train_{i}" for i in range(40, 80)]
    assert list(pd.read_csv(small / "train.csv")) == ["image_id", *HEADS, "grapheme"]
    assert list(pd.read_csv(small / "class_map.csv")) == ["component_type", "label", "component"]
    asked = pd.read_csv(small / "test.csv")
    assert list(asked) == ["row_id", "image_id", "component"] and len(asked) == 15
    assert (asked["row_id"] == asked["image_id"] + "_" + asked["component"]).all()


def test_labels_say_what_was_written(small):
    parts = graphemes.read_class_map(small / "class_map.csv", SIZES)
    for row in pd.read_csv(small / "train.csv").itertuples():
        root, vowel, consonant = (parts[head][getattr(row, head)] for head in HEADS)
        assert row.grapheme == graphemes.compose(root, vowel, consonant)
        assert root in row.grapheme and (vowel == "0" or vowel in row.grapheme)
    everything = pd.DataFrame([(r, v, c) for r in range(16) for v in range(7) for c in range(5)],
                              columns=HEADS)
    assert (everything.to_numpy() @ [35, 5, 1] == np.arange(len(graphemes.glyphs()))).all()


def test_the_same_seed_gives_the_same_pictures(small, tmp_path):
    graphemes.write_sample(tmp_path / "again", 80, n_test=5, files=2, seed=3)
    for path in small.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    one, other = (graphemes.handwritten(graphemes.glyphs()[:3],
                                        torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert (one != other).flatten(1).any(1).all()


def test_a_kill_leaves_no_half_folder(tmp_path):
    code = ("from mlkit.recipes.graphemes import write_sample; print('go', flush=True); "
            f"write_sample({str(tmp_path / 'data')!r}, 3000)")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    process.stdout.readline()
    while not list(tmp_path.glob(".data.*/class_map.csv")): time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "data").exists()


def test_show_batch_names_a_class_of_each_head(data):
    x, target = next(iter(data.train_dataloader()))
    named = ["\n".join(data.classes[head][target[head][i]] for head in HEADS) for i in range(4)]
    assert [ax.get_title() for ax in data.show_batch(4).axes] == named


def test_every_picture_meets_its_labels(data, small, copy):
    "Whatever the order of train.csv: labels follow the names, not the lines."
    table = pd.read_csv(small / "train.csv").set_index("image_id")
    edit(copy / "train.csv", lambda t: t.sample(frac=1, random_state=1))
    shuffled = data_of(copy)
    labels = shuffled.read_data()[1]
    for head in HEADS:
        wanted = table.loc[[f"Train_{i}" for i in range(80)], head].tolist()
        assert data.targets[head].tolist() == labels[head].tolist() == wanted
    assert np.array_equal(data.images[47, 0].numpy(),
                          graphemes.to_square(picture_in(small / "train_image_data_1.parquet", 7),
                                              32))
    assert data.images.dtype == torch.uint8 and data.images.shape == (80, 1, 32, 32)


def test_splits_share_no_picture(data):
    assert {split: len(rows) for split, rows in data.rows.items()} == dict(train=64, val=8, test=8)
    assert sorted(torch.cat(list(data.rows.values())).tolist()) == list(range(80))
    (x, target), = data.test_dataloader()
    assert torch.equal(x, data.normalize(data.images[data.rows["test"]]))
    assert all(torch.equal(target[head], data.targets[head][data.rows["test"]]) for head in HEADS)


def test_the_fingerprint_is_of_what_is_used(data, small):
    other = data_of(small, seed=1)
    other.images, other.targets, other.classes = data.images, dict(data.targets), data.classes
    other.rows = dict(data.rows)
    assert other.fingerprint() == data.fingerprint()
    other.targets["vowel_diacritic"] = 6 - data.targets["vowel_diacritic"]
    assert other.fingerprint() != data.fingerprint()


@pytest.mark.parametrize("name, change, says", [
    ("train.csv", lambda t: t.assign(vowel_diacritic=t["vowel_diacritic"].where(t.index != 5, "7")),
     "train.csv:7: vowel_diacritic=7: a number from 0 to 6 is expected"),
    ("train.csv", lambda t: t.assign(grapheme_root=t["grapheme_root"].where(t.index > 1, "ka")),
     "train.csv:2: grapheme_root=ka: a number from 0 to 15 is expected; 1 more like it"),
    ("train.csv", lambda t: pd.concat([t, t[-1:].assign(image_id="Train_x")]),
     "train.csv:82: Train_x has no picture"),
    ("train.csv", lambda t: t[t["image_id"] != "Train_41"], "train_image_data_1.parquet: row 1: "
                                                            "Train_41 is not in train.csv"),
    ("train.csv", lambda t: pd.concat([t, t[2:3]]), "train.csv:82: Train_2 comes twice"),
    ("train.csv", lambda t: t.drop(columns="vowel_diacritic"), "train.csv: has no column "
                                                               "vowel_diacritic"),
    ("class_map.csv", lambda t: t[1:], "class_map.csv: has 15 classes of grapheme_root; "
                                       "data.num_classes says 16"),
    ("class_map.csv", lambda t: t.assign(label=t["label"].replace("3", "2")),
     "class_map.csv: a label of grapheme_root comes twice"),
])
def test_bad_tables(copy, name, change, says):
    edit(copy / name, change)
    assert refused(copy) == says


def write_pictures(path: Path, columns: dict):
    path.unlink()
    pq.write_table(pa.table(columns), path)


def test_a_parquet_with_a_wrong_column_count_from_the_shell(copy):
    write_pictures(copy / "train_image_data_1.parquet",
                   {"image_id": ["Train_40"],
                    **{str(i): np.zeros(1, np.uint8) for i in range(32331)}})
    done = command("mlkit_train", CONFIG, f"data.root={copy}", "data.sample=null",
                   f"runs={copy.parent / 'runs'}", code=2)
    line, = done.stderr.strip().splitlines()
    assert "train_image_data_1.parquet: not a file of pictures that can be read: it has" in line
    assert "it has 32,332 columns" in line
    assert "image_id and 32,332 pixels" in line and not (copy.parent / "runs").exists()


def test_a_truncated_parquet(copy):
    path = copy / "train_image_data_0.parquet"
    content = path.read_bytes()[:-100]
    path.unlink()
    path.write_bytes(content)
    assert refused(copy).startswith("train_image_data_0.parquet: not a file of pictures that can "
                                    "be read: ")


def test_a_parquet_damaged_inside(copy):
    path = copy / "train_image_data_0.parquet"
    content = bytearray(path.read_bytes())
    content[40_000:60_000] = bytes(20_000)
    path.unlink()
    path.write_bytes(content)
    assert refused(copy).startswith("train_image_data_0.parquet: not a file of pictures that can "
                                    "be read: ")


def test_pixels_that_are_no_bytes(copy):
    write_pictures(copy / "train_image_data_0.parquet",
                   {"image_id": ["Train_0"], **{str(i): [0.5] for i in range(32332)}})
    assert "its pixels are not all of type uint8" in refused(copy)


def test_missing_files(copy, tmp_path):
    assert refused(tmp_path / "nowhere").endswith("nowhere: no such folder; with sample=2500 it is "
                                                  "made")
    for path in copy.glob("train_image*"): path.unlink()
    assert refused(copy).endswith("has no train_image_data_*.parquet")


# Squares

def test_crop_pad_resize():
    picture = np.full((137, 236), 240, np.uint8)
    picture[20:60, 100:110] = 40  # tall: 40 rows, 10 columns
    strokes = graphemes.ink(picture)
    assert strokes.min() == 0 and strokes.max() == 255
    assert graphemes.content_box(strokes) == (20, 100, 60, 110)
    square = graphemes.fit_square(strokes, (20, 100, 60, 110), 40, margin=0)
    assert (square[:, 15:25] == 255).all() and not square[:, :15].any() and not square[:, 25:].any()
    wide = graphemes.to_square(picture.T.copy(), 44)
    assert np.array_equal(wide, graphemes.to_square(picture, 44).T)
    inked = np.flatnonzero(wide.max(0))
    assert (inked[0], inked[-1]) == pytest.approx((2, 41), abs=1)  # a margin of 1/20 on each side
    faint = np.full((137, 236), 200, np.uint8) - (240 - picture) // 4
    assert np.array_equal(graphemes.to_square(faint, 40), graphemes.to_square(picture, 40))


def test_an_empty_picture_is_no_mistake():
    assert not graphemes.to_square(np.full((137, 236), 255, np.uint8), 32).any()


def test_a_picture_from_a_file(data, small, tmp_path):
    Image.fromarray(picture_in(small / "train_image_data_1.parquet", 3)).save(tmp_path / "43.png")
    assert torch.equal(data.read_image(tmp_path / "43.png"), data.normalize(data.images[43]))


# Nets

BACKBONES = dict(mobilenet="MobileNet", densenet="DenseNet", se_resnext="SEResNeXt")


@pytest.mark.parametrize("word", BACKBONES)
def test_a_word_swaps_the_backbone(word):
    net = build(load_config(CONFIG, f"model/graphemes_backbone={word}").model.net)
    assert type(net.backbone).__name__ == BACKBONES[word]
    x = torch.randn(2, 1, 48, 48)
    assert net.backbone(x).shape[:2] == (2, net.backbone.num_features)
    assert {head: tuple(o.shape) for head, o in net(x).items()} == {head: (2, n)
                                                                    for head, n in SIZES.items()}
    sum(o.sum() for o in net(x).values()).backward()
    assert all(p.grad is not None for p in net.parameters())


def test_mobilenet_convolves_each_channel_by_itself():
    convs = [o for o in graphemes.MobileNet().modules() if isinstance(o, nn.Conv2d)
             and o.kernel_size == (3, 3)]
    assert all(o.groups == o.in_channels for o in convs[1:]) and len(convs) == 8


def test_densenet_hands_everything_on():
    layer = graphemes.DenseLayer(6, 4).eval()
    x = torch.randn(2, 6, 5, 5)
    assert layer(x).shape == (2, 10, 5, 5) and torch.equal(layer(x)[:, :6], x)


def test_squeeze_and_excite_weighs_channels():
    x, squeeze = torch.randn(2, 16, 5, 5), graphemes.SqueezeExcite(16)
    factor = (squeeze(x) / x)[:, :, 0, 0]
    assert torch.allclose(squeeze(x), x * factor[:, :, None, None]) and (factor > 0).all()
    assert (factor < 1).all()


def test_nets_of_other_libraries_by_path(tmp_path, monkeypatch):
    (tmp_path / "borrowed_nets.py").write_text("""
from torch import nn
class WithFeatures(nn.Module):
    def __init__(self, width: int = 20):
        super().__init__()
        self.features, self.classifier = nn.Conv2d(3, width, 3), nn.Linear(width, 1000)
class WithLastLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 12, 3), nn.Linear(12, 1000)
    def forward(self, x): return self.fc(self.conv(x).mean((2, 3)))
""")
    monkeypatch.syspath_prepend(tmp_path)
    for name, more, n in (("WithFeatures", ["model.net.backbone.net.width=24"], 24),
                          ("WithLastLayer", [], 12)):
        cfg = load_config(CONFIG, "model/graphemes_backbone=features",
                          f"model.net.backbone.net._target_=borrowed_nets.{name}",
                          *(f"+{o}" for o in more), trust=["borrowed_nets"])
        net = build(cfg.model.net)
        assert net.num_features == n
        assert net(torch.randn(2, 1, 48, 48))["vowel_diacritic"].shape == (2, 7)
    with pytest.raises(ValueError, match="ReLU has none of features"): graphemes.Features(nn.ReLU())


def test_the_head_is_as_the_config_says():
    cfg = load_config(CONFIG, "model.net.hidden=[512,256]", "model.net.act._target_=torch.nn.SELU",
                      "model.net.dropout=0.4",
                      "model.net.init._target_=torch.nn.init.kaiming_normal_")
    net = build(cfg.model.net)
    layers = list(net.heads["to_grapheme_root"].modules())
    linear = [o for o in layers if isinstance(o, nn.Linear)]
    assert [o.out_features for o in linear] == [512, 256, 16]
    assert sum(isinstance(o, nn.BatchNorm1d) for o in layers) == 2
    assert sum(isinstance(o, nn.SELU) for o in layers) == 2
    assert {o.p for o in layers if isinstance(o, nn.Dropout)} == {0.4}
    assert linear[1].weight.std().item() == pytest.approx(math.sqrt(2 / 512), rel=0.03)
    xavier = build(load_config(CONFIG,
                               "model.net.hidden=[512,256]").model.net).heads["to_grapheme_root"]
    weight = [o for o in xavier.modules() if isinstance(o, nn.Linear)][1].weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (512 + 256)), rel=0.03)
    plain = build(load_config(CONFIG, "model.net.hidden=[64]", "model.net.norm=null").model.net)
    assert not any(isinstance(o, nn.BatchNorm1d) for o in plain.heads.modules())


# Losses and measures

@pytest.fixture
def answer():
    "Logits, class numbers, and a weight a class."
    torch.manual_seed(1)
    logits, target = 3 * torch.randn(50, 7, dtype=torch.float64), torch.randint(7, (50,))
    return logits, target, torch.rand(7, dtype=torch.float64) + 0.5


def each(logits, target, weight) -> list[tuple[float, float, float]]:
    "Of each sample: the weight, the right class's probability, the classes' mean weighted -log p."
    out = []
    for row, t in zip(logits.tolist(), target.tolist()):
        total = sum(math.exp(o) for o in row)
        p = [math.exp(o) / total for o in row]
        out.append((weight[t].item(), p[t],
                    sum(w * -math.log(o) for w, o in zip(weight.tolist(), p)) / 7))
    return out


def loss_of(cls, weight, *args, **kwargs):
    loss = cls(7, *args, **kwargs).double()
    loss.weight.copy_(weight)
    return loss


def test_losses_agree_with_a_plain_loop(answer):
    logits, target, weight = answer
    samples = each(logits, target, weight)
    plain = [w * -math.log(p) for w, p, _ in samples]
    norm = sum(w for w, _, _ in samples)
    wanted = {
        (graphemes.CrossEntropy, ()): sum(plain) / norm,
        (graphemes.CrossEntropy,
         (0.1,)): (0.9 * sum(plain) + 0.1 * sum(s for _, _, s in samples)) / norm,
        (graphemes.Focal, (2.0,)): sum(w * (1 - p) ** 2 * -math.log(p) for w, p, _ in samples) / 50,
        (graphemes.Focal, (0.0,)): sum(plain) / 50,
        (graphemes.HardExamples, (0.5,)): sum(sorted(plain)[-25:]) / 25,
        (graphemes.HardExamples, (0.11,)): sum(sorted(plain)[-6:]) / 6,
    }
    for (cls, args), value in wanted.items():
        loss = loss_of(cls, weight, *args)(logits, target)
        assert loss.item() == pytest.approx(value, abs=1e-6), (cls, args)
    with pytest.raises(ValueError, match="keep=0 is no share"): graphemes.HardExamples(7, keep=0)


def test_focal_loss_has_gradients_where_all_is_right_or_wrong():
    logits = torch.tensor([[200.0, 0.0], [-200.0, 0.0]], requires_grad=True)
    graphemes.Focal(2)(logits, torch.tensor([0, 0])).backward()
    assert logits.grad.isfinite().all() and logits.grad[1].abs().sum() > 0


def test_class_weights_agree_with_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight
    target = torch.randint(6, (200,), generator=torch.Generator().manual_seed(0)) ** 2 // 6
    there = np.unique(target)
    found = graphemes.class_weights(target, 6)
    wanted = compute_class_weight("balanced", classes=there, y=target.numpy())
    assert found[there].tolist() == pytest.approx(wanted.tolist(), abs=1e-6)
    assert found[[i for i in range(6) if i not in there]].eq(1).all() and len(there) < 6
    assert torch.allclose(graphemes.class_weights(target, 6, power=0.5), found.sqrt())


def test_recall_agrees_with_scikit_learn():
    from sklearn.metrics import recall_score
    torch.manual_seed(0)
    batches = [({h: torch.randn(40, n) for h, n in SIZES.items()},
                {h: torch.randint(n, (40,)) for h, n in SIZES.items()}) for _ in range(3)]
    total, single = graphemes.WeightedRecall(SIZES), {h: graphemes.MacroRecall(n)
                                                      for h, n in SIZES.items()}
    for logits, target in batches:
        total.update(logits, target)
        for h, metric in single.items(): metric.update(logits[h], target[h])
    true, said = ({h: torch.cat([f(b, h) for b in batches]) for h in HEADS}
                  for f in (lambda b, h: b[1][h], lambda b, h: b[0][h].argmax(1)))
    wanted = {h: recall_score(true[h], said[h], average="macro") for h in HEADS}
    assert {h: o.compute().item() for h, o in single.items()} == pytest.approx(wanted, abs=1e-6)
    assert total.compute().item() == pytest.approx(np.average([wanted[h] for h in HEADS],
                                                              weights=[2, 1, 1]), abs=1e-6)
    total.reset()
    total.update({h: nn.functional.one_hot(o, SIZES[h]).float() for h, o in batches[0][1].items()},
                 batches[0][1])
    assert total.compute() == 1  # nothing is left; classes that do not occur do not count


LOSSES = dict(cross_entropy=("CrossEntropy", {"smoothing": 0.0}),
              label_smoothing=("CrossEntropy", {"smoothing": 0.1}),
              focal=("Focal", {"gamma": 2.0}), hard_examples=("HardExamples", {"keep": 0.5}))


@pytest.mark.parametrize("word", LOSSES)
def test_a_word_swaps_the_loss(word):
    loss, (name,
           values) = build(load_config(CONFIG,
                                       f"model/graphemes_loss={word}").model.loss), LOSSES[word]
    for head, n in SIZES.items():
        one = loss.losses[head]
        assert type(one).__name__ == name and len(one.weight) == n
        assert values.items() <= vars(one).items()
    assert loss.weights == {"grapheme_root": 2.0}


def test_one_head_has_another_loss():
    cfg = load_config(CONFIG, "+model.loss.instead.vowel_diacritic={_target_: "
                              "mlkit.recipes.graphemes.Focal, _partial_: true, gamma: 3.0}")
    losses = build(cfg.model.loss).losses
    assert [type(losses[h]).__name__ for h in HEADS] == ["CrossEntropy", "Focal", "CrossEntropy"]
    assert losses["vowel_diacritic"].gamma == 3
    with pytest.raises(ValueError, match="no head vowel among"):
        graphemes.each_head(graphemes.Focal, SIZES, instead=dict(vowel=graphemes.Focal))


# Augmentation

def test_everything_is_in_the_config():
    found = build(load_config(CONFIG, "model/graphemes_augment=all").model.augment)
    kinds = {type(o).__name__ for o in found.modules()}
    assert {"RandomAffine", "RandomBlur", "RandomNoise", "Cutout", "GridMask", "MixUp",
            "CutMix"} <= kinds
    assert build(load_config(CONFIG, "model/graphemes_augment=none").model).augment is None


@pytest.mark.parametrize("mix", [MixUp(p=1.0), CutMix(p=1.0)])
def test_a_mixed_batch_has_the_loss_of_both_targets(mix):
    "For each head, by the share of the picture that each target has."
    torch.manual_seed(0)
    x, target = torch.randn(8, 1, 48, 48), {h: torch.randint(n, (8,)) for h, n in SIZES.items()}
    mixed, both = mix(x, target)
    a, b, w = both.a, both.b, both.weight
    assert all(sorted(b[h].tolist()) == sorted(target[h].tolist()) for h in HEADS)
    assert all(torch.equal(a[h], target[h]) for h in HEADS)
    model = build(load_config(CONFIG).model).eval()
    loss, logits, _ = model.step((mixed, both))
    entropy = nn.functional.cross_entropy
    wanted = sum((2 if h == HEADS[0] else 1)
                 * (w * entropy(logits[h], a[h]) + (1 - w) * entropy(logits[h], b[h]))
                 for h in HEADS)
    assert loss["loss"].item() == pytest.approx(wanted.item(), abs=1e-5)


# The config and the run

def test_environment_over_yaml_over_defaults(monkeypatch):
    default = load_config(CONFIG).optimizer
    monkeypatch.setenv("MLKIT_optimizer__lr", "0.5")
    assert (default.lr, default.weight_decay) == (0.008, 0.01)  # the recipe's, the packaged default
    assert load_config(CONFIG).optimizer.lr == 0.5
    assert load_config(CONFIG, "optimizer.lr=0.25").optimizer.lr == 0.25


def test_real_sizes_by_one_word():
    cfg = load_config(CONFIG, "data=graphemes_kaggle", "data.root=/data/bengaliai-cv19")
    sizes = dict(zip(HEADS, (168, 11, 7)))
    assert {h: o.shape[1]
            for h, o in build(cfg.model.net)(torch.randn(2, 1, 96, 96)).items()} == sizes
    assert {h: len(o.weight) for h, o in build(cfg.model.loss).losses.items()} == sizes
    assert cfg.data.sample is None


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    "A short training with everything that is an option."
    return train(CONFIG, f"data.root={small}", "data.sample=null", "data.size=32",
                 "trainer.max_epochs=5", "logger=tensorboard",
                 "callbacks=graphemes_backups", "model/graphemes_augment=all",
                 "model/graphemes_backbone=mobilenet",
                 f"runs={tmp_path_factory.mktemp('runs')}")


def test_each_epoch_has_its_learning_rate_and_its_recall(run):
    with open(run.dir / "metrics.csv", newline="") as f: rows = list(csv.DictReader(f))
    rates = {int(o["epoch"]): float(o["lr"]) for o in rows if o["lr"]}
    assert sorted(rates) == [0, 1, 2, 3, 4]
    assert rates[0] < rates[1] > rates[2] > rates[4]  # up, then down: one cycle
    last = next(o for o in reversed(rows) if o["val/recall"])
    parts = [float(last[f"val/{h}/recall"]) for h in HEADS]
    assert float(last["val/recall"]) == pytest.approx(np.average(parts, weights=[2, 1, 1]),
                                                      abs=1e-6)
    assert {"test/recall", *(f"test/{h}/recall" for h in HEADS)} <= set(run.metrics)


def test_backups_stay(run):
    backups = {int(o.stem.partition("=")[2]): torch.load(o, weights_only=True)
               for o in run.dir.glob("checkpoints/backup-epoch=*.ckpt")}
    assert sorted(backups) == [1, 3]
    assert all({"state_dict", "optimizer_states", "lr_schedulers"} <= set(o)
               for o in backups.values())


def test_tensorboard_is_an_option(run):
    assert list((run.dir / "tensorboard").glob("events.out.tfevents*"))


def test_class_weights_are_those_of_the_training_data_and_are_saved(run):
    data = run.datamodule
    weights = load_run(run.dir).model.loss.losses["consonant_diacritic"].weight
    wanted = graphemes.class_weights(data.targets["consonant_diacritic"][data.rows["train"]], 5,
                                     power=0.5)
    assert torch.equal(weights, wanted) and weights.unique().numel() > 1
    assert evaluate(run.dir)["test/loss"] == pytest.approx(run.metrics["test/loss"], abs=1e-6)


def test_class_weights_want_room():
    model = LitModel(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="none of the heads' losses"):
        graphemes.ClassWeights().on_fit_start(None, model)


def test_submission(run, small, tmp_path):
    loaded = load_run(run.dir)
    graphemes.submission(loaded.model, loaded.datamodule, tmp_path / "submission.csv")
    found, asked = pd.read_csv(tmp_path / "submission.csv"), pd.read_csv(small / "test.csv")
    assert list(found) == ["row_id", "target"] and list(found["row_id"]) == list(asked["row_id"])
    squares = {f"Test_{i}": graphemes.to_square(picture_in(small / "test_image_data_0.parquet", i),
                                                32) for i in (0, 4)}
    with torch.inference_mode():
        for o, target in zip(asked.itertuples(), found["target"]):
            if o.image_id not in squares: continue
            x = loaded.datamodule.normalize(torch.from_numpy(squares[o.image_id])[None, None])
            assert loaded.model(x)[o.component].argmax().item() == target


def test_submission_names_a_question_without_a_picture(run, copy):
    edit(copy / "test.csv", lambda t: t.assign(image_id=t["image_id"].replace("Test_4", "Test_9")))
    with pytest.raises(ValueError,
                       match=r"test\.csv:14: image_id Test_9 is unknown; 2 more like it"):
        graphemes.submission(run.model, data_of(copy))


@pytest.mark.slow
def test_the_job(tmp_path, figure):
    run, seconds = job(tmp_path / "runs", "graphemes", f"data.root={tmp_path / 'data'}")
    figure(f"graphemes: test/recall {run.metrics['test/recall']:.4f} in {seconds:.0f} s")
    assert run.metrics["test/recall"] >= 0.90
    assert run.info["best"]["monitor"] == "val/recall"
