"A run reports to its trackers, whose own readers read it back; it goes on without those that fail."
import json
import os
import pty
import re
import resource
import subprocess
import sysconfig
import time
from functools import partial
from pathlib import Path

import pandas as pd
import psutil
import pytest
import pytorch_lightning as pl
from mlflow.tracking import MlflowClient
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from mlkit.base.plot import new_figure
from mlkit.config.load import load_config
from mlkit.fit import trackers
from mlkit.run.folder import Run, list_runs

SECRET = os.urandom(12).hex()
SCRIPTS = Path(sysconfig.get_path("scripts"))
GIVEN = "data.batch_size=64 ~trainer.limit_val_batches"
ALL = ["tensorboard", "wandb", "mlflow"]
CONFIG = """
defaults: [{data: mnist}, {model: classifier}]
name: tracked
tags: [small]
extra: {token: "${oc.env:MY_TOKEN}", sizes: [3, 5], long: "%s"}
model: {net: {_target_: mlkit.model.nets.MLP, in_shape: 784, num_classes: 10, hidden: [8]}}
trainer: {max_epochs: %d, limit_train_batches: 4, limit_val_batches: 2, limit_test_batches: 2}
"""


@pytest.fixture
def project(tmp_path) -> Path:
    return make_project(tmp_path)


def make_project(folder: Path, epochs: int = 2) -> Path:
    (folder / "settings.ini").write_text("")
    (folder / "small.yaml").write_text(CONFIG % ("x" * 7000, epochs))
    return folder


def env(**more: str) -> dict[str, str]:
    "For a process that shall start a service of its own, and not use that of the tests."
    ours = {k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"}
    return {**ours, "MY_TOKEN": SECRET, **more}


def start(project: Path, *overrides: str, **more: str) -> subprocess.Popen:
    return subprocess.Popen([SCRIPTS / "mlkit_train", "small.yaml", *overrides], cwd=project,
                            env=env(**more), text=True, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def ended(process: subprocess.Popen, project: Path, timeout: int = 180) -> tuple[str, Run]:
    "What it printed, and its run."
    said, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, said
    return said, list_runs(project / "runs")[0]


def a_run(folder: Path, **more) -> Run:
    os.environ["MY_TOKEN"] = SECRET
    extra = dict(token="${oc.env:MY_TOKEN}")
    return Run.new(load_config(dict(name="boring", runs=str(folder / "runs"), extra=extra, **more)))


class Boring(BoringModel):
    "What Lightning would tell every logger: what a model was built with."
    def __init__(self, token: str = ""):
        super().__init__()
        self.save_hyperparameters()

    def training_step(self, batch, i):
        loss = super().training_step(batch, i)["loss"]
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss


def fit(run: Run, loggers: list, epochs: int = 2, **kwargs) -> pl.Trainer:
    trainer = pl.Trainer(max_epochs=epochs, logger=loggers, default_root_dir=run.dir,
                         limit_train_batches=2, limit_val_batches=0, accelerator="cpu",
                         enable_progress_bar=False, enable_checkpointing=False,
                         enable_model_summary=False, **kwargs)
    trainer.fit(Boring(SECRET))
    return trainer


def a_picture(size: float = 1):
    figure = new_figure(figsize=(size, size))
    figure.add_subplot().plot([1, 2])
    return figure


def bytes_below(folder: Path) -> bytes:
    return b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())


# Each tracker's own reader

@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Run:
    "A run that was told to all three."
    project = make_project(tmp_path_factory.mktemp("recorded"))
    words = f"logger=[{','.join(ALL)}]", "data.batch_size=64", "tags=[small,search-7]"
    words += ("~trainer.limit_val_batches",)
    return ended(start(project, *words), project)[1]


def history(run: Run) -> dict[str, list[float]]:
    "The columns of metrics.csv."
    frame = pd.read_csv(run.dir / "metrics.csv")
    return {k: frame[k].dropna().tolist() for k in frame.columns if "/" in k}


def read_tensorboard(run: Run) -> EventAccumulator:
    return EventAccumulator(str(run.dir / "tensorboard")).Reload()


def read_wandb(run: Run) -> list[dict]:
    "The records of the run's last offline file, as W&B's own tool reads them."
    file = max(run.dir.glob("wandb/*/*.wandb"), key=lambda p: p.stat().st_mtime_ns)
    done = subprocess.run([SCRIPTS / "wandb", "leet", "inspect", file, "--json"],
                          capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def read_mlflow(run: Run):
    client = MlflowClient(f"sqlite:///{run.dir.parents[1] / 'mlflow.db'}")
    return client, client.get_run(run.info["trackers"]["mlflow"])


@pytest.mark.slow
def test_tensorboard_holds_the_run(recorded):
    events = read_tensorboard(recorded)
    for name, values in history(recorded).items():
        assert [e.value for e in events.Scalars(name)] == pytest.approx(values)
    assert events.Scalars("test/acc")[0].value == pytest.approx(recorded.metrics["test/acc"])
    assert {"curves", "confusion"} <= set(events.Tags()["images"])
    assert events.Images("curves")[0].encoded_image_string.startswith(b"\x89PNG")
    text = events.Tensors("best checkpoint/text_summary")[0].tensor_proto.string_val[0].decode()
    assert f"- epoch: {recorded.info['best']['epoch']}" in text and "checkpoints/best.ckpt" in text
    text = events.Tensors("run/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text.startswith(f"{recorded.dir.name} {GIVEN}\n\nsearch-7")
    table = events.Tensors("predictions/text_summary")[0].tensor_proto.string_val[0].decode()
    assert table.splitlines()[1].startswith("| --- |")


@pytest.mark.slow
def test_tensorboard_shows_hyperparameters_beside_all_metrics(recorded):
    runs = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(recorded.dir))
    runs.Reload()
    provider = data_provider.MultiplexerDataProvider(runs, "")
    context = base_plugin.TBContext(data_provider=provider, multiplexer=runs)
    shown = get_experiment.Handler(RequestContext(), backend_context.Context(context), "",
                                   api_pb2.GetExperimentRequest()).run()
    names = {o.name for o in shown.hparam_infos}
    assert {"optimizer.lr", "extra.sizes", "trainer.max_epochs"} <= names
    assert set(history(recorded)) <= {o.name.tag for o in shown.metric_infos}


@pytest.mark.slow
def test_wandb_holds_the_run(recorded):
    records = read_wandb(recorded)
    by = lambda kind: [o[kind] for o in records if o["type"] == kind]
    assert by("run")[0]["run_id"] == recorded.dir.name == recorded.info["trackers"]["wandb"]
    assert by("run")[0]["project"] == "tracked" and by("run")[0]["tags"] == ["small", "search-7"]
    assert by("run")[0]["display_name"] == f"{recorded.dir.name} {GIVEN}"
    assert by("run")[0]["run_group"] == "search-7"
    config = {k: v for o in by("config") for k, v in o["update"].items()}
    assert (config["optimizer.lr"], config["extra.sizes"]) == (0.001, [3, 5])
    assert config["extra.token"] == "${oc.env:MY_TOKEN}"
    rows = [o["item"] for o in by("history")]
    for name, values in history(recorded).items():
        assert [r[name] for r in rows if name in r] == pytest.approx(values)
    picture = next(r["curves.filenames"][0] for r in rows if "curves.filenames" in r)
    assert next(recorded.dir.glob(f"wandb/*/files/{picture}")).read_bytes().startswith(b"\x89PNG")
    model = next(o for o in by("artifact") if o["type"] == "model")
    assert "best" in model["aliases"] and "best.ckpt" in json.dumps(model["manifest"])
    assert json.loads(model["metadata"])["epoch"] == recorded.info["best"]["epoch"]
    assert by("exit")[0]["exit_code"] == 0


@pytest.mark.slow
def test_mlflow_holds_the_run(recorded):
    client, found = read_mlflow(recorded)
    name = f"{recorded.dir.name} {GIVEN}"
    assert (found.info.status, found.info.run_name) == ("FINISHED", name)
    assert found.data.tags["search"] == "search-7"
    assert client.get_experiment(found.info.experiment_id).name == "tracked"
    params = found.data.params
    assert (params["optimizer.lr"], params["extra.token"]) == ("0.001", "${oc.env:MY_TOKEN}")
    assert params["extra.long"].startswith("xxx")
    for name, values in history(recorded).items():
        told = client.get_metric_history(found.info.run_id, name)
        assert [m.value for m in told] == pytest.approx(values)
    files = {o.path for folder in ("checkpoints", "pictures/curves", "tables/predictions")
             for o in client.list_artifacts(found.info.run_id, folder)}
    assert {"checkpoints/best.ckpt", "checkpoints/best.json"} < files
    assert any(o.endswith(".png") for o in files)
    local = Path(client.download_artifacts(found.info.run_id, "checkpoints"))
    assert (local / "best.ckpt").read_bytes() == recorded.checkpoint("best").read_bytes()
    assert json.loads((local / "best.json").read_text())["epoch"] == recorded.info["best"]["epoch"]


@pytest.mark.slow
def test_no_secret_is_told(recorded):
    told = bytes_below(recorded.dir.parents[1])
    assert b"${oc.env:MY_TOKEN}" in told and SECRET.encode() not in told


@pytest.mark.slow
def test_what_a_model_was_built_with_is_not_told(tmp_path):
    run = a_run(tmp_path)
    loggers = trackers._attach([partial(getattr(trackers, o)) for o in ALL], run)
    fit(run, loggers)
    trackers._finish(loggers, failed=False)
    assert len(loggers) == 3 and SECRET.encode() not in bytes_below(tmp_path)


def test_another_logger_of_lightnings_works(tmp_path):
    run = a_run(tmp_path)
    loggers = trackers._attach([CSVLogger(tmp_path / "mine", name="", version="")], run)
    trackers._log_config(loggers, run.cfg)
    fit(run, loggers, log_every_n_steps=1)
    trackers.report(loggers, 1, dict(a=a_picture()))
    trackers._finish(loggers, failed=False)
    assert "extra.token: ${oc.env:MY_TOKEN}" in (tmp_path / "mine" / "hparams.yaml").read_text()
    assert len(pd.read_csv(tmp_path / "mine" / "metrics.csv")["train/loss"].dropna()) == 2


# Resuming, and two runs in one process

@pytest.mark.slow
def test_a_resumed_run_continues_its_records(tmp_path):
    run = a_run(tmp_path)
    make = [partial(getattr(trackers, o)) for o in ALL]
    first = trackers._attach(make, run)
    trackers._log_config(first, run.cfg)
    for step in range(6): first[0].log_metrics({"val/loss": 1.0}, step)
    trackers._finish(first, failed=True)
    client, found = read_mlflow(run)
    assert found.info.status == "FAILED"

    run = Run(run.dir)  # another process
    second = trackers._attach(make, run, step=4)
    assert client.get_run(found.info.run_id).info.status == "RUNNING"
    trackers._log_config(second, load_config(run.cfg, "seed=7"))
    for logger in second: logger.log_metrics({"val/loss": 2.0}, 4)
    trackers._finish(second, failed=False)
    assert not any(o.guard.over for o in second)

    events = read_tensorboard(run).Scalars("val/loss")
    assert [(e.step, e.value) for e in events] == [(0, 1), (1, 1), (2, 1), (3, 1), (4, 2)]
    assert {o["run"]["run_id"] for o in read_wandb(run) if o["type"] == "run"} == {run.dir.name}
    assert len(list(run.dir.glob("wandb/*/*.wandb"))) == 2
    client, found = read_mlflow(run)
    assert found.info.status == "FINISHED"
    assert (found.data.params["seed"], found.data.tags["resumed.seed"]) == ("42", "7")
    assert len(client.search_runs([found.info.experiment_id])) == 1


@pytest.mark.slow
def test_two_runs_in_one_process_are_two_runs(tmp_path):
    runs = [a_run(tmp_path) for _ in range(2)]
    for run in runs:
        loggers = trackers._attach([partial(trackers.wandb), partial(trackers.mlflow)], run)
        trackers._finish(loggers, failed=False)
    told = [next(o["run"]["run_id"] for o in read_wandb(r) if o["type"] == "run") for r in runs]
    assert told == [r.dir.name for r in runs]
    assert runs[0].info["trackers"]["mlflow"] != runs[1].info["trackers"]["mlflow"]


# Failures

@pytest.mark.slow
def test_the_service_of_wandb_is_killed_in_the_middle(tmp_path):
    project = make_project(tmp_path, epochs=40)
    process = start(project, "logger=[wandb,tensorboard]", "trainer.limit_val_batches=1")
    while process.poll() is None and not list(project.glob("runs/*/*/metrics.csv")):
        time.sleep(.02)
    next(o for o in psutil.Process(process.pid).children() if o.name() == "wandb-core").kill()
    rows = len(pd.read_csv(next(project.glob("runs/*/*/metrics.csv"))))
    said, run = ended(process, project)
    assert rows < 40 == len(pd.read_csv(run.dir / "metrics.csv"))
    assert run.status == "done"
    warning, = [line for line in said.splitlines() if "the run goes on without it" in line]
    assert warning.startswith("wandb: ") and "Traceback" not in said
    assert len(read_tensorboard(run).Scalars("val/loss")) == 40


@pytest.mark.slow
def test_the_next_run_finds_a_new_service(tmp_path, capsys):
    first, second = a_run(tmp_path), a_run(tmp_path)
    loggers = trackers._attach([partial(trackers.wandb)], first)
    next(o for o in psutil.Process().children() if o.name() == "wandb-core").kill()
    fit(first, loggers)
    trackers._finish(loggers, failed=False)
    assert capsys.readouterr().err.count("the run goes on without it") == 1
    loggers = trackers._attach([partial(trackers.wandb)], second)
    fit(second, loggers)
    trackers._finish(loggers, failed=False)
    records = read_wandb(second)
    assert records[-1]["exit"]["exit_code"] == 0
    assert any("train/loss" in o["history"]["item"] for o in records if o["type"] == "history")


def in_the_way_of_tensorboard(run: Run): (run.dir / "tensorboard").write_text("")
def in_the_way_of_mlflow(run: Run): (run.dir.parents[1] / "mlflow.db").mkdir()


@pytest.mark.parametrize("spoil", [in_the_way_of_tensorboard, in_the_way_of_mlflow])
def test_what_cannot_be_written_is_left_out(spoil, tmp_path, capsys):
    run = a_run(tmp_path)
    spoil(run)
    loggers = trackers._attach([partial(trackers.tensorboard), partial(trackers.mlflow)], run)
    assert len(loggers) == 1
    warning, = capsys.readouterr().err.strip().splitlines()
    assert re.match(r"(tensorboard|mlflow): .*; the run goes on without it, metrics.csv has "
                    r"everything$", warning)


def test_a_disk_that_fills_up(tmp_path, capsys):
    run = a_run(tmp_path)
    loggers = trackers._attach([partial(trackers.tensorboard)], run)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        for i in range(5):
            trackers.report(loggers, i, dict(a=a_picture(4)))
            loggers[0].save()
        fit(run, loggers)
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    trackers._finish(loggers, failed=False)
    assert capsys.readouterr().err.count("tensorboard: ") == 1 and loggers[0].guard.over


NOWHERE = "http://127.0.0.1:9"


@pytest.mark.slow
@pytest.mark.parametrize("make", [
    partial(trackers.mlflow, tracking_uri=NOWHERE),
    partial(trackers.wandb, mode="online", settings=dict(init_timeout=2, base_url=NOWHERE)),
])
def test_a_server_that_does_not_answer(make, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    start = time.monotonic()
    assert trackers._attach([make], a_run(tmp_path)) == []
    said = capsys.readouterr().err
    assert said.count("the run goes on without it") == 1 and "127.0.0.1" in said
    assert time.monotonic() - start < 60


@pytest.mark.slow
def test_the_user_is_not_asked_for_a_key(project):
    ours, theirs = pty.openpty()
    process = subprocess.Popen([SCRIPTS / "mlkit_train", "small.yaml", "logger=wandb"], cwd=project,
                               env=env(WANDB_MODE="online", HOME=str(project)),
                               stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 4096): said += piece
    except OSError: pass  # it has ended
    assert process.wait(60) == 0
    assert b"wandb: UserError: not logged in; run `wandb login`" in said


def test_calls_of_the_users_own_cannot_stop_a_training_either(tmp_path, capsys):
    loggers = trackers._attach([partial(trackers.tensorboard)], a_run(tmp_path))
    loggers[0].experiment.add_image("a", "no picture", 0)
    loggers[0].experiment.add_scalar("a", 1, 0)
    assert capsys.readouterr().err.count("\n") == 1
    assert isinstance(loggers[0], TensorBoardLogger)
    trackers._finish(loggers, failed=False)


# The group, and sweeps

@pytest.mark.parametrize("option,names", [
    ("null", []), ("csv", []), ("wandb", ["wandb"]), ("[csv,tensorboard]", ["tensorboard"]),
    ("[tensorboard,wandb,mlflow]", ALL),
])
def test_options_of_the_group_go_together(option, names, project):
    assert list(load_config(project / "small.yaml", f"logger={option}").logger or {}) == names


@pytest.mark.slow
def test_a_sweep_of_wandb_drives_mlkit_train(project):
    args = {"optimizer.lr": 1e-05, "trainer.max_epochs": 1, "optimizer": "sgd",
            "trainer.enable_model_summary": False, "model.net.hidden": [4]}
    chosen = dict(args={k: dict(value=v) for k, v in args.items()})
    line = create_sweep_command_args(chosen)["args_no_hyphens"]
    process = start(project, "logger=wandb", *line, WANDB_SWEEP_ID="s1", WANDB_RUN_ID="trial7",
                    WANDB_PROJECT="theirs")
    said, run = ended(process, project)
    told = next(o["run"] for o in read_wandb(run) if o["type"] == "run")
    assert (told["run_id"], told["project"], told["sweep_id"]) == ("trial7", "theirs", "s1")
    cfg = run.cfg
    assert (cfg.optimizer.lr, list(cfg.model.net.hidden)) == (1e-05, [4])
    assert (cfg.trainer.enable_model_summary, cfg.trainer.max_epochs) == (False, 1)
