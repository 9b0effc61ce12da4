"""One run on several machines: two network namespaces are two hosts, and real `torchrun`s train one
run on both. One is killed, and the other goes on with it alone, with the same samples in the same
order. `hosts_project.py` is the project that is trained."""
import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from hosts import BIN, comes, connected, disconnected, waited

HERE = Path(__file__).parent
CONFIG = """
name: two
data: {_target_: mine.Numbered, batch_size: 64}
model: {_target_: mine.Model, net: {_target_: mine.Net}}
callbacks:
  progress: null
  seen: {_target_: mine.Seen}
  checkpoint: {every_n_steps: 3}
trainer: {max_epochs: 2, accelerator: cpu, limit_train_batches: 10, limit_val_batches: 2,
          limit_test_batches: 2}
"""
OWN = "data={_target_: mine.OwnLoader, "
KINDS = dict(  # what the config says of the data
    arrays=[],
    shuffled=[OWN + "how: shuffle, batch_size: 30}"],
    workers=[OWN + "how: shuffle, batch_size: 30, workers: 1}"],
    sampler=[OWN + "how: sampler, batch_size: 30}"],
    in_order=[OWN + "how: none, batch_size: 30}"])
ALONE = "the same samples in the same order, but the last bits may differ"
TWO = ("trainer=ddp", "trainer.devices=2")
pytestmark = pytest.mark.slow
numbers = itertools.count(os.getpid() % 1000 * 10)


@pytest.fixture
def project(tmp_path) -> Path:
    (tmp_path / "pyproject.toml").touch()
    shutil.copy(HERE / "hosts_project.py", tmp_path / "mine.py")
    (tmp_path / "two.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def hosts():
    try: found = connected(str(next(numbers)))
    except (OSError, subprocess.CalledProcessError): pytest.skip("no namespaces here")
    yield found
    disconnected(found)


def here(project: Path, name: str, *words: str, **env: str) -> subprocess.Popen:
    "Start `mlkit_train` on this machine."
    with open(project / f"{name}.log", "w") as log:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "SEEN": str(project / name), **env}
        return subprocess.Popen([BIN / "mlkit_train", *words], cwd=project, env=env, stdout=log,
                                stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)


def on_both(project: Path, hosts, name: str, *words: str, nodes: str = "2", restarts: int = 0,
            **env: str) -> list:
    "Start `torchrun` on both hosts."
    a, _ = hosts
    env = dict(SEEN=str(project / name), **env)
    return [o.start(o.torchrun("two.yaml", f"runs={project / 'runs' / name}", *words, nodes=nodes,
                               first=a.address, here=o is a, restarts=restarts),
                    project / f"{name}.{i}.log", project, **env) for i, o in enumerate(hosts)]


def said(project: Path, name: str) -> str: return (project / f"{name}.log").read_text()


def only_run(project: Path, name: str) -> Path:
    (found,) = (project / "runs" / name).glob("*/*/run.json")
    return found.parent


def info(project: Path, name: str) -> dict:
    return json.loads((only_run(project, name) / "run.json").read_text())


def weights(project: Path, name: str) -> dict:
    path = only_run(project, name) / "checkpoints/last.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


def steps(project: Path, name: str) -> dict[int, list[int]]:
    "The samples of each step, of all processes together: one after the other from each."
    found: dict[int, dict[str, list[int]]] = {}
    for file in project.glob(f"{name}.[01]"):
        for line in file.read_text().splitlines():
            step, *samples = map(int, line.split())
            found.setdefault(step, {})[file.suffix] = samples  # the last time that it was made
    return {step: [i for turn in itertools.zip_longest(*(o[k] for k in sorted(o))) for i in turn
                   if i is not None] for step, o in sorted(found.items())}


def whole(project: Path, kind: str) -> dict[int, list[int]]:
    "The samples of each step of two processes that nothing disturbs."
    words = ["two.yaml", f"runs={project / 'runs/whole'}", *TWO, *KINDS[kind]]
    process = here(project, "whole", *words)
    assert waited(process) == 0, said(project, "whole")
    return steps(project, "whole")


def test_two_hosts_are_as_two_processes(project, hosts):
    expected = whole(project, "arrays")
    assert [waited(o) for o in on_both(project, hosts, "net")] == [0, 0], said(project, "net.0")
    assert steps(project, "net") == expected and len(expected) == 20
    one, two = weights(project, "whole"), weights(project, "net")
    assert all(torch.equal(one[k], two[k]) for k in one)
    csv = [only_run(project, o) / "metrics.csv" for o in ("whole", "net")]
    assert csv[0].read_bytes() == csv[1].read_bytes()
    process = here(project, "one", "two.yaml", f"runs={project / 'runs/one'}")
    assert waited(process) == 0 and steps(project, "one") == expected


def cut_off(project: Path, hosts, killed: int, kind: str):
    "Start a run on both hosts, and kill one of them in the second epoch, after step 12."
    processes = on_both(project, hosts, "cut", *KINDS[kind], HOLD_AT="14")
    assert comes(lambda: all((project / f"cut.holds.{i}").exists() for i in (0, 1))), \
        said(project, "cut.0")
    hosts[killed].kill()
    (project / "cut.go").touch()
    assert waited(processes[1 - killed]) not in (0, None)
    assert info(project, "cut")["status"] == "interrupted"
    assert "another process of the run is gone" in info(project, "cut")["error"]


@pytest.mark.parametrize("killed, kind", [(1, "arrays"), (0, "arrays"), (0, "shuffled"),
                                          (1, "workers"), (1, "in_order")])
def test_a_host_is_gone_and_the_other_goes_on(project, hosts, killed, kind):
    cut_off(project, hosts, killed, kind)
    left = hosts[1 - killed]
    words = [BIN / "mlkit_train", "--resume", only_run(project, "cut")]
    process = left.start(words, project / "alone.log", project, SEEN=str(project / "cut"))
    assert waited(process) == 0, said(project, "alone")
    assert ALONE in said(project, "alone") and "goes on with 1 process, not 2" in said(
        project, "alone")
    assert info(project, "cut")["status"] == "done"
    (project / "cut.1").write_text("".join(  # what one process has done again is in the other file
        o for o in (project / "cut.1").read_text().splitlines(True) if int(o.split()[0]) < 12))
    assert steps(project, "cut") == whole(project, kind)
    one, two = weights(project, "whole"), weights(project, "cut")
    assert all(torch.allclose(one[k], two[k], atol=1e-5) for k in one)
