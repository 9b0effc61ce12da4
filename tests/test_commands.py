"The commands as a person meets them: real processes, real folders, the clock."
import csv
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mlkit.cli import _run
from mlkit.run.folder import Run
from shell import ROOT, SCRIPTS, command

MNIST = "configs/mnist.yaml"
SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=20"]


@pytest.fixture(scope="session")
def main_job(tmp_path_factory):
    "The main job, as README's first command runs it: (process, seconds, run folder)."
    runs = tmp_path_factory.mktemp("runs")
    start = time.perf_counter()
    done = command("mlkit_train", MNIST, f"runs={runs}", fresh=True)
    took = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    return done, took, Path(done.stdout.strip().rpartition("run: ")[2])


def test_main_job(main_job):
    done, took, run = main_job
    info = json.loads((run / "run.json").read_text())
    assert "epoch 0:" in done.stderr and "batch/s" in done.stderr           # the bar
    assert "\r" not in done.stderr and all(map(str.strip, done.stderr.splitlines()))
    assert re.search(r"^acc( +[01]\.\d+){3}$", done.stdout, re.M)   # the table
    assert info["status"] == "done" and info["metrics"]["test/acc"] >= 0.96
    assert info["best"]["path"] == "checkpoints/best.ckpt" and info["timings"]["fit"] < took
    assert (len(info["data"]) == 64 and info["device"]
            and info["versions"]["torch"] == torch.__version__)
    rows = list(csv.DictReader(open(run / "metrics.csv")))
    assert [int(r["epoch"]) for r in rows] == list(range(8))
    assert "acc" in (run / "log.txt").read_text() and "\r" not in (run / "log.txt").read_text()
    assert not list(run.rglob("*.tmp"))


def test_checkpoints_hold_plain_data_only(main_job):
    for name in ("best", "last"):
        saved = torch.load(main_job[2] / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert ("defaults: []" in saved["mlkit_config"] and saved["optimizer_states"]
                and saved["lr_schedulers"])


def test_eval_and_runs(main_job):
    run = main_job[2]
    metrics = json.loads((run / "run.json").read_text())["metrics"]
    done = command("mlkit_eval", run)
    assert done.returncode == 0 and f"{metrics['test/acc']:.4f}" in done.stdout, done.stderr
    done = command("mlkit_eval", run, "--stage", "val", "--checkpoint", "best")
    assert f"{metrics['val/loss']:.4f}" in done.stdout, done.stderr
    done = command("mlkit_runs", run.parents[1])
    assert run.name in done.stdout and f"{metrics['test/acc']:.4f}" in done.stdout


def test_predict(main_job, tmp_path):
    from PIL import Image

    from mlkit.data.images import SAMPLES, read_idx
    images, labels = (read_idx(SAMPLES / "mnist" / f"t10k-{o}-ubyte.gz")
                      for o in ("images-idx3", "labels-idx1"))
    folder = tmp_path / "digits"
    folder.mkdir()
    for i in range(300): Image.fromarray(images[i]).save(folder / f"{i:03}.png")
    (folder / "notes.txt").write_text("no image")
    (folder / "cut.png").write_bytes((folder / "000.png").read_bytes()[:90])
    done = command("mlkit_predict", main_job[2], folder, "-o", tmp_path / "out.csv")
    rows = list(csv.DictReader(open(tmp_path / "out.csv")))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert sorted(re.findall(r"notes\.txt|cut\.png", done.stderr)) == ["cut.png", "notes.txt"]
    assert len(done.stderr.strip().splitlines()) == 2
    assert [Path(r["file"]).name for r in rows] == [f"{i:03}.png" for i in range(300)]
    assert sum(r["label"] == str(n) for r, n in zip(rows, labels)) >= 280
    assert all(0.1 <= float(r["probability"]) <= 1 for r in rows)
    done = command("mlkit_predict", main_job[2], folder / "000.png")
    assert done.returncode == 0 and done.stdout.startswith("file,label,probability\n")


# -- the same run from a cell and from a shell

CELL = """
from mlkit.train import train
short = ["trainer.max_epochs=1", "trainer.limit_train_batches=20"]
runs = [train("configs/mnist.yaml", *short, "runs={}") for _ in range(2)]
print("RUNS", *(r.dir for r in runs))
"""


def in_kernel(code: str, cwd: Path) -> str:
    "Run code in a fresh Jupyter kernel; what it printed."
    from jupyter_client.manager import start_new_kernel
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(cwd))
    try:
        printed, errors = [], []
        def hook(message):
            if message["msg_type"] == "stream": printed.append(message["content"]["text"])
            if message["msg_type"] == "error":
                errors.append("\n".join(message["content"]["traceback"]))
        client.execute_interactive(code, output_hook=hook, timeout=240)
        assert not errors, errors[0]
        return "".join(printed)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_cell_and_shell_give_the_same_run(tmp_path):
    printed = in_kernel(CELL.format(tmp_path / "cell"), ROOT / "nbs")  # from another folder, too
    cells = [Path(o) for o in printed.rpartition("RUNS ")[2].split()]
    done = command("mlkit_train", MNIST, *SHORT, f"runs={tmp_path / 'shell'}")
    shell = Path(done.stdout.strip().rpartition("run: ")[2])
    assert len(cells) == 2
    for cell in cells:
        assert (cell / "metrics.csv").read_bytes() == (shell / "metrics.csv").read_bytes()
        infos = [json.loads((o / "run.json").read_text()) for o in (cell, shell)]
        assert infos[0]["metrics"] == infos[1]["metrics"] and infos[0]["data"] == infos[1]["data"]
        for name in ("best", "last"):
            a, b = (torch.load(o / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
                    for o in (cell, shell))
            assert a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def test_saved_config_gives_the_same_run(tmp_path):
    config, metrics = MNIST, set()
    for options in (SHORT, []):
        done = command("mlkit_train", config, *options, f"runs={tmp_path}", code=0)
        run = Path(done.stdout.strip().rpartition("run: ")[2])
        config = run / "config.yaml"
        metrics.add((run / "metrics.csv").read_bytes())
    assert len(metrics) == 1


# -- quick answers

def test_pandas_waits_until_it_is_used(tmp_path):
    "A whole training, with its table and its curves, is without it."
    code = f"""
import sys
from mlkit.cli import mlkit_train
assert mlkit_train(["{MNIST}", "trainer.max_epochs=1", "trainer.limit_train_batches=1",
                    "runs={tmp_path}"]) == 0
assert "pandas" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [*tmp_path.glob("*/*/plots/curves.png")]


def test_answers_import_no_torch():
    code = f"""
import sys
from mlkit.cli import *
from mlkit.cli import mlkit_bundle, mlkit_new
for command, *args in (
        (mlkit_train, "{MNIST}", "--print"), (mlkit_train, "{MNIST}", "--explain", "optimizer.lr"),
        (mlkit_train, "--help"), (mlkit_train, "gone.yaml"), (mlkit_train, "--resume", "gone"),
        (mlkit_train, "{MNIST}", "trainer.max_epoch=1"), (mlkit_eval, "gone"), (mlkit_runs, "gone"),
        (mlkit_predict, "gone", "a.png"), (mlkit_bundle, "gone", "-o", "a.zip"),
        (mlkit_reproduce, "gone"), (mlkit_new, "nbs")):
    try: command(args)
    except SystemExit: pass
assert not {{"torch", "pytorch_lightning", "pandas", "matplotlib"}} & set(sys.modules), "something \
heavy was imported"
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_table_of_200_runs(main_job, tmp_path):
    info = (main_job[2] / "run.json").read_text()
    for i in range(200):
        folder = tmp_path / "mnist" / f"20260101-{i:06}-abcd"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(info)
    assert len(command("mlkit_runs", tmp_path).stdout.splitlines()) == 201


# -- bad data: one line, exit 2, no folder. Mistakes of configs are in test_mistakes.py.

def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def copy_idx(folder: Path) -> Path:
    from mlkit.data.images import SAMPLES
    folder.mkdir()
    for path in (SAMPLES / "mnist").glob("*.gz"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def served(tmp_path):
    "A local mirror whose files are not what they should be."
    import functools
    import http.server
    import threading
    folder = copy_idx(tmp_path / "mirror")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.func.log_message = lambda *args: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def bad_inputs(tmp_path: Path, served: str) -> dict[str, tuple[list[str], str]]:
    "Kind of mistake -> (arguments, what its one line must say)."
    cut = copy_idx(tmp_path / "cut")
    images = cut / "train-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:5000])
    empty = tmp_path / "pictures"
    (empty / "cats").mkdir(parents=True)
    full = ["data.source=full", f"data.root={tmp_path / 'nothing_here'}"]
    folder = ["defaults: [data: image_folder, model: classifier]", f"data: {{root: {empty}}}",
              "model: {net: {_target_: mlkit.model.nets.ConvNet, in_channels: 1, num_classes: 2}}"]
    return {
        "truncated IDX": ([MNIST, "data.source=full", f"data.root={cut}"],
                          r"data: .*train-images-idx3-ubyte\.gz: truncated"),
        "bad checksum": ([MNIST, *full, f"data.mirrors=['{served}']"], r"data: .*(checksum|md5)"),
        "no network": ([MNIST, *full, "data.mirrors=['http://127.0.0.1:9']"],
                       r"data: .*127\.0\.0\.1:9.*source: sample"),
        "empty image folder": ([write(tmp_path / "f.yaml", "\n".join(folder))],
                               r"f\.yaml:2:1: data: .*cats"),
        "no folder for runs": ([MNIST, f"runs={images}"],
                               r"idx3-ubyte\.gz/mnist: no run can be put here: Not a directory; "),
    }


KINDS = ["truncated IDX", "bad checksum", "no network", "empty image folder", "no folder for runs"]


def test_every_kind_is_tried(tmp_path, served): assert list(bad_inputs(tmp_path, served)) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input(kind, tmp_path, served):
    args, says = bad_inputs(tmp_path, served)[kind]
    runs = tmp_path / "runs"
    done = command("mlkit_train", *args, MLKIT_runs=str(runs))
    lines = [o for o in done.stderr.strip().splitlines()]
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1 and re.search(says, lines[0]), done.stderr
    assert not done.stdout and not runs.exists()


# -- failures and interruptions of a fit

def test_failed_training(tmp_path):
    done = command("mlkit_train", MNIST, f"runs={tmp_path}", "model.net.num_classes=5")
    run, = tmp_path.glob("*/*")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "out of bounds" in done.stderr.splitlines()[-1]
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
    assert "Traceback" in (run / "log.txt").read_text()


def not_under_nohup(): signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_interrupted(tmp_path, name):
    process = subprocess.Popen([SCRIPTS / "mlkit_train", MNIST, f"runs={tmp_path}",
                                "trainer.max_epochs=500"],
                               cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=not_under_nohup)
    try:
        deadline = time.time() + 120
        while not list(tmp_path.glob("*/*/checkpoints/last.ckpt")) and time.time() < deadline:
            time.sleep(0.2)
        process.send_signal(signal.Signals[name])
        out, err = process.communicate(timeout=60)
    finally: process.kill()
    run, = tmp_path.glob("*/*")
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    # what is on the disk counts, though the run has no end
    assert Run(run).checkpoint("best").name == "best.ckpt"


@pytest.mark.parametrize("given, says", [
    ("configs/mnist.yaml", "mlkit_train configs/mnist.yaml --resume$"),
    ("{run}/config.yaml", "is done; there is nothing left to do$"),
    ("{run}/checkpoints/last.ckpt", "is done; there is nothing left to do$"),
    ("{run}/checkpoints/best.ckpt", "best.ckpt: a run goes on from its last checkpoint alone"),
    ("README.md", "README.md: is a file, not a run's folder$"), ("configs", "no run here"),
    ("nowhere", "no run here")])
def test_resume_of_what_is_no_run(main_job, given, says):
    run = main_job[2]
    done = command("mlkit_train", "--resume", given.format(run=run), code=2)
    line, = done.stderr.splitlines()
    assert re.search(says.format(run=re.escape(str(run))), line), line


# -- a project of one's own

def test_targets_in_the_users_package_from_anywhere(tmp_path):
    project = tmp_path / "project"
    (project / "mine").mkdir(parents=True)
    (project / "pyproject.toml").touch()
    (project / "mine" / "__init__.py").touch()
    net = ("class {}(nn.Sequential):\n    def __init__(self): super().__init__(nn.Flatten(), "
           "nn.Linear(784, 10))\n")
    write(project / "mine" / "nets.py", "from torch import nn\n" + net.format("Dotted"))
    write(project / "mine" / "more.py",
          "from torch import nn\nfrom mlkit.parts.locate import register\n@register\n"
          + net.format("Bare"))
    for target in ("mine.nets.Dotted", "Bare"):
        config = write(project / "a.yaml",
                       f"defaults: [data: mnist, model: classifier]\nmodel: "
                       f"{{net: {{_target_: {target}}}}}\ntrainer: {{max_epochs: 1}}\n")
        words = ["mlkit_train", config, "trainer.limit_train_batches=3"]
        assert f"mlkit_train --trust {project}" in command(*words, cwd=tmp_path, code=2).stderr \
            or target == "Bare"
        command(*words, cwd=tmp_path, MLKIT_TRUST=f"{project}/", code=0)
    assert len(list((project / "runs" / "a").iterdir())) == 2  # runs are kept in the project


@pytest.mark.parametrize("debug", ["fast", "overfit", "profile"])
def test_debug(tmp_path, debug):
    name = f"debug_{tmp_path.parent.name}_{debug}"  # other tests train in the project meanwhile
    keep = [f"runs={tmp_path}"] if debug == "profile" else []
    done = command("mlkit_train", MNIST, f"debug={debug}", f"name={name}", *keep)
    assert done.returncode == 0, done.stderr
    assert not (ROOT / "runs" / name).exists()
    loss = float(re.search(r"^loss +(\S+)", done.stdout, re.M)[1])
    if debug == "overfit": assert loss < 0.05
    if debug == "profile":
        assert "run_training_epoch" in next(tmp_path.rglob("fit-profile.txt")).read_text()


def test_training_goes_on_when_nobody_reads(tmp_path):
    for reader in ("head -1", "true"):
        done = subprocess.run(["bash", "-c",
                               f"'{SCRIPTS}/mlkit_train' {MNIST} trainer.max_epochs=1 "
                               f"trainer.limit_train_batches=20 runs={tmp_path} 2>/dev/null | "
                               f"{reader}; echo code ${{PIPESTATUS[0]}}"],
                              cwd=ROOT, capture_output=True, text=True)
        assert done.stdout.endswith("code 0\n"), done.stdout
    runs = list(tmp_path.glob("*/*/run.json"))
    assert len(runs) == 2 and all(json.loads(p.read_text())["status"] == "done" for p in runs)


@pytest.mark.parametrize("name, after", [("SIGTERM", 0.05), ("SIGINT", 0.8), ("SIGTERM", 1.5)])
def test_stopped_while_starting(tmp_path, name, after):
    "Before Python runs our code, SIGTERM is the system's; from then on it is 130."
    process = subprocess.Popen([SCRIPTS / "mlkit_train", MNIST, f"runs={tmp_path}",
                                "trainer.max_epochs=500"],
                               cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(after)
    process.send_signal(signal.Signals[name])
    try: out, err = process.communicate(timeout=60)
    finally: process.kill()
    assert process.returncode in ((130, -signal.SIGTERM) if after < 0.1 else (130,)), err
    assert "Traceback" not in err
    assert {Run(p.parent).status for p in tmp_path.rglob("run.json")} <= {"interrupted"}


def test_a_signal_amid_an_import_waits_for_its_end(tmp_path, monkeypatch):
    write(tmp_path / "swallows.py", "import os, signal, time\ntry:\n"
          "    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(0.3)\n"
          "except BaseException: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    left = []

    def work():
        import swallows  # noqa: F401
        try: time.sleep(60)
        finally: left.append(True)

    assert _run(work) == 130 and left == [True] and "swallows" in sys.modules


def test_secrets_and_runs_are_not_in_the_patch(tmp_path):
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
    write(tmp_path / "a.yaml",
          "defaults: [data: mnist, model: classifier]\nextra: {token: '${oc.env:TOKEN}'}\n"
          "model: {net: {_target_: mlkit.model.nets.ConvNet, in_channels: 1, num_classes: 10}}\n")
    write(tmp_path / ".env", "TOKEN=hush-hush\n")
    for args in (["init", "-q"], ["add", "a.yaml"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *args], check=True)
    write(tmp_path / "new.py", "x = 1\n")
    for _ in range(2):
        assert command("mlkit_train", "a.yaml", "trainer.max_epochs=1",
                       "trainer.limit_train_batches=2", cwd=tmp_path).returncode == 0
    first, second = sorted(tmp_path.glob("runs/*/*/code.patch"))
    assert first.read_bytes() == second.read_bytes() and b"new.py" in first.read_bytes()
    for path in (tmp_path / "runs").rglob("*"):
        if path.is_file(): assert b"hush-hush" not in path.read_bytes(), path


def test_predict_says_at_once_where_it_cannot_write(main_job, tmp_path):
    for out in (tmp_path / "nowhere" / "out.csv", tmp_path):
        done = command("mlkit_predict", main_job[2], tmp_path, "-o", out)
        assert (done.returncode == 2
                and done.stderr == f"{out}: not a file in a folder that exists\n")


SPEAKS = """
import ctypes, logging, os, subprocess, sys
import pytorch_lightning as pl
early = logging.StreamHandler(sys.__stderr__)
logging.getLogger("lab").addHandler(early)
KEPT = sys.stderr  # as other libraries for logging keep it

class Speaks(pl.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        subprocess.run(["echo", "said by a program"])
        subprocess.run("echo said by a program on stderr >&2", shell=True)
        os.write(1, b"said by a descriptor\\n")
        ctypes.CDLL(None).puts(b"said by C")
        ctypes.CDLL(None).fflush(None)
        for piece in (b"said ", b"in ", b"pieces\\n"):  # as a C library does without a buffer
            os.write(1, piece)
            subprocess.run("echo said in between >&2", shell=True)
        KEPT.write("said by a kept stream\\n")
        KEPT.flush()
        logging.getLogger("lab").warning("said by an early handler")
        print("said by print")
        if os.fork() == 0:
            print("said by a fork", flush=True)
            os._exit(0)
        os.wait()
        subprocess.Popen(["sleep", "3"])  # outlives the run
"""


def test_the_log_has_what_other_programs_print(tmp_path):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "speaks.py").write_text(SPEAKS)
    (tmp_path / "a.yaml").write_text(
        "defaults: [data: mnist, model: classifier]\nruns: runs\ntrainer: {max_epochs: 1, "
        "limit_train_batches: 2, limit_val_batches: 1, limit_test_batches: 1, accelerator: cpu}\n"
        "callbacks: {progress: null, speaks: {_target_: speaks.Speaks}}\n"
        "model: {net: {_target_: mlkit.model.nets.MLP, in_shape: 784, num_classes: 10}}\n")
    words = [Path(sys.executable).parent / "mlkit_train", "a.yaml"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    log, = (o.read_text() for o in tmp_path.glob("runs/*/*/log.txt"))
    assert log.splitlines().count("said in pieces") == 1
    assert log.splitlines().count("said in between") == 3
    for said in ("a program", "a program on stderr", "a descriptor", "C", "a kept stream",
                 "an early handler", "print", "a fork"):
        assert log.splitlines().count(f"said by {said}") == 1, said
        assert (done.stdout + done.stderr).splitlines().count(f"said by {said}") == 1, said
