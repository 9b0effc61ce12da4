"""In a real JupyterLab, in a real browser: a training in a cell is a picture that stays still, a
search is one table that can be interrupted and gone on with, a run in the background is watched
again after the tab was loaded anew and the kernel restarted, what a cell says is what trains, and
what was trained there trains in a shell to the same bits."""
import shutil
from pathlib import Path

import pytest
import torch

from fixtures import ALL
from kernel import notebook
from lab import Lab
from mlkit.run.folder import Run
from shell import command

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
SETUP = """from mlkit.all import *
from mlkit.run.folder import find_run
def cfg(name, epochs, wait=0.02, metrics=9):
    model = dict(_target_="mine.Model", wait=wait, metrics=metrics)
    return dict(name=name, data=dict(_target_="mine.Data"), model=model, optimizer=None,
                scheduler=None, trainer=dict(max_epochs=epochs, accelerator="cpu"))"""
BOARD = ["run = train(cfg('here', 30, 0.02))", "lr_find(cfg('here', 1), steps=60).lr",
         "run = train(cfg('behind', 40, 0.08), background=True)", "run.watch()",
         "find_run('behind/last').watch()", "runs().watch()"]

IMPORTS = "import torch\nfrom torch import nn"
SCALE = "def scale(): return 1.0"
BASE = """class Base(nn.Module):
    shift = 0.0
    def __init__(self):
        super().__init__()
        self.register_buffer("facts", torch.tensor([scale(), self.shift]))
    def flat(self, x): return self.facts[0] * x.float().flatten(1) + self.facts[1]"""
NET = """class Net(Base):
    def __init__(self, width=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))
    def forward(self, x): return self.layers(self.flat(x))"""
CONFIG = """defaults: [data: mnist, model: classifier]
model: {net: {_target_: shapes.core.Net}}
trainer: {max_epochs: 1, limit_train_batches: 2, limit_val_batches: 1, limit_test_batches: 1}
callbacks: {progress: null}
"""
MODULE = ["#| default_exp core", *(f"#| export\n{o}" for o in (IMPORTS, SCALE, BASE, NET))]
FIRST = ["data = MNIST(batch_size=64)\nnet = ConvNet(1, 10)",
         "run = train(None, 'scheduler=one_cycle', data=data, model=net, lr=0.01, "
         f"epochs={8 if ALL else 1})", "as_config(run, 'configs/mine.yaml')"]


def module(folder: Path, name: str, net: str = NET):
    (folder / "shapes" / f"{name}.py").write_text("\n\n".join([IMPORTS, SCALE, BASE, net]) + "\n")


def wider(width: int, name: str = "Net") -> str:
    return NET.replace("Net", name).replace("width=8", f"width={width}")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    for name in ("nbs", "configs", "shapes"): (folder / name).mkdir()
    (folder / "settings.ini").write_text("[DEFAULT]\nlib_name = shapes\nlib_path = shapes\n")
    (folder / "configs" / "s.yaml").write_text(CONFIG)
    shutil.copy(HERE / "watch_project.py", folder / "mine.py")
    for name in ("core", "other"): module(folder, name)
    notebook(folder / "nbs" / "core.ipynb", SETUP, *BOARD, *MODULE, "", "", *FIRST)
    with Lab(folder, OMP_NUM_THREADS="1") as lab:
        lab.open("nbs/core.ipynb")
        lab.run(0)
        yield lab


def newest(lab: Lab) -> Run:
    found = [*lab.folder.glob("runs/*/*/run.json")]
    return Run(max(found, key=lambda o: (o.stat().st_mtime_ns, o)).parent)


def weights(run: Run) -> dict: return torch.load(run.checkpoint("last"))["state_dict"]


def same_bits(*runs: Run) -> bool:
    first, *others = map(weights, runs)
    return all(first.keys() == o.keys() and all(torch.equal(v, o[k]) for k, v in first.items())
               for o in others)


def test_a_training_stays_still(lab):
    "30 epochs, 18 metrics: no flicker, no jump, nothing wider than the cell."
    lab.start(1)
    lab.wait_for(1, "epoch 0 of 30")
    lab.film(1)
    lab.wait_for(1, "epoch [1-9] of 30")
    lab.page.evaluate("document.querySelector('.mlkit-board details').open = true")
    lab.wait_for(1, r"epoch 1\d of 30")
    assert lab.page.evaluate("document.querySelector('.mlkit-board details').open")
    lab.page.evaluate("document.querySelector('.mlkit-board details').open = false")
    lab.wait(1)
    frames = [o for o in lab.frames() if "\n" in o["text"]]
    closed = {round(o["height"]) for o in frames if not o["open"]}
    assert len(closed) == 1 and len({round(o["height"]) for o in frames if o["open"]}) == 1
    assert not any(o["blank"] for o in frames)
    assert max(o["wide"] for o in frames) <= 0 and max(o["out"] for o in frames) <= 0
    times = [b["time"] for a, b in zip(frames, frames[1:]) if b["drawn"] > a["drawn"]]
    gaps = sorted(b - a for a, b in zip(times, times[1:]))
    assert len(times) > 5 and gaps[2] > 800  # at most once a second, but for the ends
    for name in ("JupyterLab Dark", "JupyterLab Light"):
        lab.theme(name)
        assert lab.contrast(1) > 3


def test_lr_find_has_a_bar(lab):
    lab.start(2)
    lab.wait_for(2, r"lr_find: \d+/60")
    assert "lr_find: " not in lab.wait(2)


def test_a_run_behind_is_watched_again(lab):
    lab.run(3)
    lab.start(4)
    lab.wait_for(4, "epoch [1-9] of 40")
    lab.reload()
    lab.interrupt()
    lab.restart()
    lab.run(0)
    lab.start(5)
    lab.wait_for(5, r"epoch \d+ of 40|done, ")
    assert "done, " in lab.wait(5)
    assert "behind" in lab.run(6) and "━" not in lab.shown(6)
    lab.edit(6, "train(cfg('plain', 40, 0)).status")
    assert "'done'" in lab.run(6)
    assert same_bits(newest(lab), Run(max(lab.folder.glob("runs/behind/*"))))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_search_is_one_table_and_can_be_interrupted(lab, workers):
    "It fills up in place; what is left when the cell is stopped, `resume` finishes."
    words = f"cfg('many{workers}', 12, {0.05 * workers}), 'seed=1,2,3,4', workers={workers}"
    lab.edit(6, f"found = search({words})")
    lab.start(6)
    lab.wait_for(6, "running")
    lab.film(6)
    lab.wait_for(6, "[1-3] of 4 done.*running")
    lab.page.wait_for_timeout(2000)
    frames = [o for o in lab.frames() if o["height"]]
    assert len({round(o["height"]) for o in frames}) == 1 and not any(o["blank"] for o in frames)
    assert max(o["wide"] for o in frames) <= 0 and max(o["out"] for o in frames) <= 0
    times = [b["time"] for a, b in zip(frames, frames[1:]) if b["drawn"] > a["drawn"]]
    gaps = sorted(b - a for a, b in zip(times, times[1:]))
    assert len(times) > 2 and gaps[len(gaps) // 2] > 800  # at most once a second
    assert lab.page.evaluate("document.querySelectorAll('.mlkit-board svg polyline').length") > 0
    for name in ("JupyterLab Dark", "JupyterLab Light"):
        lab.theme(name)
        assert lab.contrast(6) > 3
    lab.interrupt()
    assert "runs are done" in lab.wait(6)
    before = {o: o.read_bytes() for o in lab.folder.glob(f"runs/many{workers}/*/run.json")}
    lab.edit(6, "found = resume(found)\n[o.status for o in found.trials], found.done")
    assert "['done', 'done', 'done', 'done'], True" in lab.run(6)
    runs = [Run(o.parent) for o in lab.folder.glob(f"runs/many{workers}/*/run.json")]
    done = [o for o, text in before.items() if b'"status": "done"' in text]
    assert len(runs) == 4 and done and all(o.read_bytes() == before[o] for o in done)
    assert any(o.info.get("resumed") for o in runs)  # one was cut off, and went on
    lab.edit(6, f"train(cfg('many{workers}', 12, 0), 'seed=1').status")
    assert "'done'" in lab.run(6)
    assert same_bits(newest(lab), Run(min(o.dir for o in runs)))


def test_a_class_redefined_in_five_ways(lab):
    "The weights of the checkpoint say which class has been trained: its width, and its facts."
    helper, base, net, word, other = range(9, 14)
    for cell in range(7, 12): lab.run(cell)
    def trained(target: str) -> tuple[str, tuple]:
        lab.edit(word, f"run = train('configs/s.yaml', 'model.net._target_={target}')")
        text, found = lab.run(word), weights(newest(lab))
        return text, (len(found["net.layers.0.weight"]), *found["net.facts"].tolist())
    def cell(number: int, text: str):
        lab.edit(number, text)
        assert "Error" not in lab.run(number)
    core = "shapes.core.Net"
    text, facts = trained(core)
    assert facts == (8, 1, 0) and " trains" not in text
    cell(net, f"#| export\n{wider(16)}")  # exported, and edited since
    text, facts = trained(core)
    assert facts == (16, 1, 0) and "the cell trains; ../shapes/core.py has another" in text
    cell(helper, f"#| export\n{SCALE.replace('1.0', '3.0')}")  # a helper
    assert trained(core)[1] == (16, 3, 0)
    cell(base, f"#| export\n{BASE.replace('shift = 0.0', 'shift = 0.5')}")  # a base
    text, facts = trained(core)
    assert facts == (16, 3, 0) and "shapes.core.Base: an older one trains" in text
    cell(net, f"#| export\n{wider(16)}")
    assert trained(core)[1] == (16, 3, 0.5)
    for width in (4, 5):  # plain, and registered
        cell(other, wider(width, "Plain"))
        assert trained("__main__.Plain")[1] == (width, 3, 0.5)
        cell(other, f"@register\n{wider(width, 'Known')}")
        assert trained("Known")[1] == (width, 3, 0.5)
    assert trained("shapes.other.Net")[1] == (8, 1, 0)  # imported
    module(lab.folder, "other", wider(9))  # its file has changed
    text, facts = trained("shapes.other.Net")
    assert facts == (8, 1, 0) and "importlib.reload(shapes.other)" in text
    cell(other, "%load_ext autoreload\n%autoreload 2")
    module(lab.folder, "other", wider(10))
    text, facts = trained("shapes.other.Net")
    assert facts == (10, 1, 0) and " trains" not in text


def test_the_first_training_of_a_notebook_is_the_shells_own(lab):
    "MNIST and a net, made in cells; then the file that `as_config` writes, in a shell."
    shown = [lab.run(i) for i in range(14, 17)]
    assert "configs/mine.yaml" in shown[-1], shown
    cell = newest(lab)
    command("mlkit_train", "configs/mine.yaml", cwd=lab.folder, code=0, fresh=True)
    shell = newest(lab)
    assert shell.dir != cell.dir and same_bits(cell, shell)
    assert (shell.dir / "metrics.csv").read_bytes() == (cell.dir / "metrics.csv").read_bytes()
    lines = (lab.folder / "configs" / "mine.yaml").read_text().splitlines()
    assert len(lines) < 28 and "- scheduler: one_cycle" in map(str.strip, lines), lines
    if not ALL: return  # with new weights it is what the project's config says
    command("mlkit_train", "configs/mine.yaml", "model.net.weights=null", cwd=lab.folder, code=0)
    new = newest(lab)
    made = command("mlkit_train", HERE.parent / "configs/mnist.yaml", f"runs={lab.folder}/runs",
                   "data.seed=0", code=0)  # the class's own default, which is the cell's
    assert same_bits(new, newest(lab)), made.stdout
