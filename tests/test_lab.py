"""In a real JupyterLab, in a real browser: a training in a cell is a picture that stays still, and
a run in the background is watched again after the tab was loaded anew and the kernel restarted."""
import shutil
from pathlib import Path

import pytest
import torch

from lab import Lab, notebook
from mlkit.run.folder import Run

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
SETUP = """from mlkit.all import *
from mlkit.run.folder import find_run
def cfg(name, epochs, wait=0.02, metrics=9):
    model = dict(_target_="mine.Model", wait=wait, metrics=metrics)
    return dict(name=name, data=dict(_target_="mine.Data"), model=model, optimizer=None,
                scheduler=None, trainer=dict(max_epochs=epochs, accelerator="cpu"))"""
CELLS = [SETUP, "run = train(cfg('here', 30, 0.04))", "lr_find(cfg('here', 1), steps=60).lr",
         "run = train(cfg('behind', 40, 0.08), background=True)", "run.watch()",
         "find_run('behind/last').watch()", "runs().watch()"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    (folder / "pyproject.toml").touch()
    shutil.copy(HERE / "watch_project.py", folder / "mine.py")
    notebook(folder / "a.ipynb", *CELLS)
    with Lab(folder, PYTHONPATH=str(HERE.parent), OMP_NUM_THREADS="1") as lab:
        lab.open("a.ipynb")
        lab.run(0)
        yield lab


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
    lab.run(0, 120)
    lab.start(5)
    lab.wait_for(5, r"epoch \d+ of 40")
    assert "done, " in lab.wait(5, 120)
    assert "behind" in lab.run(6) and "━" not in lab.shown(6)
    plain = "train(cfg('plain', 40, 0)).status"
    lab.page.evaluate(f"jupyterapp.shell.currentWidget.content.widgets[6].model.sharedModel"
                      f".setSource({plain!r})")
    assert "'done'" in lab.run(6)
    found = {o.parts[-3]: Run(o.parent) for o in lab.folder.glob("runs/*/*/run.json")}
    weights = [torch.load(found[o].checkpoint("last"))["state_dict"] for o in ("behind", "plain")]
    assert all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())
