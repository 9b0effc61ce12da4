"""What Hydra answers to the cases of test_compose.py.

    python tests/hydra_oracle.py --write [FOLDER]

asks Hydra about every case of hydra_cases.py and writes hydra_answers.json, which the tests compare
with; `--write-sweeps` does so for the overrides of sweep_cases.py. Hydra lives in a virtual
environment of its own, since it wants an older OmegaConf; it is made in FOLDER, or in the user's
cache.

There this file runs as a script, too. stdin: a JSON list of [folder, config name, overrides];
stdout: {"lines": …} or {"error": …} for each, in a JSON list. With `--time N`: the seconds of N
rounds of each case, {"seconds": […]}, after a round to warm up. With `--sweeps` stdin is a list of
overrides of a multirun: {"values": …}, each value's Python text, or {"error": …}. With `--copies`
every use of a file gets its own copy: Hydra hands the same nodes to each, and what is laid over the
one use can show in the others.
"""
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
import warnings
from keyword import iskeyword
from pathlib import Path

HYDRA, OMEGACONF = "1.3.8", "2.3.1"
ANSWERS = Path(__file__).with_name("hydra_answers.json")
SWEEPS = ANSWERS.with_name("sweep_answers.json")

# -- in Hydra's environment


def lines(data, path: str = "") -> list[str]:
    """Plain data as one line a leaf, in order: 'a.b[0] = 1.0'.

    Types show, of keys too: 1, 1.0, True and '1' differ."""
    if not isinstance(data, (dict, list)) or not data: return [f"{path} = {data!r}"]
    if isinstance(data, list):
        return [o for i, v in enumerate(data) for o in lines(v, f"{path}[{i}]")]
    word = lambda k: k if isinstance(k, str) and k.isidentifier() and not iskeyword(k) else repr(k)
    return [o for k, v in data.items() for o in lines(v, f"{path}{path and '.'}{word(k)}")]


def compose(folder: str, name: str, overrides: list[str]) -> dict:
    "One case: the config's lines, or how Hydra refuses it."
    import hydra
    from omegaconf import OmegaConf
    os.chdir(folder)  # where a search path looks for folders, and for packages
    sys.path.insert(0, folder)
    try:
        with hydra.initialize_config_dir(folder, version_base="1.3"):
            config = hydra.compose(name, overrides)
            return {"lines": lines(OmegaConf.to_container(config, resolve=False))}
    except Exception as e:  # its own errors, and those that it lets through: AssertionError, …
        text = (str(e).strip() or str(e.__cause__)).splitlines()[0]
        return {"error": f"{type(e).__name__}: {text.replace(folder, '')}"}
    finally:
        sys.path.remove(folder)
        sys.path_importer_cache.clear()
        for k in [k for k, o in sys.modules.items() if is_below(folder, o)]: del sys.modules[k]


def is_below(folder: str, module) -> bool:
    return str(getattr(module, "__file__", "")).startswith(folder)


def give_copies():
    "Mend Hydra, here, as the last option says."
    from copy import deepcopy

    from hydra._internal.config_repository import CachingConfigRepository as Files
    shared = Files.load_config
    Files.load_config = lambda self, config_path: deepcopy(shared(self, config_path))


def seconds(rounds: int, folder: str, name: str, overrides: list[str]) -> dict:
    "The time of each `hydra.compose`."
    import hydra
    took = []
    with hydra.initialize_config_dir(folder, version_base="1.3"):
        for _ in range(rounds + 1):
            start = time.perf_counter()
            hydra.compose(name, overrides)
            took.append(time.perf_counter() - start)
    return {"seconds": took[1:]}


def swept(override: str) -> dict:
    "The values that a multirun takes one after another, or the ends and tags of an interval."
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from sweep_cases import OPTIONS
    parse = OverridesParser.create().parse_override
    class Groups:
        def get_group_options(self, *_, **__): return OPTIONS
    try:
        o, each = parse(override), [override]
        o.config_loader = Groups()
        if o.is_interval_sweep():
            v = o.value()
            return {"interval": [repr(v.start), repr(v.end), sorted(v.tags)]}
        if o.is_sweep_override():
            each = [f"{o.get_key_element()}={v}" for v in o.sweep_string_iterator()]
        found = [repr(parse(v).value()) for v in each]
        return {"values": sorted(found) if "shuffle" in override else found}
    except Exception as e: return {"error": type(e).__name__}


# -- in the tests' environment


def environment(home: Path) -> Path:
    "The Python of a virtual environment with Hydra in `home`, made where it is missing."
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    code = "from importlib.metadata import version as v; print(v('hydra-core'), v('omegaconf'))"
    if python.exists():
        found = subprocess.run([python, "-c", code], capture_output=True, text=True).stdout
        if found.split() == [HYDRA, OMEGACONF]: return python
    venv.create(home, clear=True, with_pip=True)
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    done = subprocess.run([*install, f"hydra-core=={HYDRA}", f"omegaconf=={OMEGACONF}"],
                          capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr.strip() or "pip said nothing").splitlines()[-1]
        raise RuntimeError(f"hydra-core {HYDRA} could not be installed: {why}")
    return python


def ask(python: Path, requests: list, *args: str) -> list[dict]:
    "Hydra's answers to a list of requests, in their order."
    done = subprocess.run([python, "-I", __file__, *args], input=json.dumps(requests),
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def key_of(case) -> str:
    "A name for a case that changes with its files and its command line."
    text = json.dumps([case.tree, case.overrides], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def ask_cases(python: Path, cases: list, home: Path, *args: str) -> dict[str, dict]:
    "Hydra's answers by the keys of the cases; cases of one tree share its folder in `home`."
    folders, requests = {}, []
    for case in cases:
        tree = json.dumps(case.tree)
        if tree not in folders: folders[tree] = case.write(home / f"{len(folders):04}")
        requests.append([str(folders[tree].parent), folders[tree].stem, case.overrides])
    return dict(zip(map(key_of, cases), ask(python, requests, *args)))


def ask_all(python: Path, home: Path) -> dict[str, dict[str, dict]]:
    """Hydra's answers to all cases: {"answers": {key: answer}, "copies": {key: answer}}.

    "copies" has what `--copies` answers to a random tree, where that is something else."""
    from hydra_cases import FIXED, RANDOM
    answers = ask_cases(python, [*FIXED, *RANDOM], home)
    copies = ask_cases(python, RANDOM, home, "--copies")
    return {"answers": answers, "copies": {k: v for k, v in copies.items() if v != answers[k]}}


def write_answers(home: Path):
    "Ask Hydra about every case, and write the file of answers: one line for each."
    with tempfile.TemporaryDirectory() as folder:
        found = ask_all(environment(home), Path(folder))
    text = json.dumps({"hydra": HYDRA, "omegaconf": OMEGACONF})[:-1]
    for name, part in found.items():
        rows = [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}"
                for k, v in sorted(part.items())]
        text += f',\n"{name}": {{\n' + ",\n".join(rows) + "\n}"
    ANSWERS.write_text(text + "}\n", encoding="utf-8")
    print(f"{len(found['answers'])} answers in {ANSWERS}, {ANSWERS.stat().st_size / 1e6:.1f} MB")


def write_sweeps(home: Path):
    "Ask Hydra about every override of sweep_cases.py, and write the file of answers."
    from sweep_cases import CASES
    rows = [f"{json.dumps(k)}: {json.dumps(v)}"
            for k, v in zip(CASES, ask(environment(home), CASES, "--sweeps"))]
    SWEEPS.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
    print(f"{len(rows)} answers in {SWEEPS}")


def main(args: list[str]):
    if args[:1] in (["--write"], ["--write-sweeps"]):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        home = Path(args[1]) if args[1:] else cache / "mlkit" / "hydra"
        return write_answers(home) if args[0] == "--write" else write_sweeps(home)
    requests = json.load(sys.stdin)
    warnings.simplefilter("ignore")  # a list without `_self_` is what some cases are about
    if args[:1] == ["--sweeps"]:
        sys.path.insert(0, str(Path(__file__).parent))
        answers = [swept(o) for o in requests]
    elif args[:1] == ["--time"]: answers = [seconds(int(args[1]), *case) for case in requests]
    else:
        if args[:1] == ["--copies"]: give_copies()
        answers = [compose(*case) for case in requests]
    json.dump(answers, sys.stdout)


if __name__ == "__main__": main(sys.argv[1:])
