"""A run by all of its names: a folder, an id and its beginnings, `last`, files in it, a `Run`, rows
and tables of `runs()`; every function that takes a run takes them all."""
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import mlkit.cli as cli
from mlkit.base.errors import NotFound, UserError
from mlkit.base.own import remember_runs
from mlkit.completion import completions
from mlkit.config.load import diff, explain
from mlkit.config.node import Config
from mlkit.many.compare import compare
from mlkit.many.find import find_search
from mlkit.many.reproduce import reproduce
from mlkit.many.table import runs
from mlkit.many.trials import Trials
from mlkit.run.folder import Run, find_run, find_runs
from mlkit.run.restore import restore_code
from mlkit.train import resume, train
from mlkit.use import evaluate, load_run, predict, trained

A, B, C, D = ("lab/20260101-120000-aaaa", "lab/20260102-120000-bbbb", "lab_2/20260102-130000-cccc",
              "deep/20260103-120000-dddd")


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    "A project with four runs, the newest a folder deeper."
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "nbs").mkdir()
    for i, name in enumerate((A, B, C, f"more/{D}")):
        folder = tmp_path / "runs" / name
        (folder / "checkpoints").mkdir(parents=True)
        for o in ("last", "best"): (folder / "checkpoints" / f"{o}.ckpt").touch()
        info = dict(name=name, status="done", metrics={"val/acc": i / 10}, config={"runs": "runs"})
        (folder / "run.json").write_text(json.dumps(info))
    monkeypatch.chdir(tmp_path)
    return tmp_path


NAMES = {A: A, f"{A}/": A, f"runs/{A}": A, "20260101": A, "20260102-12": B,
         "20260101-120000-aaaa": A, "lab/20260102": B, "lab_": C, "lab_2": C, "lab_2/": C,
         "last": D, "lab/last": B,
         "runs/lab/last": B, "lab_2/last": C, "deep": D, D: D, "20260103": D,
         "runs/more/deep/2026": D, f"runs/{A}/run.json": A,
         f"runs/{A}/checkpoints/last.ckpt": A, f"./runs/{B}": B,
         f"runs/{A}/../../{B}": B, "runs/lab_2": C, "more/last": D}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", [".", "nbs"])
def test_a_name(home, monkeypatch, name, where):
    if where == "nbs": monkeypatch.chdir(home / "nbs")
    assert find_run(name).id == find_run(Path(name)).id == NAMES[name]


def test_things_that_are_a_run(home):
    table, run = runs(), find_run(B)
    rows = [table.loc[B], table.iloc[2], next(table[2:].iterrows())[1],
            table.reset_index().iloc[2], table.reset_index().to_dict("records")[2],
            next(table[2:].itertuples()), run, SimpleNamespace(run=run), table.index[2]]
    assert [find_run(o).id for o in rows] == [B] * len(rows)
    assert [o.id for o in find_runs(rows)] == [B] * len(rows)
    assert find_run(run) is not run and find_runs(run) == [run]
    found = table[table["val/acc"] < 0.25].sort_values("val/acc")
    for several in (found, found["val/acc"], found.index, [*found.index], (o for o in (A, B, C)),
                    found.reset_index()["run"], found.reset_index(),
                    SimpleNamespace(runs=[A, B, C])):
        assert [o.id for o in find_runs(several)] == [A, B, C]
    assert [o.id for o in find_runs("last")] == [D] == [o.id for o in find_runs(table.iloc[0])]


def test_rows_of_another_folder_are_found_there(home, monkeypatch):
    shutil.move(home / "runs", home / "elsewhere")
    table = runs("elsewhere")
    monkeypatch.chdir(home / "nbs")
    assert [o.id for o in find_runs(table)] == [D, C, B, A]
    assert find_run(table.iloc[1]).id == C


NEWEST = "2 runs begin so, such as lab/20260102-120000-bbbb; write more, or lab/last for the newest"
NONE = {
    "lab": f"lab: {NEWEST}", "lab/2026": f"lab/2026: {NEWEST}",
    "20260102": "20260102: 2 runs begin so, such as lab_2/20260102-130000-cccc; write more",
    "lbb_2": "did you mean 'lab_2/", "pyproject.toml": "no run", "": "no run here",
    **dict.fromkeys(["nothing", "nothing/last", "a\0b", "*", "~nobody/x", "[", "/"], "no run here")}


@pytest.mark.parametrize("name, says", NONE.items())
def test_a_name_that_is_none(home, name, says):
    with pytest.raises(UserError) as e: find_run(name)
    assert says in str(e.value) and len(str(e.value).splitlines()) == 1


@pytest.mark.parametrize("thing", [None, 3, [A, B], object(), {}, Path, runs])
def test_a_thing_that_is_none(home, thing):
    with pytest.raises(UserError, match="a run is named by its folder, its id"): find_run(thing)


def test_a_table_is_several(home):
    table = runs()
    for several in (table, table["status"], table.reset_index(), table[:0]):
        with pytest.raises(UserError, match=r"^a table of runs \(\d\): take one"): find_run(several)


def test_last_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound, match="last: no run here"): find_run("last")


def test_tab_completes_runs(home):
    for line in ("mlkit_eval ", "mlkit_train --resume "):
        assert completions(line) == ["last", D, C, B, A]
    assert completions("mlkit_predict lab/") == [B, A]
    assert completions("/usr/bin/mlkit_reproduce 20260101") == ["20260101-120000-aaaa"]
    assert completions("mlkit_runs --compare last lab_") == [C]
    for line in ("mlkit_eval last ", "mlkit_runs ", "mlkit_eval --st", "mlkit_runs --where l"):
        assert completions(line) == []
    (home / "runs" / "a;b" / "20270101-120000-aaaa").mkdir(parents=True)
    (home / "runs" / "a;b" / "20270101-120000-aaaa" / "run.json").touch()
    assert completions("mlkit_eval a") == []


MINE = """
import pytorch_lightning as pl, torch
class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(2, 1)
    def forward(self, x): return self.net(x)
    def training_step(self, batch, i):
        loss = self(batch).mean() ** 2
        self.log("train/loss", loss)
        self.log("val/loss", float(self.current_epoch))
        return loss
    def test_step(self, batch, i): self.log("test/bias", self.net.bias.mean())
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 0.1)
    def train_dataloader(self): return torch.utils.data.DataLoader(torch.ones(12, 2), 4)
    test_dataloader = train_dataloader
"""


@pytest.fixture
def done(tmp_path, monkeypatch) -> Run:
    "A run of three epochs, of which the first is the best."
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "mine_of_names.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    trainer = dict(max_epochs=3, accelerator="cpu")
    config = dict(model={"_target_": "mine_of_names.Model"}, trainer=trainer)
    return train(config | dict.fromkeys(["data", "optimizer", "scheduler"]), "name=lab",
                 "callbacks.progress=null")


def test_every_function_takes_them(done, capsys):
    "Also a checkpoint, which then counts."
    best, last = (done.checkpoint(o) for o in ("best", "last"))
    of_best = done.metrics["test/bias"]
    assert evaluate("last")["test/bias"] == of_best == evaluate(runs().iloc[0])["test/bias"]
    of_last = evaluate("lab", checkpoint="last")["test/bias"]
    assert evaluate(last)["test/bias"] == evaluate(str(last))["test/bias"] == of_last != of_best
    assert evaluate(find_run(last))["test/bias"] == of_last
    models = load_run(last).model, trained("lab"), trained(str(best)), trained(str(last))
    biases = [o.net.bias.item() for o in models]
    assert biases == pytest.approx([of_last, of_best, of_best, of_last])
    x = [[0.0, 0.0]]
    asked = [predict(o, x).table.iloc[0, -1] for o in ("last", last)]
    assert asked == pytest.approx([of_best, of_last])
    for o in ("last", done.dir, done): assert explain(o, "seed")[0][:2] == ("seed", 42)
    assert [*diff("last", runs().iloc[0])] == []
    assert [o.id for o in compare(["last", done]).runs] == [done.id] * 2
    with pytest.raises(UserError, match="made outside git"): restore_code("last", "new")
    done.update(status="failed")
    with pytest.raises(UserError, match="is failed, not done"): reproduce("last")
    done.update(status="done")
    with pytest.raises(UserError, match="is done; there is nothing left to do"): resume("last")
    with pytest.raises(UserError, match="best.ckpt: a run goes on from its last"): resume(best)
    more = resume(last, "trainer.max_epochs=4")
    assert more.id == done.id and len(more.history) == 4
    capsys.readouterr()
    for args in (["last"], ["lab/2"], [str(last)]):
        assert cli.mlkit_eval(args) == 0, capsys.readouterr().err
    assert cli.mlkit_runs(["--compare", "last", done.id]) == 0


def test_a_search_is_named_as_a_run_is(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    there = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    ids = ["lab/search-20260101-120000-aaaa", "lab/search-20260102-120000-bbbb"]
    settings = dict(retry=0, fail_fast=False, trials=None)
    for place in (tmp_path / "runs" / ids[0], there / ids[1]):
        Trials.new(place, {(): Config({})}, [], [{"seed": "1"}], seeds=1, settings=settings)
    (tmp_path / "runs/lab/20260101-120000-aaaa-0000").mkdir()
    (tmp_path / "runs/lab/20260101-120000-aaaa-0000/run.json").touch()
    remember_runs(there / ids[1], there)
    for name in (ids[0], "search-20260101", "lab", "last", f"runs/{ids[0]}/search.json"):
        assert find_search(name).folder == tmp_path / "runs" / ids[0], name
    for name in (ids[1], "search-20260102"): assert find_search(name).folder == there / ids[1]
    with pytest.raises(NotFound, match="no search here; did you mean 'lab/search-20260101"):
        find_search("lab/search-20260101-120000-aaax")
    with pytest.raises(NotFound, match="no search here; the newest is 'lab/search-20260101"):
        find_search("pets")
    with pytest.raises(NotFound, match="it is a search"): find_run("search-20260101")
    assert completions("mlkit_runs --search search-") == ["search-20260101-120000-aaaa"]
    assert completions("mlkit_train --resume lab/") == [
        "lab/20260101-120000-aaaa-0000", "lab/search-20260101-120000-aaaa"]
    assert "lab/search-20260101-120000-aaaa" not in completions("mlkit_eval lab/")
