"""The project holds together, and keeps the house rules.

Modules, README and wheel are what the notebooks and settings.ini say, each notebook runs, and the
rules of CONTRIBUTING.md hold, wing by wing (house.py reads the modules).
"""
import email
import graphlib
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
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import house
from forked import run_notebook
from house import FLOORS, PRIVATE, ROOMS
from notebooks import GUIDE, NBS, NOTEBOOKS, RECIPES, ROOT, is_here

MODULES = [n for n in NOTEBOOKS if n not in GUIDE]
PACKAGE = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "mlkit").rglob("*.py"))
COMMANDS = ["pip install -c constraints.txt -e . && mlkit_train configs/mnist.yaml",
            "pip install -c constraints.txt -e '.[dev]' && pytest"]
WINGS = sorted({room.wing for room in ROOMS}, key=lambda wing: (FLOORS.get(wing, 9), wing))
CORE_WINGS = [w for w in WINGS if w != "recipes"]
PARTS = [*WINGS, "guide", "index", "reference", "tests", "benchmarks", ".ci", "setup.py"]
LONGEST_ROOM, WIDEST_LINE, CORE = 300, 100, 7000  # lines that are not blank; columns; lines

# 2026-11-25: what the second edition still owes; `pytest --runxfail -k "rule and core"` tells it.
PENDING = {  # test -> wings and folders where it need not hold yet
    "test_rule_the_core_is_small": {"core"},
}

settings = ConfigParser(delimiters=["="])
settings.read(ROOT / "settings.ini", encoding="utf-8")
settings = settings["DEFAULT"]


def rule(name: str, parts: list[str]):
    "A test of the house for each part: a wing, or a notebook. What is PENDING may fail."
    def for_each(test):
        later = pytest.mark.xfail(reason="still to come", strict=False)
        owed = PENDING.get(test.__name__, ())
        marked = [pytest.param(p, marks=later) if wing_of(p) in owed else p for p in parts]
        return pytest.mark.parametrize(name, marked)(test)
    return for_each


def wing_of(part: str) -> str:
    "config/01_yaml.ipynb -> config"
    return part.split("/")[0].removesuffix(".ipynb")


def rooms_of(wing: str) -> list[house.Room]: return [r for r in ROOMS if r.wing == wing]


def run(*cmd, cwd=ROOT) -> str:
    "Run a command; what it printed, or a failure that shows it."
    done = subprocess.run([str(c) for c in cmd], cwd=cwd, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
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


@cache
def cells(notebook: str) -> list[dict]:
    "The cells, each with its `code`, and the words that open its first lines `#| …` in `marks`."
    out = json.loads((NBS / notebook).read_text(encoding="utf-8"))["cells"]
    for cell in out:
        source, code = "".join(cell["source"]), cell["cell_type"] == "code"
        first = re.match(r"(\s*#\|.*(\n|$))*", source)[0] if code else ""
        cell["marks"] = set(re.findall(r"^#\| *(\w+)", first, re.M))
        cell["code"] = source.removeprefix(first)
    return out


# Modules, README and notebooks in step

def test_modules_are_what_the_notebooks_say(tmp_path):
    copy = copy_of_notebooks(tmp_path)
    (copy / "mlkit").mkdir()
    shutil.copy(ROOT / "mlkit" / "__init__.py", copy / "mlkit")
    run(script("nbdev_export"), cwd=copy)
    made = {p.relative_to(copy).as_posix(): p.read_text(encoding="utf-8")
            for p in (copy / "mlkit").rglob("*.py")}
    made = {name: text for name, text in made.items() if is_here(name.removeprefix("mlkit/"))}
    assert sorted(made) == PACKAGE, "run `nbdev_export`; a module without a notebook has no place"
    assert [p for p in PACKAGE
            if made[p] != (ROOT / p).read_text(encoding="utf-8")] == [], "run `nbdev_export`"


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


LONG = pytest.mark.slow  # worked examples train for a minute


@pytest.mark.parametrize("notebook", [pytest.param(n, marks=LONG) if n in RECIPES else n
                                      for n in NOTEBOOKS])
def test_notebook_runs(notebook, tmp_path):
    passed, printed = run_notebook(NBS / notebook, tmp_path / "log")
    assert passed, printed


# How a notebook is written

@rule("notebook", NOTEBOOKS)
def test_notebook_format(notebook):
    nb = json.loads((NBS / notebook).read_text(encoding="utf-8"))
    assert (nb["nbformat"], nb["nbformat_minor"]) == (4, 5)
    assert nb["metadata"]["kernelspec"]["name"] == "python3"
    ids = [c["id"] for c in nb["cells"]]
    assert len(set(ids)) == len(ids)
    title = "".join(nb["cells"][0]["source"])
    assert re.match(r"# \S.*\n+> \S", title), "begin with `# name` and a one-line `> summary`"
    assert "TODO" not in title
    outputs = [o for c in nb["cells"] for o in c.get("outputs", [])]
    assert outputs, "commit the outputs"
    assert [o for o in outputs if o["output_type"] == "error"] == []
    places = [o for o in (str(ROOT), "/site-packages/") if o in json.dumps(outputs)]
    assert not places, "an output names a folder of this machine"
    for c in nb["cells"]:
        streams = [o.get("name") for o in c.get("outputs", [])]
        cut = [a for a, b in zip(streams, streams[1:]) if a and a == b]
        assert not cut, f"{c['id']}: execute with --ExecutePreprocessor.coalesce_streams=True"


def is_example(cell: dict) -> bool:
    "Code that runs and shows something: its output, or the value of its last line."
    if cell["cell_type"] != "code" or cell["marks"] & {"export", "exports", "exporti", "hide"}:
        return False
    return bool(cell["outputs"])


def defines(cell: dict) -> bool:
    "Does an exported cell have a function or a class?"
    if not cell["marks"] & {"export", "exports", "exporti"}: return False
    return bool(re.search(r"^(def|class|async def) ", cell["code"], re.M))


@rule("notebook", MODULES)
def test_notebook_shows_what_it_exports(notebook):
    "No more than two exports pass without an example that runs."
    passed = []
    for cell in cells(notebook):
        if defines(cell): passed.append(re.search(r"^(?:async )?\w+ (\w+)", cell["code"], re.M)[1])
        if is_example(cell): passed = []
        assert len(passed) <= 2, f"no example before the third: {passed}"


@rule("notebook", MODULES)
def test_notebook_names_its_module(notebook):
    module = re.sub(r"(^|/)\d+_", r"\1", notebook.removesuffix(".ipynb")).replace("/", ".")
    assert cells(notebook)[1]["code"].strip() == "" and "".join(
        cells(notebook)[1]["source"]).strip() == (
        f"#| default_exp {module}")


@rule("notebook", GUIDE)
def test_guide_exports_nothing(notebook):
    assert [c["id"] for c in cells(notebook) if c["marks"] & {"export", "exports", "exporti"}] == []


@rule("notebook", NOTEBOOKS)
def test_notebook_is_at_most_100_columns_wide(notebook):
    lines = [o for c in cells(notebook) if c["cell_type"] == "code" for o in c["code"].splitlines()]
    assert [o for o in lines if len(o) > WIDEST_LINE] == []


# The rules of the house

def test_each_wing_has_a_floor(): assert [w for w in WINGS if w not in FLOORS] == []


@rule("part", WINGS)
def test_rule_imports_go_down(part):
    assert [o for room in rooms_of(part) for o in house.imports_upward(room)] == []


@rule("part", WINGS)
def test_rule_no_module_of_a_higher_floor_is_spelt(part):
    assert [o for room in rooms_of(part) for o in house.spells_upward(room)] == []


def test_no_circle_of_imports():
    used = {room.name: {name for _, name in house.rooms_used(room)} for room in ROOMS}
    try: graphlib.TopologicalSorter(used).prepare()
    except graphlib.CycleError as e: pytest.fail(" -> ".join(e.args[1]), pytrace=False)


def test_recipes_are_imported_by_nobody():
    used = [(r.path, name) for r in ROOMS for _, name in house.rooms_used(r) if r.wing != "recipes"]
    assert [o for o in used if o[1].startswith("mlkit.recipes")] == []


@rule("part", WINGS)
def test_rule_private_names_stay_at_home(part):
    "Those of other rooms and of libraries; of libraries, the files in PRIVATE may touch some."
    assert [o for room in rooms_of(part) for o in house.private_uses(room)] == []


def test_files_that_touch_private_names_are_there():
    assert [path for path in PRIVATE if not (ROOT / path).is_file()] == []


@rule("part", WINGS)
def test_rule_text_from_outside_leaves_by_one_door(part):
    assert [o for room in rooms_of(part) for o in house.speaks_itself(room)] == []


@rule("part", WINGS)
def test_rule_imports_stand_in_groups(part):
    assert [o for room in rooms_of(part) for o in house.groups_out_of_order(room)] == []


@rule("part", CORE_WINGS)
def test_rule_rooms_are_small(part):
    sizes = {room.path: len(room.lines) for room in rooms_of(part)}
    assert {path: n for path, n in sizes.items() if n > LONGEST_ROOM} == {}


@rule("part", ["core"])
def test_rule_the_core_is_small(part):
    assert sum(len(room.lines) for room in ROOMS if room.wing != "recipes") <= CORE


@rule("part", WINGS)
def test_rule_parameters_have_types_and_comments(part):
    found = [o for room in rooms_of(part) for name, function in house.public_functions(room)
             for o in house.undocumented(room, name, function)]
    assert found + [o for room in rooms_of(part) for o in house.undocumented_fields(room)] == []


@rule("part", CORE_WINGS)
def test_rule_what_is_returned_is_said(part):
    assert [o for room in rooms_of(part) for name, function in house.public_functions(room)
            for o in house.undocumented_return(room, name, function)] == []


def test_the_public_face_is_small():
    face = importlib.import_module("mlkit.all")
    homes = [getattr(getattr(face, name), "__module__", "") for name in face.__all__]
    assert len([m for m in homes if m.startswith("mlkit")]) <= 47


@cache
def ruff() -> list[str]:
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--output-format", "concise",
                           "--quiet"],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.splitlines()


def part_of(path: str) -> str:
    "mlkit/config/load.py and nbs/config/09_load.ipynb -> config; tests/shell.py -> tests"
    top, *rest = path.split("/")
    return re.sub(r"\.\w+$", "", rest[0]) if top in ("mlkit", "nbs") else top


@rule("part", PARTS)
def test_rule_ruff_is_content(part):
    assert [o for o in ruff() if part_of(o.partition(":")[0]) == part] == []


def test_ruff_says_nothing_of_other_files():
    assert [o for o in ruff() if part_of(o.partition(":")[0]) not in PARTS] == []


# The package

def test_wheel_holds_the_package(tmp_path):
    source = tmp_path / "source"
    junk = shutil.ignore_patterns("__pycache__", "*.pyc", ".ipynb_checkpoints")
    shutil.copytree(ROOT / "mlkit", source / "mlkit", ignore=junk)
    for name in ["settings.ini", "setup.py", "README.md", "LICENSE"]:
        shutil.copy(ROOT / name, source)
    files = {p.relative_to(source).as_posix() for p in (source / "mlkit").rglob("*") if p.is_file()}
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index",
        "-w", tmp_path, source)
    with zipfile.ZipFile(next(tmp_path.glob("mlkit-*.whl"))) as wheel:
        names = {n for n in wheel.namelist() if ".dist-info/" not in n}
        info = {Path(n).name: wheel.read(n).decode() for n in wheel.namelist()
                if ".dist-info/" in n}
    assert names == files, "package_data in settings.ini names each file that is no module"
    assert info["LICENSE"] == (ROOT / "LICENSE").read_text(encoding="utf-8")
    meta = email.message_from_string(info["METADATA"])
    assert (meta["Version"] == settings["version"]
            and meta["Requires-Python"] == f">={settings['min_python']}")
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
        if line.strip() and not line.startswith("#"):
            out.setdefault(canonicalize_name((r := Requirement(line)).name), []).append(r)
    return out


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_constraints_give_one_version_that_settings_ask_for(python):
    env = {"python_version": python, "python_full_version": f"{python}.7", "sys_platform": "linux",
           "os_name": "posix", "implementation_name": "cpython"}
    chosen = {}
    for name, requirements in pins().items():
        valid = [r for r in requirements if not r.marker or r.marker.evaluate(env)]
        assert len(valid) <= 1, f"{name} is pinned twice on Python {python}"
        for r in valid: chosen[name] = str(r.specifier).removeprefix("==")
    for need in map(Requirement,
                    f"{settings['requirements']} {settings['dev_requirements']}".split()):
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
            if r.marker and not any(r.marker.evaluate({"extra": e}) for e in (need.extras or {""})):
                continue
            key = canonicalize_name(r.name)
            if (key, frozenset(r.extras)) in seen or key.startswith(("nvidia-", "cuda-", "triton")):
                continue
            seen.add((key, frozenset(r.extras)))
            todo.append(r)
            valid = [p for p in pinned.get(key, []) if not p.marker or p.marker.evaluate()]
            assert valid, f"constraints.txt does not pin {key}, which {need.name} needs"
