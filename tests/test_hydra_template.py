"A project that lightning-hydra-template has made: the guide's few lines are all that it needs."
import importlib.util
import json
import re
import sys

import nbformat
import pytest

from hydra_template import write
from mlkit.parts.check import check
from mlkit.run.folder import list_runs
from shell import ROOT, command

PAGE = ROOT / "nbs" / "guide" / "coming_from_hydra.ipynb"


def lines() -> str:
    "The config that the page writes."
    cells = [o.source for o in nbformat.read(PAGE, 4).cells if o.source.startswith("%%writefile")]
    text, = cells
    return text.partition("\n")[2] + "\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    write(tmp_path)
    (tmp_path / "configs" / "mlkit.yaml").write_text(lines())
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [o for o in sys.modules if o.split(".")[0] == "src"]: del sys.modules[name]
    sys.path[:] = [o for o in sys.path if o != str(tmp_path)]


def test_the_page_says_at_most_five_lines(): assert len(lines().splitlines()) <= 5


CHOICES = {  # what the template's users write -> what is warned of besides its own words
    "": [], "trainer=cpu": [], "logger=csv": [], "logger=tensorboard": [], "callbacks=none": [],
    "experiment=example": ["logger.wandb", "logger.aim"], "debug=default": [], "debug=limit": [],
    "logger=many_loggers": [], "model.optimizer.lr=0.1": [], "model.scheduler=null": [],
    "'tags=[a, b]'": [], "experiment=example logger=csv": ["logger.wandb", "logger.aim"],
    "trainer=gpu": [], "data.num_workers=2": [], "~callbacks.early_stopping": []}
WORDS = ["extras", "task_name", "train", "test", "ckpt_path", "trainer.default_root_dir",
         "hydra.run"]


@pytest.mark.parametrize("line", CHOICES)
def test_what_the_template_offers_passes(project, line, capsys):
    words = [o for o in re.split(r"'(.*)'|\s+", line) if o]
    check("configs/mlkit.yaml", *words)
    warned = re.findall(r"^\S+: ([\w.]+): warning: ", capsys.readouterr().err, re.M)
    assert sorted(warned) == sorted([*WORDS, *CHOICES[line]])


@pytest.mark.parametrize("word", ["task_name=x", "train=false", "trainer.default_root_dir=x"])
def test_its_words_on_the_command_line_are_mistakes(project, word):
    with pytest.raises(ValueError, match=word): check("configs/mlkit.yaml", word)


PACKAGES = [o for o in ("pytorch_lightning", "lightning") if importlib.util.find_spec(o)]


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("words", ["", "experiment=example logger=csv callbacks=none"])
def test_it_trains_and_is_evaluated(project, package, words):
    write(project, package)
    (project / "configs" / "local" / "default.yaml").write_text(
        "# @package _global_\ntrainer: {limit_test_batches: 1}\n")
    train = ["configs/mlkit.yaml", *words.split(), "trainer.max_epochs=2"]
    command("mlkit_train", *train, cwd=project, code=0)
    run, = list_runs("runs")
    assert run.status == "done" and {"val/acc", "test/acc", "val/acc_best"} <= {*run.metrics}
    assert run.checkpoint("best").name == "best.ckpt"
    done = command("mlkit_eval", run.dir, cwd=project, code=0)
    assert "acc" in done.stdout
    info = json.loads((run.dir / "run.json").read_text())
    assert info["config"]["trainer"]["limit_test_batches"] == 1
