"Fashion-MNIST: each word changes one part, a net learns from another one, the job's floor."
import csv
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

fashion = pytest.importorskip("mlkit.recipes.fashion_mnist")

from mlkit.base.errors import TrainingFailed
from mlkit.config.load import load_config
from mlkit.config.node import ConfigError
from mlkit.data.folder import ImageFolder
from mlkit.model.augment import Augment, RandomFlip
from mlkit.model.lit import LitModel
from mlkit.model.nets import MLP, ConvNet, ResNet
from mlkit.parts.build import build
from mlkit.run.folder import Run, list_runs
from mlkit.show.answers import answers
from mlkit.train import train
from mlkit.use import evaluate, load_run, trained
from shell import command, job

ROOT = Path(__file__).parents[1]
CONFIG = str(ROOT / "configs" / "fashion_mnist.yaml")
SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=8", "trainer.limit_val_batches=2",
         "trainer.limit_test_batches=2",
         "callbacks.progress=null"]


# -- words

def optimizer_of(model: LitModel): return model.optimizer(model.parameters())
def schedule_of(model: LitModel):
    return model.scheduler and model.scheduler["scheduler"].func.__name__
def measured(model: LitModel) -> list[str]: return [*model.functions, *model.metrics["val_"]]


MODELS = {
    "": lambda m: (type(m) is LitModel and type(m.net) is ResNet
                   and type(optimizer_of(m)) is torch.optim.AdamW
                   and type(m.loss) is nn.CrossEntropyLoss and m.loss.label_smoothing == 0
                   and schedule_of(m) == "OneCycleLR"
                   and measured(m) == ["acc"] and type(m.augment) is RandomFlip),
    "model/net=mlp": lambda m: type(m.net) is MLP,
    "model/net=conv_net": lambda m: type(m.net) is ConvNet,
    "model/net=beeg_mlp": lambda m: type(m.net) is fashion.BeegMLP and m.net.num_features == 7840,
    "model/net=beeg_mlp model.net.beeg_factor=20": lambda m: m.net.num_features == 20 * 784,
    "model/loss=label_smoothing": lambda m: m.loss.label_smoothing == 0.1,
    "model/loss=hinge": lambda m: type(m.loss) is nn.MultiMarginLoss,
    "model/optimizer=adam": lambda m: type(optimizer_of(m)) is torch.optim.Adam,
    "model/optimizer=sgd": lambda m: type(optimizer_of(m)) is torch.optim.SGD
    and optimizer_of(m).defaults["lr"] == 0.1,
    "model/optimizer=sgd optimizer.lr=0.3": lambda m: optimizer_of(m).defaults["lr"] == 0.3,
    "optimizer=sgd": lambda m: type(optimizer_of(m)) is torch.optim.SGD,
    "model/scheduler=cosine": lambda m: schedule_of(m) == "CosineAnnealingLR",
    "model/scheduler=plateau": lambda m: schedule_of(m) == "ReduceLROnPlateau"
    and m.scheduler["monitor"] == "val/loss",
    "model/scheduler=null": lambda m: m.scheduler is None,
    "model/metrics=detailed": lambda m: measured(m) == ["acc", "f1", "top3"],
    "model/augment=null": lambda m: m.augment is None,
    "model/augment=flip_shift_cut": lambda m: type(m.augment) is Augment,
    "model=distill model.teacher=null": lambda m: type(m) is fashion.Distill,
    "model=distill model.teacher=null model/net=mlp model/optimizer=sgd model/loss=hinge":
    lambda m: (
        type(m) is fashion.Distill and type(m.net) is MLP and type(m.loss) is nn.MultiMarginLoss
        and type(optimizer_of(m)) is torch.optim.SGD),
}


@pytest.mark.parametrize("words", MODELS)
def test_a_word_changes_the_model(words):
    assert MODELS[words](build(load_config(CONFIG, *words.split()).model))


def test_a_word_changes_data_callbacks_and_logger(tmp_path):
    run = train(CONFIG, *SHORT, f"runs={tmp_path}", "data=mnist", "callbacks=early_stopping",
                "callbacks.progress=null",
                "logger=tensorboard", "model/net=mlp")
    assert run.datamodule.classes == list("0123456789")
    assert "early_stopping" in run.cfg.callbacks and list(run.dir.rglob("events.out.tfevents.*"))


@pytest.mark.parametrize("word", ["model/net=mine", "model/loss=mine", "model=mine"])
def test_a_word_that_is_none_lists_those_that_are(word):
    with pytest.raises(ConfigError, match=r"has no option 'mine'.*\(there are: "):
        load_config(CONFIG, word)


# -- the size of the input

@pytest.mark.parametrize("net", ["mlp", "beeg_mlp", "conv_net", "resnet"])
def test_a_net_takes_its_sizes_from_the_data(net):
    small = ["data.in_shape=[3,8,12]", "data.num_classes=4",
             "model.net.beeg_factor=1"][:3 if net == "beeg_mlp" else 2]
    model = build(load_config(CONFIG, f"model/net={net}", *small).model)
    assert model(torch.randn(2, 3, 8, 12)).shape == (2, 4)


def test_pictures_of_ones_own(tmp_path):
    from PIL import Image
    for i in range(40):
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 8), (255 * (i % 2), 90, 5 * i)).save(path)
    own = ["data=image_folder", f"data.root={tmp_path / 'pictures'}", "data.size=[8,12]",
           "data.in_shape=[3,8,12]"]
    run = train(CONFIG, *SHORT, *own, "data.num_classes=2", f"runs={tmp_path / 'runs'}")
    assert type(run.datamodule) is ImageFolder
    assert run.model(torch.randn(2, 3, 8, 12)).shape == (2, 2)
    with pytest.raises(ConfigError, match="num_classes=3 is expected, the data has 2"):
        train(CONFIG, *own, "data.num_classes=3", f"runs={tmp_path / 'none'}")
    assert not (tmp_path / "none").exists()


# -- figures against an independent computation

def test_losses_agree_with_plain_loops():
    logits, target = torch.randn(6, 10, dtype=torch.float64,
                                 generator=torch.Generator().manual_seed(0)), torch.arange(6)
    rows = [(row, t) for row, t in zip(logits.tolist(), target.tolist())]
    log_p = [[o - math.log(sum(map(math.exp, row))) for o in row] for row, _ in rows]
    by_hand = {"cross_entropy": [-p[t] for p, (_, t) in zip(log_p, rows)],
               "label_smoothing": [-0.9 * p[t] - 0.1 * sum(p) / 10
                                   for p, (_, t) in zip(log_p, rows)],
               "hinge": [sum(max(0, 1 - row[t] + o) for k, o in enumerate(row) if k != t) / 10
                         for row, t in rows]}
    for name, values in by_hand.items():
        loss = build(load_config(CONFIG, f"model/loss={name}").model.loss)
        assert loss(logits, target).item() == pytest.approx(sum(values) / len(values), abs=1e-6)


def test_metrics_agree_with_scikit_learn(tmp_path):
    from sklearn.metrics import accuracy_score, f1_score, top_k_accuracy_score
    run = train(CONFIG, *SHORT, "trainer.limit_test_batches=1.0", "model/metrics=detailed",
                "model/net=conv_net", f"runs={tmp_path}")
    found = answers(run.model, run.datamodule)
    truth, output = found.target.numpy(), found.output.numpy()
    assert run.metrics["test/acc"] == pytest.approx(accuracy_score(truth, output.argmax(1)),
                                                    abs=1e-6)
    assert run.metrics["test/f1"] == pytest.approx(f1_score(truth, output.argmax(1),
                                                            average="macro"), abs=1e-6)
    assert run.metrics["test/top3"] == pytest.approx(top_k_accuracy_score(truth, output, k=3),
                                                     abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_distill_loss_agrees_with_a_plain_loop(temperature):
    student, teacher = 3 * torch.randn(2, 8, 10, dtype=torch.float64,
                                       generator=torch.Generator().manual_seed(0))
    total = 0.0
    for a, b in zip(student.tolist(), teacher.tolist()):
        for i in range(10):
            q, p = (math.exp(o[i] / temperature) / sum(math.exp(k / temperature) for k in o)
                    for o in (a, b))
            total += p * math.log(p / q)
    assert fashion.distill_loss(student, teacher,
                                temperature).item() == pytest.approx(temperature**2 * total / 8,
                                                                     abs=1e-6)


def test_the_temperature_leaves_the_size_of_the_gradient():
    drawn = torch.randn(2, 8, 10, generator=torch.Generator().manual_seed(0))
    student, teacher = (0.1 * drawn).requires_grad_()
    sizes = [torch.autograd.grad(fashion.distill_loss(student, teacher, t),
                                 student)[0].norm().item() for t in (1.0, 10.0, 100.0)]
    assert max(sizes) < 1.2 * min(sizes)
    with pytest.raises(ValueError, match=r"the student gives \(8, 10\), the teacher \(8, 1\)"):
        fashion.distill_loss(student, teacher[:, :1], 1.0)


# -- a student and its teacher

@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Run:
    return train(CONFIG, *SHORT, "model/net=conv_net", "trainer.max_epochs=2",
                 f"runs={tmp_path_factory.mktemp('teacher')}")


def student_of(teacher: Run | Path, *more: str) -> list[str]:
    run = teacher.dir if isinstance(teacher, Run) else teacher
    return [*SHORT, "model=distill", f"model.teacher.run={run}", "model/net=mlp", *more]


def test_both_losses_count_as_weighted(teacher):
    model = fashion.Distill(MLP(784, 10), trained(str(teacher.dir)), temperature=2.0,
                            weight=0.7).train()
    x, y = torch.randn(16, 1, 28, 28), torch.arange(16) % 10
    losses, logits, target = model.step((x, y))
    with torch.no_grad(): wanted = trained(str(teacher.dir))(x)
    soft, hard = fashion.distill_loss(logits, wanted, 2.0), F.cross_entropy(logits, y)
    torch.testing.assert_close(losses, dict(loss=0.7 * soft + 0.3 * hard, soft=soft, hard=hard))
    torch.testing.assert_close(model.eval().step((x, y))[0], F.cross_entropy(model(x), y))


def test_distill_from_the_shell(teacher, tmp_path):
    before = {k: v.clone() for k, v in teacher.model.state_dict().items()}
    done = command("mlkit_train", CONFIG, *student_of(teacher, f"runs={tmp_path}"))
    assert done.returncode == 0, done.stderr
    (run,) = list_runs(tmp_path)
    (row,) = csv.DictReader(open(run.dir / "metrics.csv"))
    loss, soft, hard = (float(row[f"train/{o}"]) for o in ("loss", "soft", "hard"))
    assert loss == pytest.approx(0.9 * soft + 0.1 * hard, rel=1e-5)
    assert run.status == "done" and "val/soft" not in row
    weights = torch.load(run.checkpoint(), weights_only=True)["state_dict"]
    assert list(weights) == list(MLP(784, 10).state_dict(prefix="net."))  # nothing of the teacher's
    after = trained(str(teacher.dir)).state_dict()  # is as it was
    assert all(torch.equal(before[k], v) for k, v in after.items())
    again = evaluate(run, "model.teacher=null")
    assert again == {k: v for k, v in run.metrics.items() if k.startswith("test/")}


def test_a_student_begins_as_it_would_alone(teacher):
    def first(*words):
        torch.manual_seed(0)
        return build(load_config(CONFIG, *words).model).net.state_dict()
    alone, taught = first("model/net=mlp"), first(*student_of(teacher))
    assert all(torch.equal(v, taught[k]) for k, v in alone.items())


def test_a_teacher_by_its_checkpoint(teacher, tmp_path):
    last = build(load_config(CONFIG, *student_of(teacher.checkpoint("last"))).model).teachers[0]
    wanted = torch.load(teacher.checkpoint("last"), weights_only=True)["state_dict"]
    assert not last.training
    assert all(torch.equal(v, wanted[k]) for k, v in last.state_dict().items())


def test_a_teacher_that_is_not_there(tmp_path):
    done = command("mlkit_train", CONFIG,
                   *student_of(tmp_path / "nobody", f"runs={tmp_path / 'runs'}"))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "nobody" in done.stderr
    assert "model.teacher" in done.stderr
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ConfigError, match="model.teacher.run: needs a value"):
        train(CONFIG, "model=distill", "debug=fast")
    with pytest.raises(TrainingFailed, match="no teacher to learn from"):
        train(CONFIG, "model=distill", "model.teacher=null", "debug=fast")


@pytest.mark.parametrize("wrong", [dict(temperature=0.0), dict(weight=1.1), dict(weight=-0.1)])
def test_weights_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match="Distill: temperature="):
        fashion.Distill(nn.Identity(), None, **wrong)


# -- from the shell

def test_a_grid_over_widths(tmp_path):
    done = command("mlkit_train", CONFIG, "-m", "model/net=beeg_mlp",
                   "model.net.beeg_factor=1,5,10", *SHORT, f"runs={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert sorted(load_run(o).model.net.num_features for o in list_runs(tmp_path)) == [784, 5 * 784,
                                                                                       10 * 784]
    table = done.stdout[done.stdout.rindex("model.net.beeg_factor"):].splitlines()
    assert sorted(int(line.split()[0]) for line in table[1:4]) == [1, 5, 10]


@pytest.mark.slow
def test_the_job_reaches_its_floor(tmp_path, figure):
    run, seconds = job(tmp_path, "fashion_mnist")
    figure(f"fashion_mnist: test/acc {run.metrics['test/acc']:.3f} in {seconds:.0f} s")
    assert run.metrics["test/acc"] >= 0.86
