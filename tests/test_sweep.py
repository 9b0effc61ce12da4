"""Sweeps: the grammar against Hydra's own, many runs from one line, and what happens when one of
them fails.

SPLIT and sweep_answers.json say what `hydra_oracle.py --sweeps` answered (hydra-core 1.3.8); a test
here asks it again.
"""
import json
import os
import re
import signal
import subprocess
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

import shell
from hydra_oracle import SWEEPS, ask
from mlkit.cli import mlkit_train
from mlkit.completion import completions
from mlkit.config.grammar import parse_value
from mlkit.config.load import load_config
from mlkit.config.node import ConfigError, origin_of, plain, same
from mlkit.config.sweeps import alternatives, span
from mlkit.many.search import grid
from mlkit.many.sweep import load_trials
from mlkit.many.table import runs
from mlkit.run.folder import Run
from mlkit.train import train
from sweep_cases import CASES, OPTIONS, REASONS

ROOT = Path(__file__).parents[1]
MNIST = str(ROOT / "configs" / "mnist.yaml")
SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=4", "trainer.limit_val_batches=2",
         "trainer.limit_test_batches=2",
         "callbacks.progress=null", "model.net.widths=[4, 4]"]

# -- the grammar: an override, and the values that it stands for; None: it is refused

SPLIT = {
    "a=1": [1], "a=1,2": [1, 2], "a=1,5,10": [1, 5, 10], "a=1, 2 ,3": [1, 2, 3], "a=\t1,2": [1, 2],
    "a=-1,+2": [-1, 2],
    "a=0.1,1e-2,.5": [0.1, 0.01, 0.5], "a=007,1_000": ["007", 1000],
    "a=true,false,null": [True, False, None],
    "a=sgd,adam": ["sgd", "adam"], "db=mysql,sqlite": ["mysql", "sqlite"], "+a=1,2": [1, 2],
    "++a=1,2": [1, 2],
    "a.b.c=1,2": [1, 2], "a/b=x,y": ["x", "y"], "a@b.c=x,y": ["x", "y"],
    "a=[1,2]": [[1, 2]], "a=[1,2],[3,4]": [[1, 2], [3, 4]], "a=[[1,2],[3]],[]": [[[1, 2], [3]], []],
    "a=[a,b],c": [["a", "b"], "c"],
    "a={x:1,y:2}": [{"x": 1, "y": 2}],
    "a={x:1,y:2},{x:3,y:4}": [{"x": 1, "y": 2}, {"x": 3, "y": 4}],
    "a={x:[1,2]},null": [{"x": [1, 2]}, None],
    "a='1,2',3": ["1,2", 3], 'a="x, y",z': ["x, y", "z"], "a='a','b'": ["a", "b"],
    r"a=x\,y,z": ["x,y", "z"], r"a='it\'s',b": ["it's", "b"],
    r'a="a\"b,c",d': ['a"b,c', "d"], "a=${b},2": ["${b}", 2], "a=${b:1,2},3": ["${b:1,2}", 3],
    "a=a b,c d": ["a b", "c d"],
    "a=1:30,x:y": ["1:30", "x:y"], "a=/tmp/x,/tmp/y": ["/tmp/x", "/tmp/y"],
    "a=http://a.b/c?d,e": ["http://a.b/c?d", "e"], "a=%x,@y": ["%x", "@y"],
    "a=": [""], "~a": [None],
    "a=choice(1,2,3)": [1, 2, 3], "a=choice(x)": ["x"], "a=choice([1,2],{a:1})": [[1, 2], {"a": 1}],
    "a=choice( 1 , 'b,c' )": [1, "b,c"],
    "a=range(3)": [0, 1, 2], "a=range(1,4)": [1, 2, 3], "a=range(0,10,3)": [0, 3, 6, 9],
    "a=range(10,0,-4)": [10, 6, 2],
    "a=range(3.0)": [0.0, 1.0, 2.0], "a=range(1,2,0.25)": [1.0, 1.25, 1.5, 1.75],
    "a=range(0,0.3,0.1)": [0.0, 0.1, 0.2],
    "a=range(2.5,0,-1)": [2.5, 1.5, 0.5],
    **dict.fromkeys(["a=,", "a=1,", "a=,1", "a=1,,2", "a=[1,2", "a='x,y", "a=x]y,1", "a=x(1,2)",
                     "a=choice()", "a=choice(1,2", "a=choice(1,2),3",
                     "a=range(a)", "a=range(1,2,3,4)", "a=range(0,1,0)"]),
}


def values(override: str) -> dict:
    "As the oracle says it, but for the words of an error."
    try:
        if found := span(override):
            return {"interval": [repr(found.start), repr(found.end), sorted(found.tags)]}
        each = [o.partition("=")[2] if "=" in o else None for o in alternatives(override, OPTIONS)]
        texts = [repr(None if o is None else parse_value(o)) for o in each]
        return {"values": sorted(texts) if "shuffle" in override else texts}
    except (ConfigError, ValueError) as e: return {"error": str(e)}


@pytest.mark.parametrize("override", SPLIT)
def test_values_of_an_override(override):
    want = SPLIT[override]
    found = values(override).get("values")
    assert found == (None if want is None else [*map(repr, want)])  # 1, 1.0 and True differ


ANSWERS = json.loads(SWEEPS.read_text(encoding="utf-8"))


def test_values_are_hydras_but_where_a_reason_is_given():
    assert [*ANSWERS] == CASES
    reasons = dict.fromkeys(REASONS, 0)
    for override, theirs in ANSWERS.items():
        ours = values(override)
        assert len(ours.get("error", "").splitlines()) <= 1
        if theirs == ours or {"error"} == {*theirs} & {*ours}: continue
        both = theirs.get("values"), ours.get("values")
        why = next((k for k, fits in REASONS.items() if fits(override, *both)), None)
        assert why, (override, theirs, ours)
        reasons[why] += 1
    assert all(reasons.values()), reasons


@pytest.mark.slow
def test_hydra_says_the_same(hydra_python):
    answers = ask(hydra_python, [*SPLIT, *ANSWERS], "--sweeps")
    want = {k: None if v is None else [*map(repr, v)] for k, v in SPLIT.items()}
    assert {k: a.get("values") for k, a in zip(SPLIT, answers)} == want
    for (override, known), now in zip(ANSWERS.items(), answers[len(SPLIT):]):
        is_random = "shuffle" in override and "[" in override  # of a list, where it is one value
        assert is_random or known == now, override


def test_the_first_key_is_the_slowest():
    trials = load_trials(MNIST, "seed=1,2", "trainer.max_epochs=3", "optimizer=sgd,adam")
    assert [*map(str, trials)] == [f"seed={n} optimizer={o}" for n in (1, 2)
                                   for o in ("sgd", "adam")]
    with pytest.raises(ConfigError) as e:
        load_trials(MNIST, "seed=1,", "name='x", "trainer.max_epochs=1,2")
    assert [o.key for o in e.value.problems] == ["seed", "name"]


def test_without_a_sweep_several_values_are_refused():
    with pytest.raises(ConfigError, match="several values"): load_config(MNIST, "seed=1,5,10")


AGAIN = {  # the points
    ("seed=1,2", "seed=3,4"): ["seed=3", "seed=4"], ("seed=3,4", "seed=1"): ["the only one"],
    ("seed=interval(1,5)", "seed=3,4"): ["seed=3", "seed=4"],
    ("++seed=3,4", "seed=5,6"): ["seed=5", "seed=6"],
    ("optimizer=sgd,adam", "optimizer=adamw,sgd"): ["optimizer=adamw", "optimizer=sgd"],
    ("trainer.max_epochs=1,2", "trainer={max_epochs: 3}"): ["the only one"],
    ("trainer.max_epochs=1,2", "trainer={max_steps: 3}"): ["trainer.max_epochs=1",
                                                           "trainer.max_epochs=2"],
    ("search.params.seed='1,2'", "seed=3,4"): ["seed=3", "seed=4"],
    ("search.params.seed='1,2'", "search.params.seed='5,6'"): ["seed=5", "seed=6"]}


@pytest.mark.parametrize("words", AGAIN, ids=map(" ".join, AGAIN))
def test_the_last_of_two_overrides_counts(words):
    trials = load_trials(MNIST, *words)
    assert [*map(str, trials)] == AGAIN[words]
    for o in trials:
        for key, value in o.values.items():
            if key != "optimizer": assert OmegaConf.select(o.cfg, key) == value


def test_the_last_of_two_settings_counts():
    for words in (["trials=3", "trials=4"], ["search.trials=3", "trials=4"],
                  ["trials=3", "search.trials=4"]):
        assert load_trials(MNIST, "seed=range(9)", *words, first=1).settings.trials == 4, words


HINTS = {
    "trials=4": "is for a search: with -m", "trails=4": "did you mean 'trials', which is for a",
    "worker=2": "did you mean 'workers'", "seed_s=3": "did you mean 'seeds'",
    "monitor=val/acc": "a search's is search.monitor; did you mean 'callbacks.checkpoint.monitor'",
    "sed=3": "did you mean 'seed'?", "dta=x": "did you mean 'data'?"}


@pytest.mark.parametrize("word", HINTS)
def test_a_misspelt_word_of_a_search(word):
    with pytest.raises(ConfigError) as e: load_config(MNIST, word)
    assert HINTS[word] in str(e.value) and len(e.value.problems) == 1
    if word != "trials=4":
        with pytest.raises(ConfigError, match=re.escape(HINTS[word])):
            load_trials(MNIST, "optimizer.lr=0.1,0.2", word)


def test_a_key_of_the_config_is_no_misspelt_word():
    read = ["${trails}", "${monitor}", "${trials}"]
    own = dict(extends=MNIST, trails=1, monitor="a", trials=2, extra=dict(read=read))
    assert load_config(own, "trails=4", "monitor=b", "trials=3").trials == 3
    assert load_trials(own, "trails=4,5", "trials=3")[0].cfg.trials == 3


PARAMS = {  # what stands in a file -> the values of the key, or what is wrong
    "[0.1, 0.01]": [0.1, 0.01], "'0.1,0.01'": [0.1, 0.01], "[0.1]": None, "0.1": None,
    "{type: categorical, choices: [0.1, 0.2]}": [0.1, 0.2],
    "{type: float, low: 0.1, high: 0.3, step: 0.1}": [0.1, 0.2, 0.3],
    "{low: 0.001, high: 0.1, log: true}": {"start": 1e-3, "end": 0.1, "is_int": False, "log": True},
    "{type: int, low: 1, high: 4}": {"start": 1, "end": 4, "is_int": True, "log": False},
    "{type: float, low: 0.1}": "optimizer.lr: is an interval, {type: float, low:",
    "[]": "choice() has no values", "[a, 0.1]": "optimizer.lr=a: torch.optim.AdamW wants",
    "{min: 1}": "'optimizer.lr' is 0.01, so it has no keys"}


@pytest.mark.parametrize("node", ["search: {params: %s}", "hydra: {sweeper: {params: %s}}",
                                  "hydra: {sweeper: {_target_: OptunaSweeper, search_space: %s}}"])
@pytest.mark.parametrize("value", PARAMS)
def test_values_in_a_file(tmp_path, monkeypatch, node, value):
    file, want = tmp_path / "mine.yaml", PARAMS[value]
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    file.write_text(f"extends: {MNIST}\n{node % f'{{optimizer.lr: {value}}}'}\n")
    words = ["trials=3"] if isinstance(want, dict) else []
    if isinstance(want, str):
        with pytest.raises(ConfigError, match=rf"mine.yaml:2:\d+: .*{re.escape(want)}"):
            load_trials(file)
        return
    found = load_trials(file, *words).space.get("optimizer.lr")
    assert found == want or [*map(parse_value, found or ())] == (want or [])


CHECKED = {  # a node -> what --check says of it without -m
    "search: {trails: 3}": "mine.yaml:2:10: search.trails: there is no such setting; did you mean",
    "search: {params: {optimizer.lr: 'interval(2,1)'}}": "its start is above its end",
    "search: {params: {optimizer.lrr: '1,2'}}": "AdamW has no argument 'lrr'",
    "search: {params: {seed: [a, 1]}}": "seed=a: must be a whole number",
    "launch: {kind: slurm, parttion: a}": "launch.parttion: there is no such setting",
    "search: {params: {optimizer.lr: 'interval(0.1,0.2)'}}": "",  # how many is said with -m
    "search: {params: {optimizer: 'glob(a*)'}}": "",
    "hydra: {sweeper: {_target_: ax.Sweeper, params: {a: '1,2'}}}": ""}


@pytest.mark.parametrize("node", CHECKED)
def test_a_search_that_nobody_asks_for_is_checked_too(tmp_path, monkeypatch, capfd, node):
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(f"extends: {MNIST}\n{node}\n")
    assert mlkit_train(["mine.yaml", "--check"]) == (2 if CHECKED[node] else 0)
    said = capfd.readouterr()
    assert CHECKED[node] in said.err and ("no problems" in said.out) == (not CHECKED[node])
    assert mlkit_train(["mine.yaml", "--check", "trainer.max_epoch=3"]) == 2
    err = capfd.readouterr().err
    assert "max_epochs" in err and CHECKED[node] in err


@pytest.mark.parametrize("words, says", [
    (["optimizer.lr=interval(1e-4,1e-1)"], "tag(log,interval(0.0001,0.1))"),
    (["optimizer.lr=tag(log,interval(1e-4,1e-1))"], ""), (["optimizer.lr=interval(0.01,0.1)"], ""),
    (["optimizer.weight_decay=interval(0,1)"], ""), (["seed=int(interval(1,1000))"], ""),
    (["optimizer.lr=interval(1e-4,1e-1)", "optimizer.lr=0.1,0.2"], "")])
def test_an_interval_over_magnitudes_gets_a_note(capfd, words, says):
    load_trials(MNIST, *words, "trials=3", first=1)
    said = capfd.readouterr().err
    assert len(said.splitlines()) == bool(says) and says in said


# -- large grids: a few combinations are checked at once, the others in their turn

GRIDS = [
    ["seed=1,2,3"], ["seed=range(2)", "optimizer.lr=0.1,1e-2"],
    ["optimizer=sgd,adamw", "optimizer.lr=0.1,0.01"],
    ["optimizer.lr=0.1,0.01", "optimizer=sgd,adamw"],
    ["+extra.a=1,2", "+extra.b={c: 3}"], ["++extra.a=1,b", "+extra.c=${extra.a}"],
    ["seed=1,2", "data.seed=${seed}"], ["seed=9", "seed=3,4"],
    ["trainer={max_epochs: 1}", "trainer.max_epochs=1,2"],
    ["trainer={max_epochs: 1},{max_steps: 9}"],
    ["model.net.widths=[4,4],[8,8]", "tags=[a],[b]"], ["trainer.max_epochs=1,null", "name=a,b"],
    ["callbacks.checkpoint.monitor=val/acc,val/loss"], ["+extra={a: 1},{a: 2, b: 3}"],
    ["optimizer.lr=0.1,1", "seed=0,1"], ["model={compile: false}", "model.compile=true,false"],
]


@pytest.mark.parametrize("words", GRIDS, ids=map(" ".join, GRIDS))
def test_a_config_is_the_same_whenever_it_is_made(words):
    trials = load_trials(MNIST, *words, first=1)
    every = [*product(*map(alternatives, words))]
    assert len(trials) == len(every)
    for trial, own in zip(trials, every):
        whole = load_config(MNIST, *own)
        assert same(plain(trial.cfg), plain(whole)), own
        for key in (o.partition("=")[0].lstrip("+") for o in own):
            places = [origin_of(o, tuple(key.split("."))).name for o in (trial.cfg, whole)]
            assert places[0] == places[1], key


HUGE = {  # what the refusal names; '': it is none
    ("seed=range(1000)",): "", ("optimizer=sgd,adamw", "seed=range(1000)"): "",
    ("seed=range(10)", "optimizer.lr=range(1,11)", "data.val_size=range(1,11)"): "",
    ("seed=range(1,100)", "trainer.max_epochs=1,abc"): "max_epochs=abc",
    ("seed=range(100)", "optimizer=sgd,adma"): "adma", ("seed=range(-1,100)",): "seed=-1",
    ("seed=choice(1,2,3,4,5,6,7,8,9,x)",): "seed=x",
    ("optimizer.lr=range(0.0,2.0,0.01)", "optimizer.betas=[0.9,0.99],7"): "betas=7",
    ("seed=range(100)", "optimizer=sgd,adam", "optimizer.momentum=0.9,0.8"): "momentum"}


@pytest.mark.parametrize("words", HUGE, ids=map(" ".join, HUGE))
def test_of_a_large_grid_each_value_is_checked_but_what_lies_between_numbers(words):
    if HUGE[words]:
        with pytest.raises(ConfigError) as e: load_trials(MNIST, *words, first=8)
        assert all(HUGE[words] in str(o) for o in e.value.problems)
        return
    trials = load_trials(MNIST, *words, first=8)
    checked = [t.values for t in trials if t.is_checked]
    assert len(trials) >= 1000 and len(checked) == 8
    for key in trials[0].values:
        assert {t.values[key] for t in (trials[0], trials[-1])} <= {o[key] for o in checked}


def test_a_grid_that_is_too_large():
    words = [f"+extra.k{i}=range(1000)" for i in range(6)]
    with pytest.raises(ConfigError, match="search: 1,000,.* are too many: try some"):
        load_trials(MNIST, *words, first=8)
    some = load_trials(MNIST, *words, "trials=20", first=8)
    assert len(some) == 8 and all(o.is_checked for o in some) and len(some.space) == 6
    lists = [f"+extra.k{i}={','.join(f'[{k}]' for k in range(50))}" for i in range(3)]
    with pytest.raises(ConfigError, match="125,000 points .* want a config each"):
        load_trials(MNIST, *lists, "trials=20", first=8)


def test_what_a_config_says_of_its_overrides_is_that_of_each(tmp_path):
    said = dict(extends=MNIST, extra=dict(of="${hydra:job.override_dirname}"))
    trials = load_trials(said, "seed=range(3)", first=1)
    assert [t.cfg.extra.of for t in trials] == ["seed=0", "seed=1", "seed=2"]


def test_what_is_loaded_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("MLKIT_TRUST", f"{tmp_path}/")
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: {MNIST}\nextra: {{a: 1}}\n")
    trials = load_trials(file, "seed=range(4)", first=2)
    file.write_text(f"extends: {MNIST}\nextra: {{a: 2}}\n")
    assert [(t.cfg.extra.a, t.cfg.seed) for t in trials] == [(1, i) for i in range(4)]


def test_a_mistake_is_told_in_its_turn_and_a_warning_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mlkit.many.search.FIRST", 1)
    sweep = grid(MNIST, *SHORT, f"runs={tmp_path}", "optimizer.lr=0.1,abc,0.01", "+logger.x={y: 1}")
    assert [t.status for t in sweep.trials] == ["done", "failed", "done"]
    assert "optimizer.lr=abc" in sweep.trials[1].error and sweep.trials[1].problems
    assert capsys.readouterr().err.count("logger.x") == 1
    with pytest.raises(ConfigError, match="abc"):
        grid(MNIST, *SHORT, f"runs={tmp_path}", "optimizer.lr=abc,0.01")
    with pytest.raises(ConfigError, match="logger.x"):
        grid(MNIST, *SHORT, f"runs={tmp_path}", "optimizer.lr=0.1,0.01", "+logger.x={y: 1}",
             strict=True)
    assert len(runs(tmp_path)) == 2


# -- in a cell

def test_a_failure_in_the_middle(tmp_path, capsys):
    sweep = grid(MNIST, *SHORT, f"runs={tmp_path}", "model.net.num_classes=10,5,12", "tags=[mine]",
                 "callbacks.checkpoint.monitor=val/acc",
                 "callbacks.checkpoint.mode=max", "+extra.note='a,b'")
    assert [t.status for t in sweep.trials] == ["done", "failed", "done"] and not sweep.done
    assert "out of bounds" in sweep.trials[1].error and len(sweep.trials[1].error.splitlines()) == 1
    printed = capsys.readouterr()
    assert [o for o in printed.out.splitlines()
            if o.startswith("[")] == [f"[{i}/3] model.net.num_classes={n}"
                                      for i, n in enumerate((10, 5, 12), 1)]
    assert "training failed: " in printed.err and "Traceback" not in printed.err

    table = sweep.table
    assert (list(table)[:3] == ["model.net.num_classes", "status", "val/acc"]
            and list(table)[-3:] == ["seconds", "run", "error"])
    assert {"test/acc", "test/loss", "val/loss"} < {*table} and "train/loss" not in table
    best = table["val/acc"].dropna().tolist()
    assert (best == sorted(best, reverse=True)
            and table.status.tolist() == ["done", "done", "failed"])
    assert sweep.best.id == table.run[0] and sweep.best.metrics["val/acc"] == best[0]
    assert (str(sweep).splitlines()[0].split() == list(table)[:-1] and "out of bounds" in str(sweep)
            and "out of bounds" in sweep._repr_html_())

    assert all(Run(t.run.dir).info["tags"] == ["mine", sweep.mark] for t in sweep.trials)
    assert len(runs(tmp_path, where=f"tags ~ {sweep.mark}")) == 3
    assert sweep.file == tmp_path / "mnist" / sweep.mark / "table.csv"
    kept = pd.read_csv(sweep.file)
    assert list(kept) == list(table) and kept.run.tolist() == table.run.tolist()


def test_a_run_of_a_sweep_is_what_it_is_alone(tmp_path):
    sweep = grid(MNIST, *SHORT, f"runs={tmp_path / 'many'}", "optimizer=sgd,adam",
                 "seed=range(1,3)")
    assert (sweep.done
            and [*map(str, sweep.trials)] == [f"optimizer={o} seed={n}" for o in ("sgd", "adam")
                                              for n in (1, 2)])
    alone = train(MNIST, *SHORT, f"runs={tmp_path / 'one'}", "optimizer=adam", "seed=2")
    a, b = sweep.trials[-1].run, alone
    assert ((a.dir / "metrics.csv").read_bytes() == (b.dir / "metrics.csv").read_bytes()
            and a.metrics == b.metrics)
    a, b = (torch.load(o.checkpoint("last"), weights_only=True)["state_dict"] for o in (a, b))
    assert all(torch.equal(v, b[k]) for k, v in a.items())
    assert all(r.model is None for r in sweep.runs)


def test_a_config_and_what_is_not_kept(tmp_path):
    cfg = load_config(MNIST, *SHORT, "debug=fast", "tags=null")
    sweep = grid(cfg, "optimizer.lr=0.1,0.01")
    assert (sweep.done and sweep.file is None and sweep.table.run.tolist() == [None, None]
            and cfg.tags is None)
    assert (sweep.table["val/loss"].is_monotonic_increasing
            and not any(r.dir.exists() for r in sweep.runs))


def test_all_problems_before_the_first_run(tmp_path):
    with pytest.raises(ConfigError) as e:
        grid(MNIST, *SHORT, f"runs={tmp_path / 'runs'}", "optimizer=sgd,adma,adamw",
             "optimizer.momentum=0.5,0.9", "seed=1,-1", "trainer.max_epoch=2")
    lines = str(e.value).splitlines()
    assert not (tmp_path / "runs").exists()
    for text in ("no option 'adma'", "command line: seed=-1: must be", "trainer.max_epoch=2: ",
                 "optimizer.momentum=0.5: torch.optim.AdamW has no"):
        assert sum(text in o for o in lines) == 1, (text, lines)
    with pytest.raises(ConfigError,
                       match=r"momentum=0.9: .*AdamW has no argument 'momentum' \(with "
                             r"optimizer=adamw seed=1\)$"):
        grid(MNIST, "optimizer=sgd,adamw", "optimizer.momentum=0.9", "seed=1,2")


def test_several_devices_and_missing_data(tmp_path, capsys):
    with pytest.raises(ConfigError, match="use one device"):
        grid(MNIST, *SHORT, f"runs={tmp_path / 'runs'}", "trainer=cpu,ddp")
    with pytest.raises(ConfigError) as e:
        grid(MNIST, *SHORT, f"runs={tmp_path / 'runs'}", "data.source=full",
             f"data.root={tmp_path / 'none'}", "data.mirrors=[]", "seed=1,2")
    assert len(str(e.value).splitlines()) == 1 and capsys.readouterr().out.count("failed: ") == 2
    assert not (tmp_path / "runs").exists()


# -- in a shell

PARTS = '''
import gc, os, signal, weakref
import pytorch_lightning as pl
from mlkit.model.nets import ConvNet

nets = weakref.WeakSet()

class Net(ConvNet):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        nets.add(self)

class At(pl.Callback):
    "Says how many nets there are; in the run of one seed, stops the process."
    def __init__(self, seed: int, stop: int | None = None): self.seed, self.stop = seed, stop
    def on_train_start(self, trainer, module): print("nets:", len(nets))
    def on_train_batch_start(self, trainer, module, batch, index):
        if self.seed == self.stop and trainer.global_step == 2: os.kill(os.getpid(), signal.SIGINT)
'''


def command(folder: Path, *args, tail: str = "") -> subprocess.CompletedProcess:
    "mlkit_train in a project of its own, whose net and callback are above."
    (folder / "parts.py").write_text(PARTS)
    (folder / "settings.ini").write_text("[DEFAULT]\nlib_path = parts\n")
    own = {"model.net._target_": "parts.Net", "+callbacks.at._target_": "parts.At",
           "+callbacks.at.seed": "${seed}"}
    env = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]), "MLKIT_TRUST": "parts"}
    words = [MNIST, *SHORT, *(f"{k}={v}" for k, v in own.items()), f"runs={folder / 'runs'}", *args]
    if not tail: return shell.command("mlkit_train", *words, cwd=folder, **env)
    line = ["bash", "-c", f'set -o pipefail; "$@" {tail}', "bash"]
    return subprocess.run([*line, shell.SCRIPTS / "mlkit_train", *words], cwd=folder, text=True,
                          capture_output=True, timeout=300, stdin=subprocess.DEVNULL,
                          env={**os.environ, **env})


def test_models_are_let_go_and_a_failure_is_exit_1(tmp_path):
    done = command(tmp_path, "-m", "model.net.num_classes=10,5,12")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert done.stdout.count("nets: 1\n") == 3 and done.stdout.count("nets: ") == 3
    (table,) = tmp_path.glob("runs/mnist/search-*/table.csv")
    *above, last = done.stdout.strip().splitlines()
    assert (last == f"table: {table.relative_to(tmp_path)}" and not above[-1]
            and above[-2].startswith("model.net.num_classes=5: "))
    assert [o.split()[1] for o in above[-6:-2]] == ["status", "done", "done", "failed"]


def test_interrupted(tmp_path):
    done = command(tmp_path, "-m", "seed=1,2,3,4", "+callbacks.at.stop=2")
    assert done.returncode == 130 and "Traceback" not in done.stderr, done.stderr
    lines = done.stdout.strip().splitlines()
    assert [o.split() for o in lines[-2:]] == [["3", "not", "begun"], ["4", "not", "begun"]]
    assert "\ninterrupted: 1 of 4 runs are done; stopped after step 3, which" in done.stderr
    (table,) = tmp_path.glob("runs/mnist/search-*/table.csv")
    assert pd.read_csv(table).status.tolist() == ["done", "interrupted", "not begun", "not begun"]
    cut = next(tmp_path / "runs" / o for o, s in pd.read_csv(table)[["run", "status"]].values
               if s == "interrupted")
    assert f"go on with: mlkit_train --resume {table.parent.relative_to(tmp_path)}" in done.stderr
    assert (Run(cut).status == "interrupted"
            and len(list(tmp_path.glob("runs/mnist/*/run.json"))) == 2)


@pytest.mark.parametrize("end", ["done", "failed"])
def test_interrupted_while_an_end_is_noted(tmp_path, monkeypatch, capsys, end):
    update = Run.update
    def signalled(run, **values):
        if values.get("status") == end: os.kill(os.getpid(), signal.SIGTERM)
        return update(run, **values)
    monkeypatch.setattr(Run, "update", signalled)
    before = [signal.getsignal(o) for o in (signal.SIGINT, signal.SIGTERM)]
    words = ["seed=1,2", f"runs={tmp_path}", *["model.net.num_classes=5"] * (end == "failed")]
    code = mlkit_train([str(MNIST), *SHORT, *words, "-m"])
    said = capsys.readouterr()
    assert code == 130 and "Traceback" not in said.err, said
    n = {"done": 1, "failed": 0}[end]
    assert f"interrupted: {n} of 2 runs are done" in said.err, said
    assert [o.status for o in map(Run, (p.parent for p in tmp_path.rglob("run.json")))] == [end]
    assert [signal.getsignal(o) for o in (signal.SIGINT, signal.SIGTERM)] == before


def test_nobody_reads_any_more(tmp_path):
    done = command(tmp_path, "--multirun", "seed=1,2", tail="| head -1")
    assert done.returncode == 0, done.stderr
    assert [Run(o.parent).status for o in tmp_path.glob("runs/mnist/*/run.json")] == ["done",
                                                                                      "done"]


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    "mlkit_train in this process: (exit code, stdout, stderr); and it must have written nothing."
    monkeypatch.setenv("MLKIT_runs", str(tmp_path / "runs"))
    before = signal.getsignal(signal.SIGTERM)
    def go(*args):
        try: code = mlkit_train([MNIST, *args])
        except SystemExit as e: code = e.code
        return code, *capsys.readouterr()
    yield go
    signal.signal(signal.SIGTERM, before)
    assert not (tmp_path / "runs").exists()


def test_with_other_flags(here):
    assert here("-m", "seed=1,2", "optimizer=sgd,adam",
                "--check") == (0, "no problems in 4 combinations\n", "")
    for flag in ("--print", "--explain", "--resume"):
        code, out, err = here("-m", "seed=1,2", flag)
        says = f"{flag} is about one run, and -m about many: leave out -m ("
        assert (code, out) == (2, "") and says in err and len(err.splitlines()) == 1
    assert "  adam  adamw  sgd*" in here("--multirun", "optimizer=sgd,adam", "--help")[1]


def test_problems_in_a_shell(here):
    code, out, err = here("-m", "seed=1,-2", "optimizer=sgd,adma")
    assert (code, out) == (2, "") and len(err.splitlines()) == 2
    code, out, err = here("seed=1,2")
    assert (code, out) == (2, "") and "several values" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("typed,want",
                         [("-m optimizer=sgd,adamw,a",
                           ["optimizer=sgd,adamw,adam", "optimizer=sgd,adamw,adamw"]),
                          ("optimizer=sgd,a", []),
                                        ("-m optimizer=sgd,adam optimizer.mom",
                                         ["optimizer.momentum="]), ("--mu", ["--multirun"])])
def test_completion(typed, want):
    assert completions(f"mlkit_train {MNIST} {typed}") == want
