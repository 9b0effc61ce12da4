"""Objects of a notebook or a script are trained as they are, and their runs are like any other.

Each kind that is written must train to the same bits from the config that was written for it."""
import inspect
import os
import random
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, random_split

from kernel import Kernel
from mlkit.all import (
    ConfigError,
    LitModel,
    TrainingFailed,
    UserError,
    check,
    compare,
    evaluate,
    grid,
    load_run,
    lr_find,
    predict,
    resume,
    runs,
    train,
)
from mlkit.fit.live import unwritten
from mlkit.run.folder import Run, find_run
from shell import command

QUIET = ("callbacks.progress=null", "trainer.accelerator=cpu")
X_TEXT, Y_TEXT = "torch.linspace(-1, 1, 64 * 16).sin().reshape(64, 1, 4, 4)", "torch.arange(64) % 3"
X, Y = eval(X_TEXT), eval(Y_TEXT)


class Net(nn.Module):
    def __init__(self, width, act=nn.ReLU, drop=0.1, sizes=(8,)):
        super().__init__()
        self.sizes = sizes
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, width), act(), nn.Dropout(drop))
        self.norm, self.head = nn.BatchNorm1d(width), nn.Linear(width, 3)
        self.noise = torch.randn(3)  # no buffer

    def forward(self, x): return self.head(self.norm(self.body(x))) + self.noise.to(x.device)


class Lit(pl.LightningModule):
    def __init__(self, net, width=4, lr=0.1):
        super().__init__()
        self.save_hyperparameters(ignore="net")
        self.net = net

    def training_step(self, batch, i):
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train/loss", loss, on_epoch=True, on_step=False)
        return loss

    def validation_step(self, batch, i):
        self.log("val/loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), self.hparams.lr)


class Rows(Dataset):
    def __init__(self, n, transform=None): self.n, self.transform = n, transform
    def __len__(self): return self.n

    def __getitem__(self, i):
        x = X[i % 64]
        return (self.transform(x) if self.transform else x), Y[i % 64]


class Data(pl.LightningDataModule):
    def __init__(self, n=32, size=8):
        super().__init__()
        self.n, self.size = n, size

    def setup(self, stage): self.rows = TensorDataset(X[:self.n], Y[:self.n])
    def train_dataloader(self): return DataLoader(self.rows, self.size, shuffle=True)
    def val_dataloader(self): return DataLoader(self.rows, self.size)


class Weighted(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, x, y): return F.cross_entropy(x, y, self.weight)


class Half:
    def __init__(self, by=2.0): self.by = by
    def __call__(self, x): return x / self.by


class Count(pl.Callback):
    def __init__(self, every=1): self.every, self.seen = every, 0
    def on_train_batch_end(self, *_): self.seen += 1


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    (tmp_path / "settings.ini").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLKIT_TRUST", __name__)


def weights(run): return {k: v.clone() for k, v in run.model.state_dict().items()}


def same(a, b): return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def train_twice(cfg=None, *overrides, **live):
    "Train objects, and then the config that was written for them; the run, if the bits are equal."
    torch.manual_seed(len(overrides) + 17)  # a notebook's state, which must not matter
    run = train(cfg, *QUIET, *overrides, **dict(dict(epochs=1), **live))
    first = weights(run)
    assert unwritten(run.cfg) == {}
    torch.manual_seed(3)
    assert same(first, weights(train(run.dir / "config.yaml")))
    return run


def frozen():
    net = Net(8)
    net.body.requires_grad_(False)
    return net


def loaded():
    net = Net(8)
    net.load_state_dict(Net(8).state_dict())
    return net


def stepped():
    net = Net(8)
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    F.cross_entropy(net(X), Y).backward()
    optimizer.step()
    return net


def resting():
    net = Net(8)
    net.norm.eval()
    return net


layers = [nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 3)]
NETS = dict(
    own=lambda: Net(8), names=lambda: Net(width=8, act=nn.GELU),
    partial=lambda: Net(8, partial(nn.LeakyReLU, 0.2)), a_tuple=lambda: Net(8, sizes=(4, 2)),
    frozen=frozen, loaded=loaded, stepped=stepped, resting=resting,
    layers=lambda: nn.Sequential(*layers),
    many=lambda: nn.Sequential(nn.Flatten(), *[nn.Linear(16, 16) for _ in range(3)]),
    one=lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), small=lambda: Net(2))


def test_a_net_goes_on_from_its_weights():
    net = Net(8)
    train(None, *QUIET, data=Data(), model=net, epochs=1)
    was = {k: v.clone() for k, v in net.state_dict().items()}
    run = train_twice(data=Data(), model=net, epochs=1)
    start = torch.load(run.dir / run.info["config"]["model"]["net"]["weights"]["file"])
    assert same(start, was) and not same(start, net.state_dict())


pairs = [(X[:40], Y[:40]), (X[40:], Y[40:])]
rows = Rows(40)
DATA = dict(
    datamodule=lambda: Data(n=24), pair=lambda: (X, Y), arrays=lambda: (X.numpy(), Y.numpy()),
    two_pairs=lambda: pairs, dataset=lambda: Rows(40), two=lambda: (Rows(40), Rows(20)),
    named=lambda: dict(train=Rows(40, Half()), val=(X, Y), test=Rows(8)),
    loader=lambda: DataLoader(rows, batch_size=8, shuffle=True),
    loaders=lambda: (DataLoader(rows, 8, shuffle=True, drop_last=True), DataLoader(rows, 4)),
    some=lambda: Subset(rows, range(30)),
    split=lambda: random_split(rows, [30, 10], torch.Generator().manual_seed(1)),
    tensors=lambda: DataLoader(TensorDataset(X, Y), 16))


@pytest.mark.slow
@pytest.mark.parametrize("net, kind", [*zip(NETS, DATA)])
def test_nets_and_data_train_to_the_bits_of_their_config(net, kind):
    net, data = NETS[net](), DATA[kind]()
    run = train_twice(data=data, model=net, lr=0.01)
    assert run.model.net is net and (run.datamodule is data) == (kind == "datamodule")


def test_data_that_is_set_up_is_as_it_was_made():
    data = Data()
    data.setup("fit")
    assert train_twice(data=data, model=Net(4)).datamodule is data


@pytest.mark.slow
def test_a_lightning_module_and_a_dict_of_objects():
    count = Count(every=2)
    cfg = dict(data=Data(), model=Lit(Net(4), lr=0.05), callbacks=[count])
    run = train_twice(cfg)
    assert count.seen > 0 and run.model is cfg["model"]
    lit = LitModel(Net(4), optimizer=partial(torch.optim.SGD, lr=0.1), metrics=dict(mse=F.mse_loss))
    train_twice(data=(X, F.one_hot(Y, 3).float()), model=lit)
    cfg = dict(defaults=[dict(model="classifier")], data=Data(),
               model=dict(net=Net(4), loss=nn.CrossEntropyLoss(weight=torch.ones(3))),
               optimizer=torch.optim.SGD,
               scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1))
    train_twice(cfg, "optimizer.lr=0.1")


def test_a_net_in_a_file():
    with open("mine.yaml", "w") as f:
        f.write("defaults: [model: classifier, optimizer: sgd]\nseed: 7\n")
    run = train_twice("mine.yaml", "optimizer.lr=0.2", data=Data(), model=Net(8, drop=0.5))
    assert run.info["config"]["seed"] == 7
    run = train("mine.yaml", *QUIET, "model.net.drop=0.2", data=Data(), model=Net(8), epochs=1)
    assert run.model.net.body[3].p == 0.2  # what the user says last counts


def test_a_loss_of_another_kind_has_no_accuracy():
    run = train_twice(data=(X, X.flatten(1)[:, :3]), model=Net(4), loss=F.mse_loss)
    assert not [k for k in run.metrics if "acc" in k]


def edited():
    net = Net(8)
    net.body[3].p = 0.9
    return net


def local():
    class Inner(Net): "No module has it."
    return Inner(8)


def cut():
    data = Data()
    data.setup("fit")
    data.rows = Subset(data.rows, range(8))
    return data


KEPT = dict(
    edited=(dict(model=edited), "model.net", "p is 0.9"),
    local=(dict(model=local), "model.net", "defined in a function"),
    loss=(dict(model=lambda: Net(4), loss=lambda: lambda a, b: F.cross_entropy(a, b)), "model.loss",
          "is a lambda"),
    data=(dict(model=lambda: Net(4), data=cut), "data", "was changed since Data was called: rows"),
    collate=(dict(model=lambda: Net(4), data=lambda: DataLoader(
        rows, 8, collate_fn=lambda o: tuple(map(torch.stack, zip(*o))))), "data", "is a lambda"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KEPT)
def test_what_no_config_makes_is_trained_and_named(kind, capfd):
    made, key, why = KEPT[kind]
    live = {"data": Data(), **{k: o() for k, o in made.items()}}
    run = train(None, *QUIET, "trainer.limit_train_batches=4", **live, epochs=2)
    assert why in run.info["unwritten"][key] and [*run.info["unwritten"]] == [key]
    assert f"{key}: " in capfd.readouterr().out
    last = weights(run)
    if hasattr(live["data"], "n"): assert "val/loss" in evaluate(run, stage="val")
    assert len(predict(run, X[:5]).table) == 5
    assert same(last, weights(run))  # these use copies
    went_on = resume(run, "trainer.max_epochs=3")
    assert went_on.status == "done" and len(runs("runs")) == 1
    assert compare([run, went_on]) is not None
    if kind != "edited": return
    code = f"from mlkit.all import *\nload_run({str(run.dir)!r})"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, os.path.dirname(__file__)])}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert "was in the notebook that trained this, and is not here" in other.stderr


class Noise(Dataset):
    def __init__(self, n=32, gain=False):
        self.x, self.gain = torch.randn(n, 1, 4, 4), random.random() if gain else 1
    def __len__(self): return len(self.x)
    def __getitem__(self, i): return self.x[i] * self.gain, Y[i]


class Random(Data):
    def __init__(self, kind="x"):
        super().__init__()
        self.kind, self.x, self.order = kind, X[:32], [*range(32)]
        if kind == "x": self.x = torch.randn(32, 1, 4, 4)
        if kind == "numpy": self.x = np.random.randn(32, 1, 4, 4).astype("float32")
        if kind == "order": random.shuffle(self.order)
        if kind == "net": self.net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
        if kind == "late": self.x = None
        if kind == "rng": self.rng = np.random.default_rng()

    def setup(self, stage):
        if self.x is None: self.x = torch.randn(32, 1, 4, 4)
        x = torch.as_tensor(self.x)[self.order]
        if self.kind == "net": x = self.net[0](x).detach()
        if self.kind == "setup": x = torch.randn(32, 1, 4, 4)
        if self.kind == "rng": x = x * self.rng.random()
        self.rows = TensorDataset(x, Y[:32])


def set_up(data):
    data.setup("fit")
    return data


RANDOM = dict({o: partial(Random, o) for o in ("x", "numpy", "order", "net", "late", "setup")},
              x_set_up=lambda: set_up(Random()), late_set_up=lambda: set_up(Random("late")),
              setup_set_up=lambda: set_up(Random("setup")), dataset=Noise,
              pair=lambda: (Noise(gain=True), Noise(16)), loader=lambda: DataLoader(Noise(), 8),
              some=lambda: Subset(rows, range(30)),
    split=lambda: random_split(Noise(), [20, 12]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", RANDOM)
def test_data_that_are_random_are_the_notebooks_own(kind):
    data = RANDOM[kind]()
    was = data.x if isinstance(data, Noise) else None
    run = train_twice(data=data, model=Net(4), lr=0.1)
    assert was is None or torch.equal(run.datamodule.train.x, was)


def test_a_generator_that_cannot_be_saved_is_named():
    data = Random("rng")
    run = train(None, *QUIET, data=data, model=Net(4), epochs=1)
    assert "is random as it is made, and cannot be saved: rng" in run.info["unwritten"]["data"]


def batches(): return DataLoader(TensorDataset(X, Y), 16)


FEW = partial(DataLoader, TensorDataset(X[:3], Y[:3]), 8, drop_last=True)


@pytest.mark.parametrize("data, epochs, why", [
    (lambda: (o for o in batches()), 2, "train data, a generator, can be read only once, .* 1"),
    (lambda: (batches(), iter([*batches()])), 2, "val data, a list_iterator, .* for epoch 1"),
    (lambda: (zip(), batches()), 1, "train data, a zip, .* nothing is left of it for epoch 0"),
    (FEW, 1, "train data, a DataLoader, has no batch: drop_last, and fewer than 8 items"),
    (lambda: TensorDataset(X, X, Y), 1, r"takes batches \(x, y\), and this is a list of 3")])
def test_data_without_the_batches_that_are_wanted(data, epochs, why):
    with pytest.raises(TrainingFailed, match=why): train(
        None, *QUIET, data=data(), model=Net(4), epochs=epochs)


def test_one_epoch_or_none_as_it_is_wanted(capfd):
    def endless():
        while True: yield from batches()
    few, none = "trainer.limit_train_batches=2", "trainer.limit_train_batches=0"
    assert train(None, *QUIET, data=iter([*batches()]), model=Net(4), epochs=1).status == "done"
    out, err = capfd.readouterr()
    assert "validation_step" not in err and err.count("there is no validation: the last epoch") == 1
    assert len(train(None, *QUIET, few, data=endless(), model=Net(4), epochs=2).history) == 2
    assert train(None, *QUIET, none, data=batches(), model=Net(4), epochs=2).status == "done"
    assert train(None, *QUIET, data=FEW(), model=Net(4), epochs=0).status == "done"


class Fails(pl.Callback):
    def on_test_start(self, *_): raise RuntimeError("no test")


def test_a_run_that_was_cut_off_after_its_last_epoch_has_no_batch_left():
    given = dict(data=(batches(), batches(), batches()), model=Net(4), epochs=1)
    with pytest.raises(TrainingFailed) as e: train(dict(callbacks=[Fails()]), *QUIET, **given)
    assert "test/loss" in resume(e.value.run, "~callbacks.fails").metrics


@pytest.mark.parametrize("given, named, says", [
    ([Data(), Net], {}, "objects go by name: data=…, model=…"),
    ([Net], dict(data=Data()), "objects go by name"),
    ([None, Net], dict(data=Data()), "one by one; objects go by name"),
    (["seed=3"], dict(data=Data()), r"seed=3 is an override, and .*: train\(None, 'seed=3', …\)"),
    ([], dict(max_epochs=3), r"^train\(\) has no max_epochs=; did you mean 'epochs'\?$"),
    ([], dict(devices=2), "has no devices=; that is in the config: 'trainer.devices=2'"),
    ([], dict(batch_size=2), "'data.batch_size=2'"),
    ([], dict(callbacks=[Count()]), r"in the config: dict\(callbacks=…\)"),
    ([], dict(plugins=[]), r"dict\(trainer=dict\(plugins=…\)\)")])
def test_what_is_given_in_a_wrong_place(given, named, says):
    with pytest.raises(UserError, match=says): train(*given, **named)


def test_check_takes_what_train_takes():
    cfg = dict(data=Data(), model=Net(4))
    was = {k: v.clone() for k, v in cfg["model"].state_dict().items()}
    assert check(cfg, *QUIET, "trainer.max_epochs=1", batch=True).model.net.module.obj.width == 4
    assert same(cfg["model"].state_dict(), was)
    config = check(cfg, *QUIET, "trainer.max_epochs=1")
    assert train(config).model.net is cfg["model"]
    with pytest.raises(ConfigError, match="max_epoch"): check(cfg, "trainer.max_epoch=1")


def test_the_notebooks_random_numbers_are_left_alone():
    def draw(): return random.random(), np.random.rand(), torch.rand(1).item()
    found = []
    for reuse in (None, False, True):
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))  # pytest has changed this file's code
        for set_seed in (random.seed, np.random.seed, torch.manual_seed): set_seed(5)
        if reuse is not None:
            run = train(None, *QUIET, data=(X, Y), model=net, epochs=1, reuse=reuse)
        found.append(draw())
    assert found[0] == found[1] == found[2] and len(runs("runs")) == 1 and run.model is not None


def test_what_was_trusted_for_a_run_is_trusted_in_this_process_for_it_alone(monkeypatch):
    monkeypatch.delenv("MLKIT_TRUST")
    run = train(None, *QUIET, data=Data(), model=Net(4), epochs=1)
    assert evaluate(run, stage="val") and resume(run, "trainer.max_epochs=2").status == "done"
    theirs = shutil.copytree(run.dir, run.dir.with_name("theirs"))
    with pytest.raises(ConfigError, match="is not a trusted package"): load_run(theirs)


def test_a_grid_goes_on_from_the_weights_of_a_net():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    train(None, *QUIET, data=(X, Y), model=net, epochs=1)
    was = {k: v.clone() for k, v in net.state_dict().items()}
    def search(**how):
        return grid(dict(data=(X, Y), model=net), *QUIET, "trainer.max_epochs=1",
                    "optimizer=adamw,sgd", "optimizer.lr=0.0", **how)
    sweep = search()
    assert sweep.done and same(net.state_dict(), was)
    assert all(same(load_run(o).model.net.state_dict(), was) for o in sweep.runs)
    assert {o.id for o in search(reuse=True).runs} == {o.id for o in sweep.runs}


def test_a_grid_and_lr_find_leave_the_objects_alone():
    net = Net(4)
    was = {k: v.clone() for k, v in net.state_dict().items()}
    cfg = dict(defaults=[dict(model="classifier")], data=Data(), model=dict(net=net))
    grid(cfg, *QUIET, "trainer.max_epochs=1", "optimizer.lr=0.1,0.01")
    lr_find(cfg, *QUIET, steps=20)
    assert len(runs("runs")) == 2 and same(net.state_dict(), was)


SETUP = """from mlkit.all import *
import local, torch, pytorch_lightning as pl
from functools import partial
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassF1Score"""
WRITTEN = dict(  # cells after which a file is written, and a shell trains to the same bits
    first="""net = ConvNet(1, 10, widths=(8, 16))
run = train(None, "scheduler=one_cycle", "trainer.limit_train_batches=9",
            data=MNIST(batch_size=64), model=net, lr=0.01, epochs=2)""",
    module="""stop = pl.callbacks.EarlyStopping("val/loss", patience=3)
cfg = dict(data=local.Data(n=24), model=local.Lit(local.Net(8), lr=0.05),
           callbacks=[local.Count(every=3), stop])
run = train(cfg, epochs=2)""",
    loaded="""net, old = local.Net(8), local.Net(8)
net.load_state_dict(old.state_dict())
optimizer = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
loss = local.Weighted(torch.tensor([1.0, 2.0, 3.0]))
run = train(dict(optimizer=optimizer), data=(local.Rows(40), local.Rows(16)), model=net,
            loss=loss, epochs=2)""",
    frozen="""net = local.Net(8)
for p in net.body.parameters(): p.requires_grad = False
loaders = DataLoader(local.Rows(40), 8, shuffle=True), DataLoader(local.Rows(16), 16)
metrics = dict(f1=MulticlassF1Score(num_classes=3, average="macro"))
model = LitModel(net, optimizer=partial(torch.optim.Adam, lr=0.1), metrics=metrics)
run = train(data=loaders, model=model, epochs=2)""",
    loop="""layers, n = [nn.Flatten()], 16
for width in (12, 8):
    layers += [nn.Linear(n, width), nn.BatchNorm1d(width), nn.ReLU()]
    n = width
net = nn.Sequential(*layers, nn.Linear(n, 3))
run = train(None, "model.compile=false", model=net, epochs=2,
            data=(local.X.numpy().astype("float64"), local.Y.numpy().astype("int32")))""")
UNWRITTEN = {  # why no file is written
    "def loss(x, y): return F.cross_entropy(x, y)\n"
    "run = train(data=local.Data(), model=local.Net(8), loss=loss, epochs=1)":
        "__main__.loss: is in a notebook alone",
    "class Own(local.Net): pass\n"
    "run = train(data=local.Data(), model=Own(8), epochs=1)":
        "__main__.Own: is in a notebook alone",
    "loss = lambda x, y: F.cross_entropy(x, y)\n"
    "run = train(data=local.Data(), model=Own(8), loss=loss, epochs=1)": "model.loss: is a lambda"}


@pytest.mark.slow
def test_what_cells_make_is_the_shells_own(tmp_path):
    head = Path(__file__).read_text().partition('"""\n')[2].partition("from kernel")[0]
    lines = [f"X = {X_TEXT}", f"Y = {Y_TEXT}"]
    own = map(inspect.getsource, (Net, Lit, Rows, Data, Count, Weighted))
    Path("local.py").write_text("\n\n".join([head, *lines, *own]))
    with Kernel(tmp_path, MLKIT_TRUST="") as kernel:
        kernel.value(SETUP)
        for name, cell in WRITTEN.items():
            folder = kernel.value(f"{cell}\nstr(run.dir.absolute())").strip("'")
            file = f"configs/{name}.yaml"
            kernel.value(f"as_config(run, {file!r})")
            command("mlkit_train", file, cwd=tmp_path, code=0)
            here, there = Run(folder), Run(find_run(f"{name}/last").dir)
            a, b = (torch.load(o.checkpoint("last"))["state_dict"] for o in (here, there))
            assert same(a, b), name
            csv = [(o.dir / "metrics.csv").read_bytes() for o in (here, there)]
            assert csv[0] == csv[1] and len(Path(file).read_text().splitlines()) < 50, name
        for cell, why in UNWRITTEN.items():
            said = kernel.run(cell)
            assert not said.error and "this kernel alone" in said.text.replace("only this", "this")
            assert why in kernel.run("as_config(run, 'configs/other.yaml')").traceback
        kernel.value("more = resume(run, 'trainer.max_epochs=2')\n"
                     "evaluate(run, stage='val'), predict(run, local.X[:5]), compare([more, run])")


def test_a_file_that_the_loss_reads_counts_for_reuse(tmp_path, monkeypatch, capsys):
    "Also where the data have a fingerprint, which says nothing of it."
    Path("losses.py").write_text(
        "import numpy as np, torch\nfrom torch.nn.functional import cross_entropy\n"
        "def weight(): return torch.tensor(np.load('w.npy')).float()\n"
        "def weighed(x, y): return cross_entropy(x, y, weight=weight())\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    from losses import weighed
    def again(weight):
        np.save("w.npy", [1.0, 1.0, weight])
        torch.manual_seed(1)
        return train(None, *QUIET, data=(X, Y), model=nn.Sequential(nn.Flatten(), nn.Linear(16, 3)),
                     loss=weighed, epochs=1, reuse=True).id
    first, same_again, other = again(2.0), again(2.0), again(9.0)
    assert first == same_again != other
    assert "differs in data (w.npy)" in capsys.readouterr().out


def test_a_file_that_the_net_reads_as_it_is_built_counts_for_reuse(tmp_path, monkeypatch, capsys):
    Path("scaled.py").write_text(
        "import numpy as np, torch\nfrom torch import nn\n"
        "class Scaled(nn.Module):\n"
        "    def __init__(self, n):\n"
        "        super().__init__()\n"
        "        self.scale, self.net = float(np.load('s.npy')), nn.Linear(16, n)\n"
        "    def forward(self, x): return self.net(x.flatten(1)) * self.scale\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    def again(scale):
        np.save("s.npy", scale)
        net = dict(_target_="scaled.Scaled", n=3)
        model = dict(_target_="mlkit.model.lit.LitModel", net=net, optimizer="${optimizer}")
        return train(dict(model=model), *QUIET, data=(X, Y), epochs=1, reuse=True).id
    first, same_again, other = again(2.0), again(2.0), again(9.0)
    assert first == same_again != other
    assert "differs in data (s.npy)" in capsys.readouterr().out


def test_a_seed_of_the_cell_and_one_of_the_run():
    def loss(seed, *words):
        torch.manual_seed(seed)
        return train(None, *QUIET, *words, data=Data(), model=Net(4), epochs=1).metrics["val/loss"]
    assert len({*map(loss, (1, 2, 3))}) == 3 and loss(1) == loss(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    new = *QUIET, "model.net.weights=null"
    runs = [train(None, *new, f"seed={o}", data=Data(), model=net, epochs=1) for o in (1, 1, 2)]
    first, again, other = (o.metrics["val/loss"] for o in runs)
    assert first == again != other


def test_weights_put_in_past_the_counts_are_trained():
    good, mine = Net(4), Net(4)
    for a, b in zip(mine.parameters(), good.parameters()): a.data.copy_(b.data)
    was = {k: v.clone() for k, v in good.state_dict().items()}
    train(None, *QUIET, "optimizer.lr=0.0", data=Data(), model=mine, epochs=1)
    now = mine.state_dict()
    assert all(torch.equal(now[k], was[k]) for k, _ in good.named_parameters())


def test_a_loader_is_trained_with_twice():
    loader = DataLoader(TensorDataset(X, Y), 16)
    for _ in range(2):
        run = train(None, *QUIET, data=loader, model=Net(4), epochs=1)
        assert unwritten(run.cfg) == {}


def test_what_a_kernel_has_otherwise_than_its_file_is_named(tmp_path, monkeypatch, capsys):
    Path("gained.py").write_text(
        "from torch import nn\nGAIN = 1.0\nMADE = []\nMADE.append(2)\n"
        "class Gained(nn.Flatten):\n    def forward(self, x): return super().forward(x) * GAIN\n"
        "class Head(nn.Sequential):\n"
        "    def __init__(self): super().__init__(Gained(), nn.Linear(16, 3 + 0 * len(MADE)))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import gained
    def said():
        train(None, *QUIET, data=(X, Y), model=gained.Head(), epochs=1)
        return [o for o in capsys.readouterr().out.splitlines() if "trains as it is here" in o]
    assert said() == []
    gained.GAIN = 3.0
    assert [o.partition(":")[0] for o in said()] == ["gained.GAIN"]


def test_a_dict_and_objects_go_together():
    cfg = dict(seed=3, tags=["a=b"])
    assert train(cfg, *QUIET, data=Data(), model=Net(4), epochs=1).cfg.seed == 3
