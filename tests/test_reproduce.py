"""Runs are trained again in real processes, from a git repository whose working tree has moved on
since."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mlkit.base.errors import UserError
from mlkit.base.files import packaged_configs
from mlkit.many.reproduce import reproduce
from mlkit.run.code import PATCH_LIMIT, code_notes, code_state
from mlkit.run.folder import Run
from mlkit.run.restore import code_of, restore_code, work_folder
from shell import command

ROOT = Path(__file__).parents[1]
NET = """\
from pathlib import Path
from torch import nn
from {module} import WIDTH
BIAS = list(Path(__file__).with_name("bias.bin").read_bytes())

def net():
    out = nn.Sequential(nn.Flatten(), nn.Linear(192, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 2))
    out[3].bias.data[:] = out[3].bias.data.new_tensor(BIAS[:2]) / 255
    return out
"""
CONFIG = """\
defaults: [data: image_folder, model: classifier]
data: {root: data, size: [8, 8], batch_size: 8}
model: {net: {_target_: mine.nets.net}}
trainer: {max_epochs: 2}
extra: {token: "${oc.env:TOKEN}"}
"""


def git(cwd, *args) -> str:
    return subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *map(str, args)],
                          cwd=cwd, check=True,
                          capture_output=True, text=True).stdout


def start(name: str, *args, cwd, **env) -> subprocess.Popen:
    "A command of mlkit.cli in a process of its own."
    code = f"import sys; from mlkit.cli import {name}; sys.exit({name}())"
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], cwd=cwd, text=True,
                            stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={**os.environ, **env})


def train(config, *overrides, cwd, **env) -> Run:
    done = command("mlkit_train", config, "callbacks.progress=null", *overrides, cwd=cwd, **env)
    assert done.returncode == 0, done.stderr
    return Run((cwd / done.stdout.strip().rpartition("run: ")[2]).resolve())


def contents(folder: Path) -> dict:
    """All files that git could know: their bytes, or where a link leads, and whether they can be
    executed."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
                            cwd=folder, check=True, capture_output=True).stdout
    names = os.fsdecode(listed).split("\0")
    there = {o: folder / o for o in names if o and os.path.lexists(folder / o)}
    there = {k: p for k, p in there.items() if p.is_symlink() or p.is_file()}
    return {k: (os.readlink(p) if p.is_symlink() else p.read_bytes(), p.lstat().st_mode)
            for k, p in there.items()}


def around(folder: Path) -> list:
    "All of a repository that reproducing must leave alone."
    asked = [["status", "--porcelain"], ["stash", "list"], ["branch", "--all"],
             ["worktree", "list"], ["diff", "--cached"]]
    return [*(git(folder, *o) for o in asked), contents(folder),
            sorted(folder.glob("lab/runs/*/*"))]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A project within a repository, a run of its dirty tree, and what the tree was; then the work
    has gone on."""
    repo = tmp_path_factory.mktemp("git") / "repo"
    lab = repo / "lab"
    write(repo / ".gitignore", "__pycache__/\n.env\n/lab/runs/\n/lab/data/\n")
    write(lab / "pyproject.toml", "")
    write(lab / "a.yaml", CONFIG)
    write(lab / ".env", "TOKEN=hush-hush\n")
    for name in ("__init__.py", "old.py"): write(lab / "mine" / name, "")
    write(lab / "mine/nets.py", NET.format(module="mine.wide"))
    write(lab / "mine/wide.py", "WIDTH = 4\n")
    write(lab / "mine/bias.bin", bytes([1, 2]))
    write(lab / "tools/moved.py", "".join(f"line {i}\n" for i in range(50)))
    write(repo / "go.sh", "#!/bin/sh\n")
    for i, name in enumerate(["cats", "dogs"] * 8):
        path = lab / "data" / name / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (8, 8), np.uint8)).save(path)
    for args in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "first"]):
        git(repo, *args)

    write(lab / "mine/nets.py", NET.format(module="mine.größen"))          # changed,
    write(lab / "mine/größen.py", "WIDTH = 6\n")                           # new,
    write(lab / "mine/bias.bin", bytes(range(255, -1, -1)))                # changed, and not text,
    write(lab / "mine/more.bin", bytes(range(256)))                        # new, and not text,
    write(lab / "empty file", "")                                          # new and empty,
    (lab / "mine/old.py").unlink()                                         # gone,
    git(lab, "mv", "tools/moved.py", "tools/here.py")                      # renamed,
    (repo / "go.sh").chmod(0o755)                                          # executable,
    (lab / "link").symlink_to("mine/nets.py")                              # and a link
    run, was = train("a.yaml", cwd=lab), contents(repo)

    git(repo, "add", "lab/mine/more.bin")
    git(repo, "stash", "push", "-q", "lab/mine/more.bin")
    (lab / "mine/größen.py").unlink()
    write(lab / "mine/nets.py", "raise ImportError('the net of today')\n")
    write(lab / "mine/old.py", "back = True\n")
    git(repo, "add", "lab/mine/nets.py")
    git(repo, "commit", "-qm", "second")
    write(lab / "mine/bias.bin", bytes([9, 9]))
    write(lab / "staged.py", "x = 1\n")
    git(repo, "add", "lab/staged.py")
    return lab, run, was


@pytest.fixture
def copy(lab, tmp_path, monkeypatch):
    "A copy of the run, to change, and the current folder in the project."
    monkeypatch.chdir(lab[0])
    monkeypatch.setenv("MLKIT_TRUST", f"{tmp_path}/")  # which the project is not around
    return Run(shutil.copytree(lab[1].dir, tmp_path / "runs" / "a" / "copy"))


# Restored and trained again

def test_the_tree_is_restored_to_the_byte(lab, tmp_path):
    project, run, was = lab
    before = around(project.parent)
    done = command("mlkit_reproduce", run.dir, "--restore", tmp_path / "tree", cwd=project)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "tree") == was
    assert str(tmp_path / "tree" / "lab") in done.stdout
    git(project, "worktree", "remove", "--force", tmp_path / "tree")
    assert around(project.parent) == before


def test_a_dirty_run_is_reproduced_after_the_tree_has_changed(lab):
    project, run, _ = lab
    before = around(project.parent)
    write(project.parent / ".git/hooks/post-checkout",
          f"#!/bin/sh\ntouch {project}/hooked.txt\n").chmod(0o755)
    done = command("mlkit_reproduce", f"a/{run.dir.name}", cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (f"{run.id}: reproduced, weights and metrics are bitwise equal" in done.stdout
            and "restored from commit" in done.stdout)
    assert "epoch" in done.stdout or "loss" in done.stdout  # what the training tells, but no folder
    assert "run: " not in done.stdout
    assert "hush" not in done.stdout + done.stderr
    assert around(project.parent) == before


def test_data_that_has_changed_is_named(lab, copy):
    project, run, _ = lab
    picture = project / "data/cats/0.png"
    old = picture.read_bytes()
    pixels = np.array(Image.open(picture))
    pixels[0, 0] ^= 255
    try:
        Image.fromarray(pixels).save(picture)
        done = command("mlkit_reproduce", run.dir, cwd=project)
        assert (done.returncode == 1
                and f"the fingerprint was {run.info['data'][:12]}…, is "
                in done.stdout), done.stderr
        assert "the data has changed" in done.stdout and "epoch" not in done.stdout
        again = reproduce(run, anyway=True)
    finally: picture.write_bytes(old)
    assert not again.equal
    assert {o.partition(":")[0] for o in again.findings} == {"data", "metrics.csv", "metrics",
                                                             "best.ckpt", "last.ckpt"}


def test_other_weights_and_versions_are_named(lab, copy, capfd):
    "The copy says that it was of another torch, and of a commit whose net is narrower."
    git_was, versions = copy.info["git"], copy.info["versions"]
    write(copy.dir / "code.patch", "")
    copy.update(git={**git_was, "dirty": False}, versions={**versions, "torch": "1.0"})
    text = (copy.dir / "config.yaml").read_text()
    (copy.dir / "config.yaml").write_text(text.replace("tags: []", "tags: [x]"))
    again = reproduce(copy)
    says = "config.yaml: tags is ['x'], but the run was trained with []"
    assert says in again.findings[0] and says in capfd.readouterr().out
    assert f"versions: torch was 1.0, is {torch.__version__}" in again.findings
    assert ("last.ckpt: net.1.weight was (6, 192) torch.float32, is (4, 192) torch.float32"
            in again.findings)
    assert (not again.equal
            and any(o.startswith("metrics.csv: first in row 1 (epoch 0): ")
                    for o in again.findings))
    assert "net.1.weight" in str(again) and "net.1.weight" in again._repr_html_()


def test_unchanged_code_runs_where_it_is(lab, tmp_path, monkeypatch):
    monkeypatch.chdir(lab[0])
    state, patch = code_state(lab[0], lab[0] / "runs")
    run = Run(shutil.copytree(lab[1].dir, tmp_path / "run"))
    run.update(git=state)
    write(run.dir / "code.patch", patch)
    (tmp_path / "empty").mkdir()
    with code_of(run, tmp_path / "empty") as code:
        assert code.project == lab[0] and code.says == "unchanged since"


def test_without_git(tmp_path):
    for name in ("pyproject.toml", "mine/__init__.py"): write(tmp_path / name, "")
    write(tmp_path / "mine/nets.py",
          "from mlkit.model.nets import MLP\ndef net(): return MLP(784, 10)\n")
    write(tmp_path / "b.yaml",
          "defaults: [data: mnist, model: classifier]\nmodel: {net: {_target_: mine.nets.net}}\n"
          "trainer: {max_epochs: 1, limit_train_batches: 3, limit_val_batches: 2, "
          "limit_test_batches: 2}\n")
    env = dict(GIT_CEILING_DIRECTORIES=str(tmp_path.parent))
    run = train("b.yaml", cwd=tmp_path, **env)
    done = command("mlkit_reproduce", run.dir, cwd=tmp_path, **env)
    assert done.returncode == 0 and "made outside git" in done.stdout, done.stdout + done.stderr
    done = command("mlkit_reproduce", run.dir, "--restore", tmp_path / "tree", cwd=tmp_path, **env)
    assert (done.returncode == 2 and "made outside git" in done.stderr
            and not (tmp_path / "tree").exists())
    # it cannot be trained any more
    write(tmp_path / "mine/nets.py", "raise RuntimeError('no net')")
    done = command("mlkit_reproduce", run.dir, cwd=tmp_path, **env)
    assert (done.returncode == 1 and "training  failed" in done.stdout
            and "no net" in done.stdout), done.stderr


@pytest.mark.slow
def test_a_project_that_holds_mlkit_is_reproduced_with_its_mlkit(tmp_path):
    shutil.copytree(packaged_configs().parent, tmp_path / "mlkit",
                    ignore=shutil.ignore_patterns("__pycache__"))
    write(tmp_path / ".gitignore", "__pycache__/\nruns/\n")
    write(tmp_path / "settings.ini", "")
    config = write(tmp_path / "c.yaml", (ROOT / "configs/mnist.yaml").read_text())
    for args in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]): git(tmp_path, *args)
    short = ["trainer.max_epochs=1",
             *(f"+trainer.limit_{o}_batches=8" for o in ("train", "val", "test"))]
    # and with its threads
    run = train(config, *short, cwd=tmp_path, fresh=True, PYTHONPATH=str(tmp_path),
                OMP_NUM_THREADS="1")
    write(tmp_path / "mlkit/model/nets.py", "raise ImportError('the mlkit of today')\n")
    done = command("mlkit_reproduce", run.dir, cwd=tmp_path, fresh=True,
                   PYTHONPATH=str(tmp_path), OMP_NUM_THREADS="2")
    assert done.returncode == 0 and "bitwise equal" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_interrupted(lab, copy, tmp_path, monkeypatch, how):
    write(copy.dir / "config.yaml",
          (copy.dir / "config.yaml").read_text().replace("max_epochs: 2", "max_epochs: 100000"))
    (tmp_path / "tmp").mkdir()
    before = around(lab[0].parent)
    process = start("mlkit_reproduce", copy.dir, cwd=lab[0], TMPDIR=str(tmp_path / "tmp"))
    try:
        deadline = time.time() + 120
        while not list(
            (tmp_path / "tmp").glob("*/runs/*/*/checkpoints/last.ckpt")) and time.time() < deadline:
            time.sleep(0.1)
        process.send_signal(how)
        out, err = process.communicate(timeout=60)  # until nobody has its output open, either
    finally: process.kill()
    killed = how == signal.SIGKILL
    assert process.returncode == (-how if killed else 130) and "Traceback" not in err, err
    assert len(list((tmp_path / "tmp").glob("mlkit-*"))) == killed
    if killed:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
        monkeypatch.chdir(lab[0])
        with work_folder() as tmp, code_of(Run(copy.dir), tmp): pass
    assert around(lab[0].parent) == before and not list((tmp_path / "tmp").glob("mlkit-*"))


# What cannot be reproduced: one line, exit 2

def change(run: Run, *, code: str | bytes | None = None, **entries):
    run.update(**entries)
    if code is not None: write(run.dir / "code.patch", code)


def patch_of(run: Run) -> bytes: return (run.dir / "code.patch").read_bytes()


BAD = {
    "not done": (lambda r: change(r, status="interrupted"), "is interrupted, not done"),
    "no weights": (lambda r: shutil.rmtree(r.dir / "checkpoints"), "kept no checkpoints"),
    "commit missing": (lambda r: change(r, git={**r.info["git"], "commit": "0123456789" * 4}),
                       "has no commit 012345678901, which"),
    "commit no commit": (lambda r: change(r, git={**r.info["git"], "commit": "--orphan=x"}),
                         "is no commit: '--orphan=x'"),
    "patch missing": (lambda r: (r.dir / "code.patch").unlink(), "code.patch: is missing"),
    "patch cut off": (lambda r: change(r, code=(r.dir / "code.patch").read_bytes()[:700]),
                      "code.patch: cannot be applied to commit"),
    "patch changed": (lambda r: change(r, code=patch_of(r).replace(b"WIDTH = 6", b"WIDTH = 7")),
                      "it does not give the content that it promises for"),
    "other tree": (lambda r: change(r,
                                    code=(r.dir / "code.patch").read_bytes().replace(b"def net",
                                                                                     b"def nat")),
                   "patch does not apply"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_reproduced(lab, copy, kind):
    spoil, says = BAD[kind]
    before = around(lab[0].parent)
    spoil(copy)
    with pytest.raises(ValueError) as e: reproduce(copy)
    assert says in str(e.value) and "\n" not in str(e.value)
    assert str(e.value).startswith(("../", "/", "."))  # where
    assert around(lab[0].parent) == before


def test_outside_the_repository(lab, copy, tmp_path, monkeypatch):
    done = command("mlkit_reproduce", copy.dir, cwd=tmp_path,
                   GIT_CEILING_DIRECTORIES=str(tmp_path.parent))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "no git repository, and the run's code is commit" in done.stderr
    done = command("mlkit_reproduce", tmp_path / "nothing", cwd=tmp_path)
    assert done.returncode == 2 and "no run here" in done.stderr
    (tmp_path / "full").mkdir()
    write(tmp_path / "full" / "file", "")
    with pytest.raises(ValueError, match="give a new folder"): restore_code(copy, tmp_path / "full")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="git is not installed"):
        restore_code(copy, tmp_path / "tree")


def new_file(path: str, mode: int = 100644, line: str = "evil") -> str:
    return (f"diff --git a/{path} b/{path}\nnew file mode {mode}\nindex 0000000..1111111\n--- "
            f"/dev/null\n+++ b/{path}\n"
            f"@@ -0,0 +1 @@\n+{line}\n\\ No newline at end of file\n")


HOSTILE = {
    "above": new_file("../evil.txt"), "far above": new_file("lab/../../evil.txt"),
    "in .git": new_file(".git/hooks/post-checkout"),
    "the .git file": new_file(".git"), "in .GIT": new_file(".GIT/config"),
    "a submodule's .git": new_file("lab/.git/config"),
    "through a new link": new_file("way", 120000, "{outside}") + new_file("way/evil.txt"),
    "absolute": new_file("{outside}/evil.txt"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_patch_writes_nothing_outside(lab, copy, tmp_path, kind):
    outside = tmp_path / "outside"
    outside.mkdir()
    before = around(lab[0].parent)
    change(copy, code=HOSTILE[kind].replace("{outside}", str(outside)))
    with pytest.raises(ValueError, match="code.patch: cannot be applied"):
        restore_code(copy, tmp_path / "tree" / "deep")
    assert (not list(outside.iterdir()) and not list(tmp_path.rglob("evil.txt"))
            and not (tmp_path / "tree" / "deep").exists())
    assert around(lab[0].parent) == before


def test_links_do_not_lead_out_of_the_restored_tree(lab, copy, tmp_path):
    """A run may not have links made elsewhere: neither by the names of its large files nor by
    links in its patch."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "empty").mkdir()
    write(lab[0] / "way/large.bin", "")
    try:
        names = ["way/large.bin", "../../large.bin", str(outside / "large.bin"), "go.sh/large.bin"]
        change(copy, code=link_patch("lab/way", str(outside)),
               git={**copy.info["git"], "left_out": [f"lab/{names[0]}", *names[1:]]})
        with code_of(copy, tmp_path / "empty") as code:
            assert (code.project / "way").is_symlink() and len(code.doubts) == 4
    finally: shutil.rmtree(lab[0] / "way")
    assert not list(outside.iterdir())


def link_patch(path: str, leads_to: str) -> str:
    "A patch that git itself would write for a new link."
    hashed = subprocess.run(["git", "hash-object", "--stdin"], input=leads_to, capture_output=True,
                            text=True, check=True).stdout.strip()
    return new_file(path, 120000, leads_to).replace("1111111", hashed)


# What git keeps, whatever it is set to

SETTINGS = ["diff.noprefix=true", "diff.mnemonicPrefix=true", "diff.context=0",
            "diff.renames=copies", "core.abbrev=4", "color.ui=always",
            "diff.suppressBlankEmpty=true", "apply.whitespace=error-all",
            "apply.ignoreWhitespace=change", "diff.orderFile=/dev/null"]


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_of_git_change_nothing(tmp_path, monkeypatch, setting):
    write(tmp_path / "settings", "")
    git(tmp_path, "config", "-f", tmp_path / "settings", *setting.split("=", 1))
    repo = tmp_path / "repo"
    write(repo / "a.py", "".join(f"line {i}\t \n\n" for i in range(40)))
    for args in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]): git(repo, *args)
    write(repo / "a.py", (repo / "a.py").read_text().replace("line 20", "  line 20"))
    write(repo / "b.py", (repo / "a.py").read_text())
    for name, to in (("here", "."), ("nowhere", "gone")): (repo / name).symlink_to(to)
    monkeypatch.chdir(repo)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "settings"))
    state, patch = code_state(repo)
    run = tmp_path / "run"
    write(run / "run.json",
          json.dumps(dict(name="x", status="done", metrics={}, config={}, git=state)))
    write(run / "code.patch", patch)
    restore_code(run, tmp_path / "tree")
    assert contents(tmp_path / "tree") == contents(repo) and state["left_out"] == []


LF, CRLF = b"a = 1\nb = 2\n", b"a = 1\r\nb = 2\r\n"
CONVERTED = {  # settings; attributes; what is committed, what it is now; does all come back?
    "crlf": (["core.autocrlf=true"], "", CRLF, CRLF + b"c = 3\r\n", True),
    "mixed": (["core.autocrlf=true"], "", CRLF, CRLF + b"c = 3\n", False),
    "lf": (["core.autocrlf=true"], "", CRLF, LF + b"c = 3\n", False),
    "input": (["core.autocrlf=input"], "", LF, CRLF + b"c = 3\r\n", False),
    "unset": ([], "", LF, CRLF, True),
    "not text": (["core.autocrlf=true"], "-text", CRLF, LF, True),
    "eol": ([], "text eol=crlf", CRLF, CRLF + b"c = 3\r\n", True),
    "wrong eol": ([], "text eol=lf", LF, CRLF + b"c = 3\r\n", False),
    "utf-16": ([], "text working-tree-encoding=UTF-16", *(o.encode("utf-16") for o in "öß"), True),
    "ident": ([], "ident", b"# $Id$\n", b"# $Id: mine $\na = 1\n", False),
    "filter": (["filter.up.clean=tr a-z A-Z", "filter.up.smudge=tr A-Z a-z"], "filter=up", LF,
               LF + b"c = 3\n", True),
    "lossy": (["filter.up.clean=grep -v 2"], "filter=up", LF, LF + b"c = 3\n", False)}


@pytest.mark.parametrize("kind", CONVERTED)
def test_what_git_changes_comes_back_or_is_said(tmp_path, monkeypatch, kind):
    settings, attributes, was, now, is_exact = CONVERTED[kind]
    repo = new_repo(tmp_path / "repo", b="1")
    monkeypatch.chdir(repo)
    write(repo / ".git/info/attributes", f"a.py {attributes}\n")
    for o in settings: git(repo, "config", *o.split("=", 1))
    write(repo / "a.py", was)
    commit_all(repo)
    write(repo / "a.py", now)
    run = recorded(repo, tmp_path / "run")
    write(repo / "a.py", was)  # the work goes on
    write(repo / "b", "2")
    (tmp_path / "empty").mkdir()
    with code_of(run, tmp_path / "empty") as code:
        assert ((code.project / "a.py").read_bytes() == now) == is_exact
        assert [o[:23] for o in code.doubts] == ["a.py is not as it was t"] * (not is_exact)


def test_a_change_right_after_a_commit_is_kept(tmp_path):
    "Same size, same second as the index: git looks at the content, if the index keeps its date."
    write(tmp_path / "a.py", "x = 1\n")
    for args in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]): git(tmp_path, *args)
    write(tmp_path / "a.py", "x = 2\n")
    time.sleep(1.1)
    assert b"+x = 2" in code_state(tmp_path)[1]


def test_a_file_that_was_too_large_is_named_and_used(tmp_path, monkeypatch):
    repo = tmp_path / "repo"
    write(repo / "a.py", "")
    for args in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]): git(repo, *args)
    write(repo / "weights/large.bin", bytes(PATCH_LIMIT + 1))
    state, patch = code_state(repo)
    run = tmp_path / "run"
    write(run / "run.json",
          json.dumps(dict(name="x", status="done", metrics={}, config={}, git=state)))
    write(repo / "a.py", "x = 1\n")
    monkeypatch.chdir(repo)
    for i, says in enumerate(["today's is used", "it is gone"]):
        (tmp_path / str(i)).mkdir()
        with code_of(Run(run), tmp_path / str(i)) as code:
            assert code.doubts == [f"weights/large.bin was too large for code.patch; {says}"]
            assert (code.project / "weights/large.bin").exists() == (i == 0)
        shutil.rmtree(repo / "weights", ignore_errors=True)


# What code.patch never has: keys, by their names and by what is in them

KEY = "-----BEGIN {}PRIVATE KEY-----\n" + "MIIEowIBAAKCAQEA1c7" * 3
NAMES = """\
id_rsa id_ed25519 deep/id_ecdsa_sk id_rsa_github id_rsa.bak ID_RSA .env .env.local prod.env
conf/staging.env .envrc server.pem server.key cert.pem.bak a.p12 a.pfx store.jks a.ppk a.kdbx
prod.tfvars .netrc _netrc .npmrc .pypirc .pgpass .git-credentials .htpasswd .aws/credentials
.aws/config .ssh/config .kube/config .docker/config.json secrets.json secrets.yaml my-secrets.toml
conf/secrets credentials credentials.json db_credentials.yml client_secret_12.apps.json
passwords.txt kaggle.json token.json service-account.json service_account_prod.json api_keys.yaml
.streamlit/secrets.toml secrets/db.yaml
kubeconfig a.tfstate.backup wandb_key.txt hf_token gcp-key.json private_key.der rootkey.csv
.vault_pass .databrickscfg oauth.json my-private.asc key-in-latin-\udcff.pem""".split()
TEXTS = dict(
    rsa=KEY.format("RSA "), pkcs8=KEY.format(""), openssh=KEY.format("OPENSSH "),
    encrypted=KEY.format("RSA ").replace("MII", "Proc-Type: 4,ENCRYPTED\n\nMII", 1),
    pgp="-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n" + "lQdGBGD" * 5,
    google=json.dumps({"type": "service_account", "private_key": KEY.format("")}),
    aws="region = x\nkey = AKIA" + "QYLPMN5HFHZ3ABCD",
    aws2="aws_secret_access_key = " + "wJalr/XU" * 5,
    github="t = 'ghp_" + "aB3" * 12 + "'", hugging="hf_" + "aBcDe" * 7,
    openai="sk-proj-" + "aB3_" * 10, slack="xoxb-" + "123456789012", google2="AIza" + "aB3-_" * 7,
    jwt="eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0In0." + "a" * 43,
    putty="PuTTY-User-Key-File-2: ssh-rsa\nPrivate-" + "Lines: 8\n" + "aB3+" * 16,
    age="AGE-SECRET-KEY-" + "1" + "QPZRY9X8" * 7, base64="LS0tLS1CRUdJTi" + "BSU0EgUFJJVkFURSBLRV",
    sendgrid="SG." + "aB3-_" * 4 + "ab." + "aB3-_" * 8, kaggle='{"key" : "' + "0a1b2c3d" * 4 + '"',
    slack2="https://hooks.slack.com/services/" + "T0AAA/B0AAA/" + "aB3x" * 6,
    bearer="Authorization: Bearer " + "aB3xY9" * 7, url="pg://me:" + "s3cr3tpass" + "@host/db",
    environment="export WANDB_API_KEY=" + "0a1b2c3d" * 5,
    netrc="machine api.wandb.ai\n  login user\n  password " + "0123456789abcdef",
    password="db_password = 'correct1" + "horse2battery'", own="it says house-of-the-key")
CODE = dict.fromkeys([
    "secrets.py", "tokens.py", "tokens.txt", "tokenizer.json", "id_rsa.pub", "keys.py",
    "monkey.txt", "keypoints.json", ".env.example", "env.yaml", "password_reset.py",
    "secrets/__init__.py",
    "environment.yml", "credentials.md"], "x = 1\n")
CODE |= {"urls.py": "'http://user:password@proxy:80', 'http://[::1]:80/a@b', 'a://b:${PW}@c'\n",
         "special_tokens.json": "{}", "answer_key.csv": "a\n", "keymap.json": "{}",
         "run.sh": "export TOKENIZERS_PARALLELISM=false TOKEN=$1\nKEY=val\n# a bearer of news\n",
         "asks.py": "if '-----BEGIN PRIVATE KEY-----' in text: password = input('password: ')\n",
         "sk.txt": "task-sk-learn-pipelines-with-a-rather-long-name\n",
         "doc.md": "AKIAIOSFODNN7EXAMPLE, ghp_..., password='${oc.env:DB_PASSWORD}', hf_token\n"}


def new_repo(folder: Path, **texts) -> Path:
    for name, text in texts.items(): write(folder / name.replace("__", "/"), text)
    for args in (["init", "-q", "-b", "main"], ["add", "-f", "."], ["commit", "-qm", "first"]):
        git(folder, *args)
    return folder


def recorded(repo: Path, folder: Path) -> Run:
    "A run's folder with the code of a repository."
    state, patch = code_state(repo)
    write(folder / "run.json",
          json.dumps(dict(name="x", status="done", metrics={}, config={}, git=state)))
    write(folder / "code.patch", patch)
    return Run(folder)


def test_keys_are_left_out_and_said_and_code_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "house-of-the-key")
    repo = new_repo(tmp_path / "repo", a="1", tracked="1", prod__key="old", lib__b="1")
    new_repo(repo / "clone", c="1")
    for name in NAMES: write(repo / name, "hush-hush")
    for name, text in TEXTS.items(): write(repo / f"notes {name}.txt", f"see\n{text}\n")
    for name, text in CODE.items(): write(repo / name, text)
    git(repo, "add", "-f", "server.key", "notes rsa.txt", "secrets.py")  # staged,
    write(repo / "tracked", TEXTS["aws"])                           # changed,
    write(repo / "prod/key", KEY.format("EC "))
    write(repo / "clone/id_rsa", "hush-hush")                       # and of another repository
    write(repo / "clone/d.py", "x = 1\n")
    state, patch = code_state(repo)
    assert {*state["secrets"]} == {*NAMES, *(f"notes {o}.txt" for o in TEXTS), "tracked",
                                   "prod/key", "clone/id_rsa"}
    assert not any(o in patch for o in (b"hush-hush", b"PRIVATE KEY-----\n", b"house", b"AKIAQ"))
    assert all(f"b/{o}\n".encode() in patch for o in [*CODE, "clone/d.py"])
    run = recorded(repo, tmp_path / "run")
    monkeypatch.chdir(repo)
    with code_of(run, tmp_path / "unused") as code: assert code.says == "unchanged since"
    assert "server.key looks like a key, and is not there; today's is used" in code.doubts
    write(repo / "a", "2")
    (tmp_path / "empty").mkdir()
    with code_of(run, tmp_path / "empty") as code:
        assert (code.new / "server.key").is_symlink() and (code.new / "clone/d.py").is_file()
    said = code_notes(state)
    assert len(said) == 1 and said[0].startswith("not in code.patch (looks like a key): ")


# Repositories within the repository

FROM_FILES = ("-c", "protocol.file.allow=always")


def submodule(repo: Path, name: str = "lib") -> Path:
    "A repository with a submodule, whose own is deeper."
    deep, lib = (new_repo(repo.parent / o, **{f"{o}.py": "x = 1\n"}) for o in ("deep", "other"))
    for into, of, at in ((lib, deep, "deep"), (new_repo(repo, **{"a.py": ""}), lib, name)):
        git(into, *FROM_FILES, "submodule", "add", "-q", of, at)
        git(into, "commit", "-qm", "with a submodule")
    git(repo, *FROM_FILES, "submodule", "update", "-q", "--init", "--recursive")
    return repo / name


def commit_all(folder: Path):
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "more")


WITHIN = {
    "clean": lambda lib: None,
    "changed": lambda lib: write(lib / "other.py", "x = 2\n"),
    "new": lambda lib: write(lib / "mine/new.py", "x = 2\n"),
    "staged": lambda lib: (write(lib / "new.py", "x = 2\n"), git(lib, "add", "new.py")),
    "gone": lambda lib: (lib / "other.py").unlink(),
    "not text": lambda lib: write(lib / "other.py", bytes(range(256))),
    "a link": lambda lib: (lib / "link").symlink_to("other.py"),
    "committed": lambda lib: (write(lib / "other.py", "x = 2\n"), commit_all(lib)),
    "committed and changed": lambda lib: (write(lib / "new.py", ""), commit_all(lib),
                                          write(lib / "new.py", "x = 2\n")),
    "deep": lambda lib: write(lib / "deep/deep.py", "x = 2\n"),
    "deep, committed": lambda lib: (write(lib / "deep/deep.py", "2\n"), commit_all(lib / "deep")),
    "a clone": lambda lib: write(new_repo(lib.parent / "clone", **{"c.py": "1\n"}) / "c.py", "2\n"),
    "a clone in it": lambda lib: new_repo(lib / "clone", **{"c.py": "x = 1\n"}),
    "ignored by settings": lambda lib: (git(lib.parent, "config", "submodule.lib.ignore", "all"),
                                        write(lib / "other.py", "x = 2\n"), commit_all(lib)),
    "assumed unchanged": lambda lib: (git(lib, "update-index", "--assume-unchanged", "other.py"),
                                      write(lib / "other.py", "x = 2\n")),
    "of the same second": lambda lib: (git(lib, "config", "core.trustctime", "false"),
                                       os.utime(lib / "other.py", (1e9, 1e9)),
                                       git(lib, "update-index", "-q", "--refresh"),
                                       git(lib, "update-index", "--assume-unchanged", "other.py"),
                                       write(lib / "other.py", "x = 2\n"),
                                       os.utime(lib / "other.py", (1e9, 1e9))),
    "skipped": lambda lib: (git(lib, "update-index", "--skip-worktree", "other.py"),
                            write(lib / "other.py", "x = 2\n")),
    "odd name": lambda lib: (git(lib.parent, "mv", lib.name, "a ö\"b"),
                             write(lib.parent / "a ö\"b" / "näw\n.py", "x = 2\n")),
    "added": lambda lib: git(lib.parent, *FROM_FILES, "submodule", "add", "-q",
                             lib.parent.parent / "deep", "second"),
    "uninitialised": lambda lib: git(lib.parent, "submodule", "deinit", "-q", "-f", lib.name),
}


def all_contents(repo: Path) -> dict:
    "The contents of a repository and of those within it."
    return {o.parent.relative_to(repo): contents(o.parent) for o in repo.rglob(".git")}


FAST = ["deep", "a clone", "skipped"]
SLOW = [pytest.param(o, marks=pytest.mark.slow) for o in WITHIN if o not in FAST]


@pytest.mark.parametrize("kind", [*FAST, *SLOW])
def test_repositories_within_the_repository_are_restored(tmp_path, monkeypatch, kind):
    lib = submodule(tmp_path / "repo")
    repo = lib.parent
    WITHIN[kind](lib)
    monkeypatch.chdir(repo)
    was, before = all_contents(repo), git(repo, "status", "--porcelain")
    run = recorded(repo, tmp_path / "run")
    restore_code(run, tmp_path / "tree")
    assert all_contents(tmp_path / "tree") == was
    assert code_state(tmp_path / "tree")[1] == (run.dir / "code.patch").read_bytes()
    with code_of(run, tmp_path / "unused") as code: assert code.says == "unchanged since"
    write(lib.parent / "here/today.py", "")
    for o in repo.glob("*/other.py"): write(o, "today = True\n")
    (tmp_path / "empty").mkdir()
    with code_of(run, tmp_path / "empty") as code: assert all_contents(code.new) == was
    assert not [*(tmp_path / "empty").iterdir()]
    assert before in git(repo, "status", "--porcelain") + before
    for o in repo.rglob(".git"):  # only the one that was restored to stay is left
        assert len(git(o.parent, "worktree", "list").splitlines()) <= 2


def test_a_submodule_that_is_not_there_is_said(tmp_path, monkeypatch):
    lib = submodule(tmp_path / "repo")
    run = recorded(lib.parent, tmp_path / "run")
    monkeypatch.chdir(lib.parent)
    of_git = run.info["git"]
    tree, out = tmp_path / "tree", "leads out of it"
    for name, says in {"lib": "^lib: has no commit 00000000", "nothing": "^nothing: has no commit",
                       "../deep": out, str(tmp_path / "deep"): out, ".git": "has no c"}.items():
        run.update(git={**of_git, "submodules": {name: "0" * 40}})
        with pytest.raises(ValueError, match=says): restore_code(run, tree)
        assert not tree.exists()
    run.update(git={**of_git, "submodules": {"lib": "--orphan"}})
    with pytest.raises(ValueError, match="has no commit --orphan"): restore_code(run, tree)


STARTS = {  # a setting of the repository, and one of a repository's files
    "fsmonitor": ("core.fsmonitor", ""), "filter": ("filter.x.clean", "* filter=x\n"),
    "process": ("filter.x.process", "* filter=x\n"), "diff": ("diff.external", ""),
    "command": ("diff.x.command", "* diff=x\n"), "textconv": ("diff.x.textconv", "* diff=x\n"),
    "hooks": ("core.hooksPath", ""), "included": ("include.path", ""),
    "tree": ("core.worktree", "")}


@pytest.mark.parametrize("kind", STARTS)
def test_a_clone_that_lies_there_starts_no_program(tmp_path, monkeypatch, kind):
    clone = new_repo(new_repo(tmp_path / "repo", a="1") / "clone", **{"c.py": "1\n"})
    monkeypatch.chdir(tmp_path / "repo")
    (name, attributes), mark = STARTS[kind], tmp_path / "mark"
    for place in "evil", "post-index-change":
        write(tmp_path / place, f"#!/bin/sh\ntouch {mark}\ncat\n").chmod(0o755)
    write(tmp_path / "settings", f"[core]\nfsmonitor = {tmp_path / 'evil'}\n")
    value = dict(hooks="", included="settings", tree="").get(kind, "evil")
    git(clone, "config", name, tmp_path / value)
    write(clone / ".gitattributes", attributes)
    write(clone / "c.py", "2\n")
    state, patch = code_state(tmp_path / "repo")
    assert not mark.exists() and b"evil" not in patch
    is_read = kind in ("diff", "command", "textconv", "hooks")  # these are switched off
    assert state["left_out"] == ([] if is_read else ["clone"]) and is_read == (b"c.py" in patch)
    git(clone, "config", "--unset", name)
    git(clone, "config", "core.fsmonitor", "true")
    assert b"c.py" in code_state(tmp_path / "repo")[1]


# What git refuses, and names of all sorts

def owned_by_another(repo):
    if os.getuid(): pytest.skip("only root can give files away")
    for o in [repo, *repo.rglob("*")]: os.chown(o, 12345, 12345)


REFUSES = {
    "another owner": (owned_by_another, "detected dubious ownership in repository at"),
    "no commit": (lambda repo: git(repo, "update-ref", "-d", "HEAD"), "there is no commit yet"),
    "nowhere": (lambda repo: (shutil.rmtree(repo / ".git"), write(repo / ".git", "gitdir: /x")),
                "not a git repository: /x"),
    "no HEAD": (lambda repo: (repo / ".git/HEAD").unlink(), None),
    "bare": (lambda repo: git(repo, "config", "core.bare", "true"), "must be run in a work tree"),
    "bad settings": (lambda repo: write(repo / ".git/config", "[core"), "bad config line"),
    "unknown format": (lambda repo: git(repo, "config", "core.repositoryformatversion", "99"),
                       "Expected git repo version"),
    "no git": (None, "git is not installed"),
    "outside": (lambda repo: shutil.rmtree(repo / ".git"), None)}


@pytest.mark.parametrize("kind", REFUSES)
def test_where_git_refuses_that_is_said_and_the_run_goes_on(tmp_path, monkeypatch, kind):
    repo, (spoil, says) = new_repo(tmp_path / "repo", a="1"), REFUSES[kind]
    if spoil: spoil(repo)
    else: monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    state, patch = code_state(repo)
    assert (state["commit"], patch) == (None, b"") and (says or "None") in str(state.get("why"))
    notes = code_notes(state)
    assert notes == ([f"its code is not recorded: {state['why']}"] if says else [])
    if spoil: assert not notes or "\n" not in notes[0]
    write(tmp_path / "run/run.json",
          json.dumps(dict(name="x", status="done", metrics={}, config={}, git=state)))
    with pytest.raises(ValueError, match="has no code: " if says else "made outside git"):
        restore_code(tmp_path / "run", tmp_path / "tree")


ODD = [b"latin-\xe9.py", b"\xff\xfe", b"line\nbreak.py", b"tab\t.py", b'"quoted".py', b"-dash",
       b":colon", b"back\\slash", b" space ", "größe.py".encode(), b"d/b/\xff/c", b"*star?",
       b"!bang", b"#hash", b"esc\x1b[31m"]


def test_names_of_all_sorts(tmp_path, monkeypatch):
    repo = new_repo(tmp_path / "repo", a="1")
    for name in ODD[::2]:
        path = os.path.join(os.fsencode(repo), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file: file.write("1\n")
    commit_all(repo)
    for name in ODD:
        path = os.path.join(os.fsencode(repo), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "a") as file: file.write("2\n")
    write(repo / "large \udcff.bin", bytes(PATCH_LIMIT + 1))
    run = recorded(repo, tmp_path / "run")
    monkeypatch.chdir(repo)
    restore_code(run, tmp_path / "tree")
    was = all_contents(repo)
    del was[Path(".")]["large \udcff.bin"]
    assert all_contents(tmp_path / "tree") == was
    assert Run(run.dir).info["git"]["left_out"] == ["large \udcff.bin"]
    for i in range(1500): write(repo / f"data/{i}", bytes(PATCH_LIMIT // 64))
    left_out = code_state(repo)[0]["left_out"]
    assert len(left_out) < 1000 and "large \udcff.bin" in left_out


@pytest.mark.parametrize("name", ["loop", "loop/x", "a" * 300, "nu\0l", "\ud800", "file/x"])
def test_a_name_that_no_folder_can_have(name, tmp_path, monkeypatch):
    repo = new_repo(tmp_path / "repo", a="1", file="")
    (repo / "loop").symlink_to("loop")
    run = recorded(repo, tmp_path / "run")
    monkeypatch.chdir(repo)
    with pytest.raises(UserError) as e: restore_code(run, name)
    assert len(str(e.value).splitlines()) == 1
    if "/" in name or name in ("nu\0l", "\ud800"): return
    (run.dir / "code.patch").unlink(missing_ok=True)
    (run.dir / "code.patch").symlink_to(name)
    with pytest.raises(UserError): restore_code(run, "tree")


# What a killed process leaves, and what is somebody's

HOLDS = """\
import sys, time
from mlkit.run.folder import Run
from mlkit.run.restore import code_of, work_folder
with work_folder() as tmp, code_of(Run(sys.argv[1]), tmp) as code:
    print(tmp, flush=True)
    time.sleep(100)
"""


def holds(run: Run) -> tuple[subprocess.Popen, Path]:
    "A process that has a run's code in a folder, and the folder."
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(run.dir)], text=True,
                               stdout=subprocess.PIPE)
    return process, Path(process.stdout.readline().strip())


def trees(repo: Path) -> list[str]:
    return [o.split()[0] for o in git(repo, "worktree", "list").splitlines()][1:]


@pytest.mark.parametrize("what", ["killed", *(pytest.param(o, marks=pytest.mark.slow) for o in (
    "killed, where the code is unchanged", "killed, and its folder is gone", "half made",
    "alive"))])
def test_what_a_killed_process_left_goes_and_what_is_used_stays(tmp_path, monkeypatch, what):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    lib = submodule(tmp_path / "repo")
    repo = lib.parent
    monkeypatch.chdir(repo)
    run = recorded(repo, tmp_path / "run")
    restore_code(run, tmp_path / "mine")
    git(repo, "worktree", "add", "-q", tmp_path / "away")
    shutil.move(tmp_path / "away", tmp_path / "elsewhere")  # on a drive that is not there now
    mine = trees(repo), trees(lib)
    if "unchanged" not in what: write(lib / "other.py", "today = True\n")
    process, folder = holds(run)
    killed = what != "alive"
    assert trees(repo) != mine[0] or "unchanged" in what
    try:
        if killed: process.kill(), process.wait()
        if "gone" in what: shutil.rmtree(folder)
        if what == "half made": git(repo, "worktree", "lock", folder / "tree", "--reason", "init")
        with work_folder() as tmp, code_of(run, tmp) as code:
            assert code.new == tmp / "tree" or "unchanged" in what
        assert folder.exists() != killed and len(trees(repo)) == len(mine[0]) + (not killed)
        assert len(trees(lib)) == len(mine[1]) + (not killed)
    finally: process.kill(), process.wait()
    with work_folder() as tmp, code_of(run, tmp): pass
    assert (trees(repo), trees(lib)) == mine and not [*(tmp_path / "tmp").glob("mlkit-*")]
