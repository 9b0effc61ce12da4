"A stranger's config and a stranger's run: what they may not make this process do."
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import EpsImagePlugin, Image

from fixtures import ALL
from mlkit.base.errors import UserError
from mlkit.completion import completions
from mlkit.config.load import load_config
from mlkit.config.node import ConfigError
from mlkit.config.search import search_space
from mlkit.parts.build import build
from mlkit.parts.check import check
from mlkit.parts.describe import describe
from mlkit.run.folder import Run
from shell import command

HEAD = "defaults: [data: mnist, model: classifier, _self_]\n"
NET = "++model.net={_target_: mlkit.model.nets.MLP, in_shape: 784, num_classes: 10}"


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch) -> Path:
    "The user's project `mine`, in which we are, and a stranger's folder beside it."
    for name in ("mine/pyproject.toml", "mine/secret.yaml", "mine/private/a/b.png", "theirs/in.csv",
                 "mine/configs/model/net/own.yaml", "mine/runs/mine/1/run.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a: 1\n")
    (tmp_path / "theirs/data/a").mkdir(parents=True)
    (tmp_path / "theirs/linked").mkdir()
    (tmp_path / "theirs/linked/a").symlink_to(tmp_path / "mine/private")
    (tmp_path / "theirs/out.csv").symlink_to(tmp_path / "mine/secret.yaml")
    monkeypatch.chdir(tmp_path / "mine")
    monkeypatch.setenv("MY_SECRET", "geheim")
    OmegaConf.register_resolver("run", lambda o: os.environ[o], replace=True)
    yield tmp_path
    OmegaConf.clear_resolver("run")


def problems(text: str, *overrides: str, trust=(), path: str = "../theirs/x.yaml") -> str:
    Path(path).write_text(HEAD + text)
    try: check(path, NET, *overrides, trust=trust)
    except ConfigError as e: return str(e)
    return ""


FOLDER = "data: {_target_: torchvision.datasets.ImageFolder, root: %s}"
SAYS = dict(  # what a stranger's config says, and a word of the line that refuses it
    variable=("data: {mirrors: ['http://h/${oc.env:MY_SECRET}']}", "env:MY_SECRET"),
    quoted=("extra: {a: '${oc.env:\"MY_SECRET\"}'}", "env:MY_SECRET"),
    blanks=("extra: {a: '${ oc.env : MY_SECRET }'}", "env:MY_SECRET"),
    default=("extra: {a: '${oc.env:MY_SECRET,b}'}", "env:MY_SECRET"),
    nested=("extra: {n: SECRET, a: '${oc.env:MY_${extra.n}}'}", "env:MY_SECRET"),
    within=("data: {root: 'x${oc.decode:\"${oc.env:MY_SECRET}\"}'}", "env:MY_SECRET"),
    made=("extra: {a: '${oc.create:{b: \"${oc.env:MY_SECRET}\"}}'}", "env:MY_SECRET"),
    later=("extra: {a: '${oc.create:{b: \"\\${oc.env:MY_SECRET\\}\"}}', b: '${extra.a.b}'}",
           "env:"),
    users_resolver=("extra: {a: '${run:MY_SECRET}'}", "gets no run"),
    option=("defaults: [data: '${oc.env:MY_SECRET}']", "env:MY_SECRET"),
    search=("hydra: {searchpath: ['file://${oc.env:MY_SECRET}']}", "env:MY_SECRET"),
    literal=("data: {_convert_: none, root: '\\${oc.env:MY_SECRET}'}", "a reference in it"),
    extends=("extends: ../mine/secret.yaml", "outside"),
    extends_quoted=("'extends': out.csv", "outside"),
    extends_blank=("extends : ../mine/secret.yaml", "outside"),
    group=("defaults: [data: mnist, model/net: own]", "outside"),
    folders=("hydra: {searchpath: [../mine/configs]}", "outside"),
    package=("hydra: {searchpath: ['pkg://yaml']}", "outside"),
    absolute=(FOLDER % "/etc", "/etc is outside"), home=(FOLDER % "'~/x'", "outside"),
    dots=(FOLDER % "../theirs/../mine/private", "outside"), here=(FOLDER % "private", "outside"),
    below=("data: {_target_: torchvision.datasets.ImageFolder, x: private/a}", "outside"),
    argument=("data: {_target_: torchvision.datasets.ImageFolder, _args_: [private]}", "outside"),
    linked=(FOLDER % "../theirs/linked", "outside"), link=(FOLDER % "../theirs/out.csv", "outside"),
    reference=("extra: {a: /etc}\n" + FOLDER % "'${extra.a}'", "/etc is outside"),
    joined=("extra: {a: /e}\n" + FOLDER % "'${extra.a}tc'", "/etc is outside"),
    run=("model: {_target_: mlkit.use.trained, run: mine/1}", "outside"),
    listed=(FOLDER % "x, files: [/etc/a]", "outside"),
    file_url=(FOLDER % "'file:/etc'", "outside"), hub=("data: {name: 'hf-hub:a/b'}", "address"),
    mirrors=("data: {mirrors: ['http://theirs.org']}", "MLKIT_TRUST=http://theirs.org"),
    embedded=("data: {mirrors: ['<URL:HTTP://theirs.org/a>']}", "address"),
    wandb=("logger: {w: {_target_: mlkit.fit.trackers.wandb, settings: {base_url: theirs.org}}}",
           "address"),
    proxy=("logger: {w: {_target_: mlkit.fit.trackers.wandb, settings: {https_proxy: 'a:1'}}}",
           "address"),
    mlflow=("logger: {m: {_target_: mlkit.fit.trackers.mlflow, tracking_uri: databricks}}",
            "address"),
    address=("trainer: {plugins: [{_target_: torch.nn.Linear, a: '1.2.3.4:5'}]}", "address"),
    localhost=("trainer: {plugins: [{_target_: torch.nn.Linear, a: 'localhost:5/x'}]}", "address"),
    proxies=("logger: {w: {_target_: mlkit.fit.trackers.wandb, settings: {proxies: {http: a}}}}",
             "address"),
    empty=(FOLDER % "''", "outside"), everything=(FOLDER % "/", "outside"),  # and never listed
    files=(FOLDER % "x, files: {train: private}", "outside"))


@pytest.mark.parametrize("case", SAYS)
def test_a_strangers_config_is_refused_in_one_line(case, places):
    text, word = SAYS[case]
    head = text.startswith("defaults") and text or HEAD + text
    Path("../theirs/x.yaml").write_text(head)
    with pytest.raises(ConfigError) as e: check("../theirs/x.yaml", NET)
    told = [o for o in str(e.value).splitlines() if word in o]
    assert len(told) == 1 and "geheim" not in str(e.value), str(e.value)
    assert told[0].startswith("../theirs/x.yaml:")
    with pytest.raises(ConfigError): build(load_config("../theirs/x.yaml", NET))


@pytest.mark.slow
@pytest.mark.parametrize("case", SAYS)
def test_ones_own_config_may_say_that(case, places):
    text, word = SAYS[case]
    Path("x.yaml").write_text(text.startswith("defaults") and text or HEAD + text)
    (places / "mine/linked").symlink_to(places / "theirs/linked")
    for trust, path in ((), "x.yaml"), ((f"{places}/",), "../theirs/x.yaml"):
        Path(path).write_text(text.startswith("defaults") and text or HEAD + text)
        try: check(path, NET, trust=trust)
        except ConfigError as e: assert "your project" not in str(e), str(e)


FINE = dict(  # of a stranger's config: what is said; the user's words; what is allowed
    plain=("", (), ()), own_data=(FOLDER % "../theirs/data", (), ()),
    users_path=(FOLDER % "x", ("data.root=private",), ()),
    users_reference=("extra: {a: b}\n" + FOLDER % "'${extra.a}'", ("extra.a=/etc",), ()),
    users_variable=("", ("+extra.a=${oc.env:MY_SECRET}",), ()),
    users_option=("", ("model/net=own",), ()), words=("extra: {a: /etc, b: 'http://a.b'}", (), ()),
    named_variable=("extra: {a: '${oc.env:MY_SECRET}'}", (), ("env:MY_SECRET",)),
    variables_address=("data: {mirrors: ['${oc.env:MY_SECRET}']}", (), ("env:MY_SECRET",)),
    folder=(FOLDER % "private", (), ("private/",)),
    file=("extends: out.csv", (), ("./secret.yaml",)),
    address=("data: {mirrors: ['http://a.org/x']}", (), ("http://a.org",)),
    select=("extra: {a: 1, b: '${oc.select:extra.a}', c: '${oc.dict.keys:extra}'}", (), ()))


@pytest.mark.parametrize("case", FINE)
def test_what_is_harmless_or_allowed_passes(case, monkeypatch):
    text, overrides, trust = FINE[case]
    for o in ("your project", "trust it", "outside"):
        assert o not in problems(text, *overrides, trust=trust)
    monkeypatch.setenv("MLKIT_TRUST", ",".join(trust))
    assert "trust it" not in problems(text, *overrides)


@pytest.mark.parametrize("mark", ["pyproject.toml", "settings.ini", ".git"])
@pytest.mark.parametrize("target", ["code.Net", "pack.code.Net", "inner.Net", "Bare", "pack.Net"])
def test_code_beside_a_strangers_config_is_not_imported(target, mark, places):
    """Their project is that around the current folder only if one goes there, or allows it."""
    theirs, text = places / "theirs", f"open({str(places / 'MARK')!r}, 'a').write('x')\n"
    text += "from mlkit.parts.locate import register\nclass Net: 0\n@register\nclass Bare: 0\n"
    for name in ("code.py", "pack/__init__.py", "pack/code.py", "src/inner.py", mark):
        (theirs / name).parent.mkdir(exist_ok=True)
        (theirs / name).write_text(text)
    target, path = target.replace("code", f"code_{mark[1:3]}"), "../theirs/x.yaml"
    for o in ("", "pack/"): (theirs / f"{o}code.py").rename(theirs / f"{o}code_{mark[1:3]}.py")
    says = problems(f"extra: {{a: {{_target_: {target}}}}}")
    assert "mlkit_train --trust" in says or target == "Bare" and "not registered" in says
    describe(path, NET)
    completions(f"mlkit_train {path} ext")
    load_config(path, NET)
    with pytest.raises(ConfigError): build(load_config(path, NET).extra)
    assert not (places / "MARK").exists()


def test_code_of_a_project_within_ones_own_is_not_imported(places):
    theirs = places / "mine/got/theirs"
    for name in ("pyproject.toml", "__init__.py", "code.py"):
        theirs.mkdir(parents=True, exist_ok=True)
        (theirs / name).write_text(f"open({str(places / 'MARK')!r}, 'w')\nclass Net: pass\n")
    for target in "got.theirs.code.Net", "got.theirs.Net":
        says = problems(f"extra: {{a: {{_target_: {target}}}}}", path="got/theirs/x.yaml")
        assert "mlkit_train --trust" in says and not (places / "MARK").exists()
        with pytest.raises(ConfigError): build(load_config("got/theirs/x.yaml", NET).extra)
        assert not (places / "MARK").exists()


@pytest.mark.parametrize("trust", [(), ("../theirs/",)])
@pytest.mark.parametrize("module", ["xcode.py", "src/xcode.py", "xcode/__init__.py"])
def test_a_run_of_another_project_says_where_its_code_is(module, trust, places):
    run = places / "theirs/runs/a/1"
    for file in (places / "theirs/pyproject.toml", run / "run.json", places / "theirs" / module):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    for target, way in ("xcode.Net", "(../theirs has one: go there)"), ("none.Net", "installed?"):
        text = f"extra: {{a: {{_target_: {target}}}}}"
        assert problems(text, trust=trust, path=str(run / "config.yaml")).endswith(way)


def test_no_library_starts_a_program_for_a_strangers_picture(places, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    monkeypatch.setenv("PATH", str(places), prepend=os.pathsep)
    (places / "gs").write_text(f"#!/bin/sh\ntouch {places}/MARK\n")
    (places / "gs").chmod(0o755)
    (places / "theirs/data/a/1.png").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n")
    (places / "theirs/x.yaml").write_text(f"{HEAD}extra: {{a: {{_target_: torch.nn.ReLU}}}}")
    build(load_config("../theirs/x.yaml", NET).extra.a)
    with pytest.raises(OSError, match="Ghostscript"):  # as torchvision's datasets do it
        Image.open(places / "theirs/data/a/1.png").load()
    assert not (places / "MARK").exists()


def test_no_run_is_written_where_a_stranger_says(places):
    for text in "runs: ../elsewhere", "runs: '${extra.a}'\nextra: {a: /etc/x}":
        problems(text)
        with pytest.raises(ConfigError, match="outside"):
            Run.new(load_config("../theirs/x.yaml", NET))
        Run.new(load_config("../theirs/x.yaml", NET, "runs=../elsewhere"))
    problems("runs: own")
    assert (places / "mine/own") in Run.new(load_config("../theirs/x.yaml", NET)).dir.parents


def test_a_run_that_is_a_link_is_not_read(places):
    for name in "run.json", "config.yaml":
        (places / "theirs" / name).symlink_to(places / f"mine/runs/mine/1/{name}")
    with pytest.raises(UserError, match="leads elsewhere"): Run(places / "theirs")


def test_a_sweep_is_not_smuggled_in_as_the_users_words(places):
    text = "hydra: {mode: MULTIRUN, sweeper: {params: {data.root: /etc}}}"
    problems(text)
    with pytest.raises(ConfigError, match="params"): search_space("../theirs/x.yaml")
    problems(text, path="x.yaml")
    assert search_space("x.yaml").overrides[1:] == ("data.root=/etc",)


MNIST = """
defaults: [data: mnist, model: classifier]
model: {net: {_target_: mlkit.model.nets.MLP, in_shape: 784, num_classes: 10, hidden: [8]}}
trainer: {max_epochs: 1, limit_train_batches: 2, limit_val_batches: 1, limit_test_batches: 1}
"""


@pytest.mark.slow
def test_nothing_of_many_folders_leaves_or_runs(tmp_path, figure):
    """Runs and projects of a stranger, by every command and function, under an audit hook: no
    process, no code, no connection, no file of the user's, no secret told, no traceback."""
    folders = [f"{o}/{c}" for o in ("mine/private", "outside/data") for c in "ab"]
    pictures = [f"{o}/{i}.png" for o in folders for i in "12"]
    for name in ("mine/digit.png", *pictures):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (28, 28)).save(tmp_path / name)
    for name, text in {"mine/pyproject.toml": "", "mine/own.yaml": MNIST, "outside/net.pt": "a",
                       "outside/secret.yaml": "geheim: geheim",
                       "mine/configs/data/private.yaml": "geheim: 1"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    own = tmp_path / "mine/runs/own"
    command("mlkit_train", "own.yaml", cwd=tmp_path / "mine", code=0)
    for to in own / "1", tmp_path / "base": shutil.copytree(next(own.glob("2*")), to)
    driver = Path(__file__).with_name("hostile_folders.py")
    env = os.environ | dict(HOME=str(tmp_path / "outside"),
                            PYTHONPATH=str(Path(__file__).parents[1]))
    words = [sys.executable, driver, tmp_path, "0", "300" if ALL else "50"]
    done = subprocess.run(words, env=env, text=True, cwd=tmp_path / "mine", capture_output=True,
                          check=False)
    figure(f"stranger's folders, {done.stderr.splitlines()[-1]}")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr[-2000:]
