"A run that is done is taken again if nothing differs, and only then."
import multiprocessing
import os
import shutil
import sys
import traceback
from pathlib import Path

import pytest

import reuse_more
import reuse_project

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


PROJECTS = dict(shapes=reuse_project, ways=reuse_more)


@pytest.fixture(scope="module", params=PROJECTS)
def trained(request, tmp_path_factory) -> Path:
    "A project, and a run of it."
    from mlkit import use  # noqa: F401  # what all forks need
    root = tmp_path_factory.mktemp("reuse") / request.param
    PROJECTS[request.param].make(root)
    if request.param == "shapes":
        (root / "data" / "y.bin").write_bytes((root / "data" / "x.bin").read_bytes())
    assert train(root) == "done"
    return root


def train(root: Path, *words: str) -> str:
    def now():
        from mlkit.train import train
        if "data.how=cached" in words: __import__("ways.unknown").unknown.names()
        return train(f"configs/{root.name}.yaml", *words).status
    return in_fork(root, now)


def is_same(root: Path, change) -> tuple[bool, str]:
    def look():
        from mlkit.fit.reuse import Needs, same_run
        from mlkit.parts.check import check
        if callable(change): change(root)
        words = () if callable(change) else change
        run, says = same_run(Needs(check(f"configs/{root.name}.yaml", *words)))
        return run is not None, says
    return in_fork(root, look)


@pytest.mark.slow
def test_a_hundred_changes(trained, tmp_path, figure):
    project, kept, wrong = PROJECTS[trained.name], tmp_path / "kept", []
    shutil.copytree(trained, kept, symlinks=True)
    cases = [(kind is project.SAME, *o) for kind in (project.SAME, project.OTHER)
             for o in kind.items()]
    for expected, name, change in cases:
        found = is_same(trained, change)
        if found[0] is not expected: wrong.append((name, found))
        shutil.rmtree(trained)
        shutil.copytree(kept, trained, symlinks=True)
    figure(f"{len(cases)} changes of {len(project.SAME)} and {len(project.OTHER)} kinds: "
           f"{len(wrong)} are told wrongly")
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("how", reuse_more.UNKNOWN)
def test_what_may_have_read_unseen_is_not_reused(how, tmp_path):
    root = tmp_path / "ways"
    reuse_more.make(root)
    assert train(root, f"data.how={how}") == "done"
    is_found, says = is_same(root, (f"data.how={how}",))
    assert not is_found and "differs in unknown" in says
