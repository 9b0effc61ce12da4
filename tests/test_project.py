"The project holds together: modules, README and wheel say what the notebooks and settings.ini say, and each notebook runs."
import ast
import email
import importlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import pytest
from notebooks import NBS, NOTEBOOKS, ROOT, is_here
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

MODULES = [n for n in NOTEBOOKS if n != "index.ipynb"]
PACKAGE = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "mlkit").rglob("*.py"))
# A module imports only from floors below its own.
FLOORS = {"source": 0, "augment": 0, "config": 1, "target": 1, "datamodule": 1, "nets": 1, "model": 1, "outline": 2, "run": 2, "resume": 2,
          "recipes": 2, "values": 3, "callbacks": 3, "show": 3, "trackers": 3, "compare": 3, "build": 4, "check": 4, "help": 4, "train": 5,
          "reproduce": 6, "sweep": 6, "lr_find": 6, "cli": 7, "all": 8}
COMMANDS = ["pip install -c constraints.txt -e . && mlkit_train configs/mnist.yaml", "pip install -c constraints.txt -e '.[dev]' && pytest"]

settings = ConfigParser(delimiters=["="])
settings.read(ROOT / "settings.ini", encoding="utf-8")
settings = settings["DEFAULT"]


def run(*cmd, cwd=ROOT) -> str:
    "Run a command; what it printed, or a failure that shows it."
    done = subprocess.run([str(c) for c in cmd], cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, cmd))}: exit {done.returncode}\n{done.stdout}"
    return done.stdout


def script(name: str) -> Path:
    "A console script of the environment that runs the tests, whether that is activated or not."
    return Path(sysconfig.get_path("scripts")) / name


def copy_of_notebooks(folder: Path) -> Path:
    "A copy of what nbdev reads, to let it write there."
    shutil.copytree(NBS, folder / "nbs", ignore=shutil.ignore_patterns(".*", "runs"))
    shutil.copy(ROOT / "settings.ini", folder)
    return folder


def cells(notebook: str) -> list[dict]:
    "The cells, each with its `code`, and the words that open its `#|` lines in `marks`."
    out = json.loads((NBS / notebook).read_text(encoding="utf-8"))["cells"]
    for cell in out:
        source = "".join(cell["source"])
        cell["marks"] = set(re.findall(r"^#\| *(\w+)", source, re.M)) if cell["cell_type"] == "code" else set()
        cell["code"] = re.sub(r"^#\|.*\n?", "", source, flags=re.M)
    return out


# Modules, README and notebooks in step

def test_modules_are_what_the_notebooks_say(tmp_path):
    copy = copy_of_notebooks(tmp_path)
    (copy / "mlkit").mkdir()
    shutil.copy(ROOT / "mlkit" / "__init__.py", copy / "mlkit")
    run(script("nbdev_export"), cwd=copy)
    made = {p.relative_to(copy).as_posix(): p.read_text(encoding="utf-8") for p in (copy / "mlkit").rglob("*.py")}
    made = {name: text for name, text in made.items() if is_here(name.removeprefix("mlkit/"))}
    assert sorted(made) == PACKAGE, "run `nbdev_export`; a module without a notebook has no place"
    assert [p for p in PACKAGE if made[p] != (ROOT / p).read_text(encoding="utf-8")] == [], "run `nbdev_export`"


def test_readme_is_what_index_says():
    spec = importlib.util.spec_from_file_location("readme", ROOT / ".ci" / "readme.py")
    readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme)
    text, pictures = readme.render(NBS / "index.ipynb")
    assert (ROOT / "README.md").read_text(encoding="utf-8") == text, "run `python .ci/readme.py`"
    there = {p.name: p.read_bytes() for p in (NBS / "images").glob("index-*")}
    assert there == pictures, "run `python .ci/readme.py`"
    assert re.findall(r"^pip install .*", text, re.M) == COMMANDS
    links = re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", text)
    assert [l for l in links if not (ROOT / l).exists()] == []


def test_notebooks_are_clean(tmp_path):
    copy = copy_of_notebooks(tmp_path)
    run(script("nbdev_clean"), cwd=copy)
    changed = [n for n in NOTEBOOKS if (copy / "nbs" / n).read_bytes() != (NBS / n).read_bytes()]
    assert changed == [], "run `nbdev_clean`"


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_notebook_runs(notebook):
    assert "Success." in run(script("nbdev_test"), "--path", NBS / notebook)


# How a notebook is written

@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_notebook_format(notebook):
    nb = json.loads((NBS / notebook).read_text(encoding="utf-8"))
    assert (nb["nbformat"], nb["nbformat_minor"]) == (4, 5)
    assert nb["metadata"]["kernelspec"]["name"] == "python3"
    ids = [c["id"] for c in nb["cells"]]
    assert len(set(ids)) == len(ids)
    assert re.match(r"# \S.*\n+> \S", "".join(nb["cells"][0]["source"])), "begin with `# name` and a one-line `> summary`"
    outputs = [o for c in nb["cells"] for o in c.get("outputs", [])]
    assert outputs, "commit the outputs"
    assert [o for o in outputs if o["output_type"] == "error"] == []
    assert str(ROOT) not in json.dumps(outputs), "an output names a folder of this machine"


@pytest.mark.parametrize("notebook", MODULES)
def test_notebook_reads_as_literature(notebook):
    exported, before, asserts = 0, None, 0
    for cell in cells(notebook):
        export = bool(cell["marks"] & {"export", "exports", "exporti"})
        if export:
            where = cell["code"].strip().partition("\n")[0]
            lines = cell["code"].strip().splitlines()
            exported += 1
            assert before == "markdown" or exported == 1, f"no sentence before: {where}"
            assert len(lines) <= 45, f"{len(lines)} lines in one exported cell: {where}"
            assert max(map(len, lines)) <= 120, f"a line longer than 120: {where}"
        elif cell["cell_type"] == "code":
            asserts += len(re.findall(r"^\s*(?:assert|test_\w+\()|\b(?:test_\w+|\w*raises)\(", cell["code"], re.M))
        if not (cell["cell_type"] == "code" and "hide" in cell["marks"]): before = cell["cell_type"]
    assert exported and asserts, "a notebook exports something and asserts something"


# The package

@pytest.mark.parametrize("path", PACKAGE)
def test_imports_come_from_lower_floors(path):
    floor = FLOORS.get(Path(path).relative_to("mlkit").parts[0].removesuffix(".py"))
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            package = Path(path).parent.as_posix().replace("/", ".")
            names = [importlib.util.resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module]
        else: names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            parts = name.split(".")
            if parts[0] != "mlkit" or len(parts) == 1: continue
            assert floor is not None and FLOORS[parts[1]] < floor, f"{path} imports {name}, which is not on a lower floor"


def test_wheel_holds_the_package(tmp_path):
    source = tmp_path / "source"
    junk = shutil.ignore_patterns("__pycache__", "*.pyc", ".ipynb_checkpoints")
    shutil.copytree(ROOT / "mlkit", source / "mlkit", ignore=junk)
    for name in ["settings.ini", "setup.py", "README.md", "LICENSE"]: shutil.copy(ROOT / name, source)
    files = {p.relative_to(source).as_posix() for p in (source / "mlkit").rglob("*") if p.is_file()}
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", tmp_path, source)
    with zipfile.ZipFile(next(tmp_path.glob("mlkit-*.whl"))) as wheel:
        names = {n for n in wheel.namelist() if ".dist-info/" not in n}
        info = {Path(n).name: wheel.read(n).decode() for n in wheel.namelist() if ".dist-info/" in n}
    assert names == files, "package_data in settings.ini names each file that is no module"
    assert info["LICENSE"] == (ROOT / "LICENSE").read_text(encoding="utf-8")
    meta = email.message_from_string(info["METADATA"])
    assert meta["Version"] == settings["version"] and meta["Requires-Python"] == f">={settings['min_python']}"
    needs = [Requirement(r) for r in meta.get_all("Requires-Dist")]
    fastcore = next(n for n in needs if n.name == "fastcore" and not n.marker)
    assert "2.0" in fastcore.specifier, "nbdev's pins are for the dev extra only"
    assert not [n for n in needs if n.name == "nbdev" and not n.marker]


def test_console_scripts_lead_to_functions():
    for line in settings["console_scripts"].split():
        module, name = line.partition("=")[2].split(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_version_is_said_once():
    assert importlib.import_module("mlkit").__version__ == settings["version"]


# The constraints

def pins() -> dict[str, list[Requirement]]:
    "The pins of constraints.txt by name; a name can have one for each Python."
    out = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"): out.setdefault(canonicalize_name((r := Requirement(line)).name), []).append(r)
    return out


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_constraints_give_one_version_that_settings_ask_for(python):
    env = {"python_version": python, "python_full_version": f"{python}.7", "sys_platform": "linux", "os_name": "posix", "implementation_name": "cpython"}
    chosen = {}
    for name, requirements in pins().items():
        valid = [r for r in requirements if not r.marker or r.marker.evaluate(env)]
        assert len(valid) <= 1, f"{name} is pinned twice on Python {python}"
        for r in valid: chosen[name] = str(r.specifier).removeprefix("==")
    for need in map(Requirement, f"{settings['requirements']} {settings['dev_requirements']}".split()):
        if need.marker and not need.marker.evaluate(env): continue
        version = chosen[canonicalize_name(need.name)]
        assert need.specifier.contains(version, prereleases=True), f"{need} is not met by {version}"


@pytest.mark.constraints
def test_constraints_pin_all_that_is_needed():
    pinned, seen, todo = pins(), set(), [Requirement("mlkit[dev]")]
    while todo:
        need = todo.pop()
        for text in metadata.requires(need.name) or []:
            r = Requirement(text)
            if r.marker and not any(r.marker.evaluate({"extra": e}) for e in (need.extras or {""})): continue
            key = canonicalize_name(r.name)
            if (key, frozenset(r.extras)) in seen or key.startswith(("nvidia-", "cuda-", "triton")): continue
            seen.add((key, frozenset(r.extras)))
            todo.append(r)
            assert [p for p in pinned.get(key, []) if not p.marker or p.marker.evaluate()], f"constraints.txt does not pin {key}, which {need.name} needs"
