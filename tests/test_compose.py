"""Composition against Hydra: the same trees, the same overrides, the same config or a refusal.

The cases stand in hydra_cases.py, Hydra's answers in hydra_answers.json. That they are what Hydra
says today is a test of its own, which installs Hydra (slow).
"""
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer

from hydra_cases import COMPOSED, ENDS, EXCUSED, FIXED, OTHERWISE, RANDOM, REFUSED, TAKEN, Case
from hydra_oracle import ANSWERS, ask_all, key_of, lines
from mlkit.config.load import compose, load_config
from mlkit.config.node import ConfigError
from mlkit.parts.check import find_problems

HYDRA = json.loads(ANSWERS.read_text(encoding="utf-8"))
UNKNOWN = "a case is new or has changed: run `python tests/hydra_oracle.py --write`"


def answer_to(case: Case) -> dict:
    "What Hydra made of a case: its lines, or an error."
    assert key_of(case) in HYDRA["answers"], UNKNOWN
    return HYDRA["answers"][key_of(case)]


@pytest.fixture(autouse=True)
def in_the_folder(tmp_path, monkeypatch):
    "Where a search path looks for folders, and for packages."
    monkeypatch.chdir(tmp_path)


def ours(path: Path, case: Case) -> list[str]:
    return lines(OmegaConf.to_container(compose(path, *case.overrides), resolve=False))


def assert_one_line(path: Path, case: Case):
    with pytest.raises(ConfigError) as e: compose(path, *case.overrides)
    assert len(e.value.problems) == 1 and len(str(e.value).splitlines()) == 1, str(e.value)


def test_no_case_is_lost():
    assert len(COMPOSED) >= 847 and len(REFUSED) >= 260 and len(RANDOM) == 400
    assert {key_of(c) for c in FIXED + RANDOM} == {*HYDRA["answers"]}, UNKNOWN


@pytest.mark.parametrize("case", COMPOSED, ids=lambda case: case.name)
def test_composes_as_hydra_does(case, tmp_path):
    answer = answer_to(case)
    assert "error" not in answer, f"Hydra refuses this itself: {answer}"
    assert ours(case.write(tmp_path), case) == answer["lines"]


@pytest.mark.parametrize("case", [c for c in REFUSED if c.name.endswith(ENDS)],
                         ids=lambda case: case.name)
def test_takes_what_can_be_meant_only_so(case, tmp_path):
    answer = answer_to(case)
    assert "error" in answer, f"Hydra takes this, too: {answer['lines']}"
    assert isinstance(ours(case.write(tmp_path), case), list)


@pytest.mark.parametrize("case", [c for c in REFUSED if not c.name.endswith(ENDS)],
                         ids=lambda case: case.name)
def test_refuses_what_hydra_refuses_in_one_line(case, tmp_path):
    answer = answer_to(case)
    assert "error" in answer, f"Hydra takes this: {answer['lines']}"
    assert_one_line(case.write(tmp_path), case)


@pytest.mark.parametrize("case, like", TAKEN, ids=[c.name for c, _ in TAKEN])
def test_takes_more_than_hydra_on_purpose(case, like, tmp_path):
    answer = answer_to(case)
    assert "error" in answer, f"Hydra takes this, too: {answer['lines']}"
    if isinstance(like, dict): wanted = lines(like)
    else: wanted = answer_to(Case(case.name, case.tree, tuple(like)))["lines"]
    assert ours(case.write(tmp_path), case) == wanted


@pytest.mark.parametrize("case, data", OTHERWISE, ids=[c.name for c, _ in OTHERWISE])
def test_differs_from_hydra_on_purpose(case, data, tmp_path):
    answer = answer_to(case)
    path = case.write(tmp_path)
    assert answer.get("lines") not in (None, data and lines(data)), f"no difference now: {answer}"
    if data is not None: assert ours(path, case) == lines(data)
    else: assert_one_line(path, case)


def random_result(case: Case, path: Path) -> dict:
    try: return {"lines": ours(path, case)}
    except ConfigError as e: return {"error": [str(o) for o in e.problems]}


def agrees(mine: dict, case: Case) -> bool:
    "The same config, or a refusal with a line for each problem; with copies where Hydra shares."
    answer = answer_to(case)
    if "lines" in mine:
        if mine == answer or EXCUSED.match(answer.get("error", "")): return True
    elif "error" in answer:
        told = mine["error"]
        if len({*told}) == len("\n".join(told).splitlines()): return True
    return mine == HYDRA["copies"].get(key_of(case))


def test_random_trees(tmp_path):
    "Most trees must compose, or nothing would be compared."
    wrong, composed = [], 0
    for n, case in enumerate(RANDOM):
        composed += "lines" in answer_to(case)
        mine = random_result(case, case.write(tmp_path / str(n)))
        if not agrees(mine, case):
            wrong.append(f"{case.name} {' '.join(case.overrides)}\nhydra: {answer_to(case)}\n"
                         f"mlkit: {mine}\nin: {tmp_path / str(n)}")
    assert composed >= len(RANDOM) / 2, f"Hydra composes only {composed} of {len(RANDOM)}"
    assert not wrong, f"{len(wrong)} of {len(RANDOM)} differ:\n\n" + "\n\n".join(wrong[:9])


# -- too deep

def nested(n: int): return "{a: " * n + "1" + "}" * n


@pytest.mark.parametrize("text, overrides", [
    (f"a: {nested(80)}", ()), (f"a: {'[' * 80}{']' * 80}", ()), (f"a: {nested(1000)}", ()),
    ("".join(f"{'  ' * n}a:\n" for n in range(90)), ()), ("a: 1", (f"+b={nested(80)}",)),
    ("a: 1", (f"+{'b.' * 80}c=1",)), ("a: 1", (f"+{'b.' * 900}c=1",)),
    ("a: 1", (f"+g@{'b.' * 80}c=x",)),
    (f"# @package {'b.' * 80}c\na: 1", ())])
def test_too_many_levels_are_one_line(text, overrides, tmp_path):
    "OmegaConf holds some 70, and ends in a RecursionError."
    case = Case("", {"config": text, "g/x": "n: 1"}, overrides)
    assert_one_line(case.write(tmp_path), case)


def test_fifty_levels_are_none_too_many(tmp_path):
    path = Case("", {"config": f"extra: {nested(50)}"}).write(tmp_path)
    cfg = load_config(path, "seed=3")
    assert not [o for o in find_problems(cfg) if "extra" in o.key]
    assert lines(OmegaConf.to_container(cfg)["extra"])[0].count("a") == 50


# -- the live oracle


@pytest.mark.slow
def test_hydra_says_so_today(hydra_python, tmp_path):
    found = ask_all(hydra_python, tmp_path)
    for part in ("answers", "copies"):
        changed = {k: (v, HYDRA[part].get(k)) for k, v in found[part].items()
                   if v != HYDRA[part].get(k)}
        assert not changed and found[part].keys() == HYDRA[part].keys(), (part, changed)


# -- threads, and nothing left behind


def project(folder: Path, n: int) -> Path:
    "A project of its own with a config; every fifth has mistakes, every seventh does not load."
    one = f"# @package _global_\ndefaults: [override /optimizer: sgd]\nextra: {{n: {n}}}"
    Case("", {"mine/one": one}).write(folder / "configs")
    (folder / "pyproject.toml").touch()
    (folder / ".env").write_text(f"WHERE=project {n}\nMLKIT_trainer__max_epochs={n + 1}\n")
    optimizer, mine = "adam" if n % 2 else "adamw", "none" if n % 7 == 6 else "one"
    path = folder / "configs" / f"c{n}.yaml"
    path.write_text(f"defaults: [data: mnist, model: classifier, optimizer: {optimizer}, _self_, "
                    f"mine: {mine}]\n"
                    f"seed: {n}\ntags: [a, t{n}]\nextra: "
                    f"{{where: '${{oc.env:WHERE}}', lr: '${{optimizer.lr}}'}}\n"
                    + ("trainer: {max_epoch: 1}\nsed: 2\n" if n % 5 == 4 else ""))
    return path


def outcome(n: int, path: Path) -> tuple:
    "All that a person would see of one config."
    try: cfg = load_config(path, f"optimizer.lr={n / 100}", f"+extra.more=[{n},{{n: {n}}}]")
    except ConfigError as e: return str(e), None, None
    data = OmegaConf.to_container(cfg, resolve=False)
    return lines(data), str(find_problems(cfg)), (cfg.extra.where, cfg.extra.lr)


def test_fifty_configs_in_threads_as_in_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])  # `check` adds the projects
    monkeypatch.setenv("MLKIT_TRUST", f"{tmp_path}/")
    paths = [project(tmp_path / f"p{n}", n) for n in range(50)]
    state = lambda: (dict(os.environ), os.getcwd(), dict(BaseContainer._resolvers))
    before, start, often = state(), threading.Barrier(10), sys.getswitchinterval()
    def work(n: int):
        if n < 10: start.wait(timeout=60)
        return outcome(n, paths[n])
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(10) as pool: together = list(pool.map(work, range(50)))
    finally: sys.setswitchinterval(often)
    assert state() == before
    in_turn = [outcome(n, path) for n, path in enumerate(paths)]
    assert together == in_turn and state() == before
    assert [o[2] for o in in_turn if o[2]] == [(f"project {n}", n / 100) for n in range(50)
                                               if n % 7 != 6]
    assert sum(o[1] is None for o in in_turn) == 7 and sum(bool(o[1]) for o in in_turn) >= 8

def test_the_runs_of_a_project_are_no_options(tmp_path, monkeypatch):
    for text in ("mnist/1/config.yaml", "mnist/1/wandb/files/config.yaml", "x.yaml"):
        (path := tmp_path / "runs" / text).parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a: 1\n")
    (tmp_path / "settings.ini").touch()
    monkeypatch.chdir(tmp_path)
    assert load_config({"name": "x"}, "runs=elsewhere").runs == "elsewhere"
