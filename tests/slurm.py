"""A real SLURM on this machine: munge, one controller and two nodes, of the user who runs this.

Debian's packages `slurm-wlm` and `munge` are enough. Everything lies in one folder.
"""
import ctypes
import os
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator

from clusters import wait_for

NEEDS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "squeue", "scontrol", "scancel")
CONF = """
ClusterName=ci
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={D}/munge.socket,cred_expire=5
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
StateSaveLocation={D}/state
SlurmctldPidFile={D}/slurmctld.pid
SlurmctldLogFile={D}/log/slurmctld.log
SlurmctldPort={ports[0]}
SlurmdPidFile={D}/slurmd.%n.pid
SlurmdLogFile={D}/log/slurmd.%n.log
SlurmdSpoolDir={D}/spool.%n
MinJobAge=600
KillWait=5
JobRequeue=1
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=4000
PartitionName=debug Nodes=n1,n2 Default=YES MaxTime=60 DefaultTime=5 State=UP
"""


def missing() -> str:
    "Which of SLURM's programs are not installed."
    return ", ".join(o for o in NEEDS if not _path(o))


def _path(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _ports(n: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [o.getsockname()[1] for o in held]
    for o in held: o.close()
    return ports


class Slurm:
    "What a test asks of it. `env` is for all that talks to it."
    def __init__(self, folder: Path):
        self.folder, self.env = folder, os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        self.daemons: list[subprocess.Popen] = []

    def run(self, *command: Any) -> str:
        done = subprocess.run([*map(str, command)], env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def jobs(self, *more: str) -> list[str]:
        "A line for each job, and each task of an array: id state restarts."
        return self.run("squeue", "-h", "-r", "-o", "%i %T %S", *more).splitlines()

    def story(self) -> str:
        "Its logs, for a test that failed."
        files = sorted((self.folder / "log").glob("*.log"))
        return "\n".join(f"== {o}\n{o.read_text(errors='replace')[-3000:]}" for o in files)

    def start(self):
        for name in ("state", "log", "spool.n1", "spool.n2"): (self.folder / name).mkdir()
        self.folder.chmod(0o755)  # munge wants to be sure that nobody else writes there
        conf = CONF.format(D=self.folder, host=socket.gethostname().partition(".")[0],
                           user=_user(), ports=_ports(3))
        (self.folder / "slurm.conf").write_text(conf)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        own = [f"--{o}-file={self.folder}/munge.{o}" for o in ("key", "pid", "log", "seed")]
        self._daemon("munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket",
                     *own)
        wait_for((self.folder / "munge.socket").exists, why=self.story)
        self._daemon("slurmctld", "-D", "-c")
        for node in ("n1", "n2"): self._daemon("slurmd", "-D", "-N", node)
        def is_up() -> bool:
            asked = subprocess.run(["sinfo", "-h", "-o", "%D %t"], env=self.env,
                                   capture_output=True, text=True)
            return asked.stdout.split() == ["2", "idle"]
        wait_for(is_up, why=self.story)

    def _daemon(self, name: str, *words: str):
        with open(self.folder / "log" / f"{name}{len(self.daemons)}.out.log", "w") as log:
            self.daemons.append(subprocess.Popen(
                [_path(name) or name, *words], env=self.env, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, preexec_fn=_end_with_this, start_new_session=True))

    def stop(self):
        "End its jobs, then its daemons, then all that they left behind."
        with suppress(Exception):
            self.run("scancel", "--full", "--signal=KILL", "--partition=debug")
            self.run("scancel", "--partition=debug")
            wait_for(lambda: not self.jobs(), 10)
        for o in reversed(self.daemons): o.terminate()
        for o in reversed(self.daemons):
            with suppress(subprocess.TimeoutExpired): o.wait(5)
            o.kill()
            o.wait()
        for pid in processes_with(f"SLURM_CONF={self.folder}/slurm.conf"):
            with suppress(OSError): os.kill(pid, signal.SIGKILL)


def _end_with_this(): ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # if this is killed


def _user() -> str:
    import pwd
    return pwd.getpwuid(os.getuid()).pw_name


def processes_with(word: str) -> Iterator[int]:
    "Those that have this word in their environment, but for this one."
    for o in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            mine = word.encode() in o.read_bytes().split(b"\0")
            if mine and int(o.parent.name) != os.getpid(): yield int(o.parent.name)


@contextmanager
def started(folder: Path) -> Iterator[Slurm]:
    "SLURM in a new folder, until the end of the `with`."
    folder.mkdir()
    slurm = Slurm(folder)
    try:
        slurm.start()
        yield slurm
    finally: slurm.stop()
