"Optuna's samplers and pruners in a search that is killed, resumed, shared; both of its storages."
import json
import math
import multiprocessing
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from mlkit.base.errors import UserError
from mlkit.many.search import Search, search
from mlkit.many.study import Study

SPACE = {"lr": dict(start=1e-5, end=1.0, is_int=False, log=True),
         "width": dict(start=8, end=64, is_int=True, log=False), "kind": ["a", "b,c", "null"]}
SETTINGS = dict(sampler="tpe", pruner="hyperband", seed=3, storage=None)
QUICK = """
defaults: [{data: mnist}, {model: classifier}]
name: quick
model: {net: {_target_: mlkit.model.nets.ConvNet, in_channels: 1, num_classes: 10}}
trainer: {max_epochs: 3, limit_train_batches: 4, limit_val_batches: 2, limit_test_batches: 1}
callbacks: {progress: null}
"""
SPAN = "optimizer.lr=tag(log, interval(1e-4,1e-1))"


def value(point: dict, epochs: int = 9) -> float:
    "What a training would give, without one."
    far = abs(math.log10(float(point["lr"])) + 2) + abs(int(point["width"]) - 32) / 32
    return far + (point["kind"] != "a") + 1 / epochs


def carry_on(folder: Path, settings: dict, n: int) -> None:
    "Train what a study's folder lacks, as a worker that knows nothing of those before."
    study = Study(folder, SPACE, settings, epochs=9)
    for i in range(n):
        point, prune = study.ask(i), study.pruning(i, "val/loss")
        for e in range(1, 10):
            if prune and prune(e, {"val/loss": value(point, e)}):
                study.tell(i, "pruned")
                break
        else: study.tell(i, "done", value(point))


def told(folder: Path, settings: dict) -> list[tuple]:
    trials = Study(folder, SPACE, settings, epochs=9).optuna.get_trials()
    return [(t.number, t.params, t.state.name, t.values, t.intermediate_values, t.system_attrs)
            for t in trials]


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
def test_a_study_that_is_killed_is_the_same(tmp_path, sampler):
    "Each line of the journal is the last one that a process writes, and half of the next."
    settings = SETTINGS | dict(sampler=sampler)
    whole = tmp_path / "whole" / "search-1"
    whole.mkdir(parents=True)
    carry_on(whole, settings, 8)
    lines = (whole / "optuna.jsonl").read_bytes().splitlines(keepends=True)
    for i in range(1, len(lines), 9):
        cut = tmp_path / f"cut-{i}" / "search-1"
        cut.mkdir(parents=True)
        (cut / "optuna.jsonl").write_bytes(b"".join(lines[:i]) + lines[i][:len(lines[i]) // 2])
        carry_on(cut, settings, 8)
        assert told(cut, settings) == told(whole, settings), i


def test_values_come_back_as_they_were_written(tmp_path):
    study = Study(tmp_path, SPACE, SETTINGS | dict(sampler="random"))
    points = [study.ask(i) for i in range(30)]
    assert {o["kind"] for o in points} == {"a", "b,c", "null"}
    assert all(float(o["lr"]) and str(int(o["width"])) == o["width"] for o in points)
    assert points == [study.ask(i) for i in range(30)] != []
    study.tell(0, "done", math.nan)
    study.tell(1, "done", math.inf)
    study.tell(2, "failed")
    study.tell(2, "done", 1.0)
    assert [t.state.name for t in study.optuna.trials[:3]] == ["FAIL", "COMPLETE", "FAIL"]


def _work(folder: Path, settings: dict, n: int, lock):
    study = Study(folder, SPACE, settings, epochs=9)
    while True:
        with lock:
            i = len(study.optuna.get_trials(deepcopy=False))
            if i >= n: return
            point = study.ask(i)
        prune = study.pruning(i, "val/loss")
        ended = any(prune(e, {"val/loss": value(point, e)}) for e in range(1, 10))
        study.tell(i, *(["pruned"] if ended else ["done", value(point)]))


def four_workers(folder: Path, settings: dict):
    context = multiprocessing.get_context("spawn")
    lock = context.Lock()
    Study(folder, SPACE, settings, epochs=9)
    workers = [context.Process(target=_work, args=[folder, settings, 200, lock]) for _ in range(4)]
    for o in workers: o.start()
    for o in workers: o.join()
    trials = Study(folder, SPACE, settings, epochs=9).optuna.get_trials()
    assert [o.exitcode for o in workers] == [0] * 4
    assert sorted(t.user_attrs["number"] for t in trials) == [*range(200)]
    assert {t.state.name for t in trials} == {"COMPLETE", "PRUNED"}


@pytest.mark.slow
def test_200_trials_by_four_workers_on_one_journal(tmp_path):
    four_workers(tmp_path, SETTINGS)


@pytest.fixture(scope="module")
def postgresql():
    "A server of our own, with a password; its URL."
    known = [shutil.which("initdb"), *Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    initdb = next(filter(None, known), None)
    if initdb is None: pytest.skip("there is no PostgreSQL: apt-get install postgresql")
    bin, folder = Path(os.path.realpath(initdb)).parent, Path(tempfile.mkdtemp())
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    data, port = folder / "data", 25432 + os.getpid() % 2000
    (folder / "password").write_text("much-hidden")
    def call(*words):
        if os.getuid() == 0: words = ["runuser", "-u", user, "--", *words]
        return subprocess.run(words, check=True, capture_output=True, cwd="/")
    folder.chmod(0o755)  # another user's, if this is root
    if os.getuid() == 0: shutil.chown(folder, user)
    (folder / "password").chmod(0o644)
    call(bin / "initdb", "-D", data, "-U", "me", "-A", "scram-sha-256",
         f"--pwfile={folder / 'password'}", "--no-sync")
    call(bin / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o",
         f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=", "start")
    try: yield f"postgresql://me:much-hidden@127.0.0.1:{port}/postgres"
    finally:
        call(bin / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.mark.slow
def test_200_trials_by_four_workers_on_postgresql(tmp_path, postgresql, monkeypatch):
    monkeypatch.setenv("PG_OF_TEST", postgresql)
    folder = tmp_path / "search-pg"
    folder.mkdir()
    four_workers(folder, SETTINGS | dict(storage="${oc.env:PG_OF_TEST}"))
    wrong = postgresql.replace("much-hidden", "other-word")
    with pytest.raises(UserError) as e: Study(folder, SPACE, SETTINGS | dict(storage=wrong))
    assert "other-word" not in str(e.value) and "127.0.0.1" in str(e.value)


# Whole searches

@pytest.fixture()
def quick(tmp_path, monkeypatch) -> Path:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "quick.yaml").write_text(QUICK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(found: Search) -> list[dict]:
    rows = found.table.sort_values("optimizer.lr").drop(columns=["seconds", "run"])
    return json.loads(rows.to_json(orient="records", double_precision=15))


def test_intervals_are_sampled_and_a_search_is_made_longer(quick):
    found = search("quick.yaml", SPAN, "trials=3", "trainer.max_epochs=1")
    assert found.done and len({t.values["optimizer.lr"] for t in found.trials}) == 3
    assert all(1e-4 <= t.values["optimizer.lr"] <= 1e-1 for t in found.trials)
    before = [t.words for t in found.trials]
    longer = found.go_on("trials=+2")
    assert [t.words for t in longer.trials][:3] == before and len(longer.trials) == 5
    assert longer.done and longer.best is not None
    with pytest.raises(UserError, match="has no more points"):
        search("quick.yaml", "seed=1,2", "trainer.max_epochs=1").go_on("trials=+2")


def test_what_a_sampler_cannot_do_is_told_first(quick):
    with pytest.raises(UserError, match="search.mode: is needed"):
        search("quick.yaml", SPAN, "trials=2", "search.monitor=val/acc")
    with pytest.raises(UserError, match="has a password, which would be written down"):
        search("quick.yaml", SPAN, "trials=2", "search.storage='postgresql://a:bcd@localhost/e'")
    with pytest.raises(UserError, match=r"optimizer\.lr"):
        search("quick.yaml", "optimizer.lr=interval(-1,0)", "trials=2")
    assert not (quick / "runs").exists()


@pytest.mark.slow
def test_a_grid_is_pruned_and_seeds_are_ended_together(quick):
    lrs = "optimizer.lr=0.01,0.005,1e-5,1e-6"
    found = search("quick.yaml", lrs, "pruner=successive_halving", "trainer.max_epochs=4")
    assert [t.status for t in found.trials][0] == "done"
    assert "pruned" in {t.status for t in found.trials} and found.done
    assert found.best.status == "done"
    more = search("quick.yaml", SPAN, "trials=4", "seeds=2", "pruner=successive_halving",
                  "trainer.max_epochs=4")
    pairs = [{t.status for t in more.trials[i:i + 2]} for i in range(0, 8, 2)]
    assert all(len(o) == 1 for o in pairs) and {"pruned"} in pairs, pairs


SCRIPT = """
import sys
from mlkit.many.find import find_search
from mlkit.many.search import search
if __name__ == "__main__":
    what, *words = sys.argv[1:]
    if what == "new": search("quick.yaml", *words)
    else: find_search(what).go_on(*words)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_one_worker_gives_the_same_table_after_any_kills(quick, seed):
    import random
    words = [SPAN, "optimizer=adamw,sgd", "trials=8", "pruner=hyperband"]
    whole = search("quick.yaml", *words)
    (quick / "go.py").write_text(SCRIPT)
    drawn, what, mark = random.Random(seed), ["new", *words], whole.folder.name[7:]
    def rows() -> int:
        files = quick.glob("runs/quick/*/metrics.csv")
        return sum(len(o.read_text().splitlines()) for o in files if mark not in str(o))
    for _ in range(5):  # at a moment of the trials, not of the imports before them
        process = subprocess.Popen([sys.executable, "go.py", *what], cwd=quick,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        goal, end = rows() + drawn.randint(1, 3), time.time() + 120
        while rows() < goal and process.poll() is None and time.time() < end: time.sleep(0.01)
        time.sleep(drawn.uniform(0, 0.1))
        assert process.poll() is None and time.time() < end
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        at = rows()
        [new] = [o for o in quick.glob("runs/quick/search-*") if o.name != whole.folder.name]
        what = [str(new)]
    assert not subprocess.run([sys.executable, "go.py", *what], cwd=quick,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
    print(f"rows at the last kill: {at} of {rows()}")
    again = Search(new)
    assert table(again) == table(whole)
    assert [t.words for t in again.trials] == [t.words for t in whole.trials]


@pytest.mark.slow
def test_several_workers_lose_none(quick):
    found = search("quick.yaml", SPAN, "trials=8", "pruner=hyperband", workers=2)
    assert found.done and [t.number for t in found.trials] == [*range(8)]
    runs = [o.name for o in (quick / "runs" / "quick").iterdir() if (o / "run.json").exists()]
    assert len(runs) == 8


@pytest.mark.slow
def test_nothing_else_imports_the_engines(quick):
    code = ("import sys, mlkit.all; from mlkit.all import train, grid; "
            "from mlkit.cli import mlkit_train; train('quick.yaml', 'trainer.max_epochs=1'); "
            "grid('quick.yaml', 'seed=1,2', 'trainer.max_epochs=1'); "
            "print('FOUND', sorted({'optuna', 'submitit', 'ray', 'psycopg'} & {*sys.modules}))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split("FOUND")[-1].strip() == "[]", done.stderr
