"""A disk that is full, at any moment: what was saved loads, the status is right, the last line
names the file and what to do; once there is room, the run goes on to the same bits."""
import os
import subprocess
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from mlkit.base.errors import Interrupted, TrainingFailed, UserError
from mlkit.base.files import show_path
from mlkit.many.find import find_search
from mlkit.many.search import grid
from mlkit.run.folder import Run, list_runs
from mlkit.train import resume, train
from test_damage import config, content

HOOKS = ["on_fit_start", "on_train_epoch_start", "on_train_batch_start", "on_before_optimizer_step",
         "on_train_batch_end", "on_validation_start", "on_validation_end", "on_save_checkpoint",
         "on_train_epoch_end", "on_train_end", "on_test_start", "on_test_end"]


class Fills(pl.Callback):
    "Fills the run's file system, but for some bytes, in the n-th call of a hook."
    at: tuple | None = None  # hook, n, bytes that are left
    folder = Path()

    def __init__(self):
        self.n = 0
        for hook in HOOKS: setattr(self, hook, lambda *_, hook=hook: self.come(hook))

    def come(self, hook: str):
        if Fills.at is None or hook != Fills.at[0]: return
        self.n += 1
        if self.n == Fills.at[1]: fill(Fills.folder, Fills.at[2])

    def on_save_checkpoint(self, *args): self.come("on_save_checkpoint")
    def state_dict(self): return {}  # what it counts is no part of a run
    def load_state_dict(self, state_dict): "Nothing."


def fill(folder: Path, left: int):
    stat = os.statvfs(folder)
    with open(folder / "ballast", "wb") as f:
        f.write(bytes(max(stat.f_bavail * stat.f_frsize - left, 0)))


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    "A file system of 4 MiB."
    folder = tmp_path_factory.mktemp("small")
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder]
    try: subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError): pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(autouse=True)
def tests_are_importable(monkeypatch): monkeypatch.syspath_prepend(str(Path(__file__).parent))


def filled(folder: Path) -> dict:
    made = config(folder)
    made["callbacks"]["cut"] = dict(_target_="test_full_disk.Fills")
    return made


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        return train(filled(tmp_path_factory.mktemp("whole")))


MOMENTS = [("on_train_batch_start", 1, 0), ("on_save_checkpoint", 4, 0),
           ("on_save_checkpoint", 5, 4096), ("on_save_checkpoint", 7, 12288),
           ("on_fit_start", 1, 0), ("on_train_epoch_start", 2, 8192),
           ("on_train_batch_start", 5, 4096), ("on_before_optimizer_step", 3, 16384),
           ("on_train_batch_end", 8, 20480), ("on_validation_start", 2, 0),
           ("on_validation_end", 3, 4096), ("on_train_epoch_end", 1, 24576),
           ("on_train_end", 1, 0), ("on_test_start", 1, 0), ("on_test_end", 1, 0)]


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_a_disk_that_fills(disk, whole, capsys, moment):
    for o in disk.iterdir(): subprocess.run(["rm", "-rf", o], check=True)
    Fills.at, Fills.folder = moment, disk
    try: run = train(filled(disk))
    except TrainingFailed as e:
        run, line = e.run, capsys.readouterr().err.strip().splitlines()[-1]
        assert f"{run.dir.name}/" in line and "No space left on device" in line
        assert line.endswith(f"make room, and go on with: mlkit_train --resume "
                             f"{show_path(run.dir)}")
        assert Run(run.dir).info["status"] == "failed" and "No space left" in run.log
        assert "Traceback" in run.log
    else: assert Run(run.dir).info["status"] == "done" and moment[0] in HOOKS[9:]
    Fills.at = None
    (disk / "ballast").unlink()
    assert not [*run.dir.rglob("*.tmp"), *run.dir.rglob(".reserve")]
    for o in run.dir.rglob("*.ckpt"): torch.load(o, weights_only=True)
    if Run(run.dir).info["status"] != "done": resume(run)
    assert content(run.dir) == content(whole.dir)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_search_stops_and_goes_on(disk, workers):
    "Whatever the disk fills with: at its first file, or at a trial's."
    Fills.at, begun = None, []
    for left in (4096, 40_000, 150_000, 400_000):
        for o in disk.iterdir(): subprocess.run(["rm", "-rf", o], check=True)
        fill(disk, left)
        with pytest.raises(UserError, match=": make room|No space left") as e:
            grid(filled(disk), "seed=range(40)", workers=workers)
        assert len(str(e.value).splitlines()) == 1
        (disk / "ballast").unlink()
        found = [find_search(o) for o in disk.glob("*/search-*") if (o / "search.json").is_file()]
        assert bool(found) == ("go on with: mlkit_train --resume" in str(e.value)), str(e.value)
        if not found: continue
        statuses = [o.status for o in found[0].trials]
        assert {*statuses} <= {"done", "interrupted", "not begun"}, statuses
        assert statuses.count("not begun") > 20
        begun.append(found[0])
    assert len(begun) > 1
    subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
    try: assert begun[-1].go_on().done
    finally:
        for o in disk.iterdir(): subprocess.run(["rm", "-rf", o], check=True)
        subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)


@pytest.mark.slow
def test_an_interrupt_while_the_end_is_noted(disk, monkeypatch):
    "It is still the disk that has ended this trial, which is no failure of its own."
    for o in disk.iterdir(): subprocess.run(["rm", "-rf", o], check=True)
    Fills.at, Fills.folder = ("on_train_batch_start", 5, 4096), disk
    update = Run.update
    def interrupted(run, **changes):
        update(run, **changes)
        if changes.get("status") == "failed": raise KeyboardInterrupt
    monkeypatch.setattr(Run, "update", interrupted)
    with pytest.raises(Interrupted) as e: grid(filled(disk), "seed=range(3)")
    assert [o.status for o in e.value.result.trials] == ["interrupted", *["not begun"] * 2]
    assert e.value.run.status == "failed"
    monkeypatch.undo()
    Fills.at = None
    (disk / "ballast").unlink()
    assert e.value.result.go_on().done


@pytest.mark.slow
def test_no_room_for_a_run_at_all(disk):
    for o in disk.iterdir(): subprocess.run(["rm", "-rf", o], check=True)
    Fills.at = None
    for left in (0, 4096, 8192, 16384):
        fill(disk, left)
        with pytest.raises(UserError, match="No space left on device") as e: train(filled(disk))
        assert len(str(e.value).splitlines()) == 1
        assert [o.status for o in list_runs(disk)] in ([], ["interrupted"])
        for o in disk.iterdir(): subprocess.run(["rm", "-rf", o], check=True)
