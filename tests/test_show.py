"Losses and tables by hand, confusion against scikit-learn, pictures without a warning."
import io
import math
import warnings

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix as sk_confusion
from sklearn.metrics import f1_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from mlkit.base.errors import UserError
from mlkit.data.images import show_images
from mlkit.data.loader import ArrayLoader
from mlkit.data.loaders import as_datamodule
from mlkit.data.mnist import MNIST
from mlkit.model.lit import LitModel
from mlkit.model.losses import Mixed
from mlkit.parts.locate import register
from mlkit.show.answers import Answers, answers, confusion_matrix, samples, top_confused
from mlkit.show.draw import plot_confusion, show_batch, show_mistakes, show_results
from mlkit.train import train

N, K = 30, 5
LONG = "a name that is far too long for any title of a picture"
NAMES = ["cat", "dog", LONG, "costs $5 or $6", "_hidden"]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def numbers(*shape: int, below: int = K, seed: int = 1) -> torch.Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


def case(kind: str):
    "Answers of a kind: made up, so that all classes and mistakes occur."
    x, gaps = drawn(N, 3, 8, 8), drawn(N, 8, 8) < 0
    logits, masks, values = drawn(N, K, 8, 8), numbers(N, 8, 8), drawn(N, 8, 8, seed=2)
    two = dict(a=drawn(N, K), b=drawn(N, 168)), dict(a=numbers(N), b=numbers(N, below=168))
    return Answers(x, *{
        "classes": (drawn(N, K), numbers(N), NAMES),
        "yes or no": (drawn(N, 1), numbers(N, 1, below=2).float()),
        "heads": (*two, dict(a=NAMES)),
        "masks": (logits, masks, NAMES),
        "yes or no masks": (drawn(N, 1, 8, 8), numbers(N, 1, 8, 8, below=2).float()),
        "masks with gaps": (logits, masks.where(~gaps, 255), NAMES, 255),
        "values": (drawn(N, 1, 8, 8), drawn(N, 1, 8, 8, seed=2)),
        "values with gaps": (drawn(N, 1, 8, 8), values.where(~gaps, -1), None, -1),
    }[kind])


KINDS = ["classes", "yes or no", "heads", "masks", "yes or no masks", "masks with gaps", "values",
         "values with gaps"]


# -- losses, predictions, tables

def cross_entropy(logits: list[float], target: int) -> float:
    "By its definition; one logit is a sigmoid's."
    if len(logits) == 1: return -math.log(1 / (1 + math.exp(-logits[0] if target else logits[0])))
    return -math.log(math.exp(logits[target]) / sum(math.exp(o) for o in logits))


def by_hand(a, i: int) -> float:
    "The loss of a sample, number by number."
    if a.heads: return sum(by_hand(o, i) for o in a.heads.values())
    if a.target.ndim == 1: return cross_entropy(a.output[i].tolist(), int(a.target[i]))
    gap, size = a.ignore_value, range(8)
    known = [(r, c) for r in size for c in size if float(a.target[i].view(8, 8)[r, c]) != gap]
    def at(r, c):
        if a.target.ndim == 4: return float(a.output[i, 0, r, c] - a.target[i, 0, r, c]) ** 2
        return cross_entropy(a.output[i, :, r, c].tolist(), int(a.target[i, r, c]))
    return sum(at(r, c) for r, c in known) / len(known)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_against_plain_loops(kind):
    a = case(kind)
    assert a.loss.tolist() == pytest.approx([by_hand(a, i) for i in range(N)], abs=1e-6, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_table_has_the_worst_first(kind):
    a = case(kind)
    table = a.table()
    assert len(table) == N and table.index.name == "sample"
    assert table["loss"].is_monotonic_decreasing
    assert table["loss"].tolist() == pytest.approx([float(a.loss[i]) for i in table.index])


def test_columns_of_the_tables():
    table, a = case("classes").table(), case("classes")
    i = table.index[3]
    assert list(table) == ["is", "predicted", "probability", "loss"]
    names = NAMES[a.target[i]], NAMES[a.output[i].argmax()]
    assert (table["is"][i], table["predicted"][i]) == names
    odds = a.output[i].exp()
    assert table["probability"][i] == pytest.approx(float(odds.max() / odds.sum()))
    table, a = case("heads").table(), case("heads")
    assert list(table) == ["a", "a predicted", "b", "b predicted", "loss"]
    assert table["a"][i] == NAMES[a.target["a"][i]]
    assert table["b predicted"][i] == int(a.output["b"][i].argmax())
    assert list(case("masks").table()) == ["dice", "loss"]
    a = case("values with gaps")
    known = a.target[i] != -1
    assert a.table()["mae"][i] == pytest.approx(float((a.output - a.target)[i][known].abs().mean()))


@pytest.mark.parametrize("kind", ["masks", "yes or no masks", "masks with gaps"])
def test_dice_is_the_f1_score_of_what_is_no_background(kind):
    a = case(kind)
    for i in range(N):
        known = a.valid[i]
        labels = range(1, len(a.names))
        f1 = f1_score(a.target[i][known], a.pred[i][known], labels=labels, average="micro")
        assert float(a.dice[i]) == pytest.approx(f1, abs=1e-6)


def test_dice_of_nothing():
    empty = torch.zeros(2, 1, 4, 4)
    found = Answers(empty, torch.stack([empty[0] - 1, empty[0] + 1]), empty)
    assert found.dice.tolist() == [1, 0]


# -- what is taken for what

@pytest.mark.parametrize("kind,head", [
    ("classes", None), ("yes or no", None), ("heads", "a"), ("heads", "b"), ("masks", None),
    ("yes or no masks", None), ("masks with gaps", None),
])
def test_confusion_against_scikit_learn(kind, head):
    a = case(kind)
    of = a.heads[head] if head else a
    known = of.valid if of.target.ndim == 3 else torch.ones(N, dtype=bool)
    want = sk_confusion(of.target[known], of.pred[known], labels=range(len(of.names)))
    assert (confusion_matrix(a, head).numpy() == want).all()
    top, wrong = top_confused(a, 3, head), want * (1 - torch.eye(len(want), dtype=int).numpy())
    assert top["count"].tolist() == sorted(wrong[wrong > 0], reverse=True)[:3]
    row, column = of.names.index(top["is"][0]), of.names.index(top["predicted"][0])
    assert want[row, column] == top["count"][0]
    assert top["share"][0] == pytest.approx(want[row, column] / want[row].sum())


def test_nothing_is_confused_where_all_is_right():
    right = Answers(drawn(3, 1, 4, 4), torch.eye(3), torch.arange(3))
    assert len(top_confused(right)) == 0 and confusion_matrix(right).equal(torch.eye(3, dtype=int))
    assert "no mistakes" in titles(show_mistakes(right))


# -- what cannot be shown

X, FRACTIONS = torch.zeros(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
PAIR, MASK = torch.tensor([0, 1]), torch.ones(2, 4, 4).long()
WANTS = "wants a model that gives"


@pytest.mark.parametrize("output,target,message", [
    (torch.zeros(2, 3, 4, 4), PAIR,
     f"a target (2,) of classes {WANTS} logits (N, classes), not (2, 3, 4, 4)"),
    ({"a": torch.zeros(2, 3)}, PAIR,
     f"a target (2,) of classes {WANTS} logits (N, classes), not a dict"),
    (torch.zeros(2, 3), torch.tensor([0, 7]), "the target has class 7, of 3 classes"),
    (torch.zeros(2, 3), torch.tensor([0, -1]), "the target has class -1, of 3 classes"),
    (torch.zeros(2, 3), {"a": PAIR},
     f"a target of heads a {WANTS} a mapping head -> logits, not (2, 3)"),
    ({"b": torch.zeros(2, 3)}, {"a": PAIR}, "the model has a head 'b', the target has a"),
    ({"a": torch.zeros(2, 3, 1)}, {"a": PAIR},
     f"head 'a': a target (2,) of classes {WANTS} logits (N, classes), not (2, 3, 1)"),
    ({"a": torch.zeros(2, 3)}, {"a": [0, 1]},
     "head 'a': a target like a list cannot be shown: classes or numbers (N,), "),
    (torch.zeros(2, 3), {"a": MASK},
     f"a target of heads a {WANTS} a mapping head -> logits, not (2, 3)"),
    ({"a": torch.zeros(2, 3, 4, 4)}, {"a": MASK},
     "head 'a': a head has classes or numbers (N,), not (2, 4, 4)"),
    (torch.zeros(2, 3, 2, 2), MASK, f"a target of masks (2, 4, 4) {WANTS} logits "
     "(N, classes, H, W) of the same height and width, not (2, 3, 2, 2)"),
    (torch.zeros(2, 3, 4, 4), FRACTIONS,
     f"a target of values (2, 1, 4, 4) {WANTS} the same shape, not (2, 3, 4, 4)"),
    (torch.zeros(2, 3), torch.tensor([0.5, 1]),
     f"a target (2,) of numbers {WANTS} (N,) or (N, 1), not (2, 3)"),
    (torch.zeros(2, 3), torch.full((2, 3), 0.5),
     "a target like (2, 3) of fractions cannot be shown"),
    (torch.zeros(2, 2), torch.ones(2, 3),
     f"a target (2, 3) of labels {WANTS} logits of the same shape, not (2, 2)"),
    (torch.zeros(2, 3), "cat", "a target like a str cannot be shown: "),
])
def test_what_does_not_fit_is_one_line(output, target, message):
    with pytest.raises(UserError) as e: Answers(X, output, target)
    assert str(e.value).startswith(message) and "\n" not in str(e.value)


@pytest.mark.parametrize("call,message", [
    (lambda: Answers(torch.zeros(2, 9), None, MASK),
     "images (N, C, H, W) can be shown, not (2, 9)"),
    (lambda: Answers(X, torch.zeros(2, 3), PAIR, ["a", "b"]),
     "2 names of classes for 3 classes"),
    (lambda: plot_confusion(case("heads")), "head=None: a, b are there"),
    (lambda: confusion_matrix(case("classes"), "a"),
     "head='a': there is one answer only, without a head"),
    (lambda: top_confused(case("values")), "numbers have no classes that could be confused"),
])
def test_more_that_does_not_fit(call, message):
    with pytest.raises(UserError) as e: call()
    assert str(e.value) == message


# -- pictures

@pytest.mark.parametrize("n", [0, -1])
def test_less_than_one_is_refused_in_words(n, tmp_path):
    a, data = case("classes"), MNIST()
    calls = [lambda: show_batch(data, n=n), lambda: show_batch((a.x, a.target), n=n),
             lambda: show_mistakes(a, n=n), lambda: show_results(a, n=n),
             lambda: show_results(a, n=n, worst=True), lambda: top_confused(a, n=n),
             lambda: data.show_batch(n=n), lambda: samples(data, n=n)]
    few = [lambda: show_batch(data, ncols=n), lambda: show_mistakes(a, ncols=n),
           lambda: data.show_batch(ncols=n), lambda: show_images(a.x, ncols=n)]
    for name, of in (("n", calls), ("ncols", few)):
        for call in of:
            with pytest.raises(UserError, match=f"^{name}={n}: 1 or more is expected$"): call()
    with pytest.raises(UserError, match=f"^limit={n}: "): answers(nn.Identity(), data, limit=n)


def titles(figure) -> str: return "\n".join(ax.get_title() for ax in figure.axes)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_make_no_warnings(kind):
    a = case(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = [show_results(a), show_results(a, 5, worst=True), show_results(a, 1)]
        made += [show_mistakes(a), show_batch((a.x, a.target), 7)]
        made += [plot_confusion(a, head) for head in a.heads or [None]] if a.names else []
        for figure in made:
            figure.savefig(file := io.BytesIO())
            assert Image.open(file).width < 1600


def test_titles_say_what_is_wrong():
    a = Answers(X, torch.tensor([[0.0, 1], [0, 9]]), torch.tensor([1, 0]), ["cat", "dog"])
    figure = show_results(a, worst=True)
    assert [ax.get_title() for ax in figure.axes] == ["✗ dog, is cat\nloss 9.00",
                                                      "✓ dog\nloss 0.31"]
    assert [ax.title.get_color() for ax in figure.axes] == ["#D55E00", "#009E73"]
    assert [ax.get_title() for ax in show_mistakes(a).axes] == ["✗ dog, is cat"]
    heads = Answers(X, dict(a=a.output, b=a.output), dict(a=a.target, b=a.target.flip(0)))
    assert [ax.get_title() for ax in show_results(heads).axes] == ["✓ 1\n✗ 1, is 0",
                                                                   "✗ 1, is 0\n✓ 1"]


def test_many_classes_have_no_numbers():
    few, many = plot_confusion(case("heads"), "a"), plot_confusion(case("heads"), "b")
    assert few.axes[0].texts and not many.axes[0].texts
    assert len(few.axes[0].get_xticks()) == K and len(many.axes[0].get_xticks()) <= 30


def test_values_share_a_scale_and_gaps_are_grey():
    a = case("values with gaps")
    _, truth, predicted, error = (ax.images[0] for ax in show_results(a, 1).axes[:4])
    colors = [o.get_cmap().name for o in (truth, predicted, error)]
    assert colors[0] == colors[1] != colors[2]
    known = a.target[0][a.valid[0]]
    assert truth.get_clim() == predicted.get_clim()
    assert truth.get_clim() == pytest.approx((float(known.min()), float(known.max())))
    assert truth.get_array().mask.any() and truth.cmap.get_bad().tolist() == [0.5, 0.5, 0.5, 1]


def test_hooks_say_what_is_seen():
    x = torch.arange(2 * 5 * 16.).view(2, 5, 4, 4)
    def seen(picture=None):
        found = Answers(x, torch.eye(2), torch.tensor([0, 1]), picture=picture)
        return show_results(found).axes[0].images[0].get_array()
    assert seen().shape == (4, 4) and seen().min() == 0  # the mean of five channels
    red = lambda x: torch.stack([x[:, 0] * 0 + 1, *[x[:, 0] * 0] * 2], 1)
    assert seen(red)[0, 0].tolist() == [1, 0, 0]


def test_a_mixed_batch_shows_what_it_is_most():
    figure = show_batch((X, Mixed(torch.tensor([3, 4]), torch.tensor([5, 6]), 0.7)))
    assert [ax.get_title() for ax in figure.axes] == ["3", "4"]


# -- a model and its data

@register
class Strokes(pl.LightningDataModule):
    "Where is the digit? One logit a pixel."
    def setup(self, stage=None):
        source = MNIST()
        source.setup()
        self.x = source.images[:96].float() / 255

    def _loader(self): return ArrayLoader((self.x, (self.x > 0.5).float()), 32)
    def train_dataloader(self): return self._loader()
    def val_dataloader(self): return self._loader()
    def test_dataloader(self): return self._loader()


def test_answers_are_those_of_the_model():
    net = nn.Conv2d(1, 1, 3, padding=1)
    model, data = LitModel(net).train(), Strokes()
    found = answers(model, data)
    assert model.training and len(found) == 96
    assert torch.allclose(found.output, net(data.x))
    assert found.target.equal((data.x[:, 0] > 0.5).long())
    assert len(answers(model, data, "val", limit=40)) == 40
    assert len(show_batch(data, 5, stage="test").axes) == 10


def test_a_stage_that_is_not_there_is_named():
    rows = torch.zeros(8, 1, 4, 4), torch.zeros(8).long()
    for data, stage, there in ((rows, "val", "there is stage='train'"), ((rows, rows), "test",
                               "there is stage='train' and stage='val'")):
        with pytest.raises(UserError, match=f"^Loaders has no {stage}_dataloader; {there}$"):
            answers(LitModel(nn.Flatten()), as_datamodule(data), stage)


def test_batches_of_another_kind():
    class Plain(Strokes):
        def _loader(self): return ArrayLoader(self.x, 32)
    message = r"^batches \(x, target\) are expected, with a tensor x; test has \(32, 1, 28, 28\)$"
    with pytest.raises(UserError, match=message): answers(LitModel(nn.Identity()), Plain())
    class Two(nn.Module):
        def forward(self, x): return x, x
    message = "^a tensor or a mapping of tensors can be shown, not a tuple$"
    with pytest.raises(UserError, match=message):
        answers(LitModel(Two()), Strokes())


@register
class StrokesWithPictures(Strokes):
    def show_batch(self): return show_batch((self.x, (self.x > 0.5).long()), 1)


@register
class DigitTwice(Strokes):
    "Four heads, which all ask for the same."
    heads = ["one", "two", "three", "four"]
    def _loader(self):
        target = self.x.flatten(1).gt(0.5).sum(1).remainder(3)
        return ArrayLoader((self.x, dict.fromkeys(self.heads, target)), 32)


@register
class Stretched(Strokes):
    "Two numbers a sample, which are no class: nothing that `show` knows."
    def _loader(self):
        return ArrayLoader((self.x, self.x.flatten(2).mean(2).repeat(1, 2)), 32)


def tracked(folder, data: str, net: dict, loss: str = "torch.nn.BCEWithLogitsLoss"):
    "What TensorBoard reads of a run."
    adamw = {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.01}
    run = train({"name": "seen", "runs": str(folder),
                 "defaults": ["_self_", {"logger": "tensorboard"}],
                 "trainer": {"max_epochs": 1, "accelerator": "cpu"}, "data": {"_target_": data},
                 "model": {"_target_": "mlkit.model.lit.LitModel", "net": net,
                           "loss": {"_target_": loss}, "optimizer": adamw}})
    assert run.info["status"] == "done"
    sizes = dict(tensors=0, images=0)
    return EventAccumulator(str(run.dir / "tensorboard"), size_guidance=sizes).Reload()


def pictures(events: EventAccumulator) -> dict[str, tuple[int, int]]:
    "Their names and sizes, of those that are about samples."
    found = {o: events.Images(o)[0].encoded_image_string for o in events.Tags()["images"]}
    return {k: Image.open(io.BytesIO(png)).size for k, png in found.items() if k != "curves"}


UNET = {"_target_": "mlkit.model.nets.UNet", "in_channels": 1, "num_classes": 1, "widths": [4, 8]}


def test_tensorboard_gets_the_pictures_of_a_mask_task(tmp_path, capsys):
    events = tracked(tmp_path, "Strokes", UNET)
    found = pictures(events)
    assert set(found) == {"batch", "results", "mistakes", "confusion"}
    assert min(min(o) for o in found.values()) > 100
    text = events.Tensors("predictions/text_summary")[0].tensor_proto.string_val[0]
    table = text.decode().splitlines()
    assert table[0] == "| sample | dice | loss |" and len(table) == 2 + 96
    losses = [float(row.split("|")[3]) for row in table[2:]]
    assert losses == sorted(losses, reverse=True)
    assert "trackers get no" not in capsys.readouterr().out


def test_a_datamodule_shows_its_own_batch(tmp_path):
    own = pictures(tracked(tmp_path, "StrokesWithPictures", UNET))["batch"]
    figure = show_batch(Strokes())
    assert own[0] < figure.get_size_inches()[0] * 120 / 2  # one sample is narrow


def test_tensorboard_gets_the_confusion_of_three_heads_at_most(tmp_path):
    backbone = {"_target_": "mlkit.model.nets.MLP", "in_shape": 784, "num_classes": 0,
                "hidden": [8]}
    heads = {"_target_": "mlkit.model.nets.Heads", "backbone": backbone,
             "heads": dict.fromkeys(DigitTwice.heads, 3)}
    found = pictures(tracked(tmp_path, "DigitTwice", heads, "mlkit.model.losses.HeadsLoss"))
    confusions = {f"confusion/{h}" for h in DigitTwice.heads[:3]}
    assert set(found) == {"batch", "results", "mistakes", *confusions}


def test_a_task_of_another_kind_is_trained_all_the_same(tmp_path, capsys):
    net = {"_target_": "mlkit.model.nets.MLP", "in_shape": 784, "num_classes": 2, "hidden": []}
    assert pictures(tracked(tmp_path, "Stretched", net, "torch.nn.MSELoss")) == {}
    said = capsys.readouterr().out
    for name in ("batch", "answers"):
        assert f"the trackers get no {name}: UserError: a target like " in said
    assert "of fractions cannot be shown" in said


def test_labels_of_which_several_are_right_are_shown():
    target = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    a = Answers(torch.zeros(2, 3, 8, 8), 4 * target - 2, target, ["cat", "dog", "bird"])
    assert list(a.table()["is"]) == list(a.table()["predicted"]) == ["cat, bird", "none"]
    assert a.right.all() and a.kind == "labels" and len(show_results(a).axes) == 2
    assert confusion_matrix(a, "cat").tolist() == [[1, 0], [0, 1]]
