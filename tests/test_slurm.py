"""What SLURM does to runs and searches, by a real one: it requeues, and its time is limited."""
import os

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


def test_a_grid_through_submitit_is_as_here(cluster, project):
    done = here(project)
    words = ["workers=2", "launch=slurm", "launch.time=1", "launch.notice=10"]
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
    same_search(the_search(project, "slurm"), done)
