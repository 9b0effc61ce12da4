"""Tables and comparisons of runs: many of them, hostile ones, unlike ones; and `mlkit_runs` as a
person meets it."""
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mlkit.base.errors import UserError
from mlkit.cli import mlkit_runs
from mlkit.config.load import load_config
from mlkit.many.compare import compare
from mlkit.many.table import _select, runs, runs_text
from mlkit.run.folder import Run

MNIST = Path(__file__).parents[1] / "configs" / "mnist.yaml"


@pytest.fixture(scope="session")
def description(tmp_path_factory) -> dict:
    "What the run.json of a finished run says."
    info = Run.new(load_config(MNIST, f"runs={tmp_path_factory.mktemp('real')}")).info
    return {**info, "status": "done", "seconds": 12.3, "device": "cpu", "data": "ab" * 32,
            "metrics": {"train/loss": 0.2, "val/loss": 0.3, "val/acc": 0.9, "test/acc": 0.91}}


def write(dir: Path, info: dict, history: str | None = None, **config) -> Path:
    "A run's folder by hand; `config` goes into its config."
    dir.mkdir(parents=True)
    (dir / "run.json").write_text(json.dumps({**info, "config": {**info["config"], **config}},
                                             indent=1))
    if history is not None: (dir / "metrics.csv").write_text(history)
    return dir


def many(dir: Path, info: dict, n: int) -> Path:
    for i in range(n):
        run = write(dir / f"job{i % 4}" / f"20260101-{i:06}-abcd",
                    {**info, "metrics": {**info["metrics"], "val/acc": i / n}}, seed=i)
        for sub in ("checkpoints", "plots"): (run / sub).mkdir()
    return dir


# -- the table

def test_text_needs_nothing_heavy(description, tmp_path):
    many(tmp_path, description, 3)
    code = f"""
import sys
from mlkit.many.table import runs_text
print(runs_text({str(tmp_path)!r}, where="val/acc > 0.1", sort="val/acc"))
assert not {{"torch", "pandas", "matplotlib", "numpy"}} & set(sys.modules), "something heavy was \
imported"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["val/acc", "0.6667",
                                                                       "0.3333"]


def test_columns_that_collide(description, tmp_path):
    write(tmp_path / "a" / "1", {**description, "metrics": {"loss": 0.5}}, seconds=99, loss="mse",
          status="mine")
    row = runs(tmp_path).iloc[0]
    assert (row["seconds"], row["loss"], row["status"]) == (12.3, 0.5, "done")
    assert (row["config.seconds"], row["config.loss"], row["config.status"]) == (99, "mse", "mine")


ROWS = [dict(run="a/1", n=1, lr=1e-3, on=True, tags=["base", "x y"], name="ResNet-50", x=None),
        dict(run="a/2", n=2, lr=0.1, on=False, tags=[], name="UNet", y=float("nan"),
             size=[16, 16]),
        dict(run="b/3", n=10, lr=1, on=1, tags=[5], name="and", size=[8, 16])]


@pytest.mark.parametrize("where, want", [
    ("n > 1", "23"), ("n>=2", "23"), ("lr <= 1e-3", "1"), ("lr == 1.0", "3"), ("n != 1", "23"),
    ("lr < .5", "12"),
    ("on == true", "1"), ("on == 1", "3"), ("x == null", "1"), ("x != 3", "1"), ("y == .nan", "2"),
    ("y < 1", ""), ("x > 1", ""),
    ("name ~ Net", "12"), ("name ~ net", ""), ("tags ~ base", "1"), ("tags ~ 'x y'", "1"),
    ("tags ~ 5", "3"), ("tags ~ bas", ""), ("name ~ 50", "1"), ("tags ~ x or n == 2", "2"),
    ("name == 'and'", "3"), ('name == and', "3"), ("name > ResNet-50", "23"), ("run ~ a/", "12"),
    ("", "123"),
    ("n == 1 or n == 2 and on == true", "1"), ("n == 2 and on == true or n == 10", "3"),
    ("n == '1'", ""), ("size == [16, 16]", "2"), ("size == [16,16] and n == 2", "2"),
    ("size != [ 16, 16 ]", "3"), ("tags == ['base', 'x y']", "1"),
    ("tags == [] or size == [8, 16]", "23"), ("'size' == [8, 16]", "3")])
def test_where(where, want):
    assert "".join(r["run"][-1] for r in _select(ROWS, where)) == want


@pytest.mark.parametrize("where, message", [
    ("nmae ~ Net", "no run has a 'nmae'; did you mean 'name'?"),
    ("n > one", "n is a number, and one is not"),
    ("n > true", "wants a number or a text"), ("n >", "is not understood"), ("n = 1", "write =="),
    ("n ~ 1", "~ looks into texts and lists, and n is 1; write n == 1"),
    ("lr ~ 0.1", "write lr == 0.1"), ("on ~ True", "write on == True"),
    ("n > 0 and n ~ 1", "write n == 1"), ("n > [1, 2]", "wants a number or a text"),
    ("n == 1 &&", "missing"),
    ("n == [1", "YAML"), ("__import__('os').system('true')", "cannot be read|is not understood")])
def test_where_that_is_wrong_says_so_in_one_line(where, message):
    with pytest.raises(ValueError, match=re.escape(message) if "|" not in message
                       else message) as e:
        _select(ROWS, where)
    assert "\n" not in str(e.value)


def test_names_are_not_judged_where_there_are_no_runs():
    assert _select([], "any/thing > 1", sort="other") == []


# -- the index: what it says is what the runs say, or it is not asked

OPENED: list[str] = []


def note_opened(event: str, args: tuple):
    if event == "open" and str(args[0]).endswith("run.json"): OPENED.append(str(args[0]))


sys.addaudithook(note_opened)


def wait_for_clock(folder: Path):
    "A run that has just changed is not noted."
    (folder / "now").touch()
    while time.time() - (folder / "now").stat().st_ctime < 2.1: time.sleep(0.1)


@pytest.fixture(scope="module")
def indexed(description, tmp_path_factory):
    "By the change that waits for it: eight runs, one of them in another's folder, and an index."
    top, folders = tmp_path_factory.mktemp("indexed"), {}
    with pytest.MonkeyPatch.context() as m:
        m.setattr("mlkit.many.table._MANY", 4)
        for i, change in enumerate((*CHANGES, "ways", "busy")):
            folders[change] = many(top / str(i) / "runs", description, 7)
            inner = folders[change] / "job0" / "20260101-000000-abcd" / "runs" / "a" / "1"
            write(inner, description)
        wait_for_clock(top)
        for folder in folders.values():
            m.setenv("XDG_CACHE_HOME", str(folder.parent / "cache"))
            runs_text(folder)
        yield folders


def use_index(monkeypatch, folder: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent / "cache"))
    OPENED.clear()
    return folder


def index(folder: Path) -> Path: return folder.parent / "cache" / "mlkit" / "runs.sqlite"
def first(folder: Path) -> Path: return folder / "job1" / "20260101-000001-abcd" / "run.json"


def rewrite(file: Path, old: str, new: str, keep_times: bool = False):
    was = file.stat()
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    if keep_times: os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))


def execute(folder: Path, statement: str):
    with closing(sqlite3.connect(index(folder))) as db, db: db.execute(statement)


def put_in_place(file: Path, old: str, new: str):
    other = file.with_name("other")
    other.write_text(file.read_text().replace(old, new))
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)


CHANGES = {
    "nothing": lambda o: None,
    "a new run": lambda o: shutil.copytree(first(o).parent, o / "job9" / "20270101-000000-abcd"),
    "a run is deleted": lambda o: shutil.rmtree(first(o).parent),
    "all of a name are deleted": lambda o: shutil.rmtree(o / "job1"),
    "its description is deleted": lambda o: first(o).unlink(),
    "a name is another": lambda o: (o / "job1").rename(o / "job7"),
    "another metric": lambda o: rewrite(first(o), '"test/acc": 0.91', '"test/acc": 0.19'),
    "as old as before": lambda o: rewrite(first(o), '"test/acc": 0.91', '"test/acc": 0.19', True),
    "another file": lambda o: put_in_place(first(o), '"test/acc": 0.91', '"test/acc": 0.19'),
    "it goes on": lambda o: rewrite(first(o), '"status": "done"', '"status": "running"'),
    "it is damaged": lambda o: first(o).write_text('{"name": '),
    "a run within a run": lambda o: shutil.copytree(first(o).parent, first(o).parent / "r/a/2"),
    "one of two runs in a run": lambda o: shutil.copytree(
        first(o).parent, o / "job0/20260101-000000-abcd/runs/a/2"),
    "no index": lambda o: index(o).unlink(),
    "half an index": lambda o: os.truncate(index(o), index(o).stat().st_size // 2),
    "an empty index": lambda o: os.truncate(index(o), 0),
    "no index at all": lambda o: index(o).write_bytes(b"0.91" * 5000),
    "another table": lambda o: execute(o, "drop table runs_1"),
    "fewer columns": lambda o: execute(o, "alter table runs_1 drop column config"),
    "other figures": lambda o: execute(o, "update runs_1 set facts = replace(facts, '1', '2')"),
    "no figures": lambda o: execute(o, "update runs_1 set facts = 7"),
    "no cache folder": lambda o: shutil.rmtree(index(o).parent),
    "a file in its place": lambda o: (shutil.rmtree(index(o).parent), index(o).parent.touch()),
    "a folder in its place": lambda o: (index(o).unlink(), index(o).mkdir()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_table_is_the_same_with_an_index(indexed, monkeypatch, capsys, change):
    listed = use_index(monkeypatch, indexed[change])
    CHANGES[change](listed)
    OPENED.clear()
    def table(**how): return runs_text(listed, **how), capsys.readouterr().err
    ways = [dict(), dict(where="optimizer.lr > 0", sort="seed", columns=["test/acc"])]
    found = [table(**how) for how in ways]
    assert change != "nothing" or not [o for o in OPENED if "000000" not in o]
    monkeypatch.setattr("mlkit.many.table._MANY", 10**9)
    monkeypatch.setenv("XDG_CACHE_HOME", str(listed / "nowhere"))
    assert found == [table(**how) for how in ways] and len(found[0][0].splitlines()) > 5


def test_an_index_in_use_is_not_waited_for(indexed, monkeypatch):
    listed = use_index(monkeypatch, indexed["busy"])
    with closing(sqlite3.connect(index(listed))) as db:
        db.execute("begin exclusive")
        start = time.monotonic()
        assert len(runs_text(listed).splitlines()) == 9 and time.monotonic() - start < 10


def test_an_index_holds_for_every_way_to_a_folder(indexed, monkeypatch):
    listed = use_index(monkeypatch, indexed["ways"])
    monkeypatch.chdir(listed.parent)
    (listed.parent / "link").symlink_to(listed)
    above = f"../{listed.parent.name}/runs"
    found = {runs_text(o) for o in (listed, "runs", "./runs/", above)}
    monkeypatch.chdir(listed)
    found.add(runs_text("."))
    assert len(found) == 1 and not [o for o in OPENED if "000000" not in o]
    assert len(runs_text(listed.parent / "link").splitlines()) == 9
    assert "job1/20260101-000001-abcd" in runs_text("job1")


def test_a_few_runs_leave_no_index(description, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    runs_text(many(tmp_path / "runs", description, 3))
    assert not list(tmp_path.rglob("*.sqlite"))


# -- hostile folders

def test_a_damaged_run_is_a_line_and_a_row(description, tmp_path, capsys):
    write(tmp_path / "good" / "1", description)
    deep = {}
    for _ in range(500): deep = {"a": deep}
    wrong = dict(kinds=dict(metrics=[1]), text=dict(metrics={"a": "b"}), late=dict(seconds="soon"),
                 never=dict(seconds=[]), huge=dict(metrics={"a": 10**4000}), best=dict(best=1),
                 truth=dict(metrics={"a": True}), status=dict(status="<script>"), name=dict(name=3),
                 tags=dict(tags="a"), far=dict(resumed=[dict(step=2**70)]), git=dict(git="x"),
                 epoch=dict(best=dict(epoch="<b>")), facts=dict(data_facts=[]),
                 versions=dict(versions={"torch": None}))
    bad = {k: json.dumps({**description, **o}) for k, o in wrong.items()}
    bad |= dict(deep="[" * 10**6, none="", null="null",
               long='{"name": ' + "1" * 5000 + "}", binary="\udcff",
               nest=json.dumps({**description, "config": deep}),
               flood=json.dumps({**description,
                                 "config": {"a": {str(i): i for i in range(200_000)}}}))
    for name, text in bad.items():
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "run.json").write_bytes(text.encode(errors="surrogateescape"))
    special = ("giant", "pipe", "folder", "loop", "device")
    for name in special: (tmp_path / name / "1").mkdir(parents=True)
    (tmp_path / "loop" / "1" / "run.json").symlink_to("run.json")
    (tmp_path / "device" / "1" / "run.json").symlink_to("/dev/zero")
    with open(tmp_path / "giant" / "1" / "run.json", "wb") as f: f.truncate(2**30)
    os.mkfifo(tmp_path / "pipe" / "1" / "run.json")
    (tmp_path / "folder" / "1" / "run.json").mkdir()
    start = time.perf_counter()
    rows = {o.split()[0]: o.split()[1] for o in runs_text(tmp_path).splitlines()[1:]}
    assert rows == {"good/1": "done", **{f"{o}/1": "damaged" for o in (*bad, *special)}}
    assert time.perf_counter() - start < 5
    lines = capsys.readouterr().err.splitlines()
    assert (len(lines) == len(rows) - 1
            and all(any(f"/{o}/" in line for line in lines) for o in (*bad, *special)))
    for name in (*wrong, *special):
        with pytest.raises(UserError): Run(tmp_path / name / "1")
    few = runs_text(tmp_path, "status == done or val/acc > 9", "val/acc").splitlines()
    assert [o.split()[0] for o in few] == ["run", "good/1"]


def test_a_terminal_is_not_written_to_by_names(description, tmp_path):
    a = write(tmp_path / "a" / "1",
              {**description, "metrics": {"\x1b]0;x\x07": 1.0, "\u202e": 2, "\ud800": 3}},
              **{"\x1b[31m": "\x1b[0m", "\x9b2J": "\ud800"})
    b = write(tmp_path / "b" / "1", description)
    shown = runs_text(tmp_path) + runs_text(tmp_path, sort="\x1b]0;x\x07") + str(compare([a, b]))
    assert all(c.isprintable() or c == "\n" for c in shown)


# -- comparisons

def test_unlike_runs_stand_side_by_side(description, tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("epoch,val/loss\n0,1\n")
    folders = [write(tmp_path / "r" / str(i), description, text) for i, text in enumerate([
        "epoch,step,val/loss,train/loss\n0,9,2.0,\n0,19,,1.5\n1,29,0.5,1.0\n1,39,,0.9\n",  # by step
        "epoch,val/loss,lr\n0,1.0,0.1\n",                                   # one epoch, no step
        "epoch,val/loss\n0,1\n1,nan\n2,inf\n3,1e308\n",                     # diverged
        None,                                                               # killed early
        "", "epoch,val/$\\frac{\n0,1\n", '"', "step,val/loss\n1,1\n",
        "epoch,val/loss\nzero,one\n"])]
    (write(tmp_path / "r" / "9", description) / "metrics.csv").symlink_to(secret)
    compared = compare([*folders, tmp_path / "r" / "9"])
    panels, notes = compared.panels
    assert [(p.name, p.x, [(c.run, c.stage, len(c.y)) for c in p.curves]) for p in panels][:2] == [
        ("loss", "step", [(0, "val", 2), (0, "train", 3), (1, "val", 1), (2, "val", 1)]),
        ("lr", "epoch", [(1, "", 1)])]
    assert [n[0] for n in notes] == list("DEGHJI") and "leads out" in notes[-2]
    text = str(compared)
    assert "config: no differences" in text and "val/loss" in text and all(n in text for n in notes)
    compared.curves().savefig(tmp_path / "curves.png")
    assert compared._repr_html_()


def test_no_curves_at_all(description, tmp_path):
    compared = compare([write(tmp_path / "r" / str(i), description) for i in range(2)])
    assert ("A has no metrics.csv" in str(compared)
            and compared.html(tmp_path / "page.html").is_file())


def test_a_flood_of_columns_is_cut(description, tmp_path):
    head, row = ",".join(f"val/m{i}" for i in range(500)), ",".join(["1"] * 500)
    compared = compare([write(tmp_path / "r" / str(i), description, f"epoch,{head}\n0,{row}\n")
                        for i in range(2)])
    assert [p.name for p in compared.panels[0]] == [f"m{i}" for i in range(12)]


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.links = set(), []
    def handle_starttag(self, tag, attrs):
        self.found.add(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "srcset")]
        assert not [k for k, _ in attrs if k.startswith("on")]


def test_the_page_holds_what_it_should_and_nothing_more(description, tmp_path):
    evil = "</style></table><script src=//x>'\"><img onerror=x src=http://x>"
    a = write(tmp_path / "a" / "1",
              {**description, "metrics": {evil: 1.0}, "device": evil, "data": evil},
              f'epoch,"val/{evil.replace(chr(34), chr(34) * 2)}"\n0,1\n1,2\n', **{evil: evil})
    b = write(tmp_path / "<b onclick=x>" / "1", description)
    page = compare([a, b]).html(tmp_path / "page.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert tags.found == {"html", "head", "meta", "title", "style", "body", "h1", "h3", "div",
                          "table", "tr", "th", "td", "code", "p", "img"}
    assert len(tags.links) == 1 and re.fullmatch(r"data:image/png;base64,[\w+/=]+", tags.links[0])


# -- mlkit_runs

def test_the_command(description, tmp_path, capsys, monkeypatch):
    def command(*args): return (mlkit_runs([str(o) for o in args]), *capsys.readouterr())
    many(tmp_path / "all", description, 5)
    shutil.copytree(tmp_path / "all" / "job0", tmp_path / "all" / "copy")
    code, out, _ = command(tmp_path / "all", "--where", "val/acc > 0.3 and run ~ job", "--sort",
                           "+val/acc", "--metrics", "test/acc", "optimizer.lr")
    assert (code == 0
            and out.splitlines()[0].split() == ["run", "status", "seconds", "test/acc",
                                                "optimizer.lr", "val/acc"])
    assert [o.split()[-1] for o in out.splitlines()[1:]] == ["0.4000", "0.6000", "0.8000"]
    for args in (["--where", "val/accuracy > 1"], ["--sort", "nothing"], ["--metrics", "nothing"]):
        code, out, err = command(tmp_path / "all", *args)
        assert (code, out) == (2, "") and err.startswith("no run has a '") and err.count("\n") == 1
    ids = ["job0/20260101-000000-abcd", "job1/20260101-000001-abcd"]
    code, out, _ = command(tmp_path / "all", "--compare", *ids, "--html", tmp_path / "page.html")
    assert (code == 0 and re.search(r"^seed +0 +1$", out, re.MULTILINE)
            and "page.html" in out.splitlines()[-1])
    assert ids[1] in (tmp_path / "page.html").read_text()
    assert command(tmp_path / "all", "--compare",
                   ids[0])[0] == command(tmp_path / "all", "--compare", "x-", "x-")[0] == 2
    for args in (["--html", "x"], ["--compare", *ids, "--where", "seed == 1"]):
        with pytest.raises(SystemExit) as e: command(tmp_path / "all", *args)
        assert e.value.code == 2
