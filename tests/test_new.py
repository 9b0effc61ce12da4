"`mlkit_new`: projects that work at once; names that are taken; nothing that is left half-made."
import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mlkit.base.errors import UserError
from mlkit.cli import mlkit_new
from mlkit.data.folder import ImageFolder
from mlkit.new import new_notebook, new_project
from mlkit.show.describe import describe

ROOT = Path(__file__).resolve().parent.parent


def pictures(folder: Path) -> Path:
    "Three shades, 20 pictures of each."
    rng = np.random.default_rng(0)
    for k, name in enumerate(("dark", "grey", "light")):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            image = rng.integers(0, 60, (24, 32, 3)) + 80 * k
            Image.fromarray(image.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


def table(file: Path) -> Path:
    rng, n = np.random.default_rng(0), 200
    rows = pd.DataFrame(dict(id=range(n), age=rng.integers(18, 80, n), town=rng.choice([*"ab"], n)))
    rows["rich"] = np.where(rows.age + 10 * (rows.town == "a") > 50, "yes", "no")
    rows.assign(age=rows.age.where(rng.random(n) > 0.1)).to_csv(file, index=False)
    return file


def listed(file: Path) -> Path:
    "The shades, by their names without the ending."
    found = sorted(pictures(file.parent / "shades").rglob("*.png"))
    for o in found: o.rename(o.parents[1] / f"{o.parent.name}{o.name}")
    rows = [(f"{o.parent.name}{o.stem}", o.parent.name) for o in found]
    pd.DataFrame(rows, columns=["file", "shade"]).to_csv(file, index=False)
    return file


def made(kind: str, home: Path, name: str = "my_try") -> Path:
    source = {"images": lambda: pictures(home / "shades"), "table": lambda: table(home / "a.csv"),
              "listed": lambda: listed(home / "b.csv")}
    words = [kind.replace("listed", "table"), str(source[kind]())] if kind in source else [kind]
    new_project(str(home / name), *words)
    return home / name


def sh(folder: Path, line: str, **env: str) -> str:
    own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "IN_TEST")}
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{own['PATH']}"
    done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=900, env=own | dict(PATH=path) | env)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def package(project: Path) -> dict:
    "Its modules as nbdev writes them; the index of names without its line breaks."
    files = {o.name: o.read_text() for o in (project / project.name).glob("*.py")}
    index = files.pop("_modidx.py").partition("d = ")[2]
    return files | {"_modidx.py": ast.literal_eval(index)}


@pytest.mark.parametrize("kind", ["table", "listed", "blank"])
def test_a_project_works_at_once(kind, tmp_path):
    project = made(kind, tmp_path)
    before, here = package(project), dict(PYTHONPATH=str(ROOT))
    words = [o for o in project.rglob("*") if o.is_file()
             and re.search("my_(project|data|source|target|id|kind|mlkit|image|folder|suffix)",
                           o.read_text())]
    assert words == [], "words of the template that nothing was put in the place of"
    data = json.loads((project / "nbs/00_data.ipynb").read_text())
    assert any("image/png" in str(o.get("outputs")) for o in data["cells"]), "what was seen"
    sh(project, f"mlkit_train configs/{project.name}.yaml --check", **here)
    config = project / "configs" / f"{project.name}.yaml"
    config.write_text(re.sub("max_epochs: .*", "max_epochs: 1", config.read_text()))
    sh(project, "nbdev_test --n_workers 0", **here)
    sh(project, "nbdev_export", **here)
    assert package(project) == before, "the template's modules are what its notebooks export"


NAMES = {"my-pets": "such as: mlkit_new my_pets", "3d": "mlkit_new my_3d", "class": "of Python",
         "test": "an installed module", "torch": "an installed module", "Pillow": "package, pillow",
         "nbs": "a folder of each project", "größe": "mlkit_new groe"}


@pytest.mark.parametrize("name, says", NAMES.items())
def test_a_name_that_cannot_be_had_is_told_before_anything_is_read(name, says, tmp_path,
                                                                   monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert mlkit_new([name, "--from", "images", "nowhere"]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
    assert [*tmp_path.iterdir()] == []


def test_nothing_is_overwritten_and_nothing_is_left_half_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / "mine.txt").write_text("precious")
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "p.csv").write_text("image,y\n" + "x.png,a\ny.png,b\n" * 20)
    lines = {("pets",): "not empty", ("a.csv",): "no name of a package",
             ("new1", "--from", "images", "none"): "no such folder",
             ("new1", "--from", "table", "p.csv"): "names pictures, and x.png is neither",
             ("new1", "--from", "table", "a.csv", "--target", "c"): "no column 'c'",
             ("new1", "--from", "pictures", "pets"): "images FOLDER, table FILE.csv or blank"}
    for line, says in lines.items():
        assert mlkit_new([*line]) == 2
        err = capsys.readouterr().err
        assert says in err and err.count("\n") == 1, err
    with monkeypatch.context() as patch:
        patch.setattr("mlkit.new._readme", lambda index: 1 / 0)
        with pytest.raises(ZeroDivisionError): new_project("new1")
    assert sorted(o.name for o in tmp_path.iterdir()) == ["a.csv", "p.csv", "pets"]


def test_broken_pictures_are_told_and_shown_without_them(tmp_path):
    folder = pictures(tmp_path / "shades")
    bad = folder / "dark" / "3.png"
    bad.write_bytes(bad.read_bytes()[:300])
    told = new_project(str(tmp_path / "my_try"), "images", str(folder))
    assert "3.png" in told[0] and told[1].startswith("1 broken files")
    assert [*describe(ImageFolder(str(folder))).broken] == [str(bad)]


def test_notebooks_are_added(tmp_path, monkeypatch):
    project = made("blank", tmp_path)
    monkeypatch.chdir(project / "nbs")
    assert new_notebook("losses").name == "03_losses.ipynb"
    assert new_notebook("metrics").name == "04_metrics.ipynb"
    with pytest.raises(UserError, match="is there"): new_notebook("data")
    sh(project, "nbdev_export")
    assert "def double" in (project / project.name / "losses.py").read_text()


@pytest.mark.slow
def test_readme_in_a_fresh_environment(tmp_path):
    "Its two commands, its site and its notebooks, where this environment's libraries are seen."
    project, env = made("images", tmp_path), tmp_path / "venv"
    venv.create(env, symlinks=True)
    there = next(env.glob("lib/*/site-packages"))
    (there / "inherited.pth").write_text(sysconfig.get_path("purelib"))
    for script in Path(sysconfig.get_path("scripts")).iterdir():
        if script.is_symlink() or not script.is_file(): continue
        text = script.read_bytes()
        if not text.startswith(b"#!") or (env / "bin" / script.name).exists(): continue
        text = re.sub(rb"^#!.*", f"#!{env}/bin/python".encode(), text, count=1)
        (env / "bin" / script.name).write_bytes(text)
        (env / "bin" / script.name).chmod(0o755)
    readme = (project / "README.md").read_text()
    lines = re.findall(r"^```sh\n(.*)\n```", readme, re.M)
    site = re.search(r"`(nbdev_proc_nbs.*?)`", readme)[1]
    assert len(lines) == 2
    own = dict(PATH=f"{env / 'bin'}{os.pathsep}{os.environ['PATH']}", PIP_NO_INDEX="1",
               PIP_NO_BUILD_ISOLATION="0", VIRTUAL_ENV=str(env))
    for line in (*lines, "nbdev_test --n_workers 0", site): sh(project, line, **own)
    assert (project / "_proc/_docs/00_data.html").exists()
    where = sh(project, f"python -c 'import {project.name} as o; print(o.__file__)'", **own)
    assert where.startswith(str(project)) and sys.prefix not in where
