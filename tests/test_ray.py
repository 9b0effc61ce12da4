"""A grid on Ray, of which a node, or the command, is lost: in a network of its own, always.

Ray looks for machines around it, and nothing here may reach another one."""
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from clusters import TESTS, begin, here, new_project, same_search, the_search, wait_for
from shell import SCRIPTS
from slurm import processes_with

INSIDE = os.environ.get("_MLKIT_TEST_RAY")  # the folder: this is the process in the network
HAS_ALL = importlib.util.find_spec("ray") and shutil.which("unshare")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HAS_ALL, reason="no ray, or no unshare")]


def alone(*command) -> list[str]:
    "A command in a network of its own, with nothing but loopback."
    own = ["unshare", "-n"] if os.getuid() == 0 else ["unshare", "-rn"]
    return [*own, "bash", "-c", 'PATH=$PATH:/usr/sbin:/sbin ip link set lo up; exec "$@"', "bash",
            *map(str, command)]


@pytest.mark.parametrize("what", ["lost_node", "interrupted_command", "killed_command"])
def test_a_search_goes_on_after_a(what, tmp_path):
    "One of the tests below, where it can reach nothing."
    env = os.environ | dict(
        _MLKIT_TEST_RAY=str(tmp_path), RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled",
        PYTHONPATH=os.pathsep.join([str(TESTS.parent), str(TESTS)]), OMP_NUM_THREADS="1")
    done = subprocess.run(alone(sys.executable, __file__, what), env=env, cwd=tmp_path, timeout=800,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


@contextmanager
def cluster(folder: Path):
    "Two nodes: where they are."
    with open(folder / "cluster.txt", "w") as log:
        process = subprocess.Popen([sys.executable, TESTS / "ray_cluster.py", folder], stdout=log,
                                   stderr=log, stdin=subprocess.DEVNULL)
    try:
        address = folder / "address"
        wait_for(lambda: address.exists() or process.poll(), 120)
        yield address.read_text()
    finally:
        (folder / "end").touch()
        try: process.wait(30)
        finally: process.kill()


def both_train(search) -> bool:
    search.refresh()
    runs = [o.run for o in search.trials if o.status == "running" and o.run]
    return sum(len(o.history) > 1 for o in runs) == 2


def lost_node(project: Path):
    done = here(project)
    with cluster(project) as address:
        words = ["workers=2", "launch=ray", f"launch.address={address}"]
        process = begin(project, "ray", os.environ, *words)
        try:
            search = the_search(project, "ray")
            def story(): return (project / "ray.txt").read_text()
            wait_for(lambda: both_train(search), 240, story)
            (project / "kill").touch()
            wait_for((project / "killed").exists)
            assert process.wait(300) == 0, story()
        finally: process.kill()
    logs = [o.read_text() for o in search.folder.glob("worker-*.txt")]
    print(*logs, sep="\n====\n")
    search = the_search(project, "ray")
    same_search(search, done)
    assert any("goes on" in o.run.log or o.run.log.count("parameters on") > 1
               for o in search.trials), "no run was cut off"


def lost_command(project: Path, how: signal.Signals):
    "Its Ray is its own: all ends, the runs are saved, and another command goes on with them."
    done = here(project)
    process = begin(project, "ray", os.environ, "workers=2", "launch=ray")
    search = the_search(project, "ray")
    def story(): return (project / "ray.txt").read_text()
    wait_for(lambda: both_train(search), 240, story)
    if how == signal.SIGINT: os.killpg(process.pid, how)  # as a terminal does
    else: process.kill()
    assert process.wait(60) == (130 if how == signal.SIGINT else -how), story()
    wait_for(lambda: not {*processes_with(f"_MLKIT_TEST_RAY={INSIDE}")} - {os.getppid()}, 180)
    if how == signal.SIGINT:
        says = f"go on with: mlkit_train --resume {search.folder.relative_to(project)}"
        assert says in story() and "Traceback" not in story(), story()
    search.refresh()
    cut = [o.run for o in search.trials if o.status == "interrupted"]
    assert [o.status for o in cut] == ["interrupted"] * 2, story()
    again = subprocess.run([SCRIPTS / "mlkit_train", "--resume", search.folder], cwd=project,
                           capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stdout + again.stderr
    same_search(the_search(project, "ray"), done)


def interrupted_command(project: Path): lost_command(project, signal.SIGINT)
def killed_command(project: Path): lost_command(project, signal.SIGKILL)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    globals()[sys.argv[1]](new_project(Path(INSIDE)))
