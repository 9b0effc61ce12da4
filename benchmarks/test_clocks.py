"""What looks at the clock: `pytest -n 0 benchmarks` on a machine that does nothing else.

Bounds are those of a machine on which `import torch` takes 1.4 s; `slowness` scales them.
"""
import re
import statistics
import time

from hydra_cases import VISION, Case, columns
from hydra_oracle import ask

from mlkit.config.load import load_config

TWELVE = {o: VISION[o] for o in columns("""
data/mnist   data/base   data/transform/digits   data/transform/plain   model/cnn   model/net/small
model/optimizer/adam   model/scheduler/plateau   model/loss/cross_entropy   trainer/default   paths/default
""")}
LATER = "callbacks|logger|extras|hydra|experiment|hparams_search|optional local|debug"
TWELVE["config"] = "".join(line for line in VISION["config"].splitlines(True)
                           if not re.match(f"  - ({LATER}):", line))


def test_load_config_takes_a_quarter_of_the_time_of_hydra(hydra_python, tmp_path, figure):
    "All of `load_config`, with mlkit's own layers, against `hydra.compose` alone: 12 files."
    (tmp_path / "pyproject.toml").touch()
    path = Case("", TWELVE).write(tmp_path / "configs")
    overrides = ["model.optimizer.lr=0.01", "trainer=default", "+model.net.depth=2"]
    assert len(list(path.parent.rglob("*.yaml"))) == 12
    def once():
        start = time.perf_counter()
        load_config(path, *overrides)
        return time.perf_counter() - start
    once()
    mine = [once() for _ in range(15)]
    asked = [[str(path.parent), path.stem, overrides]]
    theirs = statistics.median(ask(hydra_python, asked, "--time", "15")[0]["seconds"])
    mine = statistics.median(mine + [once() for _ in range(15)])
    told = f"load_config {mine * 1e3:.1f} ms, hydra.compose {theirs * 1e3:.1f} ms: {mine / theirs:.2f}"
    figure(told)
    assert mine <= theirs / 4, told
