"""What others wrote, on its way in and out: bounded reads; one door to a terminal, one to pages."""
import gzip
import io
import json
import os
import struct
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch

from mlkit.base.errors import UserError, one_line
from mlkit.base.shown import html, shown, tell
from mlkit.base.text import Table, no_formulas
from mlkit.cli import mlkit_runs, mlkit_train
from mlkit.config.load import explain, load_config
from mlkit.config.yaml import read_config_file
from mlkit.data.base import image_reader
from mlkit.data.images import read_idx, read_npy
from mlkit.data.inputs import open_table
from mlkit.fit.progress import _text
from mlkit.fit.weights import read_checkpoint
from mlkit.many.compare import compare
from mlkit.many.reproduce import Compared, Reproduction
from mlkit.many.table import runs
from mlkit.many.watch import runs_at_a_glance
from mlkit.recipes.panodepth import read_exr, write_exr
from mlkit.run.board import Now, board_of, draw_board
from mlkit.run.folder import Run
from mlkit.use import Predictions

MARKUP = "<script>alert(1)</script>"
STEERS = ["\x1b[2J", "\x1b]0;x\x07", "\x9b31m", "\u202e", "\u2066", "\u200b", "\ud800", "\r",
          "\x00", "\x7f", "\u2028", "\ufeff", "\U000e0041"]


def put(path, name="a/1", **info) -> Run:
    folder = path / name
    folder.mkdir(parents=True)
    known = dict(name="a", status="done", seconds=1, metrics={"val/loss": 1.0}, config={"lr": 1})
    (folder / "run.json").write_text(json.dumps(known | info))
    return Run(folder)


def harmless(text: str) -> bool:
    return shown(text, lines=True) == text and "\x1b" not in text


# -- to a terminal

@pytest.mark.parametrize("char", STEERS)
def test_nothing_steers_a_terminal(tmp_path, capsys, char):
    evil = f"x{char}y"
    name = evil.replace("\x00", "\x01").replace("\ud800", "\udc80")
    a = put(tmp_path, f"{name}/1", metrics={evil: 1.0}, tags=[evil], config={evil: evil, "b": {}},
            error=evil, device=evil, host=evil)
    b = put(tmp_path, "b/1")
    lines = f"epoch,\"val/{evil}\",t\n0,1,\"{evil}\"\n1,2,\"{evil}\"\n".encode(errors="replace")
    for run in (a, b): (run.dir / "metrics.csv").write_bytes(lines)
    assert len(runs(tmp_path)) == 2
    (tmp_path / f"{name}2" / "1").mkdir(parents=True)
    (tmp_path / f"{name}2" / "1" / "run.json").write_text("{")
    texts = [repr(a), str(compare([a, b])), str(Table([evil], [[evil]])), one_line(KeyError(evil)),
             one_line(ValueError(evil)), str(UserError(evil)), _text({evil: "1"}, {}),
             str(Reproduction(a, [Compared(evil, evil, [evil])])),
             str(explain(load_config({"name": "a", "extra": {"k": evil.replace("\ud800", "")}})))]
    assert all(map(harmless, texts)), texts
    mlkit_runs([str(tmp_path)])
    mlkit_runs([str(tmp_path), "--metrics", evil, "--sort", evil])
    mlkit_runs([str(tmp_path / evil.replace("\x00", "z"))])
    mlkit_train([f"{name}.yaml", "--check"])
    mlkit_train(["none.yaml", f"a.{evil}=1", "--check"])
    tell(evil, UserError(evil))
    said = capsys.readouterr()
    assert harmless(said.out) and harmless(said.err) and said.err


def test_letters_of_all_scripts_stay():
    for o in ("naïve", "日本\u3000語", "1\xa0000", "👩\u200d🔬", "می\u200cخواهم", "עבר", "\ue000"):
        assert shown(o) == o


def test_one_line_stays_one(capsys):
    assert shown("a\nb\tc") == r"a\nb\tc" and str(UserError("no\n  such\n\nfile")) == "no such file"
    assert len(str(Table(["a\nb"], [["c\nd"], ["e"]])).splitlines()) == 3
    tell("a\n\tb", end="")
    assert capsys.readouterr().out == "a\n\tb"


# -- to a page

def test_no_markup_comes_through(tmp_path, monkeypatch):
    run = put(tmp_path, config={MARKUP: MARKUP}, metrics={MARKUP: 1.0}, device=MARKUP)
    other, shows = put(tmp_path, f"{MARKUP.replace('/', 'x')}/1"), []
    frame = pd.DataFrame({MARKUP: [MARKUP], "$x$": [1]}, index=[MARKUP])
    monkeypatch.setattr("IPython.display.display", lambda o, **_: shows.append(o))
    run._ipython_display_()
    now = Now(what=MARKUP, epoch=1, monitor=MARKUP, best=1, value=1.0)
    history = pd.DataFrame({"epoch": [1], MARKUP: [1.0], f"val/{MARKUP}": [MARKUP]})
    pages = [compare([run, other])._repr_html_(), Predictions(frame, [MARKUP])._repr_html_(),
             Reproduction(other, [Compared(MARKUP, MARKUP, [MARKUP])])._repr_html_(),
             explain(load_config({"name": "a", "extra": {"k": MARKUP}}))._repr_html_(),
             Table([MARKUP], [[MARKUP]])._repr_html_(), Table([], [], MARKUP)._repr_html_(),
             draw_board(MARKUP, "failed", now, history, MARKUP)[0], board_of(other, "done")[0],
             runs_at_a_glance([run, other])._repr_html_(),
             html("<p>{}</p>", MARKUP), html("{}", [html("<b>{}</b>", MARKUP), MARKUP]),
             *(o.data if hasattr(o, "data") else o._repr_html_() for o in shows)]
    assert len(pages) > 9
    for o in pages: assert "<script" not in o and "&lt;script&gt;" in o, o
    assert "tex2jax_ignore" in pages[1] and "tex2jax_ignore" in pages[4]


# -- bounded reads

def bomb(path, name: str, n: int = 3 * 2**30):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z, z.open(name, "w") as f:
        if name.endswith(".npy"):
            np.lib.format.write_array_header_1_0(
                f, dict(descr="|u1", fortran_order=False, shape=(n,)))
        for _ in range(n // 2**24): f.write(bytes(2**24))


@pytest.fixture(scope="module")
def bombs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bombs")
    bomb(folder / "a.npz", "a.npy", 2**30 + 2**25)
    bomb(folder / "a.ckpt", "archive/data/0", 2**30 + 2**25)
    with gzip.open(folder / "a-ubyte.gz", "wb") as f:
        f.write(b"\0\0\x08\x01" + struct.pack(">I", 2**30 + 2**25))
        for _ in range(66): f.write(bytes(2**24))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name, read", [
    ("a.npz", open_table), ("a.ckpt", read_checkpoint), ("a-ubyte.gz", read_idx)])
def test_a_bomb_is_not_unpacked(bombs, name, read):
    assert (bombs / name).stat().st_size < 2**22
    with pytest.raises(UserError, match="would unpack to"): read(bombs / name)


def write_npy(path, shape, data=b""):
    with open(path, "wb") as f:
        np.lib.format.write_array_header_1_0(
            f, dict(descr="<f8", fortran_order=False, shape=shape))
        f.write(data)


def write_parquet(path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    zeros = pa.array(np.zeros(2**20)).dictionary_encode()
    pq.write_table(pa.table({f"c{i}": zeros for i in range(150)}), path)


def write_bad_exr(path):
    write_exr(path, np.zeros((16, 16), np.float32))
    raw = path.read_bytes()
    window = struct.pack("<4i", 0, 0, 15, 15)
    path.write_bytes(raw.replace(window, struct.pack("<4i", 0, 0, 2**30, 15)))


def write_npz(path):
    inner = io.BytesIO()
    np.lib.format.write_array_header_1_0(inner, dict(descr="<f8", fortran_order=False,
                                                     shape=(10**13,)))
    with zipfile.ZipFile(path, "w") as z: z.writestr("a.npy", inner.getvalue())


FALSE = {
    "a.npy": (lambda o: write_npy(o, (10**13,)), open_table),
    "b.npy": (lambda o: write_npy(o, (10**6, 10**6), bytes(80)), read_npy),
    "a.npz": (write_npz, open_table),
    "b.npz": (lambda o: o.write_bytes(b"PK\3\4" + bytes(99)), open_table),
    "a.parquet": (write_parquet, open_table),
    "b.parquet": (lambda o: o.write_bytes(b"PAR1" + bytes(99) + b"PAR1"), open_table),
    "a.csv": (lambda o: o.write_bytes(b'a,b\n"\xff\n1,2,3,4\n'), open_table),
    "a.pt": (lambda o: o.write_bytes(b"\x80\x02junk"), open_table),
    "a.exr": (write_bad_exr, read_exr),
    "a.gz": (lambda o: o.write_bytes(gzip.compress(bytes(99))[:-3]), read_idx)}
SPECIAL = {"pipe": os.mkfifo, "loop": lambda o: o.symlink_to(o.name),
           "device": lambda o: o.symlink_to("/dev/zero"), "folder": lambda o: o.mkdir()}
READERS = dict(checkpoint=read_checkpoint, idx=read_idx, npy=read_npy, exr=read_exr,
               config=read_config_file)


@pytest.mark.parametrize("name", FALSE)
def test_a_file_that_promises_too_much(tmp_path, name):
    make, read = FALSE[name]
    make(tmp_path / name)
    with pytest.raises(UserError, match=name) as e: read(tmp_path / name)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_not_opened(tmp_path, kind, reader):
    SPECIAL[kind](tmp_path / kind)
    with pytest.raises(UserError, match=kind): READERS[reader](tmp_path / kind)


def test_a_link_to_itself_is_told_in_one_line(tmp_path, capsys):
    (tmp_path / "a.yaml").symlink_to("a.yaml")
    (tmp_path / "b").symlink_to("b")
    for command, *words in ((mlkit_train, "a.yaml", "--check"), (mlkit_train, "b/a.yaml"),
                            (mlkit_runs, "--compare", "b", "b"), (mlkit_runs, "b")):
        assert command([str(tmp_path / o) if o[0] in "ab" else o for o in words]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("text", [
    "", "\n", "step,loss\n1,1\n", 'epoch,"\n', "epoch,a\n0,1\n1,2,3,4\n", "\x00\x00",
    "epoch\n" + "9" * 5000, "epoch,val/loss\nnan,inf\n1e999,x\n", "epoch,epoch\n0,1\n",
    "value of a column,epoch\n1,1\n",
    "column,run,epoch,step\n1,2,3,4\n", "epoch,val/loss\n" + "0,1\n" * 9 + "0"])
def test_no_metrics_csv_stops_a_look(tmp_path, text, capsys):
    run = put(tmp_path)
    (run.dir / "metrics.csv").write_text(text)
    run._ipython_display_()
    assert str(compare([run, put(tmp_path, "b/1")]))
    try: run.plot()
    except UserError as e: assert "metrics.csv: is damaged: " in str(e)
    for kind in SPECIAL:
        other = put(tmp_path, f"{kind}/1")
        SPECIAL[kind](other.dir / "metrics.csv")
        if kind == "device": continue  # leads out of the folder
        with pytest.raises(UserError): other.history


@pytest.mark.parametrize("changes", [
    dict(epoch="1"), dict(global_step=None), dict(loops=[]), dict(mlkit_state=[]),
    dict(mlkit_state=dict(version="2")), dict(mlkit_state=dict(version=2, processes={})),
    dict(mlkit_state=dict(version=2, rows=[])), dict(mlkit_state=dict(version=2, stopping=3)),
    dict(state_dict=3)])
def test_types_of_a_checkpoint(tmp_path, changes):
    good = dict(state_dict={}, epoch=1, global_step=2, loops={}, mlkit_state=dict(version=2))
    torch.save(good, tmp_path / "a.ckpt")
    assert read_checkpoint(tmp_path / "a.ckpt")["epoch"] == 1
    torch.save(good | changes, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="a.ckpt: is no checkpoint"):
        read_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-x", "@SUM(1)", "\t=1", "\r=1", "=cmd|'/c c'!A1"])
def test_no_cell_is_a_formula(text):
    table = pd.DataFrame({text: [text, "a"], "n": [-1.5, 2]}, index=[text, "b"])
    safe = no_formulas(table)
    assert safe.columns[0] == safe.iloc[0, 0] == safe.index[0] == f"'{text}"
    assert safe.n.tolist() == [-1.5, 2]
    assert table.iloc[0, 0] == text


@pytest.mark.parametrize("changes", [
    dict(in_shape=3), dict(in_shape=[1, 2]), dict(in_shape=["a", 2, 3]), dict(in_shape=None),
    dict(in_shape=[3, 10**6, 10**6]), dict(in_shape=[3, -1, 2]), dict(mean="a"), dict(std=["a"])])
def test_facts_of_no_pictures(changes):
    good = dict(in_shape=[3, 8, 8], mean=[0.5] * 3, std=[0.5] * 3, resize="crop")
    assert image_reader(good)(np.zeros((9, 9, 3), np.uint8)).shape == (3, 8, 8)
    with pytest.raises(UserError, match="data_facts: describe no pictures"):
        image_reader(good | changes)
