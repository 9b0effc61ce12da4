"""What SLURM does to runs and searches, by a real one: it requeues, and its time is limited."""
import os
import re
import signal

import pytest

import slurm
from clusters import TESTS, begin, here, new_project, same_run, same_search, the_search, wait_for
from mlkit.run.folder import Run, list_runs
from shell import SCRIPTS, command

pytestmark = [pytest.mark.slow,
              pytest.mark.skipif(bool(slurm.missing()), reason=f"no {slurm.missing()}")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm.started(tmp_path_factory.mktemp("slurm") / "slurm") as o:
        o.env |= dict(PYTHONPATH=str(TESTS.parent), OMP_NUM_THREADS="1",
                      PATH=os.pathsep.join([str(SCRIPTS), os.environ["PATH"]]))
        yield o


@pytest.fixture(scope="module")
def alone(tmp_path_factory): return here(new_project(tmp_path_factory.mktemp("alone")))


@pytest.fixture
def project(tmp_path): return new_project(tmp_path)


def test_a_requeued_run_goes_on(cluster, project):
    script = project / "job.sh"
    script.write_text(f"#!/bin/sh\n#SBATCH --requeue --open-mode=append -o {project}/out.txt "
                      f"-D {project}\nexec srun mlkit_train slow.yaml runs=cluster\n")
    job = cluster.run("sbatch", "--parsable", script).strip()
    def at_epoch(n: int) -> bool:
        return any(len(Run(o.parent).history) >= n for o in project.glob("cluster/*/*/run.json"))
    def story(): return cluster.story() + (project / "out.txt").read_text()
    wait_for(lambda: at_epoch(2), why=story)
    cluster.run("scancel", "--signal=USR1", job)  # as before the end of its time
    wait_for(lambda: "PENDING" in cluster.jobs()[0], why=story)
    wait_for(lambda: at_epoch(4), why=story)
    cluster.run("scontrol", "requeue", job)  # the machine is wanted for something else
    wait_for(lambda: not cluster.jobs(), why=story)
    run, = list_runs(project / "cluster")
    assert run.status == "done", story()
    assert f"SLURM job {job} is queued again" in run.log
    command("mlkit_train", "slow.yaml", "runs=here", cwd=project, code=0, OMP_NUM_THREADS="1",
            PYTHONPATH=cluster.env["PYTHONPATH"])
    same_run(run, list_runs(project / "here")[0])


def test_a_grid_through_submitit_is_as_here(cluster, project, alone):
    words = ["workers=2", "launch=slurm", "launch.time=1", "launch.notice=30"]
    process = begin(project, "slurm", cluster.env, *words)
    try:
        search = the_search(project, "slurm")
        def story(): return (project / "slurm.txt").read_text() + cluster.story()
        def by_second() -> bool:  # has the second worker a run that is under way?
            search.refresh()
            mine = [o for o in search.trials if o.worker == "2" and o.status == "running"]
            return any(o.run and len(o.run.history) > 1 for o in mine)
        wait_for(by_second, why=story)
        job = (search.folder / "slurm").glob("*_1_submitted.pkl").__next__().name.split("_")[0]
        cluster.run("scontrol", "requeue", f"{job}_1")
        assert process.wait(480) == 0, story()
    finally: process.kill()
    said = cluster.run("scontrol", "-o", "show", "job", job).splitlines()
    again = [int(o.partition("Restarts=")[2].split()[0]) for o in said]
    assert len(again) == 2 and min(again) >= 1 and max(again) >= 2, said
    logs = [o.read_text() for o in (search.folder / "slurm").glob("*log.out")]
    assert all("timed-out" in o for o in logs), logs
    same_search(the_search(project, "slurm"), alone)


def under_way(project, cluster, *words: str):
    "A grid whose two workers are in the middle of a run: the command, and the search."
    process = begin(project, "cut", cluster.env, "workers=2", "launch=slurm", *words)
    search = the_search(project, "cut")
    def both_train() -> bool:
        search.refresh()
        runs = [o.run for o in search.trials if o.status == "running" and o.run]
        return sum(len(o.history) > 1 for o in runs) == 2
    wait_for(both_train, 90, (project / "cut.txt").read_text)
    return process, search


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_is_gone(cluster, project, alone, how):
    "After a Ctrl-C its jobs have ended; after a kill they share the search with who resumes it."
    process, search = under_way(project, cluster)
    os.killpg(process.pid, how)
    assert process.wait(60) == (130 if how == signal.SIGINT else -how)
    if how == signal.SIGINT:
        says = f"go on with: mlkit_train --resume {search.folder.relative_to(project)}"
        assert says in (project / "cut.txt").read_text() and not cluster.jobs()
    else: assert len(cluster.jobs()) == 2
    command("mlkit_train", "--resume", search.folder, cwd=project, code=0, **cluster.env)
    wait_for(lambda: not cluster.jobs())
    same_search(the_search(project, "cut"), alone)


def test_a_job_that_ends_before_its_worker_is_there(cluster, project):
    setup = "launch.setup=['echo there is no such module; exit 3']"
    process = begin(project, "none", cluster.env, "workers=2", "launch=slurm", setup)
    assert process.wait(90) == 2
    said = (project / "none.txt").read_text()
    assert re.search(r"the workers have ended: .*; there is no such module "
                     r"\(\S+/slurm/\d+_0_0_log.out says more\)\n$", said), said


@pytest.mark.parametrize("words", [["-N2", "-n2"], ["-N1", "-n2"]])
def test_two_tasks_train_one_run(cluster, project, words):
    own = ["trainer.devices=2"] if "-N1" in words else []
    cluster.run("env", f"--chdir={project}", "MASTER_ADDR=127.0.0.1", "GLOO_SOCKET_IFNAME=lo",
                "srun", *words, "mlkit_train", "slow.yaml", "runs=both", *own)
    run, = list_runs(project / "both")
    assert run.status == "done" and run.info["machine"]["processes"] == 2
