"The nodes `search:` and `launch:`: whose they are, what they say, and that no run sees them."
from dataclasses import asdict
from pathlib import Path

import pytest

from mlkit.cli import mlkit_train
from mlkit.config.load import load_config
from mlkit.config.node import ConfigError, about, plain
from mlkit.config.search import search_settings, search_space
from mlkit.config.sweeps import Span
from mlkit.parts.check import find_problems

ROOT = Path(__file__).parents[1]
MNIST = str(ROOT / "configs" / "mnist.yaml")


@pytest.fixture
def written(tmp_path, monkeypatch):
    "A config of one's own, by its text."
    monkeypatch.setenv("MLKIT_TRUST", f"{tmp_path}/")
    def write(text: str) -> Path:
        (tmp_path / "mine.yaml").write_text(f"extends: {MNIST}\n{text}\n")
        return tmp_path / "mine.yaml"
    return write


def test_no_run_sees_them(written):
    file = written("search: {trials: 9, params: {optimizer.lr: 'interval(0,1)'}}\n"
                   "launch: {kind: slurm, time: 30}")
    cfg = load_config(file, "search.workers=2", "launch.gpus=1")
    assert "search" not in cfg and "launch" not in cfg and not find_problems(cfg)
    rest, bare = plain(cfg), plain(load_config(MNIST))
    assert rest == {**bare, "name": "mine"}
    found = search_settings(cfg, "search.retry=2")
    assert (found.trials, found.workers, found.retry) == (9, 2, 2)
    assert (found.launch.kind, found.launch.time, found.launch.gpus) == ("slurm", 30, 1)
    assert about(cfg).search_settings.at(("search", "retry")) is None  # it was changed in a copy


OWN = ["search: {beam: 4}", "search: greedy", "launch: {pad: 39}", "search: null", "search: [1]",
       "search: {seed: 3}\nseed: ${search.seed}", "launch: {time: 5}\nseed: ${launch.time}"]


@pytest.mark.parametrize("text", OWN)
def test_what_is_somebodys_own_stays(written, text):
    file = written(text)
    key = text.partition(":")[0]
    assert key in load_config(file)
    assert search_settings(file, "trials=3", "optimizer.lr=1,2").trials == 3


def test_an_own_key_is_changed_as_ever(written):
    file = written("search: {beam: 4}\nextra: {a: '${search.beam}'}")
    assert load_config(file, "search.beam=5").extra.a == 5
    file = written("trials: 7\nextra: {a: '${trials}'}")
    space = search_space(file, "trials=1,2")
    assert (space.choices[0], space.settings.sampler) == (["trials=1", "trials=2"], "grid")


@pytest.mark.parametrize("words, says", [
    (["optimizer.lr=interval(1e-3,1)"], "search.trials=20"),
    (["optimizer.lr=interval(1e-3,1)", "sampler=grid", "trials=2"], "grid"),
    (["search.trails=3"], "command line: search.trails=3: .*did you mean 'trials'"),
    (["trials=0"], "command line: trials=0: must be at least 1"),
    (["launch=slurm", "launch.time=soon"], "command line: launch.time=soon: must be a whole"),
    (["search=tpee"], "did you mean 'tpe'"), (["search=random"], "search.trials=20"),
    (["optimizer=glob(z*)"], "no option is like that .there are: adam"),
    (["seed=glob(*)"], "no option is like that"),
    (["search.workers=${nobody}"], "cannot be resolved"),
])
def test_a_mistake_is_one_line(words, says, capsys):
    with pytest.raises(ConfigError, match=says) as e: search_space(MNIST, *words)
    assert len(e.value.problems) == 1
    assert mlkit_train([MNIST, "-m", *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_mistake_in_a_file_is_told_where_it_stands(written):
    file = written("search:\n  sampler: tpx\n  trials: 2.5\n  params: {seed: 'range(0)'}")
    with pytest.raises(ConfigError) as e: search_space(file)
    assert [o.origin.line for o in e.value.problems] == [3, 4]
    file = written("search:\n  params:\n    optimizer.lr: interval(1,2)")
    with pytest.raises(ConfigError) as e: search_space(file)
    assert e.value.problems[0].origin.line == 4


def test_options_files_the_environment_and_the_command_line(written, monkeypatch):
    file = written("search: {sampler: random, trials: 5, seed: 3}")
    assert search_settings(file).sampler == "random"
    assert search_settings(file, "search=cmaes").sampler == "cmaes"
    monkeypatch.setenv("MLKIT_search__trials", "6")
    assert search_settings(file).trials == 6
    assert search_settings(file, "trials=7").trials == 7
    assert asdict(search_settings(file, "launch=ray"))["launch"]["kind"] == "ray"
    assert search_settings(file, "launch=local").launch is None


def test_several_values_of_groups_and_intervals():
    space = search_space(MNIST, "optimizer=glob(*,exclude=sgd)", "trials=4", "timeout=2h",
                         "data.batch_size=int(interval(16,64))", "+extra.a=tag(log,interval(1,9))")
    options, size, extra = space.choices
    assert {"optimizer=adam", "optimizer=adamw"} <= {*options} and "optimizer=sgd" not in options
    assert isinstance(size, Span) and size.is_int and (size.start, size.end) == (16, 64)
    assert (extra.key, extra.log) == ("+extra.a", True)
    assert space.size is None and space.settings.sampler == "tpe" and space.settings.seconds == 7200


def test_the_points_of_a_large_grid_are_not_listed():
    space = search_space(MNIST, *(f"+extra.k{i}=range(1000)" for i in range(6)))
    assert space.size == 10**18
    assert space.place(10**18 - 1) == (999,) * 6 and space.place(1001) == (0, 0, 0, 0, 1, 1)


def test_a_password_stays_a_reference(written, monkeypatch):
    monkeypatch.setenv("DB", "postgresql://me:hush@host/db")
    file = written("search: {storage: '${oc.env:DB}', workers: '${extra.n}'}\nextra: {n: 3}")
    found = search_settings(file)
    assert (found.storage, found.workers) == ("${oc.env:DB}", 3)


def test_one_run_does_not_look_at_them(written, capsys):
    file = written("search: {params: {optimizer.lr: 'interval(0,1)'}}")
    assert mlkit_train([str(file), "--check"]) == 0
    capsys.readouterr()
    assert mlkit_train([str(file), "optimizer.lr=interval(0,1)"]) == 2
    said = capsys.readouterr().err
    assert "-m" in said and len(said.splitlines()) == 1
