"Folders that are whole or not there; names that no file, no folder, no terminal can have."
import json
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from mlkit import cli
from mlkit.base import files
from mlkit.base.errors import UserError
from mlkit.base.files import atomic, atomic_folder, temporary_folder
from shell import SCRIPTS


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_a_folder_is_whole_or_not_there(tmp_path, stop):
    with pytest.raises(stop), atomic_folder(tmp_path / "data" / "set") as made:
        (made / "1.txt").write_text("half of it")
        raise stop
    assert list((tmp_path / "data").iterdir()) == []


def test_many_make_the_same_folder(tmp_path):
    def make(i):
        with atomic_folder(tmp_path / "set") as made:
            for name in "ab": (made / name).write_text(str(i))
    with ThreadPoolExecutor(8) as pool: list(pool.map(make, range(64)))
    assert [o.name for o in tmp_path.iterdir()] == ["set"]
    assert len({(tmp_path / "set" / name).read_text() for name in "ab"}) == 1  # both of one maker


def test_a_file_is_not_taken_for_a_folder(tmp_path):
    (tmp_path / "set").write_text("mine")
    with pytest.raises(OSError), atomic_folder(tmp_path / "set") as made:
        (made / "a").write_text("")
    assert [o.name for o in tmp_path.iterdir()] == ["set"]
    assert (tmp_path / "set").read_text() == "mine"


# -- names that no file can have

LONG, NUL, HALF = "a" * 300, "a\0b", "a\ud800b"


@pytest.mark.parametrize("name", [LONG, NUL, HALF, f"{LONG}/b.yaml", f"configs/{LONG}.yaml"])
def test_a_name_that_no_file_can_have_is_a_mistake_in_a_line(name, tmp_path, monkeypatch):
    from mlkit.config.load import explain, load_config
    from mlkit.data.folder import ImageFolder
    from mlkit.many.table import runs
    from mlkit.run.folder import Run, find_run, list_runs
    from mlkit.use import predict, trained
    write = (tmp_path / "a.yaml").write_text
    monkeypatch.chdir(tmp_path)
    def extends():
        write(yaml.safe_dump(dict(extends=name)))
        load_config("a.yaml")
    def defaults():
        write(yaml.safe_dump(dict(defaults=[dict(data=name)])))
        load_config("a.yaml")
    calls = [lambda: load_config(name), lambda: explain(name), extends, defaults, lambda: Run(name),
             lambda: find_run(name), lambda: list_runs(name), lambda: runs(name),
             lambda: trained(name), lambda: predict(name, "x"), lambda: ImageFolder(name).setup()]
    for call in calls:
        with pytest.raises(UserError) as e: call()
        assert len(str(e.value).splitlines()) == 1


@pytest.mark.parametrize("key", ["runs", "name", "+extra.a", "data.root", "tags.0", "optimizer"])
@pytest.mark.parametrize("byte", ["a\udcff", "[a, \udcff]", "{\udcff: 1}"])
def test_a_byte_that_is_no_letter(key, byte, tmp_path, root, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.mlkit_train([str(root / "configs" / "mnist.yaml"), f"{key}={byte}"]) == 2
    assert "Traceback" not in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("command, args", [
    ("mlkit_train", [LONG]), ("mlkit_train", [f"configs/{LONG}.yaml", "--check"]),
    ("mlkit_train", ["configs/mnist.yaml", f"{LONG}=1"]), ("mlkit_train", ["--resume", LONG]),
    ("mlkit_train", ["configs/mnist.yaml", f"data={LONG}"]),
    ("mlkit_eval", [LONG]), ("mlkit_predict", [LONG, "x"]), ("mlkit_reproduce", [LONG]),
    ("mlkit_runs", [LONG]), ("mlkit_runs", ["--compare", LONG, LONG])])
def test_a_long_name_in_a_shell(command, args, capsys, root, monkeypatch):
    monkeypatch.chdir(root)
    assert getattr(cli, command)(args) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1 and "Traceback" not in said


# -- a run's name, and what a terminal cannot show

@pytest.mark.parametrize("file, way", [
    ("my run.yaml", "such as name=my_run"), ("größe 2.yaml", "name=größe_2"),
    ("a+b.yaml", "name=a_b"), ("größe.yaml", ""), ("gro\u0308ße.yaml", ""), ("数字.yaml", ""),
    ("हिन्दी.yaml", ""), ("2024.yaml", "")])
def test_a_files_name_that_is_no_folders_comes_with_one_that_is(file, way, tmp_path, root, capsys):
    text = (root / "configs" / "mnist.yaml").read_text(encoding="utf-8")
    (tmp_path / file).write_text(text, encoding="utf-8")
    code = cli.mlkit_train([str(tmp_path / file), "--check"])
    said = capsys.readouterr()
    assert (code, said.out) == ((2, "") if way else (0, "no problems\n")), said.err
    assert way in said.err and len(said.err.splitlines()) == bool(way)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "cp437", "utf-8"])
def test_what_an_encoding_lacks_is_replaced(encoding, tmp_path, root):
    info = dict(name="größe", status="done", metrics={"test/acc": 0.5}, started="", seconds=1.0,
                tags=["数字", "…"], seed=0, config=dict(x="→" * 70))
    for name in ("1", "2"):
        (tmp_path / "a" / name).mkdir(parents=True)
        (tmp_path / "a" / name / "run.json").write_text(json.dumps({**info, "seed": int(name)}))
    for args in (["--compare", tmp_path / "a" / "1", tmp_path / "a" / "2"],
                 [tmp_path, "--metrics", "tags", "x"]):
        done = subprocess.run([SCRIPTS / "mlkit_runs", *args], cwd=root, capture_output=True,
                              env=os.environ | dict(PYTHONIOENCODING=encoding))
        assert done.returncode == 0, done.stderr.decode()


def fill(space: Path, how: str, then):
    "Leave something half written, and call `then` amid it."
    if how == "file":
        with atomic(space / "a.csv") as tmp:
            tmp.write_text("half")
            then()
    if how == "folder":
        with atomic_folder(space / "cache") as tmp:
            (tmp / "a").write_text("half")
            then()
    if how == "temporary":
        with temporary_folder() as tmp:
            (tmp / "a").write_text("half")
            then()


def left(space: Path) -> list[str]: return sorted(o.name for o in space.glob("*.mlkit.tmp"))


def leave(space: Path, how: str):
    "Have a process killed while it writes."
    if not (pid := os.fork()):
        try: fill(space, how, lambda: os.kill(os.getpid(), signal.SIGKILL))
        finally: os._exit(0)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("how", ["file", "folder", "temporary"])
def test_who_comes_next_removes_what_a_killed_process_left(tmp_path, monkeypatch, how):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    link = "link" + files._TEMPORARY
    (tmp_path / link).symlink_to(tmp_path.parent)
    others = [".a.mlkit.tmp.b", ".b.0123abcd.tmp", ".c-01234567.mlkit.tmp", "a.tmp", link]
    for name in others[:-1]: (tmp_path / name).touch()  # another program's, another machine's
    theirs = left(tmp_path)
    for next_one in ("file", "folder", "temporary"):
        leave(tmp_path, how)
        assert len(left(tmp_path)) == len(theirs) + 1
        def look():
            now = left(tmp_path)
            assert len(now) == len(theirs) + 1  # its own
            fill(tmp_path, "file", lambda: None)
            assert left(tmp_path) == now  # which another leaves alone
        fill(tmp_path, next_one, look)
        assert left(tmp_path) == theirs
    assert {*others} <= {o.name for o in tmp_path.iterdir()} and tmp_path.parent.is_dir()


def no_flock(*_): raise OSError("no locks here")


@pytest.mark.parametrize("how", ["file", "folder", "temporary"])
@pytest.mark.parametrize("lacks", ["fcntl", "fcntl.flock"])  # Windows; some network's disks
def test_where_there_are_no_locks_nothing_is_removed(tmp_path, monkeypatch, how, lacks):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if lacks == "fcntl": monkeypatch.setattr(files, "fcntl", None)
    else: monkeypatch.setattr(files.fcntl, "flock", no_flock)
    leave(tmp_path, how)
    was = left(tmp_path)
    def look():
        now = left(tmp_path)
        assert len(now) == 2
        fill(tmp_path, "file", lambda: None)
        assert left(tmp_path) == now
    fill(tmp_path, how, look)
    assert left(tmp_path) == was and len(was) == 1
    made = {"file": tmp_path / "a.csv", "folder": tmp_path / "cache" / "a"}
    if how in made: assert made[how].read_text() == "half"
