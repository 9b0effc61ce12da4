"""Batch augmentations against computations of another kind: scipy for what is interpolated, plain
loops for what is covered, arithmetic on recognisable pictures for what is mixed; then in configs,
in `LitModel`, in training."""
import math

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from scipy import ndimage, stats
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from mlkit.base.errors import TrainingFailed
from mlkit.config.load import load_config
from mlkit.config.node import ConfigError
from mlkit.model.augment import (
    Augment,
    CutMix,
    Cutout,
    GridMask,
    MixUp,
    OneOf,
    PerSample,
    RandomAffine,
    RandomBlur,
    RandomContrast,
    RandomFlip,
    RandomNoise,
)
from mlkit.model.lit import LitModel
from mlkit.model.losses import HeadsLoss, Mixed, accuracy, mixed_loss
from mlkit.model.nets import MLP
from mlkit.parts.build import build
from mlkit.parts.check import find_problems
from mlkit.train import resume, train

PER_SAMPLE = dict(affine=lambda p=1.: RandomAffine(shear=5., p=p),
                  flip=lambda p=1.: RandomFlip(vertical=True, p=p),
                  blur=lambda p=1.: RandomBlur((0.5, 2.), p=p),
                  noise=lambda p=1.: RandomNoise((0.1, 0.2), p=p),
                  contrast=lambda p=1.: RandomContrast(p=p), cutout=lambda p=1.: Cutout(p=p),
                  grid=lambda p=1.: GridMask(p=p))
MIXING = dict(mixup=lambda p=1.: MixUp(p=p), cutmix=lambda p=1.: CutMix(p=p))
ALL = PER_SAMPLE | MIXING


@pytest.fixture(params=ALL)
def make(request): return ALL[request.param]


@pytest.fixture(params=PER_SAMPLE)
def per_sample(request): return PER_SAMPLE[request.param]


@pytest.fixture(autouse=True)
def seeded(): torch.manual_seed(0)


def pictures(n=16, c=2, h=20, w=26):
    return torch.randn(n, c, h, w, generator=torch.Generator().manual_seed(1))


def call(transform, x, target=None, seed=7):
    "From a known state of the generator."
    torch.manual_seed(seed)
    return transform(x, target)


# -- what holds for all of them

def test_same_state_of_the_generator_same_result(make):
    x, y = pictures(), torch.arange(16)
    first, again, other = (call(make(), x, y, seed) for seed in (7, 7, 8))
    assert first[0].equal(again[0]) and str(first[1]) == str(again[1])
    assert not first[0].equal(other[0])


def test_p_0_changes_nothing(make):
    x, y = pictures(), torch.arange(16)
    got, target = make(p=0.)(x, y)
    assert got.equal(x) and target is y


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtype_and_shape_are_kept(make, dtype):
    x = pictures()
    (got, _), (wide, _) = call(make(), x.to(dtype)), call(make(), x.to(dtype).float())
    assert got.dtype == dtype and got.shape == x.shape
    # the noise of another type is another draw
    if make is ALL["noise"]: assert got.isfinite().all()
    else:
        torch.testing.assert_close(got.float(), wide, rtol=2 * torch.finfo(dtype).eps,
                                   atol=2e-5 + torch.finfo(dtype).eps)


def test_autocast_changes_nothing(make):
    x = pictures()
    with torch.autocast("cpu", torch.bfloat16): inside = call(make(), x)[0]
    assert inside.dtype == torch.float32 and inside.equal(call(make(), x)[0])


def test_what_was_given_is_not_changed(make):
    x, mask = pictures(), torch.randint(5, (16, 20, 26))
    before = x.clone(), mask.clone()
    assert not make()(x, mask)[0].equal(x)
    assert x.equal(before[0]) and mask.equal(before[1])


def test_memory_format_and_tiny_pictures(make):
    x = pictures()
    last = call(make(), x.contiguous(memory_format=torch.channels_last))[0]
    if make is not ALL["noise"]: torch.testing.assert_close(last, call(make(), x)[0])
    for h, w in [(1, 1), (2, 5), (3, 1)]:
        assert make()(torch.randn(3, 1, h, w))[0].shape == (3, 1, h, w)
    assert make()(torch.zeros(0, 1, 8, 8), torch.zeros(0))[0].shape == (0, 1, 8, 8)


def test_each_sample_draws_for_itself(per_sample):
    same = pictures(1).expand(16, -1, -1, -1)
    got = call(per_sample(), same)[0]
    assert len({o.numpy().tobytes() for o in got}) >= (3 if per_sample is PER_SAMPLE["flip"]
                                                       else 14)
    others = torch.cat([same[:1], pictures(15) + 3])
    assert call(per_sample(), others)[0][0].equal(got[0])  # whatever the rest of the batch


def test_p_is_the_chance_of_a_sample(per_sample):
    x = pictures(1, 1, 9, 9).expand(2000, -1, -1, -1)
    got = per_sample(p=0.3)(x)[0]
    changed = (got != x).flatten(1).any(1).float().mean().item()
    assert abs(changed - 0.3) < 0.05 and 0 < changed


def test_p_is_the_chance_of_a_batch():
    for make in MIXING.values():
        mixed = [isinstance(make(p=0.3)(torch.zeros(2, 1, 2, 2))[1], Mixed) for _ in range(600)]
        assert abs(np.mean(mixed) - 0.3) < 0.07


@pytest.mark.parametrize("call", [
    lambda: RandomAffine(degrees=-1), lambda: RandomAffine(translate=1.1),
    lambda: RandomAffine(scale=(1.1, 0.9)),
    lambda: RandomAffine(scale=(0., 1.)), lambda: RandomAffine(shear=90), lambda: RandomAffine(p=2),
    lambda: RandomAffine(scale=(1., 1., 1.)), lambda: RandomFlip(False, False),
    lambda: RandomFlip(p=-0.1),
    lambda: RandomBlur((-1., 1.)), lambda: RandomBlur((1., math.inf)),
    lambda: RandomNoise((0.2, 0.1)),
    lambda: RandomContrast(brightness=-1), lambda: RandomContrast(contrast=1.5),
    lambda: Cutout(size=0), lambda: Cutout(n=0),
    lambda: GridMask(cells=(0, 3)), lambda: GridMask(ratio=1.), lambda: MixUp(alpha=0),
    lambda: MixUp(p=math.nan),
    lambda: CutMix(alpha=math.inf), lambda: OneOf(), lambda: Cutout()(torch.zeros(3, 8, 8)),
    lambda: MixUp()(torch.zeros(3, 1, 8, 8, dtype=torch.uint8)), lambda: RandomFlip()([1]),
    lambda: MixUp(p=1.)(torch.zeros(3, 1, 8, 8), torch.zeros(4)),
    lambda: CutMix(p=1.)(torch.zeros(3, 1, 8, 8), ["a"])])
def test_bad_values_are_one_line(call):
    with pytest.raises(ValueError,
                       match=r"^(Random\w+|Cutout|GridMask|MixUp|CutMix|OneOf): .") as e:
        call()
    assert "\n" not in str(e.value)


# -- moving, against scipy

def in_pixels(theta: np.ndarray, h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    "Matrix and offset, (row, column), from pixels of the output to pixels of the input."
    # from sides of length 2 to pixels, (x, y)
    a = theta[:, :2] * np.array([[1, w / h], [h / w, 1]])
    a, shift = a[::-1, ::-1], (theta[:, 2] * [w / 2, h / 2])[::-1]
    centre = (np.array([h, w]) - 1) / 2
    return a, centre + shift - a @ centre


def test_affine_is_scipys_and_keeps_its_limits():
    t, x, (h, w) = RandomAffine(25., 0.2, (0.7, 1.4), shear=0., fill=0.3), pictures(), (20, 26)
    theta, = t.draw(16, h, w)
    expected = np.empty_like(x.numpy())
    for i, o in enumerate(theta.double().numpy()):
        a, offset = in_pixels(o, h, w)
        for c in range(2):
            expected[i, c] = ndimage.affine_transform(x[i, c].numpy(), a, offset, order=1,
                                                      mode="grid-constant", cval=0.3)
        zoom = 1 / math.sqrt(np.linalg.det(a))
        np.testing.assert_allclose(a @ a.T * zoom ** 2, np.eye(2), atol=1e-5)  # a turn, in pixels
        assert 0.7 <= zoom <= 1.4 and abs(math.atan2(a[1, 0], a[0, 0])) <= math.radians(25)
        # where the centre went
        moved = -np.linalg.solve(a, np.array([o[1, 2] * h / 2, o[0, 2] * w / 2]))
        assert (np.abs(moved) <= [0.2 * h + 1e-4, 0.2 * w + 1e-4]).all()
    torch.testing.assert_close(t.change(x, theta), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


def test_affine_draws_from_all_of_its_limits():
    theta = RandomAffine(25., 0., (0.7, 1.4)).draw(4000, 20, 20)[0].double()
    zoom, angle = theta[:, :, :2].det() ** -0.5, torch.atan2(theta[:, 0, 1], theta[:, 0, 0])
    assert stats.kstest((zoom - 0.7) / 0.7, "uniform").pvalue > 1e-3
    assert stats.kstest((angle / math.radians(25) + 1) / 2, "uniform").pvalue > 1e-3
    slanted = RandomAffine(0., 0., (1., 1.), shear=30.).draw(4000, 20, 20)[0].double()
    torch.testing.assert_close(slanted[:, :, 0], torch.tensor([1., 0.]).double().expand(4000, 2),
                               rtol=0, atol=1e-6)
    assert stats.kstest((slanted[:, 0, 1].atan() / math.radians(30) + 1) / 2,
                        "uniform").pvalue > 1e-3


def test_a_disc_stays_a_disc_where_a_picture_is_not_square():
    i, j = np.mgrid[:32, :64]
    disc = torch.from_numpy(np.clip(10.5 - np.hypot(i - 15.5, j - 31.5), 0, 1)).float().expand(50,
                                                                                               1,
                                                                                               -1,
                                                                                               -1)
    turned = RandomAffine(180., 0., (1., 1.))(disc)[0]
    assert (turned - disc).abs().mean() < 0.01 and (turned - disc).abs().max() < 0.5
    assert (turned[0] != disc[0]).any()


@pytest.mark.parametrize("shape",
                         [(16, 20, 26), (16, 1, 20, 26), (16, 3, 20, 26), (16, 2, 3, 20, 26)])
@pytest.mark.parametrize("dtype",
                         [torch.int64, torch.uint8, torch.bool, torch.float32, torch.float64])
def test_targets_move_with_the_pictures(shape, dtype):
    t, x = RandomAffine(40., shear=10., fill=5.), pictures()
    target = ((torch.rand(shape) * 7).to(dtype) if dtype.is_floating_point
              else torch.randint(2 if dtype == torch.bool else 7, shape).to(dtype))
    _, moved = call(t, x, {"mask": target, "kind": torch.arange(16)})
    torch.manual_seed(7); torch.rand(16)  # the chances, before what is drawn for each
    expected = np.empty(shape)
    for i, o in enumerate(t.draw(16, 20, 26)[0].double().numpy()):
        flat, out = target[i].reshape(-1, 20,
                                      26).numpy().astype(float), expected[i].reshape(-1, 20, 26)
        for c in range(len(flat)):
            out[c] = ndimage.affine_transform(flat[c], *in_pixels(o, 20, 26),
                                              order=int(dtype.is_floating_point),
                                              mode="grid-constant")
    got = moved["mask"]
    assert got.dtype == dtype and got.shape == shape and moved["kind"].equal(torch.arange(16))
    wrong = ~np.isclose(got.numpy().astype(float), expected, atol=1e-3)
    # half-way between two pixels, rounding decides
    assert wrong.mean() < (1e-9 if dtype.is_floating_point else 1e-3)


def test_flips_move_all_that_has_pixels():
    x, mask = pictures(400, 1, 3, 4), torch.arange(400 * 12).view(400, 3, 4)
    got, target = RandomFlip(vertical=True,
                             p=0.75)(x, Mixed({"m": mask, "k": mask[:, 0, 0]}, None, 0.6))
    ways = [x, x.flip(-1), x.flip(-2), x.flip(-1, -2)]
    which = torch.stack([(got == o).flatten(1).all(1) for o in ways], 1)
    # each a quarter
    assert which.sum(1).eq(1).all() and stats.chisquare(which.sum(0)).pvalue > 1e-3
    moved = torch.stack([mask, mask.flip(-1), mask.flip(-2), mask.flip(-1, -2)], 1)[which]
    assert (target.a["m"].equal(moved) and target.a["k"].equal(mask[:, 0, 0])
            and target.weight == 0.6)
    assert RandomFlip(False, True, p=1.)(x)[0].equal(x.flip(-2))


def test_targets_without_pixels_stay_as_they_are(per_sample):
    x = pictures()
    for target in (None, torch.arange(16), torch.rand(16, 26), torch.rand(16, 3, 20, 25),
                   ["a"] * 16, "a"):
        assert per_sample()(x, target)[1] is target


# -- blur, noise, light

@pytest.mark.parametrize("sigma", [0.4, 1., 2.3])
def test_blur_is_scipys(sigma):
    x = pictures()
    expected = np.stack(
        [[ndimage.gaussian_filter(o, sigma, mode="nearest", radius=math.ceil(3 * sigma)) for o in s]
         for s in x.double().numpy()])
    torch.testing.assert_close(RandomBlur((sigma, sigma), p=1.)(x)[0].double(),
                               torch.from_numpy(expected), rtol=1e-5, atol=1e-6)


def test_each_blur_has_a_width_of_its_own():
    point = torch.zeros(500, 1, 1, 31); point[..., 15] = 1
    spot = RandomBlur((0., 1.5), p=1.)(point)[0][:, 0, 0].double()
    width = ((spot * (torch.arange(31) - 15.) ** 2).sum(1) / spot.sum(1)).sqrt()
    torch.testing.assert_close(spot.sum(1), torch.ones(500).double(), rtol=0, atol=1e-5)
    assert width.max() < 1.5 and width.max() > 1.4 and width.min() < 0.1
    # a Gaussian on pixels has its own standard deviation only where it spans some
    wide = width[width > 0.6]
    assert stats.kstest(((wide - 0.6) / 0.9).clamp(0, 1), "uniform").pvalue > 1e-3


def test_noise_has_the_width_of_each_sample():
    noise = RandomNoise((0.1, 0.5), p=1.)(torch.zeros(500, 1, 40, 40))[0].flatten(1).double()
    assert stats.kstest((noise.std(1) - 0.1) / 0.4, "uniform").pvalue > 1e-3
    assert stats.kstest((noise / noise.std(1, keepdim=True)).flatten()[:5000], "norm").pvalue > 1e-3
    assert abs(noise.mean()) < 0.01


def test_contrast_stretches_about_the_mean():
    x = pictures(500).double()
    got = RandomContrast(0.3, 0.4, p=1.)(x)[0]
    for before, after in zip(x[:20], got):
        assert abs(stats.linregress(before.flatten(), after.flatten()).rvalue - 1) < 1e-9
    added, factor = (got - x).mean((1, 2, 3)), got.std((1, 2, 3)) / x.std((1, 2, 3))
    assert stats.kstest(added / 0.6 + 0.5, "uniform").pvalue > 1e-3
    assert stats.kstest((factor - 0.6) / 0.8, "uniform").pvalue > 1e-3


# -- covering, against loops

def squares_that_explain(covered: np.ndarray, side: int) -> list[tuple[int, int]]:
    "All places (of the centre, as drawn) where one square would cover exactly this."
    h, w = covered.shape
    found = []
    for i in range(h):
        for j in range(w):
            top, left = i - side // 2, j - side // 2
            expected = np.array([[top <= r < top + side and left <= c < left + side
                                  for c in range(w)] for r in range(h)])
            if (expected == covered).all(): found.append((i, j))
    return found


@pytest.mark.parametrize("side", [3, 4])
def test_cutout_covers_one_square_around_a_pixel(side):
    x = torch.rand(60, 2, 8, 10)
    got = Cutout(side / 8, fill=-1., p=1.)(x)[0]
    covered = (got == -1)
    assert got[~covered].equal(x[~covered]) and covered[:, 0].equal(covered[:, 1])
    places = [squares_that_explain(o.numpy(), side) for o in covered[:, 0]]
    assert all(len(o) == 1 for o in places) and len({o[0] for o in places}) > 30
    assert ({o[0][0] for o in places} == set(range(8))
            and {o[0][1] for o in places} == set(range(10)))


def test_cutout_covers_several():
    covered = Cutout(0.25, n=5, fill=9., p=1.)(torch.zeros(50, 1, 16, 16))[0][:, 0] == 9
    pieces = [ndimage.label(o.numpy())[1] for o in covered]
    assert max(pieces) in (4, 5) and min(pieces) >= 1 and covered.sum((1, 2)).max() <= 5 * 16


@pytest.mark.parametrize("ratio", [0.5, 0.3, 0.75])
def test_grid_mask_is_a_grid(ratio):
    got = GridMask((2, 4), ratio, fill=-1., p=1.)(torch.rand(40, 2, 12, 17))[0] == -1
    assert got[:, 0].equal(got[:, 1])
    def grid(d, top, left):
        side = round(d * (1 - ratio))
        return np.array([[(r + top) % d < side and (c + left) % d < side for c in range(17)]
                         for r in range(12)])
    # 2, 3 or 4 cells in 12 pixels
    known = {grid(d, i, j).tobytes(): d for d in (6, 4, 3) for i in range(d) for j in range(d)}
    found = [known.get(o.numpy().tobytes()) for o in got[:, 0]]
    assert set(found) == {6, 4, 3} and len({o.numpy().tobytes() for o in got[:, 0]}) > 15


def test_grid_mask_leaves_something_of_each_cell_and_covers_something():
    for ratio in (0.01, 0.99):
        share = (GridMask((3, 7), ratio, fill=9.,
                          p=1.)(torch.zeros(50, 1, 28, 28))[0] == 9).float().mean((1, 2, 3))
        assert share.min() > 0 and share.max() < 1


# -- mixing

def test_mixup_is_the_weighted_sum():
    x, y, heads = pictures(), torch.arange(16), dict(root=torch.arange(16), vowel=torch.rand(16, 3))
    got, target = MixUp(p=1.)(x, y)
    assert target.a is y and target.b.sort()[0].equal(y) and not target.b.equal(y)
    torch.testing.assert_close(got, target.weight * x + (1 - target.weight) * x[target.b])
    _, target = MixUp(p=1.)(x, heads)
    assert (all(target.a[k] is heads[k] for k in heads) and target.a["root"].dtype
            == target.b["root"].dtype == torch.int64)
    assert target.b["vowel"].equal(heads["vowel"][target.b["root"]])
    assert MixUp(p=1.)(x)[1][:2] == (None, None)


@pytest.mark.parametrize("alpha", [0.4, 1., 3.])
def test_mixup_draws_its_weight_from_a_beta_distribution(alpha):
    weights = [MixUp(alpha, p=1.)(torch.zeros(2, 1, 1, 1))[1].weight for _ in range(1000)]
    beta = stats.beta(alpha, alpha)  # of the weight, or of the rest, whichever is more
    assert (min(weights) >= 0.5
            and stats.kstest(weights, lambda w: beta.cdf(w) - beta.cdf(1 - w)).pvalue > 1e-3)


def test_cutmix_pastes_a_box_and_weighs_what_was_kept():
    x, y, clipped = torch.arange(16.).view(16, 1, 1, 1).expand(-1, 2, 20, 30), torch.arange(16), 0
    shapes = set()
    for _ in range(60):
        got, target = CutMix(p=1.)(x, y)
        assert target.a is y and target.b.sort()[0].equal(y)
        moved = (target.b != y).nonzero()[0, 0]
        box = (got[moved, 0] != x[moved, 0]).nonzero()
        if not len(box): assert target.weight == 1; continue
        (top, left), (bottom, right) = box.min(0)[0].tolist(), (box.max(0)[0] + 1).tolist()
        expected = x.clone()
        for r in range(top, bottom):
            for c in range(left, right): expected[:, :, r, c] = x[target.b][:, :, r, c]
        assert got.equal(expected)
        assert (target.weight == pytest.approx(1 - (bottom - top) * (right - left) / 600, abs=1e-6)
                and target.weight >= 0.5)
        inner = top > 0 and left > 0 and bottom < 20 and right < 30
        if inner: assert abs((right - left) - 1.5 * (bottom - top)) <= 1.5  # the picture's shape
        clipped += not inner
        shapes.add((bottom - top, right - left))
    assert clipped > 5 and len(shapes) > 20


def test_cutmix_pastes_targets_that_have_pixels():
    x = torch.arange(16.).view(16, 1, 1, 1).expand(-1, 1, 20, 30)
    mask, kind = x[:, 0].long() * 10, torch.arange(16)
    got, target = CutMix(p=1.)(x, dict(mask=mask, kind=kind))
    assert (target.a["mask"].equal(got[:, 0].long() * 10)
            and target.b["mask"].equal(target.a["mask"]))
    assert target.a["kind"] is kind and not target.b["kind"].equal(kind)


def test_mixed_loss_is_the_loss_on_soft_labels():
    logits, y = torch.randn(16, 5, dtype=torch.float64), torch.randint(5, (16,))
    target = MixUp(p=1.)(pictures(), y)[1]
    soft = target.weight * F.one_hot(target.a, 5) + (1 - target.weight) * F.one_hot(target.b, 5)
    for loss in (F.cross_entropy, nn.CrossEntropyLoss(label_smoothing=0.1)):
        assert abs(mixed_loss(loss, logits, target) - loss(logits, soft.double())) < 1e-6
        assert mixed_loss(loss, logits, y) == loss(logits, y)
    # mixed again: four targets, and their weights multiplied
    twice = CutMix(p=1.)(pictures(), target)[1]
    soft = sum(w * v * F.one_hot(o, 5)
               for t, w in ((twice.a, twice.weight), (twice.b, 1 - twice.weight))
               for o, v in ((t.a, t.weight), (t.b, 1 - t.weight)))
    assert abs(mixed_loss(F.cross_entropy, logits,
                          twice) - F.cross_entropy(logits, soft.double())) < 1e-6


def test_mixed_loss_of_several_heads():
    logits = dict(a=torch.randn(16, 5), b=torch.randn(16, 3))
    y = dict(a=torch.randint(5, (16,)), b=torch.randint(3, (16,)))
    target = CutMix(p=1.)(pictures(), y)[1]
    got = mixed_loss(HeadsLoss(weights=dict(b=2.)), logits, target)
    each = {k: target.weight * F.cross_entropy(logits[k],
                                               target.a[k]) + (1 - target.weight) * F.cross_entropy(
                                                   logits[k], target.b[k]) for k in y}
    for k in y: torch.testing.assert_close(got[f"{k}/loss"], each[k])
    torch.testing.assert_close(got["loss"], each["a"] + 2 * each["b"])


# -- together

class Add(PerSample):
    "One's own: adds a number that each sample draws."
    def __init__(self, least: int = 1): super().__init__(1.); self.least = least
    def draw(self, n, h, w): return torch.randint(self.least, self.least + 3, (n,)),
    def change(self, x, number): return x + number.view(-1, 1, 1, 1)


class Double(nn.Module):
    def forward(self, x, target=None): return 2 * x, target


def test_augment_goes_in_order_and_one_of_takes_one():
    x = torch.zeros(300, 1, 2, 2)
    assert set(Augment(Add(), Double())(x)[0].unique().tolist()) == {2., 4., 6.}
    assert set(Augment(Double(), Add())(x)[0].unique().tolist()) == {1., 2., 3.}
    assert Augment()(x, 3)[1] == 3
    either = OneOf(Augment(Add(10)), Augment(Add(100), Double()))
    batches = [either(x)[0].unique().tolist() for _ in range(60)]
    assert {tuple(o) for o in batches} == {(10., 11., 12.), (200., 202., 204.)}


# -- in a model

class Watched(Augment):
    "Knows how often it was called."
    calls = 0
    def forward(self, x, target=None):
        self.calls += 1
        return super().forward(x, target)


def data(n=64):
    return DataLoader(TensorDataset(torch.randn(n, 1, 8, 8), torch.randint(3, (n,))), batch_size=16)


def quiet(**kwargs):
    return pl.Trainer(max_epochs=1, logger=False, enable_checkpointing=False,
                      enable_progress_bar=False,
                      enable_model_summary=False, accelerator="cpu", **kwargs)


def test_only_training_batches_are_augmented():
    model = LitModel(MLP(64, 3, hidden=[8]), augment=Watched(Double()), metrics=dict(acc=accuracy))
    trainer = quiet()
    trainer.fit(model, data(), data())
    assert model.augment.calls == 4
    trainer.test(model, data(), verbose=False)
    trainer.predict(model, data())
    assert model.augment.calls == 4
    # old checkpoints fit
    assert model.state_dict().keys() == LitModel(MLP(64, 3, hidden=[8])).state_dict().keys()


def test_metrics_see_the_target_that_weighs_more():
    net = nn.Flatten()  # its logits are the picture
    x, y = F.one_hot(torch.arange(3), 3).float()[:, None, None], torch.arange(3)
    import torchmetrics
    model = LitModel(net,
                     metrics=dict(acc=accuracy,
                                  acc2=torchmetrics.Accuracy("multiclass", num_classes=3)))
    target = Mixed(Mixed(y, y.flip(0), 0.6), y.roll(1), 0.7)
    loss = model._shared_step((x, target), "train")
    torch.testing.assert_close(loss, mixed_loss(F.cross_entropy, net(x), target))
    assert (model.means["train"].compute()["acc"] == 1
            and model.metrics["train_"]["acc2"].compute() == 1)


@pytest.mark.parametrize("batch, what",
                         [(dict(x=1, y=2), "a dict of 2"),
                          (torch.zeros(5, 1, 2, 2), "a Tensor of 5"), ((1, 2, 3), "a tuple of 3")])
def test_batches_that_are_no_pairs_are_one_line(batch, what):
    model = LitModel(nn.Flatten(), augment=Augment())
    with pytest.raises(ValueError,
                       match=rf"^augment wants batches \(x, target\), not {what}; [^\n]*$"):
        model.training_step(batch, 0)


# -- in a config, and in a run

CONFIG = """
defaults: [{data: mnist}, {model: classifier}]
model:
  net: {_target_: mlkit.model.nets.MLP, in_shape: [1, 28, 28], num_classes: 10, hidden: [16]}
  augment:
    _target_: mlkit.model.augment.Augment
    _args_:
      - {_target_: mlkit.model.augment.RandomAffine, degrees: 15, scale: [0.9, 1.1]}
      - _target_: mlkit.model.augment.OneOf
        _args_: [{_target_: mlkit.model.augment.GridMask, cells: [3, 5], p: 1.0}, {_target_: \
mlkit.model.augment.RandomNoise}]
      - {_target_: mlkit.model.augment.MixUp, p: 0.5}
trainer: {max_epochs: 1, limit_train_batches: 12, limit_val_batches: 2, limit_test_batches: 2}
callbacks: {progress: null, checkpoint: {every_n_steps: 3}}
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "a.yaml").write_text(CONFIG + f"runs: {tmp_path / 'runs'}\n")
    return tmp_path / "a.yaml"


def test_a_config_names_transforms_in_lists(config):
    cfg = load_config(config)
    assert not find_problems(cfg)
    affine, one_of, mixup = build(cfg.model).augment.transforms
    assert (affine.degrees, list(affine.scale), mixup.alpha, mixup.p) == (15, [0.9, 1.1], 0.4, 0.5)
    assert ([type(o) for o in one_of.transforms] == [GridMask, RandomNoise]
            and list(one_of.transforms[0].cells) == [3, 5])
    assert build(load_config(config, "model.augment=null").model).augment is None


@pytest.mark.parametrize("override, said", {
    "model.augment._args_.0.degreez=3": "RandomAffine has no argument 'degreez'; did you mean "
                                        "'degrees'?",
    "model.augment._args_.0.scale=[1,2,3]": "wants tuple[float, float], got [1, 2, 3]",
    "model.augment._args_.1._args_.0=3": "OneOf wants torch.nn.Module, got 3",
    "++model.augment._args_.2={_target_: mlkit.model.augment.MixUpp}": "did you mean 'MixUp'?",
    "model.augment._args_.2={_target_: torch.optim.Adam, p: null}": "",
    "model.augment.transforms=3": "Augment has no argument 'transforms'"}.items())
def test_mistakes_in_a_list_of_transforms_are_named(config, override, said):
    try: problems = str(find_problems(load_config(config, override)))
    except ConfigError as e: problems = str(e)
    assert said in problems and "model.augment" in problems and "command line" in problems


class Breaks(pl.Callback):
    "Ends a run in the middle of an epoch, once."
    at = None
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == Breaks.at: Breaks.at = None; raise RuntimeError("broken")


def weights(run): return torch.load(run.checkpoint("last"), weights_only=True)["state_dict"]


def same(a, b): return a.keys() == b.keys() and all(v.equal(b[k]) for k, v in a.items())


def test_training_is_repeated_and_resumed_bit_by_bit(config):
    breaks = f"+callbacks.breaks={{_target_: {__name__.rpartition('.')[2]}.Breaks}}"
    whole, again, plain = train(str(config),
                                breaks), train(str(config),
                                               breaks), train(str(config), breaks,
                                                              "model.augment=null")
    assert whole.status == "done" and whole.metrics["test/loss"] < 2.3
    assert same(weights(whole), weights(again)) and not same(weights(whole), weights(plain))
    Breaks.at = 7  # the newest checkpoint is then from after 6 batches
    with pytest.raises(TrainingFailed, match="broken") as failed: train(str(config), breaks)
    resumed = resume(failed.value.run.dir)
    assert resumed.metrics == whole.metrics and same(weights(resumed), weights(whole))
