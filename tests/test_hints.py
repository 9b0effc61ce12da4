"""What a message advises: it is about the right thing, in YAML's words, and short."""
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Callable, Iterator

import pytest

import test_mistakes
from mlkit.base.errors import NotFound, UserError
from mlkit.cli import mlkit_eval, mlkit_reproduce, mlkit_runs, mlkit_train
from mlkit.config.load import explain, load_config
from mlkit.config.node import ConfigError, Problem, origin_of
from mlkit.many import table
from mlkit.many.table import runs_text
from mlkit.parts.check import check
from mlkit.run.folder import find_run
from test_mistakes import KINDS, Mistake, corpus, write

CONFIG = """\
defaults:
  - data: mnist
  - model: classifier
model:
  net: {_target_: mlkit.model.nets.MLP, in_shape: 784, num_classes: 10}
extra: {limit: 1, deep: {width: 8}, big: {many: [BIG]}, three: '3', none: null}
""".replace("BIG", ", ".join(map(str, range(2000))))


@pytest.fixture
def config(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "lab.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return "lab.yaml"


def says(config: str, *overrides: str) -> str:
    "The one line that a mistake gets, without its place."
    with pytest.raises(ConfigError) as e: check(config, *overrides)
    line, = str(e.value).splitlines()
    return line.removeprefix(f"command line: {' '.join(overrides)}: ")


NO_KEY = {  # an override -> the key that is meant
    "lr=0.1": "optimizer.lr", "max_epochs=3": "trainer.max_epochs",
    "epochs=3": "trainer.max_epochs", "learning_rate=1": "optimizer.lr",
    "wd=0.1": "optimizer.weight_decay", "batch=3": "data.batch_size",
    "batch_size=3": "data.batch_size", "mode=max": "callbacks.checkpoint.mode", "sede=1": "seed",
    "precision=32-true": "trainer.precision", "model.lr=0.1": "optimizer.lr",
    "trainer.lr=0.1": "optimizer.lr", "extra.deep.widht=1": "width", "optimizer={lrr: 1}": "lr",
    "--max_epochs=3": "trainer.max_epochs", "--optimizer.lr=1": "optimizer", "--sede=1": "seed"}


@pytest.mark.parametrize("override", NO_KEY)
def test_a_key_that_stands_elsewhere(config, override):
    assert f"; did you mean '{NO_KEY[override]}'?" in says(config, override)
    key = override.partition("=")[0]
    if "{" in override or key.startswith("model"): return
    with pytest.raises(ConfigError, match=f"did you mean '{NO_KEY[override]}'"):
        explain(load_config(config), key)


ARGUMENTS = {  # an override -> the argument that is meant, which no file mentions
    "gradient_clip_val=0.5": "trainer.gradient_clip_val", "hidden=[8]": "model.net.hidden",
    "dropout=0.1": "model.net.dropout", "limit_val_batches=2": "trainer.limit_val_batches",
    "val_size=0.2": "data.val_size"}


@pytest.mark.parametrize("override", ARGUMENTS)
def test_an_argument_that_no_file_mentions(config, override):
    key, line = ARGUMENTS[override], says(config, override)
    assert line == f"there is no key '{override.partition('=')[0]}'; did you mean '{key}'?"
    check(config, f"{key}={override.partition('=')[2]}")


ADDED = {  # an override -> what would add its key; '': nothing would do
    "foo=3": "+extra.foo=3", "extra.new=1": "+extra.new=1",
    "extra.deep.new.x=1": "+extra.deep.new.x=1",
    "callbacks.mine=3": "", "callbacks.mine.monitor=a": "", "logger.mine=csv": "",
    "model.metrics.f1=3": "+model.metrics.f1=3", "model.nothing.x=3": "", "trainer.nothing=3": "",
    "callbacks={mine: {_target_: pytorch_lightning.callbacks.Timer}}":
        "+callbacks={mine: {_target_: pytorch_lightning.callbacks.Timer}}"}


@pytest.mark.parametrize("override", ADDED)
def test_what_is_offered_to_add_a_key_adds_it(config, override):
    line, way = says(config, override), ADDED[override]
    assert (way in line) if way else "+" not in line, line
    if way: check(config, way)


NEAR = {  # an override -> the value that is meant
    "optimizer=adamW": "adamw", "optimizer=ADAM": "adam", "optimizer=sdg": "sgd",
    "trainer.precision=fp16": "16", "trainer.precision=float32": "32",
    "trainer.precision=bfloat16": "bf16", "trainer.precision=fp16-mixed": "16-mixed",
    "trainer.precision=bf16mixed": "bf16-mixed", "data=MNIST": "mnist", "debug=fats": "fast"}


@pytest.mark.parametrize("override", NEAR)
def test_a_value_that_is_near(config, override):
    assert f"did you mean '{NEAR[override]}'?" in says(config, override)
    check(config, f"{override.partition('=')[0]}={NEAR[override]}")


OPTIONS = {  # a line -> what is said of it
    "--max_epochs=3": "there is no key '--max_epochs'; did you mean 'trainer.max_epochs'?",
    "--lr 0.1": "--lr=0.1: there is no key '--lr'; did you mean 'optimizer.lr'?",
    "--lr -3": "--lr=-3: there is no key '--lr'; did you mean 'optimizer.lr'?",
    "-lr=1": "did you mean 'optimizer.lr'?", "--optimizer sgd": "did you mean 'optimizer'?",
    "--trainer.max_epochs 3": "did you mean 'trainer'?", "--foo=3": "'+extra.foo=3' adds one",
    "--chek": "there is no option --chek; did you mean '--check'?", "--foo": "no option --foo",
    "--explan lr": "did you mean '--explain'?", "-m --print": "--print is about one run",
    "trainer.max_epochs = 3": "leave out the blanks: trainer.max_epochs=3",
    "trainer.max_epochs= 3": "leave out the blanks: trainer.max_epochs=3",
    "-m optimizer.lr = 1,2": "leave out the blanks: optimizer.lr=1,2",
    "seed= 3 --check": "leave out the blanks: seed=3", "--completion": "--completion wants bash"}


@pytest.mark.parametrize("line", OPTIONS)
@pytest.mark.parametrize("config_is_first", [True, False])
def test_options_that_are_none(config, line, config_is_first, capsys):
    words = [config, *line.split()] if config_is_first else [*line.split(), config]
    try: code = mlkit_train(words)
    except SystemExit as e: code = e.code
    out, err = capsys.readouterr()
    if "--completion" in line and config_is_first or "= " in line and not config_is_first: return
    assert (code, out, len(err.splitlines())) == (2, "", 1) and OPTIONS[line] in err, err


@pytest.mark.parametrize("command,line,says", [
    (mlkit_runs, "--sorted acc", "did you mean '--sort'?"),
    (mlkit_runs, "--foo", "there is no option --foo"),
    (mlkit_eval, "nothing --lr 3", "nothing: no run here"), (mlkit_eval, "x --stages", "'--stage'"),
    (mlkit_eval, "x --stage tset", "choose from"), (mlkit_reproduce, "x --lr=3", "no option --lr"),
    (mlkit_train, "", "which config?"), (mlkit_train, "--sede=3", "which config?")])
def test_options_of_other_commands(config, command, line, says, capsys):
    try: code = command(line.split())
    except SystemExit as e: code = e.code
    out, err = capsys.readouterr()
    assert (code, out, len(err.splitlines())) == (2, "", 1) and says in err, err


FILES = {  # what is asked for -> what is there
    "config/mine.yaml": "configs/mine.yaml", "configs/mine": "configs/mine.yaml",
    "configs/mine.yml": "configs/mine.yaml", "mine": "configs/mine.yaml",
    "Configs/Mine.yaml": "configs/mine.yaml", "confgs/mnie.yaml": "configs/mine.yaml",
    "configs/sbu/deep.yaml": "configs/sub/deep.yaml", "deep.yaml": "configs/sub/deep.yaml",
    "sub/deep.yaml": "configs/sub/deep.yaml", "configs/lab": "lab.yaml", "nothing/x.yaml": ""}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_elsewhere(config, name):
    for o in ("mine", "sub/deep"):
        Path(f"configs/{o}.yaml").parent.mkdir(parents=True, exist_ok=True)
        Path(f"configs/{o}.yaml").write_text(CONFIG)
    near = FILES[name] and f"; did you mean '{FILES[name]}'?"
    with pytest.raises(ConfigError) as e: load_config(name)
    assert str(e.value) == f"{name}: no such config file{near}"
    if near: load_config(FILES[name])
    Path("configs/more.yaml").write_text("extends: mnie.yaml\n")
    others = {"configs/more.yaml": "'mine.yaml'", "configs": "configs/mine.yaml, "}
    for asked, near in others.items():
        with pytest.raises(ConfigError, match=near): load_config(asked)


@pytest.mark.parametrize("model", [
    "${extra.m}", "[1, 2]", "3", "null", "'???'", "${nothing}", "${extra.l}", "{net: 3}",
    "${extra.n}"])
def test_an_option_replaces_whatever_a_complete_config_has_above_it(config, model):
    Path("model/net").mkdir(parents=True)
    Path("model/net/flat.yaml").write_text("_target_: torch.nn.Flatten\n")
    Path("whole.yaml").write_text(
        f"defaults: []\nextra: {{m: {{net: 3, a: 1}}, l: [1], n: null}}\nmodel: {model}\n")
    cfg = load_config("whole.yaml", "model/net=flat")
    assert cfg.model.net == {"_target_": "torch.nn.Flatten"}
    assert str(origin_of(cfg, ("model", "net", "_target_"))) == "model/net/flat.yaml:1:1"
    assert model != "${extra.m}" or cfg.model.a == 1 and cfg.extra.m.net == 3


@pytest.mark.parametrize("key", ["extra.l.²", "extra.l.٣", "extra.l.x", "extra.²", "²", "a.l.9"])
def test_odd_keys_of_lists(config, key):
    with pytest.raises(ConfigError, match="no such key"):
        explain({"defaults": [], "extra": {"l": [1]}}, key)
    assert "cannot be resolved" in says(config, f"extra.limit=${{{key}}}")


def test_explain_tells_the_value_that_counts(config):
    cfg = load_config(config, "+extra.x=nan", "+extra.e={}")
    untouched = {k: str(explain(cfg, f"extra.{k}")) for k in ("limit", "x", "three", "none")}
    assert not any("notebook" in o for o in untouched.values())
    for key, new in dict(limit=True, three=3, none="a", x=1.0, e=2).items():
        cfg.extra[key] = new
        value, old = [(v, str(o)) for _, v, o in explain(cfg, f"extra.{key}")][:2]
        assert value == (new, "notebook") and type(value[0]) is type(new) and old[1] != "notebook"
    assert [repr(v) for _, v, _ in explain(cfg, "extra.limit")] == ["True", "1"]


@pytest.fixture
def runs(config):
    times = {"20260101-000000-aaaa": {}, "20260102-000000-bbbb": {"val/other": 1.0}}
    for time, more in times.items():
        folder = Path("runs/base") / time
        folder.mkdir(parents=True)
        metrics = {"train/loss": 1.0, "test/acc": 1.0, **more}
        info = dict(name="base", status="done", metrics=metrics,
                    config={"optimizer": {"lr": 0.1}, "best": "${optimizer.lr}", "seed": 3,
                            "data": {"seed": "${seed}", "root": "${oc.env:HOME}"}})
        (folder / "run.json").write_text(json.dumps(info))


NEAR_RUN = {  # an id -> the run that is meant
    "bsae": "base/20260102-000000-bbbb", "20260101-000000-aaax": "base/20260101-000000-aaaa",
    "base/20260101-00000-aaa": "base/20260101-000000-aaaa", "Base": "base/20260102-000000-bbbb",
    "nothing": ""}


@pytest.mark.parametrize("name", NEAR_RUN)
def test_a_run_that_is_near(runs, name):
    near = NEAR_RUN[name] and f"; did you mean '{NEAR_RUN[name]}'?"
    with pytest.raises(NotFound) as e: find_run(name)
    assert str(e.value) == f"{name}: no run here (there is no run.json){near}"
    if near: find_run(NEAR_RUN[name])


@pytest.mark.parametrize("name,near", [("base", "runs/base"), ("bsae", "runs/base"), ("x", "")])
def test_a_folder_of_runs_that_is_near(runs, name, near):
    with pytest.raises(NotFound) as e: runs_text(name)
    assert str(e.value) == f"{name}: no such folder" + (near and f"; did you mean '{near}'?")
    if near: runs_text(near)


NEAR_COLUMN = {"acc": "test/acc", "loss": "train/loss", "lr": "optimizer.lr", "accu": "test/acc",
               "optim.lr": "optimizer.lr", "other": "val/other", "ACC": "test/acc", "xyz": ""}


@pytest.mark.parametrize("name", NEAR_COLUMN)
def test_a_column_that_is_near(runs, name):
    near = NEAR_COLUMN[name]
    for how in (dict(sort=name), dict(where=f"{name} > 0"), dict(columns=[name])):
        with pytest.raises(UserError) as e: runs_text(**how)
        assert str(e.value) == f"no run has a '{name}'" + (near and f"; did you mean '{near}'?")
        if near: runs_text(**{k: [near] if k == "columns" else v.replace(name, near)
                              for k, v in how.items()})


@pytest.mark.parametrize("where,n", [
    ("best == 0.1", 2), ("best > 0.05", 2), ("best > 0.5", 0), ("data.seed == 3", 2),
    ("data.seed < 3", 0), ("data.root ~ HOME", 2), ("data.root ~ /", 0)])
def test_references_are_compared_by_value(runs, where, n):
    assert len(table.runs(where=where)) == n
    assert runs_text(sort="best", columns=["data.seed"]).count("  3") == 2


WORDS = {  # an override -> how the line says its value
    "runs='a\0b'": "must be a folder, or null, not 'a\\x00b'",
    "seed=null": "not null", "name=true": "not true", "data.batch_size=null": "got null",
    "data.batch_size={a: null}": "got {a: null}", "tags={a: [true, x]}": "not {a: [true, 'x']}",
    "data.batch_size='3'": "got '3'", "data.batch_size=${extra.three}": "got '3'",
    "data.batch_size={a: ${oc.env:HOME}}": "got what {a: ${oc.env:HOME}} gives",
    "data.batch_size=[${oc.env:HOME}]": "got what [${oc.env:HOME}] gives",
    "~extra.none=3": "its value is null, not 3",
    "extra.none.x=1": "'extra.none' is null", "+extra.limit=2": "a value already, 1;",
    "model.net=null": "got null", "trainer.devices=null": "wants list[int], str or int, got null",
    "model.net={_target_: null}": "not null", "callbacks.checkpoint.monitor=3": "wants str or null"}


@pytest.mark.parametrize("override", WORDS)
def test_values_in_the_words_of_yaml(config, override):
    line = says(config, override)
    assert WORDS[override] in line and "None" not in line and "True" not in line


@pytest.mark.parametrize("override", [
    "~extra.big=3", "+extra.big=3", "~extra=3", "extra.big+=3", "~extra.big.many=1", "~model.net=x",
    "extra.big.many.x=3", "tags=${extra.big}", "data.batch_size=${extra.big}", "name=${extra.big}",
    "~trainer=3", "x" * 5000 + "=3", "data.batch_size=[" + "1, " * 3000 + "1]",
    "seed={" + ", ".join(f"k{i}: 1" for i in range(2000)) + "}"])
def test_a_line_is_short_whatever_it_is_about(config, override):
    with pytest.raises(ConfigError) as e: check(config, override)
    lines = str(e.value).splitlines()
    assert len(lines) == 1 and len(lines[0]) < 500, len(lines[0])


# -- each hint of the mistakes, followed to the letter

HINT = re.compile(r"did you mean|leave out|would add it|adds one|changes it|write \{|it needs `|"
                  r"or `_partial_|; set |in the 'defaults:' list|\(there are: [\w/]|; there are \w|"
                  r"monitor: val/loss\}|say it with")
Files, Args = dict[str, str], list[str]


def problems_of(m: Mistake, folder: Path, root: Path) -> list[Problem]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(write(folder, m.files()))
        for k, v in m.env.items(): patch.setenv(k, v)
        if m.dotenv: (root / ".env").write_text(m.dotenv)
        try: check(m.config, *m.args)
        except ConfigError as e: return [o for o in e.problems if not o.is_warning]
        finally: (root / ".env").unlink(missing_ok=True)
    return []


def edited(m: Mistake, p: Problem, change: Callable[[str], str]) -> Mistake:
    "A mistake after its user has changed the text at the place that a problem names."
    at, files = p.origin, m.files()
    if at.text in m.args:
        return replace(m, args=[change(o) if o == at.text else o for o in m.args])
    if at.name == "environment":
        key, _, value = at.text.partition("=")
        new = change(f"{key.removeprefix('MLKIT_').replace('__', '.')}={value}")
        return replace(m, env={}, args=[*m.args, new])
    if at.name == ".env":
        lines = m.dotenv.splitlines()
        new = change(lines[at.line - 1].removeprefix("MLKIT_").replace("__", "."))
        return replace(m, dotenv="", args=[*m.args, new])
    if at.name not in files: return replace(m, config=change(m.config))
    lines = files[at.name].splitlines(keepends=True)
    above, text = "".join(lines[:at.line - 1]), "".join(lines[at.line - 1:])
    col = at.col - 1
    return replace(m, edits={**m.edits, at.name: above + text[:col] + change(text[col:])})


def followed(m: Mistake, p: Problem) -> Iterator[tuple[Mistake, str]]:
    "What each advice of a problem's line makes of a mistake, and the key that it is about then."
    says, key, text = p.message, p.key, p.origin.text
    def swap(old, new):
        return edited(m, p, lambda o: o.replace(old, new, 1) if old in o else o.replace(
            old.rpartition("/")[2], new.rpartition("/")[2], 1))
    def with_arg(arg, *gone):
        return replace(m, args=[*(o for o in m.args if o not in (*gone, text)), arg])
    near = re.search(r"did you mean ([^?]*)\?", says)
    for name, at_top in re.findall(r"'([^']*)'( \(at the top\))?", near[1]) if near else ():
        quoted = re.findall(r"'([^']*)'", says[:near.start()].replace("did not", ""))
        wrong = quoted[-1] if quoted else m.config if not key else key.split(".")[-1]
        about_key = re.search("no key|no argument|reads this key", says)
        if about_key and ("." in name or at_top):
            value = text.partition("=")[2] if text else None
            if value is not None: yield with_arg(f"{name}={value}"), name
        else: yield swap(wrong, name), f"{key.rpartition('.')[0]}.{name}".strip(".") \
            if about_key else key
    if way := re.search(r"leave out the blanks: (\S+)", says):
        yield with_arg(way[1], *text.split(), "="), way[1].split("=")[0]
    if way := re.search(r"\('?(\+\S.*?)'? (?:would add it|adds one)", says):
        yield with_arg(way[1]), way[1].strip("+").split("=")[0]
    for name in re.findall(r"(\+{0,2}[\w.]+)=… ", says):
        if "command line" not in says.partition(name)[2]:
            yield with_arg(f"{name}={text.partition('=')[2]}"), name.strip("+")
    if way := re.search(r"; set ([\w.]+)", says):
        yield with_arg(f"{way[1]}={text.partition('=')[2]}"), way[1]
    if way := re.search(r"write (\{_target_: .*\})", says):
        yield swap(re.search(r"got '(.*?)'", says)[1], way[1]), key
    node = key.removesuffix("._partial_").removesuffix("._target_")
    if "leave out `_partial_" in says and p.origin.name in m.files():
        yield edited(m, p, lambda o: re.sub(r"_partial_: true", "_args_: []", o, count=1)), node
    if re.search("(it needs|or) `_partial_: true`", says) and p.origin.name in m.files():
        margin = "\n" + " " * (p.origin.col - 1)
        def make_partial(o):
            is_flow = re.match(r"\{|.*\{_target_|_target_: [\w.]+[,}]", o)
            more = ", _partial_: true" if is_flow else f"{margin}_partial_: true"
            return re.sub(r"(_target_: [\w.]+)", lambda t: t[1] + more, o, count=1)
        yield edited(m, p, make_partial), node
    if way := re.search(r"write '(\S+: \w+)' in the 'defaults:' list", says):
        new = edited(m, p, lambda o: o.partition("\n")[2])
        main = new.files()[m.config].replace("  - _self_\n", f"  - {way[1]}\n  - _self_\n", 1)
        if not text: yield replace(new, edits={**new.edits, m.config: main}), key
    if way := re.search(r"logs '(.*?)' during the fit; there are ([\w/]+)", says):
        yield swap(way[1], way[2]) if p.origin.name in m.files() or text \
            else with_arg(f"{key}={way[2]}"), key
    if (way := re.search(r"\(there are: ([^,)]+)", says)) and not near:
        wrong = re.search("no (?:option|config) '(.*?)(?:.yaml)?'", says)
        if wrong and wrong[1]: yield swap(wrong[1], way[1]), key
        elif key: yield with_arg(f"{key}={way[1]}"), key
        else: yield replace(m, config=way[1]), ""
    if way := re.search(r"(\{scheduler: …, monitor: val/loss\})", says):
        node = re.search(r"\{_target_: .*Plateau.*\}", m.files()[p.origin.name])
        if node: yield swap(node[0], way[1].replace("…", node[0])), key


own_code = test_mistakes.project


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_to_follow_a_hint_is_enough(kind, own_code, figure):
    wrong, n, lost = [], 0, []
    for i, m in enumerate(corpus(KINDS[kind])):
        folder = own_code / "hints" / kind.replace(" ", "_") / str(i)
        for p in problems_of(m, folder, own_code):
            ways = [*followed(m, p)]
            if HINT.search(p.message) and not ways: lost.append(str(p))
            for j, (new, key) in enumerate(ways):
                n += 1
                later = problems_of(new, folder / f"{p.origin.line}_{p.origin.col}_{j}", own_code)
                again = [o for o in later if o.key == key or o.origin.text == p.origin.text != ""]
                if again or any((o.key, o.message) == (p.key, p.message) for o in later):
                    wrong.append(f"{p}\n => {new.args} {new}\n => {later}")
    figure(f"{kind}: {n} hints followed, {len(wrong)} in vain, {len(lost)} not understood")
    assert not wrong and not lost, "\n\n".join([*wrong, *lost])
