#!/usr/bin/env python3
"""What many of a kind cost: `python benchmarks/many.py keys rows runs grid curves log`.

Each line is a figure; each part runs in a process of its own. `--scale 0.1` takes a tenth of all:
of 20,000 keys of a config, 200,000 rows of metrics.csv, 20,000 runs, 1,000 trials, 200,000 points
of a curve. With `--limit` it exits with 1 where `runs()` takes more than 8 s for the first time,
1 s again or 500 MB, and where `metrics.csv` takes more than 3% of a run that logs each step, or
the run's memory grows by more than 20 MB; times are the processor's, since machines are shared."""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MNIST = str(ROOT / "configs" / "mnist.yaml")


@contextmanager
def timed(what: str):
    start, cpu = time.perf_counter(), sum(os.times()[:4])
    yield
    wall, cpu = time.perf_counter() - start, sum(os.times()[:4]) - cpu
    print(f"{what:58} {wall:7.2f} s   ({cpu:.2f} s of the processor)", flush=True)


_over: list[str] = []  # what is above its limit


def held(what: str, value: float, limit: float):
    print(f"{what:58} {value:7.2f}     (limit {limit:g})", flush=True)
    if value > limit: _over.append(what)


def keys(scale: float, folder: Path):
    "A large config, and one of as many mistakes as an editor's slip makes."
    from mlkit.config.load import load_config
    from mlkit.config.node import ConfigError
    from mlkit.parts.check import check, find_problems
    n, few, file = round(20_000 * scale), round(2000 * scale), folder / "config.yaml"
    os.chdir(folder)
    Path("pyproject.toml").touch()  # the configs are its own
    def write(*lines: str): file.write_text("\n".join([f"extends: {MNIST}", *lines]))
    check(MNIST)  # which imports what a check needs
    for what, form in (("numbers", "  k{0}: {0}"), ("mappings", "  k{0}: {{a: {0}}}"),
                       ("references", "  k{0}: ${{seed}}")):
        write("extra:", *(form.format(i) for i in range(n)))
        with timed(f"a config of {n:,} {what}, loaded"): cfg = load_config(file)
        with timed(f"a config of {n:,} {what}, checked"): find_problems(cfg)
    for what, first, form in (("unknown keys", "", "k{0}: {0}"),
                              ("lost references", "extra:", "  k{0}: ${{no{0}}}")):
        write(first, *(form.format(i) for i in range(few)))
        with timed(f"{few:,} {what}"):
            try: check(file)
            except ConfigError as e: assert len(e.problems) == few


def rows(scale: float, folder: Path):
    "A training that logs each step: what all of `metrics.csv` takes of it."
    import torch
    from pytorch_lightning import LightningModule
    from torch.utils.data import DataLoader

    from mlkit.fit.job import CSVLogger
    from mlkit.train import train

    class Net(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch, i):
            loss = self.layer(batch).pow(2).mean()
            self.log("train/loss", loss)
            return loss

        def on_train_epoch_start(self):
            if self.current_epoch in (epochs // 10, epochs - 1): peaks.append(peak())

        def train_dataloader(self): return DataLoader(torch.randn(1000, 4), batch_size=1)
        def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 1e-3)

    spent, inside, peaks = [0.0], [False], list[float]()
    def peak() -> float: return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MB
    def measured(name: str):
        own = getattr(CSVLogger, name)
        def call(self, *args, **kwargs):
            if inside[0]: return own(self, *args, **kwargs)
            inside[0], start = True, time.perf_counter()
            try: return own(self, *args, **kwargs)
            finally: inside[0], spent[0] = False, spent[0] + time.perf_counter() - start
        setattr(CSVLogger, name, call)
    for name in ("log_metrics", "complete", "save", "flush", "finalize"): measured(name)
    own_state = CSVLogger.state
    def state(self):
        start = time.perf_counter()
        try: return own_state.fget(self)
        finally: spent[0] += time.perf_counter() - start
    CSVLogger.state = property(state)
    sys.modules["net"], Net.__module__ = type(sys)("net"), "net"
    sys.modules["net"].Net = Net
    epochs = max(1, round(200 * scale))
    config = dict(name="rows", runs=str(folder), data=None, model=dict(_target_="net.Net"),
                  callbacks=dict(progress=None), scheduler=None,
                  trainer=dict(max_epochs=epochs, accelerator="cpu", log_every_n_steps=1))
    start = time.perf_counter()
    run = train(config, trust=["net"])
    wall = time.perf_counter() - start
    share = spent[0] / (wall - spent[0])
    print(f"{len(run.history):,} rows by step, of {epochs} epochs: a run of {wall:.0f} s, "
          f"metrics.csv {spent[0]:.2f} s")
    held("  metrics.csv: % of the run's time", 100 * share, 3)
    held("  MB that the run grows by after a tenth of its epochs", peaks[-1] - peaks[0], 20)
    with timed("  its history, read"): history = run.history
    with timed("  its curves, drawn and saved"): run.plot().savefig(folder / "a.png")
    assert len(history) == epochs * 1000


def write_runs(folder: Path, n: int):
    from mlkit.config.load import load_config
    from mlkit.run.folder import Run
    one = Run.new(load_config(MNIST, f"runs={folder.parent / 'one'}"))
    info, config_file = one.info, one.config_file.read_text()
    history = "epoch,step,train/loss,val/loss,val/acc\r\n"
    history += "".join(f"{i},{i * 95},0.{i}123,0.{i}234,0.9{i}\r\n" for i in range(10))
    for i in range(n):
        run = folder / f"job{i % 4}" / f"20260101-{i:06}-abcd"
        for sub in ("checkpoints", "plots"): (run / sub).mkdir(parents=True)
        config = {**info["config"], "seed": i}
        metrics = {"train/loss": 0.2, "val/loss": 0.3, "val/acc": i / n, "test/acc": 0.91}
        text = json.dumps({**info, "status": "done", "seconds": 12.3, "config": config,
                           "metrics": metrics})
        (run / "run.json").write_text(text)
        (run / "config.yaml").write_text(config_file)
        (run / "metrics.csv").write_text(history)


_COMMAND = "import sys; from mlkit.cli import mlkit_runs; sys.exit(mlkit_runs(sys.argv[1:]))"
_TABLE = """
import resource, sys, time
import mlkit.many.frame, mlkit.many.table
start = time.process_time()
table = mlkit.many.table.runs(sys.argv[1])
took = time.process_time() - start
print(len(table), took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"""


def runs(scale: float, folder: Path):
    "`runs()` and `mlkit_runs`, for the first time and again, each in a process of its own."
    n = round(20_000 * scale)
    write_runs(folder / "runs", n)
    time.sleep(3)
    env = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    def call(code: str, *args: str) -> str:
        line = [sys.executable, "-c", code, str(folder / "runs"), *args]
        return subprocess.run(line, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
    for what, limit in (("for the first time", 8), ("again", 1)):
        count, took, peak = map(float, call(_TABLE).split())
        assert count == n
        held(f"runs() of {n:,} runs, {what}: seconds", took, limit)
        held(f"runs() of {n:,} runs, {what}: the process's MB at most", peak, 500)
    by_keys = ("by keys", "--where", "optimizer.lr > 0", "--sort", "seed")
    for what, *args in (("again",), ("by a metric", "--sort", "val/acc"), by_keys):
        with timed(f"mlkit_runs of {n:,} runs, {what}"): call(_COMMAND, *args)


def grid(scale: float, folder: Path):
    "From the command to the first run's folder, less the import of torch."
    n = round(1000 * scale)
    with timed("import torch"): __import__("torch")
    from mlkit.many import sweep
    from mlkit.parts import build  # noqa: F401
    for words in ([f"seed=range({n})"], ["optimizer=sgd,adamw", f"seed=range({n // 2})"],
                  [f"optimizer.lr=range(1,{n // 20 + 1})", "seed=range(2)",
                   "trainer.max_epochs=range(1,11)"]):
        with timed(f"before the first of {n} runs, {words[0]}"):
            trials = sweep.load_trials(MNIST, *words, first=sweep._FIRST)
            for trial in trials:
                if trial.is_checked: sweep._check_devices(trial)
            assert trials[0].cfg and len(trials) == n


def curves(scale: float, folder: Path):
    "Runs of many steps, side by side."
    import numpy as np
    import pandas as pd

    from mlkit.many.compare import compare
    n = round(200_000 * scale)
    write_runs(folder, 8)
    steps, rng = np.arange(n), np.random.default_rng(0)
    frame = pd.DataFrame({"epoch": steps // 1000, "step": steps, "train/loss": rng.random(n)})
    found = sorted(o.parent for o in folder.glob("job*/*/run.json"))
    for run in found: frame.to_csv(run / "metrics.csv", index=False)
    with timed(f"comparison of 8 runs of {n:,} steps, as text"): str(compare(found))
    with timed(f"comparison of 8 runs of {n:,} steps, as a page"): compare(found)._repr_html_()


def log(scale: float, folder: Path):
    "What a run prints, in lines and without."
    from mlkit.run.log import _Log
    n = round(1_000_000 * scale)
    file = _Log(folder / "log.txt", lambda text: text)
    for what, text in (("lines", "a line of text\n"), ("dots without a line's end", "."),
                       ("steps of a bar", "\rstep"), ("steps of another bar", "step\r")):
        with timed(f"log.txt: {n:,} {what}"):
            for _ in range(n): file.write(text)
    file.close()


PARTS = dict(keys=keys, rows=rows, runs=runs, grid=grid, curves=curves, log=log)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    p.add_argument("--scale", type=float, default=1.0, help="of all numbers (default: 1)")
    p.add_argument("--limit", action="store_true", help="exit with 1 where a limit is passed")
    p.add_argument("--here", action="store_true", help="in this process")
    args = p.parse_args()
    code = 0
    for part in args.parts:
        if args.here:
            with tempfile.TemporaryDirectory() as folder: PARTS[part](args.scale, Path(folder))
        else:
            line = [sys.executable, __file__, part, "--scale", str(args.scale), "--here"]
            code |= subprocess.run(line + ["--limit"] * args.limit).returncode
    return code or int(args.limit and bool(_over))


if __name__ == "__main__": sys.exit(main())
