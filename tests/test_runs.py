"""A run's folder: secrets stay out of it, hostile files are refused, what was cut off can be gone
on with, from a shell and a queue."""
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import torch

from mlkit.config.load import load_config
from mlkit.config.node import ConfigError
from mlkit.config.secrets import secret_filter
from mlkit.run.folder import Run, unfinished
from mlkit.run.log import _Log
from mlkit.train import resume, train
from mlkit.use import evaluate, load_run, predict
from shell import ROOT, command

MNIST = str(ROOT / "configs" / "mnist.yaml")
SHORT = ["trainer.max_epochs=2", "trainer.limit_train_batches=6", "trainer.limit_val_batches=2",
         "trainer.limit_test_batches=2",
         "callbacks.progress=null", "model.net.widths=[4, 4]"]
SECRET = "pa55-phrase-of-the-house"


def short(tmp_path, *overrides) -> Run: return train(MNIST, *SHORT, f"runs={tmp_path}", *overrides)


def weights(run: Run, which="last") -> dict:
    return torch.load(run.checkpoint(which), weights_only=True)["state_dict"]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def test_lightnings_own_checkpoints_beside_ours(tmp_path):
    other = ("+callbacks.other={_target_: pytorch_lightning.callbacks.ModelCheckpoint, save_last: "
             "true}")
    run = short(tmp_path, other)
    assert {"best.ckpt", "last.ckpt",
            "last-ModelCheckpoint.ckpt"} <= {p.name for p in run.file("checkpoints").iterdir()}
    assert same(weights(run), weights(run, str(run.file("checkpoints/last-ModelCheckpoint.ckpt"))))


def test_a_limit_that_is_reached_is_refused_before_anything_is_written(tmp_path):
    run = short(tmp_path, "~scheduler")  # it would have a length
    def files(): return {p: p.read_bytes() for p in run.dir.rglob("*") if p.is_file()}
    before = files()
    for status in ("done", "interrupted", "failed"):
        for change, refused in (("max_epochs=1", True), ("max_epochs=0", True),
                                ("max_epochs=2", status == "done"),
                                ("max_steps=12", status == "done"), ("max_steps=5", True)):
            run.update(status=status)
            was = files()
            if not refused: continue
            says = one_line(lambda: resume(run, f"trainer.{change}"))
            assert "leaves nothing to do" in says and files() == was
            assert status == "done" or f"so trainer.{change} leaves" in says
    run.update(status="done")
    assert files().keys() == before.keys()
    says = one_line(lambda: resume(run, "optimizer.lr=1"))
    assert "has had 2 epochs" in says
    more = resume(run, "trainer.max_epochs=3")
    assert more.status == "done" and list(more.history["epoch"].unique()) == [0, 1, 2]


# -- secrets

PARTS = '''
from mlkit.data.mnist import MNIST
from mlkit.model.nets import ConvNet
import pytorch_lightning as pl

class Data(MNIST):
    def __init__(self, token: str, **kwargs):
        super().__init__(**kwargs)
        self.save_hyperparameters()  # into the checkpoint, and to the trackers
        self.token = token

class Talks(pl.Callback):
    def __init__(self, token: str, fails: bool = False): self.token, self.fails = token, fails
    def on_train_start(self, trainer, module):
        print("the token is", self.token)
        print(f"\\x1b[32m{self.token}\\x1b[0m" * 2)
        import sys
        print("complains:", self.token, file=sys.stderr)
    def on_train_epoch_end(self, trainer, module):
        token = self.token
        if self.fails: raise RuntimeError(f"no access with {token}")
'''


def project(folder: Path) -> Path:
    (folder / "parts.py").write_text(PARTS)
    (folder / "settings.ini").write_text("[DEFAULT]\nlib_path = parts\n")
    (folder / ".env").write_text(f"TOKEN={SECRET}\n")
    (folder / "a.yaml").write_text("""\
defaults: [data: mnist, model: classifier, logger: [tensorboard, wandb, mlflow]]
data: {_target_: parts.Data, token: '${oc.env:TOKEN}', name: mnist}
model: {net: {_target_: mlkit.model.nets.ConvNet, in_channels: 1, num_classes: 10, widths: [4, 4]}}
callbacks: {talks: {_target_: parts.Talks, token: '${oc.env:TOKEN}'}}
trainer: {max_epochs: 1, limit_train_batches: 3, limit_val_batches: 2, limit_test_batches: 2}
extra: {url: 'https://me:${oc.env:TOKEN}@example.org'}
""")
    return folder


def files_with(folder: Path, text: str) -> list[str]:
    "The files below a folder that hold a text, in the usual encodings."
    needles = [text.encode(e) for e in ("utf-8", "utf-16-le", "utf-16-be")]
    found = [p for p in folder.rglob("*") if p.is_file()
             and any(n in p.read_bytes() for n in needles)]
    return [p.relative_to(folder).as_posix() for p in found]


@pytest.mark.parametrize("fails", [False, True])
def test_secrets_stay_where_they_are(tmp_path, fails):
    here = project(tmp_path)
    done = command("mlkit_train", "a.yaml", f"callbacks.talks.fails={fails}", cwd=here)
    assert done.returncode == (1 if fails else 0), done.stderr
    (folder,) = here.glob("runs/a/*")
    assert ({p.name for p in folder.iterdir()} > {"tensorboard", "wandb"}
            and (here / "runs" / "mlflow.db").exists())
    assert SECRET not in done.stdout + done.stderr
    assert files_with(here, SECRET) == [".env"]  # the trackers' files and the patch, too
    log = (folder / "log.txt").read_text()
    assert log.count("${oc.env:TOKEN}") >= 4 and "complains: ${oc.env:TOKEN}" in log
    if fails:
        assert ("no access with ${oc.env:TOKEN}" in log
                and "no access with ${oc.env:TOKEN}" in done.stderr)
    assert Run(folder).info["config"]["data"]["token"] == "${oc.env:TOKEN}"


WAYS = dict(plain="${oc.env:PLACE}", quoted="${oc.env:'PLACE'}", spaces="${ oc.env : PLACE }",
            resolver="${oc.${extra.e}:PLACE}", name="${oc.env:${extra.n}}",
            decoded="${oc.decode:'${oc.env:PLACE}'}", reference="${extra.there}",
            default="${oc.env:NO_SUCH_NAME,${oc.env:PLACE}}", within="a-${oc.env:PLACE}-b")
TOLD = {  # where a value is told before there is a run, and by what words
    "trainer.max_epochs": "wants int or null", "seed": "",
    "name": "becomes a folder", "trainer.accelerator": "could not be built",
    "data.root": "could not be fetched", "model.net._target_": "a target is a dotted path",
    "trainer.logger": "is set by mlkit", "optimizer.lr": "wants float"}


@pytest.mark.parametrize("way", WAYS)
def test_no_secret_is_told_by_what_comes_before_a_run(tmp_path, monkeypatch, capfd, way):
    monkeypatch.setenv("PLACE", SECRET + ("/" + "x" * 300) * (way == "plain"))
    more = ["+extra={e: env, n: PLACE, there: '${oc.env:PLACE}'}", "data.source=full",
            "data.mirrors=[]", f"runs={tmp_path}"]
    for key in TOLD if way in ("plain", "name") else [*TOLD][:3]:
        start = "a b " * (key == "name")
        with pytest.raises(ConfigError) as e: train(MNIST, *more, f"++{key}={start}{WAYS[way]}")
        told = str(e.value) + "".join(capfd.readouterr())
        assert TOLD[key] in told and SECRET[:6] not in told, (key, told)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_a_command_tells_no_secret_before_a_run(tmp_path):
    here = project(tmp_path)
    (here / "parts.py").write_text(PARTS + """
class Bare(Data):
    def prepare_data(self): raise RuntimeError(f"no access with {self.token}")
""")
    more = ["data.token=${oc.env:PLACE}", "data.source=full", "data.mirrors=[]"]
    for change, code in {"data._target_=parts.Bare": 1, "data.root=${oc.env:PLACE}": 2}.items():
        done = command("mlkit_train", "a.yaml", *more, change, cwd=here, PLACE=SECRET)
        assert done.returncode == code and SECRET not in done.stdout + done.stderr, done.stderr
    (here / ".env").write_bytes(b"TOKEN=\xff")
    done = command("mlkit_train", "a.yaml", cwd=here)
    assert done.returncode == 2 and ".env: cannot be read" in done.stderr.splitlines()[0]


def test_a_secret_in_other_clothes(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret := "aB3/x+y=z 'quoted' \\ back")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "parallel")  # no word of it is one of ours
    monkeypatch.setenv("GIT_ASKPASS_KEY", "/usr/bin/askpass")
    for name in ("PGPASSWORD", "CLIENTSECRET", "MYSQL_PWD", "SSH_PASSWD"):
        monkeypatch.setenv(name, f"value of {name.lower()}")
    hide = secret_filter(tmp_path)
    for form in (secret, repr(secret), json.dumps(secret), quote(secret), quote(secret, safe=""),
                 quote_plus(secret), f"{secret[:-3]}…", f"{secret[:8]}…", f"x{secret}x{secret}"):
        told = hide(f"error: {form}")
        assert "${oc.env:AWS_SECRET_ACCESS_KEY}" in told and "aB3" not in told, form
    for name in ("PGPASSWORD", "CLIENTSECRET", "MYSQL_PWD", "SSH_PASSWD"):
        assert hide(f"value of {name.lower()}") == f"${{oc.env:{name}}}"
    for text in ("parallel", "/usr/bin/askpass", "aB3…", "a short tale…"): assert hide(text) == text


def test_neither_tags_nor_a_name_store_a_secret(tmp_path, monkeypatch):
    secret = "-".join(["another", "of", "the", "house"])  # this file gets into the patch
    monkeypatch.setenv("API_KEY", secret)
    monkeypatch.setenv("JOB", "job-4711")
    what = dict(runs=str(tmp_path), extra=dict(all=["${oc.env:API_KEY}", "x-${ oc.env:'JOB' }"]))
    for tags in (["plain", "${oc.env:API_KEY}", "a-${oc.env:API_KEY}"], "${extra.all}"):
        run = Run.new(load_config({**what, "name": "${oc.env:JOB}", "tags": tags}))
        assert run.info["name"] == run.dir.parent.name == "job-4711"
        assert "${oc.env:API_KEY}" in run.info["tags"]
    for name in ("${oc.env:API_KEY}", "a-${oc.env:'API_KEY'}", "${extra.all.0}"):
        says = one_line(lambda: Run.new(load_config({**what, "name": name})))
        assert says.endswith("becomes a folder, which would tell API_KEY: leave it out")
    for runs in (f"{tmp_path}/${{oc.env:API_KEY}}", "a/${oc.env:API_KEY}-b"):
        says = one_line(lambda: Run.new(load_config({**what, "name": "a", "runs": runs})))
        assert "runs: becomes a folder, which would tell API_KEY" in says
    monkeypatch.setenv("RUNS_OF_KEYBOARD", str(tmp_path / "here"))  # a folder is no secret
    Run.new(load_config({**what, "name": "a", "runs": "${oc.env:RUNS_OF_KEYBOARD}"}))
    assert not files_with(tmp_path, secret)


# -- hostile files

class Evil:
    def __init__(self, mark: Path): self.mark = mark
    def __reduce__(self): return (os.mkdir, (str(self.mark),))


def one_line(call, *kinds) -> str:
    with pytest.raises(kinds or ValueError) as e: call()
    assert len(str(e.value).splitlines()) == 1
    return str(e.value)


def test_checkpoints_with_code_and_damaged_ones(tmp_path):
    run = short(tmp_path / "runs")
    best, good = run.checkpoint("best"), run.checkpoint("best").read_bytes()
    torch.save(dict(state_dict=Evil(tmp_path / "mark")), best)
    for go in (lambda: load_run(run.dir), lambda: evaluate(run.dir),
               lambda: predict(run.dir, [MNIST])):
        assert "best.ckpt: cannot be loaded: it wants posix.mkdir" in one_line(go)
    best.write_bytes(pickle.dumps(Evil(tmp_path / "mark")))
    assert "best.ckpt: cannot be loaded: it is damaged" in one_line(lambda: load_run(run.dir))
    for n in (0, 10, 1000, len(good) - 1):
        best.write_bytes(good[:n])
        assert "best.ckpt: cannot be loaded: it is damaged" in one_line(lambda: load_run(run.dir))
    assert not (tmp_path / "mark").exists()
    done = command("mlkit_eval", run.dir)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr


def test_run_json_of_a_gigabyte(tmp_path):
    run = short(tmp_path / "runs")
    with open(run.dir / "run.json", "wb") as f: f.truncate(2**30)
    assert "run.json: has 1,073,741,824 bytes" in one_line(lambda: Run(run.dir))
    done = command("mlkit_runs", tmp_path / "runs")
    assert (done.returncode == 0 and "run.json: has 1,073,741,824 bytes" in done.stderr
            and "damaged" in done.stdout
            and len(done.stderr.splitlines()) == 1)


@pytest.mark.parametrize("name",
                         ["checkpoints", "checkpoints/last.ckpt", "config.yaml", "metrics.csv",
                          "log.txt"])
def test_links_that_lead_out_of_a_run(tmp_path, name):
    run, outside = short(tmp_path / "runs"), tmp_path / "outside"
    run.update(status="interrupted")
    shutil.move(run.dir / name, outside)
    (run.dir / name).symlink_to(outside)
    before = {p: p.read_bytes() for p in [outside, *outside.rglob("*")] if p.is_file()}
    assert "leads out of the run's folder" in one_line(lambda: resume(run.dir))
    assert {p: p.read_bytes() for p in before} == before


def test_a_config_that_refers_to_other_files(tmp_path):
    run = short(tmp_path / "runs")
    text = (run.dir / "config.yaml").read_text()
    file = "../../../secret.yaml"
    for line in (f"extends: {file}\n", "defaults: [../../../secret]\n", f'"extends": {file}\n',
                 f"extends : {file}\n", f"!!str extends: {file}\n", f"&a extends: {file}\n",
                 f'"\\x65xtends": {file}\n', f"? extends\n: {file}\n", f"'defaults': [{file}]\n",
                 f"<<: {{extends: {file}}}\n", f"<<: [{{a: 1}}, {{defaults: [{file}]}}]\n",
                 f"? !!str 'extends'\n: !!str\n  {file}\n", f"defaults:\n- {file}\n",
                 f"%YAML 1.1\n---\nextends: {file}\n", f"\ufeffextends: {file}\n"):
        (run.dir / "config.yaml").write_text(line + text.replace("defaults: []\n", ""))
        for go in (load_run, resume):
            assert "is no run's config" in one_line(lambda: go(run.dir), ValueError) or go is resume


def test_a_run_that_says_it_was_not_kept_is_not_removed(tmp_path):
    run = short(tmp_path / "runs")
    run.info["config"]["runs"] = None
    run.update(status="interrupted")
    assert "was not kept" in one_line(lambda: resume(run.dir))
    assert run.dir.is_dir()


# -- going on

STOPS = '''
import os, signal
import pytorch_lightning as pl

class At(pl.Callback):
    "Sends this process a signal at a step."
    def __init__(self, step: int = 0, signum: int = 15): self.step, self.signum = step, signum
    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == self.step and os.environ.get("STOP"):
            os.kill(os.getpid(), self.signum)
'''


def stops(folder: Path, step: int = 8, **more) -> list[str]:
    (folder / "stops.py").write_text(STOPS)
    (folder / "settings.ini").write_text("[DEFAULT]\nlib_path = stops\n")
    shutil.copy(MNIST, folder / "mnist.yaml")
    at = ", ".join([f"_target_: stops.At, step: {step}", *(f"{k}: {v}" for k, v in more.items())])
    return ["mlkit_train", "mnist.yaml", *SHORT, f"+callbacks.at={{{at}}}"]


def test_stopped_and_gone_on_with_from_a_shell(tmp_path):
    words = stops(tmp_path) + ["scheduler=null"]  # one with a length could not go on beyond it
    whole = command(*words, "name=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    cut = command(*words, cwd=tmp_path, STOP="1")
    assert cut.returncode == 130, cut.stderr
    (folder,) = tmp_path.glob("runs/mnist/*")
    assert cut.stderr.splitlines()[-1] == ("interrupted: stopped after step 9, which is saved; go "
                                           "on with: "
                                           f"mlkit_train --resume {folder.relative_to(tmp_path)}")
    assert Run(folder).status == "interrupted"
    # the newest that was cut off
    again = command("mlkit_train", "mnist.yaml", "--resume", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert ("mnist.yaml says something else of scheduler" in again.stdout
            and "the run's own config counts" in again.stdout)
    assert "goes on from last.ckpt, in epoch 1 after step 9" in again.stdout
    (other,) = tmp_path.glob("runs/whole/*")
    assert (folder / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
    a, b = Run(folder), Run(other)
    assert (a.metrics == b.metrics and a.status == "done" and same(weights(a), weights(b))
            and same(weights(a, "best"), weights(b, "best")))
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    done = command("mlkit_train", "mnist.yaml", "--resume", cwd=tmp_path)
    assert (done.returncode,
            done.stderr) == (2,
                             "runs/mnist: no run there was cut off, so there is none to go on "
                             "with\n")
    done = command("mlkit_train", "--resume", folder, cwd=tmp_path)
    assert done.returncode == 2 and "is done; there is nothing left to do" in done.stderr
    more = command("mlkit_train", "--resume", folder, "trainer.max_epochs=3", cwd=tmp_path)
    assert (more.returncode == 0
            and len((folder / "metrics.csv").read_text().splitlines()) == 4), more.stderr
    assert Run(folder).cfg.trainer.max_epochs == 3


def test_the_same_words_again_change_nothing_and_new_ones_do(tmp_path):
    words = stops(tmp_path) + ["optimizer=sgd", "optimizer.lr=0.01"]
    assert command(*words, cwd=tmp_path, STOP="1").returncode == 130
    (folder,) = tmp_path.glob("runs/mnist/*")
    before = (folder / "config.yaml").read_text()
    again = command(*words, "--resume", folder, "trainer.log_every_n_steps=7", cwd=tmp_path)
    assert again.returncode == 0 and "says something else" not in again.stdout, again.stderr
    changed = set((folder / "config.yaml").read_text().splitlines()) ^ set(before.splitlines())
    assert changed == {"  log_every_n_steps: 7"}
    assert Run(folder).cfg.optimizer._target_ == "torch.optim.SGD" and len(Run(folder).history) == 2


def test_a_second_signal_stops_at_once(tmp_path):
    words = stops(tmp_path)
    (tmp_path / "stops.py").write_text(STOPS.replace("os.kill(os.getpid(), self.signum)",
                                                     "[os.kill(os.getpid(), self.signum) for _ in "
                                                     "range(2)]"))
    cut = command(*words, cwd=tmp_path, STOP="1")
    assert cut.returncode == 130, cut.stderr
    (folder,) = tmp_path.glob("runs/mnist/*")
    assert (Run(folder).status == "interrupted"
            and torch.load(folder / "checkpoints" / "last.ckpt",
                           weights_only=True)["global_step"] == 6)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
    words = stops(tmp_path, step=10) + ["callbacks.checkpoint.every_n_steps=2"]
    whole = command(*words, "name=whole", cwd=tmp_path)
    cut = command(*words, cwd=tmp_path, STOP="1")
    assert (whole.returncode, cut.returncode) == (0, 130)
    (folder,), (other,) = tmp_path.glob("runs/mnist/*"), tmp_path.glob("runs/whole/*")
    last = folder / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    again = command("mlkit_train", "--resume", folder, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert ("last.ckpt: cannot be loaded: it is damaged" in again.stdout
            and "goes on from previous.ckpt, in epoch 1 after step 10" in again.stdout)
    assert (folder / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
    assert same(weights(Run(folder)), weights(Run(other)))


def test_no_checkpoint_that_loads(tmp_path):
    run = short(tmp_path)
    run.update(status="interrupted")
    run.checkpoint("last").write_bytes(b"nothing")
    assert "last.ckpt: cannot be loaded: it is damaged" in one_line(lambda: resume(run.dir))
    assert Run(run.dir).info["status"] == "interrupted"
    run.checkpoint("last").unlink()
    again = resume(run.dir)  # without any it starts again
    assert again.metrics == run.metrics and "has no checkpoint yet, and starts again" in again.log


def test_two_processes_do_not_train_one_run(tmp_path):
    run = short(tmp_path)
    run.update(status="interrupted")
    with run.locked():
        done = command("mlkit_train", "--resume", run.dir)
        assert (done.returncode == 2
                and done.stderr.endswith("another process is training it\n")), done.stderr
        assert Run(run.dir).info["status"] == "interrupted"


def test_a_killed_run_is_not_a_running_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = stops(tmp_path, signum=int(signal.SIGKILL))
    assert command(*words, cwd=tmp_path, STOP="1").returncode == -signal.SIGKILL
    (folder,) = tmp_path.glob("runs/mnist/*")
    assert (Run(folder).info["status"], Run(folder).status) == ("running", "interrupted")
    assert unfinished(load_config(str(tmp_path / "mnist.yaml"))).dir == folder


def test_slurm_puts_the_job_back_and_it_goes_on(tmp_path):
    words = stops(tmp_path, signum=int(signal.SIGUSR1))
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    slurm = dict(SLURM_JOB_ID="77", SLURM_NTASKS="1", SLURM_NTASKS_PER_NODE="1",
                 SLURM_JOB_NAME="train", SLURM_PROCID="0",
                 SLURM_LOCALID="0", SLURM_NODEID="0", SLURM_NODELIST="localhost",
                 PATH=f"{scontrol.parent}:{os.environ['PATH']}")
    whole = command(*words, "name=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    cut = command(*words, cwd=tmp_path, STOP="1", **slurm)
    assert cut.returncode == 130 and (tmp_path / "asked").read_text() == "requeue 77\n", cut.stderr
    # SLURM gives the same command again
    again = command(*words, cwd=tmp_path, SLURM_RESTART_COUNT="1", **slurm)
    assert again.returncode == 0 and "goes on from last.ckpt" in again.stdout, again.stderr
    (folder,), (other,) = tmp_path.glob("runs/mnist/*"), tmp_path.glob("runs/whole/*")
    assert ((folder / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
            and same(weights(Run(folder)), weights(Run(other))))


# -- precision and devices

@pytest.mark.parametrize("overrides", [
    ["trainer.precision=bf16-mixed"], ["trainer.accelerator=auto"],
    pytest.param(["model.compile=true"], marks=pytest.mark.slow),
    pytest.param(["trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1.0",
                  "model.compile=true"], marks=pytest.mark.slow)])
def test_precision_device_and_compilation(tmp_path, overrides):
    run = short(tmp_path, *overrides, "trainer.limit_train_batches=30")
    assert (run.history["train/loss"].is_monotonic_decreasing
            and all(p.dtype == torch.float32 for p in run.model.parameters()))
    assert evaluate(run.dir) == {k: v for k, v in run.metrics.items() if k.startswith("test")}


def test_a_batch_that_processes_cannot_share(tmp_path):
    done = command("mlkit_train", MNIST, "trainer=ddp", "trainer.devices=2",
                   "trainer.accelerator=cpu", "data.batch_size=63", f"runs={tmp_path}")
    assert (done.returncode == 2
            and done.stderr
            == "command line: data.batch_size=63: is for all 2 processes together: take a multiple "
               "of 2\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("how", ["lightning", "torchrun"])
def test_several_processes_one_run(tmp_path, how):
    words = [MNIST, *SHORT, "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu",
             f"runs={tmp_path}", "logger=[tensorboard,mlflow]"]
    (tmp_path / "go.py").write_text("import sys; from mlkit.cli import mlkit_train; "
                                    "sys.exit(mlkit_train())")
    starter = ["-m", "torch.distributed.run", "--standalone",
               "--nproc_per_node=2"] if how == "torchrun" else []
    done = subprocess.run([sys.executable, *starter, tmp_path / "go.py", *words], cwd=ROOT,
                          capture_output=True, text=True,
                          timeout=300, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.glob("mnist/*")
    run = Run(folder)
    assert run.status == "done" and set(run.metrics) >= {"train/loss", "val/acc", "test/acc"}
    assert done.stdout.count("run: ") == 1 and len(run.history) == 2
    from mlflow import MlflowClient
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    assert len(client.search_runs([e.experiment_id for e in client.search_experiments()])) == 1


# -- log.txt: a line may come in any pieces, and costs the same in each

PIECES = {
    (".", ".", "\n"): "..\n", ("a\r", "b\r", "c\n"): "c\n", ("\ra", "\rb"): "b\n",
    ("a\n\nb",): "a\n\nb\n", ("xx", "x", "\r\n"): "xxx\n", ("a\r", "\n"): "a\n",
    ("a", "\r", "b", "\n", "c"): "b\nc\n", ("", ""): "", ("\r", "\r"): "\n",
    ("a\r\r", "b"): "b\n", ("\x1b[1mbo", "ld\x1b[0m\n"): "bold\n", ("a\rb\r", "c\r\n"): "c\n"}


def logged(file: Path, *pieces: str) -> str:
    log = _Log(file, lambda text: text)
    for piece in pieces: log.write(piece)
    log.close()
    text = file.read_text()
    file.unlink()
    return text


@pytest.mark.parametrize("pieces", PIECES)
def test_a_line_may_come_in_any_pieces(tmp_path, pieces):
    assert logged(tmp_path / "log.txt", *pieces) == PIECES[pieces]
    if "\r\r" not in "".join(pieces) and pieces[0]:
        assert logged(tmp_path / "log.txt", *"".join(pieces)) == PIECES[pieces]


def test_no_more_of_a_line_is_kept_than_is_seen(tmp_path):
    log = _Log(tmp_path / "log.txt", lambda text: text)
    for i in range(2000):
        for text in (f"step {i}\r", f"\rstep {i}"): log.write(text)
    assert len("".join(log.line)) < 20
