"""How long people wait for an answer, for an import, and for the first step of a training.

    python benchmarks/starting.py [--rounds 5]

Each line is a process of its own, and all are started in turn, round after round. Times are the
processor's, since machines are shared, and medians over the rounds. Answers, such as to a misspelt
key, have a limit of their own; `mlkit.all`, and the main job up to its first optimizer step (with
its data read), one above what `import torch, pytorch_lightning` takes. The exit code is 1 if
something takes longer than that times `--limit`.
"""
import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MNIST = str(ROOT / "configs" / "mnist.yaml")
COMMAND = "import sys; from mlkit import cli; sys.exit(getattr(cli, sys.argv[1])(sys.argv[2:]))"
IN_PYTHON = "from mlkit.train import train\ntry: train(*{})\nexcept ValueError as e: print(e)"
ANSWERS = {
    "a missing file": ["mlkit_train", "gone.yaml"],
    "a misspelt key": ["mlkit_train", MNIST, "trainer.max_epoch=1"],
    "a misspelt option": ["mlkit_train", MNIST, "optimizer=sdg"],
    "--print": ["mlkit_train", MNIST, "--print"],
    "--help": ["mlkit_train", MNIST, "--help"],
    "a missing run, resumed": ["mlkit_train", "--resume", "gone"],
    "a missing run, measured": ["mlkit_eval", "gone"],
    "a missing run, asked": ["mlkit_predict", "gone", "a.png"],
    "a missing run, bundled": ["mlkit_bundle", "gone", "-o", "a.zip"],
    "no runs": ["mlkit_runs"]}
FIRST = """
import os, sys
import pytorch_lightning as pl
class First(pl.Callback):
    "Ends the process before the first step."
    def on_before_optimizer_step(self, *args): os._exit(3)
"""


def processor(line: list[str], folder: str) -> float:
    "Seconds that a process takes."
    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime
    start, env = spent(), {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True)
    wanted = {3} if "job.yaml" in line else {0, 2}
    if done.returncode not in wanted or "Traceback" in done.stderr: sys.exit(done.stderr)
    return spent() - start


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--rounds", type=int, default=5, help="counted rounds (default: 5)")
    p.add_argument("--limit", type=float, default=1.0, help="of all limits (default: 1)")
    args = p.parse_args()
    code = lambda text, *more: [sys.executable, "-c", text, *more]
    lines = {k: (code(COMMAND, *words), 0.6, False) for k, words in ANSWERS.items()}
    for what, words in (("a missing file", ["gone.yaml"]),
                        ("a misspelt key", [MNIST, "trainer.max_epoch=1"])):
        lines[f"{what}, in Python"] = code(IN_PYTHON.format(words)), 0.6, False
    lines["import torch, pytorch_lightning"] = code("import torch, pytorch_lightning"), None, False
    lines["import mlkit.all, above that"] = code("import mlkit.all"), 0.3, True
    lines["to the first step, above that"] = code(COMMAND, "mlkit_train", "job.yaml"), 0.5, True
    took = {k: [] for k in lines}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "pyproject.toml").touch()
        Path(folder, "first.py").write_text(FIRST)
        callback = "callbacks:\n  first:\n    _target_: first.First\n"
        Path(folder, "job.yaml").write_text(f"extends: {MNIST}\n{callback}")
        for i in range(args.rounds + 1):
            for k, (line, *_) in lines.items():
                seconds = processor(line, folder)
                if i: took[k].append(seconds)  # the first finds nothing in the disk's cache
    base, over = statistics.median(took["import torch, pytorch_lightning"]), []
    for k, (_, limit, is_above) in lines.items():
        seconds = statistics.median(took[k]) - is_above * base
        says = f"(limit {limit * args.limit:g})" if limit else ""
        print(f"{k:34} {seconds:6.2f} s  {says}")
        if limit and seconds > limit * args.limit: over.append(k)
    return bool(over)


if __name__ == "__main__": sys.exit(main())
