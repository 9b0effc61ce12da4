"""What SLURM does to runs and searches, by a real one: it requeues, and its time is limited."""
import os
import shutil
from pathlib import Path

import pytest
import torch

import slurm
from mlkit.run.folder import Run, list_runs
from shell import SCRIPTS, command

pytestmark = [pytest.mark.slow,
              pytest.mark.skipif(bool(slurm.missing()), reason=f"no {slurm.missing()}")]
TESTS = Path(__file__).parent
CONFIG = """
data: {_target_: mine.Data, n: 10}
model: {_target_: mine.Model, wait: 0.05}
trainer: {max_epochs: 6, log_every_n_steps: 1}
callbacks: {progress: null}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm.started(tmp_path_factory.mktemp("slurm", numbered=True) / "slurm") as o:
        o.env |= dict(PYTHONPATH=str(TESTS.parent), OMP_NUM_THREADS="1",
                      PATH=os.pathsep.join([str(SCRIPTS), os.environ["PATH"]]))
        yield o


@pytest.fixture
def project(tmp_path):
    (tmp_path / "slow.yaml").write_text(CONFIG)
    (tmp_path / "settings.ini").touch()  # a project: its modules are the user's own
    shutil.copy(TESTS / "watch_project.py", tmp_path / "mine.py")
    return tmp_path


def same_run(a: Run, b: Run):
    "Trained to the same bits."
    assert (a.dir / "metrics.csv").read_text() == (b.dir / "metrics.csv").read_text()
    x, y = (torch.load(o.checkpoint("last"), weights_only=True)["state_dict"] for o in (a, b))
    assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def test_a_requeued_run_goes_on(cluster, project):
    script = project / "job.sh"
    script.write_text(f"#!/bin/sh\n#SBATCH --requeue --open-mode=append -o {project}/out.txt "
                      f"-D {project}\nexec srun mlkit_train slow.yaml runs=cluster\n")
    job = cluster.run("sbatch", "--parsable", script).strip()
    def at_epoch(n: int) -> bool:
        return any(len(Run(o.parent).history) >= n for o in project.glob("cluster/*/*/run.json"))
    def story(): return cluster.story() + (project / "out.txt").read_text()
    slurm.wait_for(lambda: at_epoch(2), why=story)
    cluster.run("scancel", "--signal=USR1", job)  # as before the end of its time
    slurm.wait_for(lambda: "PENDING" in cluster.jobs()[0], why=story)
    slurm.wait_for(lambda: at_epoch(4), why=story)
    cluster.run("scontrol", "requeue", job)  # the machine is wanted for something else
    slurm.wait_for(lambda: not cluster.jobs(), why=story)
    run, = list_runs(project / "cluster")
    assert run.status == "done", story()
    assert f"SLURM job {job} is queued again" in run.log
    command("mlkit_train", "slow.yaml", "runs=here", cwd=project, code=0, OMP_NUM_THREADS="1",
            PYTHONPATH=cluster.env["PYTHONPATH"])
    here, = list_runs(project / "here")
    same_run(run, here)
