"""What a project brings that Hydra has run: options of its own, Hydra's words and settings."""
import os
import re
from datetime import date

import pytest

from hydra_cases import Case
from mlkit.base.files import packaged_configs
from mlkit.cli import mlkit_train
from mlkit.completion import completions
from mlkit.config.hydra import moving
from mlkit.config.load import explain, load_config
from mlkit.config.node import ConfigError, about, origin_of
from mlkit.config.search import search_space
from mlkit.many.sweep import load_trials
from mlkit.parts.build import build
from mlkit.parts.check import check, find_problems
from mlkit.parts.describe import describe
from mlkit.run.folder import Run
from mlkit.train import train


@pytest.fixture
def project(tmp_path, monkeypatch):
    "A function that writes a project's files; the current folder is its folder."
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "parts.py").write_text("class T:\n    def __init__(self, **kw): self.kw = kw\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda files: Case("", files).write(tmp_path)


# -- packaged options beside the project's own

OWN = {
    "configs/callbacks/default": "mine: null", "configs/optimizer/adamw": "lr: 0.5",
    "configs/callbacks/both": "defaults: [default]\nb: null", "configs/logger/csv": "own: null",
    "configs/trainer/default": "max_epochs: 9",
    "configs/debug/fast": "# @package _global_\nseed: 7",
    "configs/trainer/big": "defaults: [default]\nmax_time: null"}
NET = "model: {net: {_target_: mlkit.model.nets.MLP, in_shape: 784, num_classes: 10}}"
MAIN = "defaults: [data: mnist, model: classifier, {}_self_]\n" + NET.replace(
    "{", "{{").replace("}", "}}")
TAKEN = [  # entries of the list, overrides, a key, where it comes from (None: there is no such key)
    ("", (), "callbacks.checkpoint.monitor", "callbacks/default.yaml"),
    ("", (), "callbacks.progress._target_", "callbacks/default.yaml"),
    ("", (), "callbacks.mine", None),
    ("", (), "optimizer.lr", "optimizer/adamw.yaml"),
    ("", (), "trainer.max_epochs", "trainer/default.yaml"),
    ("callbacks: default, ", (), "callbacks.mine", "configs/callbacks/default.yaml"),
    ("callbacks: default, ", (), "callbacks.checkpoint", None),
    ("callbacks: both, ", (), "callbacks.mine", "configs/callbacks/default.yaml"),
    ("callbacks: early_stopping, ", (), "callbacks.checkpoint.mode", "callbacks/default.yaml"),
    ("callbacks: [early_stopping, default], ", (), "callbacks.mine",
     "configs/callbacks/default.yaml"),
    ("callbacks: [early_stopping, default], ", (), "callbacks.progress._target_",
     "callbacks/default.yaml"),
    ("", ("callbacks=default",), "callbacks.mine", "configs/callbacks/default.yaml"),
    ("", ("callbacks=lr_monitor",), "callbacks.lr_monitor._target_", "callbacks/lr_monitor.yaml"),
    ("", ("optimizer=adamw",), "optimizer.lr", "configs/optimizer/adamw.yaml"),
    ("optimizer: adamw, ", (), "optimizer.lr", "configs/optimizer/adamw.yaml"),
    ("optimizer: sgd, ", (), "optimizer.lr", "optimizer/sgd.yaml"),
    ("", ("trainer=cpu",), "trainer.max_epochs", "trainer/default.yaml"),
    ("", ("trainer=big",), "trainer.max_epochs", "configs/trainer/default.yaml"),
    ("", ("debug=fast",), "seed", "configs/debug/fast.yaml"),
    ("", ("debug=overfit",), "trainer.limit_val_batches", "debug/overfit.yaml"),
    ("", ("logger=csv",), "logger.own", "configs/logger/csv.yaml"),
]


@pytest.mark.parametrize("entries, overrides, key, file", TAKEN)
def test_packaged_entries_mean_packaged_files(project, entries, overrides, key, file):
    project({**OWN, "configs/main": MAIN.format(entries)})
    cfg = load_config("configs/main.yaml", *overrides)
    if file is None:
        with pytest.raises(ConfigError, match="no such key"): explain(cfg, key)
    else: assert str(explain(cfg, key)[0][2]).startswith(f"{file}:")


def test_a_run_beside_own_callbacks_keeps_its_checkpoints(project):
    project({**OWN, "configs/main": MAIN.format("")})
    run = train("configs/main.yaml", "trainer.max_epochs=1", "+trainer.limit_train_batches=1")
    assert sorted(o.name for o in (run.dir / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_files_of_one_name_are_told_apart(project, monkeypatch, tmp_path):
    "From within configs/ the project's files are called as mlkit's own are."
    project({"configs/main": MAIN.format("trainer: default, callbacks: default, "),
             "configs/trainer/default": "max_epoch: 1\n_target_: pytorch_lightning.Trainer",
             "configs/callbacks/default": "defaults: [early_stopping]\nmine: null"})
    monkeypatch.chdir(tmp_path / "configs")
    cfg = load_config("main.yaml")  # no circle: mlkit's early_stopping means mlkit's default
    own = origin_of(cfg, ("callbacks", "mine"))
    assert str(own) == "callbacks/default.yaml:2:1"
    assert own.path == tmp_path / "configs" / "callbacks" / "default.yaml"
    assert "mlkit/configs/callbacks/default.yaml:" in str(explain(cfg, "callbacks.checkpoint"))
    wrong, = [o for o in find_problems(cfg) if o.key == "trainer.max_epoch"]
    assert wrong.origin.path == tmp_path / "configs" / "trainer" / "default.yaml"
    packaged = packaged_configs() / "callbacks" / "default.yaml"
    assert origin_of(cfg, ("callbacks", "checkpoint", "mode")).path == packaged


def test_problems_of_one_file_stand_together(project, monkeypatch, tmp_path):
    "They are sorted by file, not by what a file is called."
    project({"configs/main": MAIN.format("callbacks: [mine, early_stopping], "),
             "configs/callbacks/mine": "# @package callbacks\ndefaults: [default]\ny: 5\n",
             "configs/callbacks/default": "x: 5\n\n\nz: 5\n"})
    monkeypatch.chdir(tmp_path / "configs")
    cfg = load_config("main.yaml", "callbacks.checkpoint={}")
    names = [o.origin.path for o in find_problems(cfg) if o.origin.path]
    assert names == sorted(names, key=names.index) and len({*names}) == 2


# -- a group that is still to be chosen

CHOICE = {
    "main": "defaults: [db: '???', kit/tool@tool: '???', data: mnist, model: classifier]",
    "db/my": "# @package extra\np: 1", "db/pg": "# @package extra\nq: 1", "kit/tool/saw": "a: 1",
    "nested": "defaults: [exp: one, data: mnist, model: classifier]",
    "exp/one": "# @package _global_\ndefaults: [/db: '???']",
    "typo": "defaults: [db: oracle, data: mnist]"}


@pytest.mark.parametrize("line, has", [
    ("main.yaml db=", "db=my db=pg"), ("main.yaml kit/tool@tool=", "kit/tool@tool=saw"),
    ("main.yaml d", "db= data="), ("nested.yaml db=", "db=my db=pg"),
    ("main.yaml -m db=my,", "db=my,my db=my,pg"), ("main.yaml db=my extra.", "extra.p="),
    ("main.yaml ~d", "~db"), ("main.yaml seed=x db=", "db=my db=pg"),
    ("typo.yaml db=", "db=my db=pg"), ("typo.yaml op", "optimizer=")])
def test_completion_while_a_group_waits(project, line, has):
    project(CHOICE)
    assert {*has.split()} <= {*completions(f"mlkit_train {line}")}


@pytest.mark.parametrize("file, overrides", [
    ("main", ()), ("main", ("db=my",)), ("nested", ()), ("main", ("trainer.max_epochs=2",))])
def test_help_while_a_group_waits(project, file, overrides):
    project(CHOICE)
    text = describe(f"{file}.yaml", *overrides)
    assert re.search(r"db +my\*?  pg\n", text) and "trainer: pytorch_lightning.Trainer" in text


def test_a_group_that_waits_is_one_line_elsewhere(project):
    project(CHOICE)
    for call in (load_config, check):
        with pytest.raises(ConfigError) as e: call("main.yaml")
        assert [o.key for o in e.value.problems] == ["kit/tool@tool", "db"]
        assert "choose an option: db=… on the command line (there are: my, pg)" in str(e.value)


# -- groups in folders

@pytest.mark.parametrize("line, has", [
    ("exp=", "exp=s/x exp=s/y"), ("exp=s/", "exp=s/x exp=s/y"), ("exp=s/t/", "exp=s/t/z"),
    ("ex", "exp= exp/s= exp/s/t="), ("-m exp=s/x,s/", "exp=s/x,s/x exp=s/x,s/y")])
def test_completion_of_groups_in_folders(project, line, has):
    project({"configs/main": "defaults: [exp: s/x, data: mnist]",
             "configs/exp/s/x": "# @package extra\nv: 1",
             "configs/exp/s/y": "v: 2", "configs/exp/s/t/z": "v: 3"})
    assert {*has.split()} <= {*completions(f"mlkit_train configs/main.yaml {line}")}


@pytest.mark.parametrize("wrong", ["exp=x", "exp=s", "exp=5", "exp=s/y", "exp=[s/x,q]", "+exp=q",
                                   "exp=s/t/u/q"])
def test_a_choice_never_becomes_a_value(project, wrong):
    project({"main": "exp: 1\nextra: {}", "exp/s/x": "v: 1", "exp/s/t/u/z": "v: 1"})
    assert load_config("main.yaml", "exp=s/t/u/z").exp == {"v": 1}
    with pytest.raises(ConfigError, match="has no option"): load_config("main.yaml", wrong)


def test_the_folder_of_runs_is_no_group(project, tmp_path):
    project({"main": "runs: there", "runs/mnist/1/config": "a: 1"})
    (tmp_path / "runs/mnist/1/run.json").touch()
    assert load_config("main.yaml", "runs=elsewhere").runs == "elsewhere"


def test_a_yml_file_is_no_option_and_says_so(project):
    project({"main": "defaults: [data: mnist]\ndb: 1", "db/x": "v: 1"})
    os.rename("db/x.yaml", "db/x.yml")
    with pytest.raises(ConfigError, match=r"db/x\.yml must end in \.yaml"):
        load_config("main.yaml", "db=x")


# -- Hydra's words

WORDS = [  # a value as it is written, and what it means
    ("${now:%Y}", str(date.today().year)), ("${now:%d}", f"{date.today():%d}"),
    ("${hydra:runtime.cwd}", "CWD"), ("${hydra:job.name}", "main"),
    ("${hydra:job.config_name}", "main"),
    ("${hydra:runtime.choices.data}", "mnist"), ("${hydra:runtime.choices.optimizer}", "adamw"),
    ("${hydra:run.dir}", f"out/{date.today().year}"), ("${hydra:sweeper.params}", {"seed": "1,2"}),
    ("${hydra:job.env_set.A}", "b"), ("${hydra:overrides.task}", ["seed=3"]),
    ("${hydra:job.override_dirname}", "seed=3"), ("${python_version:major}", "3"),
    ("\\${now:%Y}", "${now:%Y}")]


@pytest.mark.parametrize("text, means", WORDS)
def test_words_have_their_meaning(project, text, means, tmp_path):
    project({"main": f"""defaults: [data: mnist, model: classifier]
extra: {{a: '{text}', b: 'x_{text}', c: [0, '{text}'], d: '${{extra.a}}'}}
hydra:
  run: {{dir: 'out/${{now:%Y}}'}}
  job: {{env_set: {{A: b}}}}
  sweeper: {{params: {{seed: '1,2'}}}}"""})
    cfg = load_config("main.yaml", "seed=3")
    means = str(tmp_path) if means == "CWD" else means
    assert cfg.extra.a == cfg.extra.c[1] == cfg.extra.d == means
    assert isinstance(means, (dict, list)) or cfg.extra.b == f"x_{means}"
    assert str(origin_of(cfg, ("extra", "a"))) == "main.yaml:2:9" and "hydra" not in cfg
    assert origin_of(cfg, ("extra", "c")).name == "main.yaml"


def test_a_run_that_goes_on_is_not_of_another_time(project, capsys):
    project({"main": MAIN.format("debug: fast, ") + "\nruns: runs\nextra:\n"
             "  a: '${now:%f}'\n  b: [1, 'x${now:%f}']\n  c: '${hydra:runtime.cwd}'"})
    run = Run.new(load_config("main.yaml", "name=it"))  # killed at once
    was = run.cfg.extra
    assert mlkit_train(["main.yaml", "name=it", "--resume"]) == 0
    assert "says something else" not in capsys.readouterr().out
    assert Run(run.dir).status == "done" and Run(run.dir).cfg.extra == was
    cfg = load_config("main.yaml")
    assert [*moving(cfg)] == ["extra.a", "extra.b", "extra.c"]
    assert [o[1] for o in explain(cfg, "extra.a")] == [cfg.extra.a, "${now:%f}"]


@pytest.mark.parametrize("text", ["${hydra:runtime.output_dir}", "x/${hydra:job.num}",
                                  "${hydra:nope.nope}", "${hydra:run.dir}", "${hydra:}"])
def test_words_without_a_meaning_are_one_line(project, text):
    project({"main": f"extra: {{a: '{text}'}}"})
    with pytest.raises(ConfigError) as e: load_config("main.yaml")
    line, = str(e.value).splitlines()
    assert line.startswith("main.yaml:1:9: extra.a: ${hydra:") and "write a value" in line


def test_a_word_in_a_circle_is_one_line(project):
    project({"main": "extra: {a: '${hydra:run.dir}'}\nhydra: {run: {dir: '${hydra:run.dir}'}}"})
    with pytest.raises(ConfigError, match="extra.a"): load_config("main.yaml")


# -- Hydra's settings

SETTINGS = [  # of the file, of the command line, and the place and key of the line that says so
    ("hydra: {run: {dir: x}}", (), "main.yaml:2:9: hydra.run: warning: "),
    ("", ("hydra.run.dir=.",), "command line: hydra.run.dir=.: warning: "),
    ("", ("hydra/launcher=submitit",), "command line: hydra/launcher=submitit: warning: "),
    ("hydra: {run: {dir: x}, verbose: true}", (), "hydra.verbose"),
    ("hydra: {run: {dir: x}}", ("hydra.job.chdir=true",), "hydra.job"),
    ("hydra: {searchpath: [nowhere]}", (), "main.yaml:2:9: hydra.searchpath: warning: nowhere is"),
    ("hydra: {mode: RUN}", (), ""), ("hydra: {}", (), ""),
    ("hydra: {searchpath: [configs]}", (), "")]


@pytest.mark.parametrize("text, overrides, line", SETTINGS)
def test_settings_without_effect_are_one_line(project, text, overrides, line):
    project({"main": f"defaults: [data: mnist, model: classifier, _self_]\n{text}\n{NET}",
             "configs/x/y": "a: 1"})
    cfg = load_config("main.yaml", *overrides)
    notes = [str(o) for o in about(cfg).notes]
    assert len(notes) == bool(line) and all(line in o for o in notes)
    assert notes == [str(o) for o in find_problems(cfg)]


def test_an_override_of_hydras_groups_is_said_with_its_place(project):
    project({"main": "defaults: [_self_, override hydra/job_logging: colorlog]"})
    note, = about(load_config("main.yaml")).notes
    assert str(note).startswith("main.yaml:1:20: hydra/job_logging: warning: ")


# -- sweeps

MANY = "defaults: [data: mnist, model: classifier, _self_{}]\nhydra: {}\n" + NET.replace(
    "{", "{{").replace("}", "}}")
SWEEPS = [  # the settings, the command line, and the values of the trials
    ("{mode: MULTIRUN, sweeper: {params: {seed: '1,2'}}}", (), [{"seed": 1}, {"seed": 2}]),
    ("{sweeper: {params: {seed: 'range(3)'}}}", (), [{"seed": o} for o in range(3)]),
    ("{sweeper: {params: {seed: '1,2', optimizer.lr: '0.1,0.2'}}}", ("seed=5",),
     [{"optimizer.lr": 0.1}, {"optimizer.lr": 0.2}]),
    ("{sweeper: {params: {seed: 3, optimizer: 'sgd,adam'}}}", (),
     [{"optimizer": "sgd"}, {"optimizer": "adam"}]),
    ("{mode: MULTIRUN}", ("seed=1,2",), [{"seed": 1}, {"seed": 2}]),
    ("{mode: MULTIRUN}", (), [{}]),
    ("{sweeper: {params: null}}", ("seed=1,2",), [{"seed": 1}, {"seed": 2}]),
    ("{}", ("hydra.sweeper.params={seed: '1,2'}",), [{"seed": 1}, {"seed": 2}])]


@pytest.mark.parametrize("node, overrides, values", SWEEPS)
def test_sweeper_params_are_swept_over(project, node, overrides, values):
    project({"main": MANY.format("", node)})
    assert [t.values for t in load_trials("main.yaml", *overrides)] == values


@pytest.mark.parametrize("more, node", [
    (", override hydra/sweeper: ax", "{}"), ("", "{sweeper: {_target_: a.AxSweeper}}"),
    ("", "{sweeper: {params: {seed: 'interval(0, 1)'}}}"),
    (", override hydra/sweeper: optuna", "{sweeper: {n_trials: 0}}"),
    (", override hydra/sweeper: optuna", "{sweeper: {n_trials: 3, direction: [minimize]}}")])
def test_other_sweepers_are_one_line(project, more, node):
    project({"main": MANY.format(more, node)})
    with pytest.raises(ConfigError) as e: load_trials("main.yaml", "optimizer=sgd,adam")
    assert len(str(e.value).splitlines()) == 1


OPTUNA = """
sweeper:
  {}
  n_trials: 9
  n_jobs: 2
  direction: maximize
  study_name: mine
  sampler:
    _target_: optuna.samplers.RandomSampler
    seed: 7
    n_startup_trials: 3
  params:
    optimizer.lr: tag(log, interval(1e-4, 1e-1))
    seed: choice(1, 2)
"""


@pytest.mark.parametrize("more, target", [
    (", override hydra/sweeper: optuna", ""), ("", "_target_: hydra_plugins.o.OptunaSweeper"),
    (", override hydra/sweeper: optuna, override hydra/sweeper/sampler: random", "")])
def test_an_optuna_sweeper_searches(project, more, target):
    node = OPTUNA.replace("\n", "\n  ").format(target)
    project({"main": MANY.format(more, "REST").replace("REST", node)})
    space = search_space("main.yaml", "optimizer=sgd,adam")
    found = space.settings
    assert (found.sampler, found.trials, found.workers, found.mode, found.seed) == (
        "random", 9, 2, "max", 7)
    lr, seeds, optimizers = space.choices
    assert (lr.start, lr.end, lr.log, str(lr.origin)[:10]) == (1e-4, 0.1, True, "main.yaml:")
    assert (seeds, optimizers) == (["seed=1", "seed=2"], ["optimizer=sgd", "optimizer=adam"])
    note, = [o for o in about(load_config("main.yaml")).notes if "hydra" in o.key]
    assert "study_name" in str(note) and "n_startup_trials" in str(note)
    assert "n_trials" not in str(note)


def test_a_mistake_in_sweeper_params_is_told_where_it_stands(project):
    project({"main": MANY.format("", "{sweeper: {params: {\n  seed: 'interval(0, 1)'}}}")})
    with pytest.raises(ConfigError, match=r"^main.yaml:\d+:3: seed=interval.*search.trials=20"):
        search_space("main.yaml")
    for values, why in {"choice(": "do not parse", "1,-5": "must be"}.items():
        project({"main": MANY.format("", "{sweeper: {params: {\n  seed: '%s'}}}" % values)})
        with pytest.raises(ConfigError, match=rf"^main.yaml:\d+:3: seed=.*{why}"):
            load_trials("main.yaml")


def test_multirun_of_the_file_is_many_runs(project, capsys):
    project({"main": MANY.format("", "{mode: MULTIRUN, sweeper: {params: {seed: '1,2'}}}")})
    assert mlkit_train(["main.yaml", "--check"]) == 0
    assert "no problems in 2 combinations" in capsys.readouterr().out
    assert mlkit_train(["main.yaml", "--check", "hydra.mode=RUN"]) == 0
    assert "no problems\n" in capsys.readouterr().out
    assert mlkit_train(["main.yaml", "--print"]) == 0
    with pytest.raises(ConfigError, match="grid"): train("main.yaml")


# -- directives of a target

NODE = {"_target_": "parts.T", "child": {"_target_": "parts.T", "z": {"q": 1}},
        "plain": {"a": [1]}, "l": [1]}
DIRECTIVES = [  # further keys; the kinds of child, plain, l
    ({}, "T dict list"), ({"_recursive_": True}, "T dict list"),
    ({"_recursive_": False}, "dict dict list"),
    ({"_convert_": "all"}, "T dict list"), ({"_convert_": "PARTIAL"}, "T dict list"),
    ({"_convert_": "object"}, "T dict list"), ({"_convert_": "none"}, "T DictConfig ListConfig"),
    ({"_convert_": "none", "_recursive_": False}, "DictConfig DictConfig ListConfig")]


@pytest.mark.parametrize("more, kinds", DIRECTIVES)
@pytest.mark.parametrize("as_argument", [False, True])
def test_directives_do_as_in_hydra(project, more, kinds, as_argument):
    project({})
    cfg = load_config({"defaults": [], "extra": {"t": NODE if as_argument else {**NODE, **more}}})
    assert not find_problems(cfg.extra)
    built = build(cfg.extra.t, **(more if as_argument else {}))
    assert [type(o).__name__ for o in built.kw.values()] == kinds.split()
    z = getattr(built.kw["child"], "kw", {}).get("z", {})
    assert type(z).__name__ == ("DictConfig" if kinds == "T DictConfig ListConfig" else "dict")


@pytest.mark.parametrize("more, says", [
    ({"_convert_": "nope"}, "_convert_: is none"),
    ({"_recursive_": "no"}, "_recursive_: must be true"),
    ({"_recusive_": False}, "did you mean '_recursive_'"), ({}, "needs 'params'"),
    ({"_recursive_": False}, ""), ({"_recursive_": False, "_convert_": "none"}, "")])
def test_what_is_not_built_is_not_checked(project, more, says):
    project({})
    node = {**NODE, **more, "child": {"_target_": "torch.optim.SGD", "lr": 1}}
    found = str(find_problems(load_config({"defaults": [], "extra": {"t": node}}).extra))
    assert says in found and bool(found) == bool(says)
