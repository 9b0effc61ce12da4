"A run that is done is taken again if nothing differs, and only then."
import multiprocessing
import os
import shutil
import sys
import traceback
from pathlib import Path

import pytest

import reuse_project as project

FORK = multiprocessing.get_context("fork")


def in_fork(folder: Path, task):
    "What a task gives in a process of its own, in a folder."
    ours, theirs = FORK.Pipe()
    def work():
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        try: theirs.send(task())
        except BaseException: theirs.send(traceback.format_exc())
        os._exit(0)
    process = FORK.Process(target=work)
    process.start()
    theirs.close()
    try: return ours.recv()
    finally: process.join()


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    "The project, and a run of it."
    from mlkit import use  # noqa: F401  # what all forks need
    root = tmp_path_factory.mktemp("reuse") / "project"
    project.make(root)
    (root / "data" / "y.bin").write_bytes((root / "data" / "x.bin").read_bytes())
    def train():
        from mlkit.train import train
        return train("configs/shapes.yaml").status
    assert in_fork(root, train) == "done"
    return root


def is_same(root: Path, change) -> tuple[bool, str]:
    def look():
        from mlkit.fit.reuse import Needs, same_run
        from mlkit.parts.check import check
        if callable(change): change(root)
        words = () if callable(change) else change
        run, says = same_run(Needs(check("configs/shapes.yaml", *words)))
        return run is not None, says
    return in_fork(root, look)


@pytest.mark.slow
def test_sixty_changes(trained, tmp_path, figure):
    kept, wrong = tmp_path / "kept", []
    shutil.copytree(trained, kept)
    cases = [(kind is project.SAME, *o) for kind in (project.SAME, project.OTHER)
             for o in kind.items()]
    for expected, name, change in cases:
        found = is_same(trained, change)
        if found[0] is not expected: wrong.append((name, found))
        shutil.rmtree(trained)
        shutil.copytree(kept, trained)
    figure(f"{len(cases)} changes of {len(project.SAME)} and {len(project.OTHER)} kinds: "
           f"{len(wrong)} are told wrongly")
    assert wrong == []
