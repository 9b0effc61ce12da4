"""In a real kernel: what a cell shows of an interrupt, of a failure and of a mistake, what the next
cell has of it, and that `resume` ends as if nothing had happened."""
import json
import re
import shutil
import time
from pathlib import Path

import pytest

from kernel import Kernel
from test_signals import CONFIG

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    (folder / "pyproject.toml").touch()
    shutil.copy(HERE / "signal_project.py", folder / "mine.py")
    (folder / "slow.yaml").write_text(CONFIG.replace("callbacks: {progress: null}\n", ""))
    with Kernel(folder) as found:
        found.value("import os\nfrom mlkit.all import *\nfrom torch.utils.data import DataLoader")
        yield found


def interrupt(kernel: Kernel, phase: str, code: str, times: int = 1, lasts: int = 12):
    "Run a cell that is interrupted when it is in a phase."
    says = kernel.folder / f"says{time.time()}"
    env = dict(PHASE=phase, SAYS=str(says), LASTS=str(lasts))
    kernel.run(f"os.environ.update({env})\nglobals().pop('run', None)")
    def send():
        end = time.time() + 60
        while not says.exists() and time.time() < end: time.sleep(0.01)
        time.sleep(0.1)
        kernel.interrupt(times)
    return kernel.run(code, send)


BITS = "[*map(float, torch.cat([o.flatten() for o in {}.model.parameters()]).tolist())]"


def test_an_interrupted_training_goes_on_to_the_same_bits(kernel):
    for phase, lasts in (("step", 1), ("validation", 1), ("sanity", 12), ("test", 12)):
        cell = interrupt(kernel, phase, "run = train('slow.yaml')", lasts=lasts)
        assert cell.error == "Interrupted"
        said = cell.lines[-3:] if "stopping" in cell.text else cell.lines[-2:]
        assert len(cell.lines) == len(said) + 1, cell  # and how many parameters there are
        assert "resume(run)" in said[-1] and said[-1].endswith("(traceback: %tb)")
        assert kernel.value("run.status, isinstance(run, Run)") == "('interrupted', True)"
        if phase != "sanity":
            last = "torch.load(run.checkpoint('last'), weights_only=True)['state_dict']"
            assert kernel.value(f"all(torch.equal(v, run.model.state_dict()[k]) for k, v in {last}"
                                ".items())") == "True"
        bits = kernel.value(f"run = resume(run)\n{BITS.format('run')}")
        assert kernel.value("run.status") == "'done'"
        assert kernel.value(f"whole = train('slow.yaml')\n{BITS.format('whole')}") == bits


def test_an_interrupted_grid_has_its_run(kernel):
    cell = interrupt(kernel, "step", "sweep = grid('slow.yaml', 'seed=1,2')", lasts=1)
    assert cell.traceback.startswith("Interrupted: 0 of 2 runs are done; stopped after step 3, ")
    assert len(cell.traceback.splitlines()) == 2 and "resume(sweep)" in cell.traceback
    table = cell.text.splitlines()[2:]
    assert [o.split()[0] for o in table if o] == ["seed", "1", "2"]
    assert kernel.value("sweep.trials[0].run is run, run.status") == "(True, 'interrupted')"
    bits = kernel.value(f"sweep = resume(sweep)\nrun = load_run(sweep.trials[0])\n"
                        f"{BITS.format('run')}")
    assert kernel.value("[o.status for o in sweep.trials]") == "['done', 'done']"
    assert kernel.value(f"run = train('slow.yaml', 'seed=1')\n{BITS.format('run')}") == bits


@pytest.mark.parametrize("phase, code", {
    "step": "lr_find('slow.yaml', steps=20)", "test": "evaluate(done)", "predict": "predict(done)",
    "build": "train('slow.yaml')"}.items())
def test_an_interrupt_where_there_is_no_run(kernel, phase, code):
    kernel.run("if 'done' not in globals(): done = train('slow.yaml')")
    cell = interrupt(kernel, phase, f"run = {code}")
    assert cell.error == "Interrupted" and len(cell.traceback.splitlines()) == 1, cell
    assert kernel.run("run").lines == []  # and not IPython's %run


def test_an_interrupt_before_the_first_run_of_a_grid(kernel):
    cell = interrupt(kernel, "prepare", "found = grid('slow.yaml', 'seed=1,2')")
    assert cell.error == "Interrupted" and "resume(found)" in cell.traceback, cell
    known = "{o.status for o in found.trials} <= {'interrupted', 'not begun'}"
    assert kernel.value(known) == "True"


CELLS = {"x = train('slow.yaml')": "x", "train('slow.yaml')": "run",
         "y = x = train('slow.yaml')": "y",
         "(x := train('slow.yaml'))": "x", "x: Run = train('slow.yaml')": "x",
         "with torch.no_grad():\n    x = train(\n        'slow.yaml')": "x",
         "for i in range(3):\n    x = train('slow.yaml', f'seed={i}')": "x",
         "x = [train('slow.yaml') for _ in range(2)]": "run",
         "x = train('slow.yaml').metrics": "run",
         "def go(): return train('slow.yaml').metrics\nx = go()": "run",
         "%%time\nx = train('slow.yaml')": "x", "try: x = train('slow.yaml')\nfinally: pass": "x",
         "import asyncio\nawait asyncio.sleep(0)\nx = train('slow.yaml')": "x",
         "%time x = train('slow.yaml')": "x"}


@pytest.mark.parametrize("code", CELLS)
def test_the_name_that_the_run_gets(kernel, code):
    kernel.run("for o in 'xy': globals().pop(o, None)")
    cell = interrupt(kernel, "step", code, lasts=1)
    assert f"\n{CELLS[code]} is slow/" in cell.traceback + cell.text, cell
    assert kernel.value(f"isinstance({CELLS[code]}, Run), {CELLS[code]}.status") == (
        "(True, 'interrupted')")
    if CELLS[code] == "run": assert kernel.value("'x' in globals()") == "False"


def test_a_second_interrupt_and_what_is_caught(kernel):
    cell = interrupt(kernel, "step", "run = train('slow.yaml')", times=2)
    assert cell.traceback.startswith("Interrupted: interrupted twice\nrun is slow/"), cell
    assert "has no checkpoint yet, and resume(run) begins again" in cell.traceback
    caught = "try: run = train('slow.yaml')\nexcept KeyboardInterrupt as e: cut = e.run"
    cell = interrupt(kernel, "step", caught, lasts=1)
    assert not cell.error and kernel.value("'run' in globals(), cut.status") == (
        "(False, 'interrupted')")
    cell = interrupt(kernel, "step", "run = train('slow.yaml', 'runs=null')", lasts=1)
    assert "it was not kept, and cannot go on" in cell.traceback, cell
    assert kernel.value("run.model.net.bias.shape") == "torch.Size([1])"


def test_a_failure_shows_the_users_own_place(kernel):
    cell = kernel.run("r = train('slow.yaml', '+model.fails=true')")
    first, place, last = cell.traceback.splitlines()
    assert "as it should" not in cell.text  # it is told once
    assert first == "TrainingFailed: RuntimeError: as it should (mine.py:75)"
    assert place == ('mine.py, line 75, in training_step: if self.fails: raise RuntimeError('
                     '"as it should")')
    assert last.startswith("r is slow/") and "r.log has the traceback" in last
    assert "Traceback" in kernel.value("r.log") and kernel.value("r.status") == "'failed'"
    whole = kernel.run("%tb").traceback
    assert len(whole.splitlines()) > 100 and "in Model.training_step" in whole
    kernel.run("done = train('slow.yaml')\nx = DataLoader([[torch.ones(9)]])")
    cell = kernel.run("predict(done, x)")
    assert cell.error == "RuntimeError" and len(cell.traceback.splitlines()) == 2, cell
    assert "\nmine.py, line 66, in forward: def forward(self, x): return" in cell.traceback


def test_what_the_user_calls_run_stays(kernel):
    cell = kernel.run("run = 'mine'\ntrain('slow.yaml', '+model.fails=true')")
    name, _, last = cell.traceback.splitlines()[-1].partition(" is slow/")
    assert re.fullmatch(r"Out\[\d+\]", name) and f"{name}.log has the traceback" in last
    assert kernel.value(f"run, {name}.status") == "('mine', 'failed')"
    for made in ("None", f"{name}"):
        kernel.run(f"run = {made}")
        assert "\nrun is slow/" in kernel.run("train('slow.yaml', '+model.fails=true')").traceback


def test_a_mistake_is_its_lines(kernel):
    cell = kernel.run("run = train('slow.yaml', 'trainer.max_epoch=2', 'model.fail=true')")
    assert cell.error == "ConfigError" and not cell.text
    first, *lines = cell.traceback.splitlines()
    assert first == "ConfigError: 2 problems" and len(lines) == 2
    assert lines[0].startswith("command line: trainer.max_epoch=2: ")
    cell = kernel.run("evaluate('nowhere')")
    assert cell.traceback == ("NotFound: nowhere: no run here (there is no run.json)"
                              "   (traceback: %tb)")
    kernel.run("%xmode Verbose")
    assert kernel.run("evaluate('nowhere')").traceback.count("\n") > 20
    kernel.run("%xmode Context")


def test_outside_of_a_notebook_all_is_as_ever(kernel):
    "The texts of the errors are Python's, and no name is made."
    from mlkit.base.errors import Interrupted, UserError
    from mlkit.base.notebook import names_in_cell
    try: raise UserError("a\nb")
    except UserError as e: assert str(e) == "a b" and names_in_cell(e) == []
    assert str(Interrupted(why="x")) == "x" and json.dumps(str(Interrupted())) == '""'


def test_help_where_one_looks(kernel):
    shown = kernel.inspect("train")
    for text in ("Signature:", "*overrides  as on the command line: 'trainer.max_epochs=3'",
                 'run = train("configs/mnist.yaml", "trainer.max_epochs=3"'):
        assert text in shown, shown
    kernel.run("dm = MNIST()\nclass Mine(LitModel): 'My own.'")
    assert "batch_size   images in a batch" in kernel.inspect("MNIST")
    assert "images in a batch" in kernel.inspect("dm") and "My own." in kernel.inspect("Mine")
    assert kernel.value("dm").startswith("MNIST: not read yet: setup() does, 10 classes (0, 1, ")
    assert kernel.value("dm.setup()\ndm") == (
        "MNIST: train 5,400, val 600, test 1,000, 10 classes (0, 1, 2, 3, 4, 5, 6, 7, 8, 9), "
        "each (1, 28, 28)")
    kernel.run("done = train('slow.yaml')")
    assert "tensor" not in kernel.value("predict(done, [[1.0, 2.0, 3.0, 4.0]])")
