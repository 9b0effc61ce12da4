"What `mlkit_doctor` finds in a project, kind by kind, and that it changes nothing."
import fcntl
import json
import os
import re
from pathlib import Path

import pytest
import yaml

from mlkit.base.files import temporary_folder
from mlkit.base.own import allow_folder
from mlkit.cli import mlkit_doctor, mlkit_train
from mlkit.config.load import load_config
from mlkit.doctor import doctor
from mlkit.run.folder import Run, unfinished

LAB = """\
defaults: [{data: mnist}, {model: classifier}, {optimizer: adam}]
model:
  net: {_target_: mlkit.model.nets.MLP, in_shape: [1, 28, 28], num_classes: 10}
"""
WANDB = "defaults: [{data: mnist}, {model: classifier}, {logger: wandb}]\n" + LAB.partition("\n")[2]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    "A project with a config, which is the current folder."
    for name in ("WANDB_MODE", "WANDB_API_KEY", "MLKIT_TRUST", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for kind in ("CONFIG", "STATE"): monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind))
    write(tmp_path / "lab", **{"pyproject.toml": "", "configs/lab.yaml": LAB})
    monkeypatch.chdir(tmp_path / "lab")
    monkeypatch.syspath_prepend(str(tmp_path / "lab"))
    return tmp_path / "lab"


def write(folder: Path, **files: str):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def found(what: str) -> list[tuple[str, str]]:
    return [(verdict, says) for verdict, of, says in doctor() if of == what]


def state(folder: Path) -> dict: return {o: o.stat().st_mtime_ns for o in folder.rglob("*")}


def test_a_healthy_project(project, capsys):
    before = state(project.parent)
    assert mlkit_doctor([]) == 0
    out = capsys.readouterr().out
    assert {o.split()[0] for o in out.splitlines()} == {"ok"}, out
    assert "1 files in configs/, no mistakes" in out and "project      .: pyproject.toml" in out
    assert state(project.parent) == before


def test_a_failure_is_exit_code_1(project, capsys):
    write(project, **{"configs/lab.yaml": LAB + "trainer: {max_epoch: 3}\n"})
    assert mlkit_doctor([]) == 1
    line = next(o for o in capsys.readouterr().out.splitlines() if o.startswith("fail"))
    assert re.fullmatch(r"fail  configs +configs/lab.yaml:4:11: trainer.max_epoch: .* has no "
                        r"argument 'max_epoch'; did you mean 'max_epochs'\?", line)


@pytest.mark.parametrize("name, code, verdict, says", [
    ("lacks", "import pytorch\n", "fail", "No module named 'pytorch'"),
    ("broken", "def f(:\n", "fail", "SyntaxError"),
    ("raises", "1 / 0\n", "fail", "ZeroDivisionError: division by zero (core.py:1)"),
    ("exits", "import sys; sys.exit(3)\n", "fail", "SystemExit: 3"),
    ("writes", "try: open('new', 'w')\nexcept OSError: pass\n", "warn", "does more: open"),
    ("starts", "import subprocess\ntry: subprocess.run(['touch', 'new'])\nexcept OSError: pass\n",
     "warn", "does more: subprocess.Popen"),
    ("guarded", "if __name__ == '__main__': open('new', 'w')\n", "ok", "2 can be imported"),
    ("inside", "def f(): import pytorch\n", "ok", "2 can be imported")])
@pytest.mark.parametrize("top", ["", "src/"])
def test_modules(name, code, verdict, says, top, project):
    name = f"{name}{'_s' if top else ''}"
    write(project, **{f"{top}{name}/__init__.py": "", f"{top}{name}/core.py": code,
                      f"{top}{name}/tests/__init__.py": "1 / 0"})
    line, = found("modules")
    assert line[0] == verdict and says in line[1], line
    assert not (project / "new").exists() and not [*project.rglob("*.pyc")]


def test_modules_that_are_in_no_package(project):
    write(project, **{"mine.py": "x = 1\n", "parts/net.py": "y = 1\n"})
    line, = found("modules")
    assert line[0] == "ok" and line[1].startswith("no packages here (folders with an __init__.py)")


def notebook(*cells: str) -> str:
    made = [dict(cell_type="code", id=f"{i:08}", metadata={}, source=o, outputs=[],
                 execution_count=None) for i, o in enumerate(cells)]
    return json.dumps(dict(cells=made, metadata={}, nbformat=4, nbformat_minor=5))


@pytest.mark.slow
def test_notebooks_and_modules(project):
    from nbdev.export import nb_export
    write(project, **{"settings.ini": "[DEFAULT]\nlib_name = shapes_lib\nlib_path = shapes_lib\n"
                                      "nbs_path = nbs\nrepo = shapes_lib\n"})
    cells = "#| default_exp core", "#| export\nimport math", "#| export\ndef area(r): return r*r"
    write(project, **{"nbs/core.ipynb": notebook(*cells), "shapes_lib/__init__.py": ""})
    nb_export(project / "nbs" / "core.ipynb", lib_path=project / "shapes_lib")
    before = state(project)
    assert found("notebooks") == [("ok", "the modules are what they export")]
    write(project, **{"nbs/core.ipynb": notebook(*cells, "area(2)")})  # no export
    assert found("notebooks") == [("ok", "the modules are what they export")]
    write(project, **{"nbs/core.ipynb": notebook(*cells[:2], cells[2].replace("r*r", "3*r*r"))})
    line, = found("notebooks")
    assert line == ("fail", "shapes_lib/core.py: its notebook has changed: nbdev_export")
    (project / "nbs" / "core.ipynb").rename(project / "nbs" / "more.ipynb")
    write(project, **{"nbs/more.ipynb": notebook("#| default_exp more", cells[1])})
    assert sorted(found("notebooks")) == [
        ("fail", "shapes_lib/core.py: no notebook exports it: delete it"),
        ("fail", "shapes_lib/more.py: its notebook has changed: nbdev_export")]
    write(project, **{"nbs/cut.ipynb": notebook("1")[:-9]})
    assert any(verdict == "fail" and says.startswith("nbs/cut.ipynb: cannot be exported: ")
               for verdict, says in found("notebooks"))
    assert {o.name for o in {*state(project)} - {*before}} == {"cut.ipynb", "more.ipynb"}


def test_options_that_no_config_has_chosen(project):
    "One is wrong if it is so in every config that could choose it."
    write(project, **{
        "configs/optimizer/mine.yaml": "_target_: torch.optim.Adam\n_partial_: true\nlearn: 1\n",
        "configs/optimizer/good.yaml": "_target_: torch.optim.Adam\n_partial_: true\nlr: 0.1\n",
        "configs/data/needs.yaml": "_target_: mlkit.data.folder.ImageFolder\nroot: ???\n",
        "configs/other/cut.yaml": "a: [1,\n", "configs/other/plain.yaml": "a: ${nowhere.at_all}\n"})
    lines = found("configs")
    assert [o[0] for o in lines] == ["fail", "fail"]
    assert sorted(o[1].partition(" ")[0] for o in lines) == [
        "configs/optimizer/mine.yaml:3:1:", "configs/other/cut.yaml:2:1:"], lines


def test_what_the_command_line_has_to_say_is_no_mistake(project):
    write(project, **{"configs/lab.yaml": LAB.replace("[1, 28, 28]", "'???'")})
    (verdict, says), = found("configs")
    assert verdict == "ok" and says.endswith("; on the command line one has to say "
                                             "model.net.in_shape")


def test_no_configs(project):
    (project / "configs" / "lab.yaml").unlink()
    assert found("configs") == [("ok", "0 files in configs/, no mistakes")]


def test_configs_that_extend_another_are_whole_ones(project):
    write(project, **{"configs/deep/er.yaml": "extends: ../lab.yaml\nseed: no\n"})
    line, = found("configs")
    assert line[0] == "fail" and line[1].startswith("configs/deep/er.yaml:2:1: seed: must be")


def test_a_batch_is_tried(project):
    write(project, **{"configs/lab.yaml": LAB.replace("[1, 28, 28]", "[3, 28, 28]")})
    line, = found("configs")
    assert line[0] == "fail" and "configs/lab.yaml:3:41: model.net.in_shape: [3, 28" in line[1]


def test_trackers(project, monkeypatch):
    assert found("wandb")[0][0] == "ok", "no config names it"
    write(project, **{"configs/lab.yaml": WANDB})
    verdict, says = found("wandb")[0]
    assert verdict == "warn" and says.startswith("not logged in: `wandb login`, or WANDB_MODE")
    write(project.parent, netrc="machine api.wandb.ai login user password 0123\n")
    assert found("wandb") == [("ok", "logged in (.netrc)")]
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org/")
    assert found("wandb")[0][0] == "warn", "that is another server"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert found("wandb") == [("ok", "offline (WANDB_MODE)")]


def test_what_is_trusted_and_by_which_file(project, monkeypatch):
    assert found("trust") == []
    monkeypatch.setenv("MLKIT_TRUST", "their.Net,other")
    write(project, **{".env": "MLKIT_TRUST=more\n"})
    (project.parent / "theirs").mkdir()
    file = allow_folder("../theirs")
    assert found("trust") == [
        ("ok", "other, their.Net (MLKIT_TRUST)"),
        ("warn", ".env: MLKIT_TRUST is not read there: set it in the environment"),
        ("ok", f"../theirs (1 lines of {file})")]


def test_runs(project):
    cfg = load_config("configs/lab.yaml", "name=one")
    runs = [Run.new(cfg) for _ in range(4)]
    runs[0].update(status="done")
    assert [o[0] for o in found("runs")] == ["ok"]
    assert found("runs")[0][1].startswith("runs: 4 runs, ") and "3 cut off" in found("runs")[0][1]
    (runs[1].dir / "run.json").write_text("{")
    (runs[2].dir / "checkpoints" / "last.ckpt").write_text("cut")
    (runs[3].dir / "config.yaml").write_text("a: [1,\n")
    lines = found("runs")
    assert [o[0] for o in lines] == ["fail"] * 3
    for o, name in zip(runs[1:], ("run.json", "checkpoints/last.ckpt", "config.yaml")):
        assert any(str(o.dir.relative_to(project) / name) in says for _, says in lines), lines


def test_elsewhere(project):
    cfg = yaml.safe_load(LAB) | dict(runs="../elsewhere")
    write(project, **{"configs/lab.yaml": yaml.safe_dump(cfg)})
    Run.new(load_config("configs/lab.yaml", "name=one"))
    assert {says.partition(",")[0] for _, says in found("runs")} == {
        "../elsewhere: 1 runs", "runs: 0 runs"}


def test_in_the_home_folder(project, monkeypatch):
    monkeypatch.setenv("HOME", str(project.parent / "home"))
    cfg = load_config("configs/lab.yaml", "runs=~/all", "name=one")
    run = Run.new(cfg)
    assert run.dir.parents[1] == project.parent / "home" / "all" and not (project / "~").exists()
    assert unfinished(cfg).dir == run.dir


def test_resume_alone_takes_the_newest_run(project, capsys):
    assert mlkit_train(["--resume"]) == 2
    assert capsys.readouterr().err == "runs: no run there was cut off, so there is none to go on " \
                                      "with\n"
    for name in ("b", "a"): last = Run.new(load_config("configs/lab.yaml", f"name={name}"))
    os.rename(last.dir, later := last.dir.with_name("20990101-000000-abcd"))
    assert unfinished().dir == later


def test_leftovers_of_killed_processes(project):
    with temporary_folder() as name: end = name.name[name.name.rindex("-"):]
    for name in ("runs/one/.run.json.12", "configs/.lab.yaml.34"):
        write(project, **{f"{name}{end}": "half"})
    held = os.open(project / f"runs/one/.run.json.12{end}", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    mine = [o for o in found("leftovers") if "/tmp/" not in o[1].replace(str(project), "")]
    assert mine == [("warn", f"configs/.lab.yaml.34{end}: of a process that was killed: delete it")]
    os.close(held)
    assert any(f"runs/one/.run.json.12{end}" in says for _, says in found("leftovers"))
    assert (project / f"configs/.lab.yaml.34{end}").exists()


def test_no_project_around(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verdict, says = found("project")[0]
    assert verdict == "warn" and "it is taken for the project" in says
