"Whose a config or a run is, and what a stranger's may do."
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from mlkit.base.own import allow_folder, is_own, may_read, outside, remember_runs, stranger_folder


def lay(folder: Path, *names: str):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")


def git(folder: Path, *args: str):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", folder, *who, *args], check=True, capture_output=True)


CASES = dict(  # the current folder; what there is; what is asked; is it one's own?
    cwd=("a", [], "a/cfg.yaml", True), below_cwd=("a", [], "a/b/cfg.yaml", True),
    beside_cwd=("a", [], "b/cfg.yaml", False), above_cwd=("a", [], "cfg.yaml", False),
    run_in_cwd=("a", ["a/runs/x/y/run.json"], "a/runs/x/y", True),
    downloaded_run=("a", ["a/theirs/run.json"], "a/theirs/config.yaml", False),
    cwd_is_a_run=("a", ["a/run.json"], "a/config.yaml", False),
    cwd_is_a_run_with_marks=("a", ["a/run.json", "a/pyproject.toml"], "a", False),
    project_in_cwd=("a", ["a/b/pyproject.toml"], "a/b/cfg.yaml", False),
    project=("a/nbs", ["a/settings.ini"], "a/configs/cfg.yaml", True),
    run_of_project=("a/nbs", ["a/settings.ini", "a/out/x/run.json"], "a/out/x", True),
    project_in_project=("a", ["a/setup.cfg", "a/settings.ini", "a/b/c/pyproject.toml"],
                        "a/b/c/d.yaml", False),
    repository_in_project=("a", ["a/settings.ini", "a/b/.git/HEAD"], "a/b/c.yaml", False),
    project_beside=("a", ["a/settings.ini", "b/settings.ini"], "b/c.yaml", False),
    project_above=("a/b", ["a/settings.ini", "a/b/settings.ini"], "a/c.yaml", False),
    named_alike=("a", ["a/settings.ini"], "ab/c.yaml", False),
    dots=("a", ["a/settings.ini"], "a/b/../../c.yaml", False),
    folder_of_all=("a", [], ".", False))


@pytest.mark.parametrize("case", CASES)
def test_whose_it_is(case, tmp_path, monkeypatch):
    cwd, names, asked, expected = CASES[case]
    (tmp_path / cwd).mkdir(parents=True)
    lay(tmp_path, *names)
    monkeypatch.chdir(tmp_path / cwd)
    assert is_own(tmp_path / asked) == expected
    assert is_own(os.path.relpath(tmp_path / asked)) == expected
    assert is_own(tmp_path / asked, trust=f"{tmp_path}/")
    assert (stranger_folder(tmp_path / asked) is None) == expected


def test_links_lead_to_what_is_ones_own(tmp_path, monkeypatch):
    lay(tmp_path, "real/settings.ini", "real/cfg.yaml", "big/runs/a/run.json", "theirs/x/b.yaml")
    for name, to in {"link": "real", "real/runs": "big/runs", "theirs/cfg.yaml": "real/cfg.yaml",
                     "real/shared": "theirs"}.items():
        (tmp_path / name).symlink_to(tmp_path / to)
    monkeypatch.chdir(tmp_path / "link")
    own = ["link/cfg.yaml", "real/cfg.yaml", "link/runs/a", "real/runs/a", "real/shared/x/b.yaml"]
    assert all(is_own(tmp_path / o) for o in own)
    assert not any(is_own(tmp_path / o) for o in ("theirs/cfg.yaml", "theirs/x/b.yaml"))


def test_git_knows_what_belongs_together(tmp_path, monkeypatch):
    lay(tmp_path, "a/one/pyproject.toml", "a/two/pyproject.toml", "sub/pyproject.toml")
    git(tmp_path / "sub", "init")
    git(tmp_path / "a", "init")
    monkeypatch.chdir(tmp_path / "a")
    assert is_own("one/x.yaml")  # nothing is tracked yet
    git(tmp_path / "a", "add", "one")
    assert is_own("one/x.yaml") and not is_own("two/x.yaml")
    git(tmp_path / "sub", "add", ".")
    git(tmp_path / "sub", "commit", "-m", "a")
    git(tmp_path / "a", "-c", "protocol.file.allow=always", "submodule", "add", "../sub", "lib/sub")
    git(tmp_path / "a", "commit", "-m", "a")
    git(tmp_path / "a", "worktree", "add", "../tree")
    trees = ["lib/sub/x.yaml", "../tree/x.yaml", "../tree/one/x.yaml", "../tree/runs/x"]
    assert all(map(is_own, trees)) and not is_own("../sub/x.yaml")
    monkeypatch.chdir(tmp_path / "tree")
    assert is_own("../a/runs/x") and not is_own("../sub/x.yaml")
    lay(tmp_path, "forged/x.yaml")
    (tmp_path / "forged/.git").write_text((tmp_path / "tree/.git").read_text())
    assert not is_own("../forged/x.yaml")


def test_what_is_remembered(tmp_path, monkeypatch):
    lay(tmp_path, "a/cfg.yaml", "big/me/x/1/run.json", "tmp/x/1/run.json", "tmp/x/2/run.json",
        "shared/cfg.yaml")
    (tmp_path / "tmp").chmod(0o777)
    monkeypatch.chdir(tmp_path / "a")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    asked = [tmp_path / o for o in ("big/me/x/2", "tmp/x/1", "tmp/x/2", "shared/cfg.yaml")]
    assert not any(map(is_own, asked))
    for run, runs in (("big/me/x/1", "big/me"), ("tmp/x/1", "tmp")):
        for _ in range(2): remember_runs(tmp_path / run, tmp_path / runs)
    allow_folder("../shared")
    assert [is_own(o) for o in asked] == [True, True, False, True]
    file = tmp_path / "state/mlkit/runs"
    assert len(file.read_text().splitlines()) == 2
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with open(file, "a") as f: f.write(f"{tmp_path}/gone/runs\n/mnt/not/here/runs\n")
    (tmp_path / "more").mkdir()
    remember_runs(tmp_path / "more" / "1", tmp_path / "more")
    now = file.read_text().splitlines()
    assert "/mnt/not/here/runs" in now and f"{tmp_path}/gone/runs" not in now and len(now) == 4


def test_runs_behind_a_link_are_known_by_their_real_place(tmp_path, monkeypatch):
    lay(tmp_path, "a/pyproject.toml", "big/x/1/run.json", "big/x/2/run.json")
    (tmp_path / "a/runs").symlink_to(tmp_path / "big")
    monkeypatch.chdir(tmp_path / "a")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert is_own("runs/x/1") and not is_own("../big/x/1")
    remember_runs(Path("runs/x/1"), Path("runs"))
    assert is_own("../big/x/1") and is_own("../big/x/2")


@pytest.mark.parametrize("config, home", {
    "theirs/a/run/config.yaml": "theirs/a/run", "theirs/configs/x.yaml": "theirs",
    "loose/x.yaml": "loose", "x.yaml": "x.yaml"}.items())
def test_the_folder_of_a_strangers_config(config, home, tmp_path, monkeypatch):
    lay(tmp_path, "theirs/pyproject.toml", "theirs/a/run/run.json", "here/cfg.yaml", "loose/x.yaml")
    monkeypatch.chdir(tmp_path / "here")
    assert stranger_folder(tmp_path / config) == tmp_path / home


NAMES = ["loop", "loop/x.yaml", "one", "dangling/x", "a" * 300, f"{'a' * 300}/x.yaml", "x/" * 3000,
         "nu\0l", "nu\0l/x.yaml", "\ud800", "latin-\udcff", "~nobody/x", "~", "", "cfg.yaml/x"]


@pytest.mark.parametrize("name", NAMES, ids=lambda o: ascii(o)[:20])
def test_whatever_the_name_is_there_is_an_answer(name, tmp_path, monkeypatch):
    lay(tmp_path, "a/cfg.yaml", "a/settings.ini")
    for link, to in dict(loop="loop", one="two", two="one", dangling="nowhere").items():
        for folder in ("", "a/"): (tmp_path / folder / link).symlink_to(to)
    monkeypatch.chdir(tmp_path / "a")
    assert is_own(name) and stranger_folder(name) is None
    assert not is_own("../cfg.yaml", trust=[f"{name}/"]) or name in ("x/" * 3000, "")
    there = tmp_path / name.replace("~", "x")
    assert is_own(there) == ("\0" in name)
    assert may_read(name, tmp_path / "a") and "trust it" in outside(there, tmp_path / "a")


def test_a_worktree_of_any_name(tmp_path, monkeypatch):
    lay(tmp_path, "a/cfg.yaml")
    git(tmp_path / "a", "init")
    git(tmp_path / "a", "add", ".")
    git(tmp_path / "a", "commit", "-m", "a")
    git(tmp_path / "a", "worktree", "add", "../latin-\udcff")
    monkeypatch.chdir(tmp_path / "a")
    assert is_own("../latin-\udcff/cfg.yaml")
    allow_folder("../latin-\udcff")
    assert is_own("../latin-\udcff") and not is_own("../latin-\udcfe")
