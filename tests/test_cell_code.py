"In a real kernel: what a cell says is what trains, or a line says which of two does; and reuse."
from pathlib import Path

import pytest

from kernel import Kernel

pytestmark = pytest.mark.slow

CORE = '''
from torch import nn

def flat(x): return x.float().flatten(1)

class Base(nn.Module):
    def flat(self, x): return flat(x)

class Net(Base):
    def __init__(self, width=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, x): return self.layers(self.flat(x))
'''
CONFIG = """defaults: [data: mnist, model: classifier]
model: {net: {_target_: shapes.core.Net}}
trainer: {max_epochs: 1, limit_train_batches: 2, limit_val_batches: 1, limit_test_batches: 1}
callbacks: {progress: null}
"""
WIDER = CORE[CORE.index("class Net"):].replace("=8", "=16")
SIZE = "sum(p.numel() for p in run.model.net.parameters())"


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    root: Path = tmp_path_factory.mktemp("shapes")
    for folder in ("nbs", "configs", "shapes"): (root / folder).mkdir()
    (root / "settings.ini").write_text("[DEFAULT]\nlib_name = shapes\nlib_path = shapes\n")
    (root / "shapes" / "__init__.py").touch()
    for name in ("core", "other"): (root / "shapes" / f"{name}.py").write_text(CORE)
    (root / "configs" / "s.yaml").write_text(CONFIG)
    with Kernel(root / "nbs") as found:
        for code in ("from mlkit.all import *", "#| default_exp core"):
            assert not found.run(code).error
        yield found


def trained(kernel: Kernel, *words: str, **options) -> tuple[str, str]:
    "What a training prints, and how large the net is."
    said = [*map(repr, words), *(f"{k}={v}" for k, v in options.items())]
    cell = kernel.run(f"run = train('configs/s.yaml', {', '.join(said)})")
    assert not cell.error, cell.traceback
    return cell.text, kernel.value(SIZE)


def test_a_class_redefined_in_five_ways(kernel):
    assert trained(kernel)[1] == "6370"  # of the module
    kernel.run("#| export\ndef flat(x): return 2 * x.float().flatten(1)")
    assert "shapes.core.flat: ../shapes/core.py trains, and a cell has" in trained(kernel)[0]
    kernel.run(f"#| export\n{CORE}")
    assert "trains" not in trained(kernel)[0]  # they are the same
    kernel.run(f"#| export\n{WIDER}")  # exported, and edited since
    text, size = trained(kernel)
    assert size == "12730" and "shapes.core.Net: the cell trains; ../shapes/core.py has" in text
    kernel.run("#| export\nclass Base(nn.Module):\n    def flat(self, x): return flat(-x)")
    assert "shapes.core.Base: an older one trains" in trained(kernel)[0]  # a base
    kernel.run(f"{WIDER.replace('Net', 'Mine').replace('16', '4')}")  # plain
    kernel.run(f"{WIDER.replace('Net', 'Mine').replace('16', '5')}")
    text, size = trained(kernel, "model.net._target_=__main__.Mine")
    assert size == "3985" and "__main__.Mine: known to this kernel alone" in text
    kernel.run(f"@register\n{WIDER.replace('Net', 'Known').replace('16', '4')}")  # registered
    for again in ("@register\n", ""):
        width = 5 + len(again) % 2
        kernel.run(f"{again}{WIDER.replace('Net', 'Known').replace('16', str(width))}")
        size = str(795 * width + 10)
        assert trained(kernel, "model.net._target_=Known")[1] == size
    other = "model.net._target_=shapes.other.Net"
    assert trained(kernel, other)[1] == "6370"
    file = kernel.folder.parent / "shapes" / "other.py"
    file.write_text(CORE.replace("=8", "=9"))  # a changed file
    text, size = trained(kernel, other)
    assert size == "6370" and "importlib.reload(shapes.other)" in text
    kernel.run("import importlib, shapes.other; importlib.reload(shapes.other)")
    assert trained(kernel, other)[1] == "7165"


def test_a_cell_is_reused_until_it_is_changed(kernel):
    word = "model.net._target_=__main__.Small"
    small = f"{WIDER.replace('Net', 'Small').replace('16', '3')}"
    kernel.run(small)
    first, _ = trained(kernel, word, reuse=True)
    kernel.run(f"# again\n{small}")
    again, size = trained(kernel, word, reuse=True)
    assert "reused: s/" in again and "parameters on" not in again and size == "2395"
    kernel.run(small.replace("nn.ReLU()", "nn.Tanh()"))
    assert "differs in code (__main__.Small.__init__)" in trained(kernel, word, reuse=True)[0]
    kernel.run("%env MLKIT_REUSE=1")
    assert "reused: s/" in trained(kernel, word)[0]
    assert "parameters on" in trained(kernel, word, reuse=False)[0]
    kernel.run("import os; del os.environ['MLKIT_REUSE']")


def test_a_search_says_what_its_trials_do_not_have_of_the_kernel(kernel):
    kernel.run(f"#| export\n{CORE}")
    words = "'configs/s.yaml', 'model.net._target_=shapes.other.Net'"
    assert not kernel.run(f"check({words})\nimport torch, shapes.other\n"
                          "was = torch.nn.Linear.forward\n"
                          "def twice(self, x): return 2 * was(self, x)\n").error
    there = "shapes.other.Net: is not here as its file has it, and the file's is what trains"
    for patched, here, elsewhere in [
            ("torch.nn.Linear", "__main__.twice: known to this kernel alone",
             "__main__.twice: is in this notebook (or script) alone, and what trains is without"),
            ("shapes.other.Net", "shapes.other.Net: trains as it is here, which is not", there)]:
        kernel.run(f"old = {patched}.forward\n{patched}.forward = twice")
        for workers, says in (("None", here), ("2", elsewhere)):
            cell = kernel.run(f"found = search({words}, 'seed=1,2', workers={workers})")
            assert says in cell.text and cell.text.count(says) == 1, cell
        assert elsewhere in kernel.run(f"train({words}, background=True)").text
        kernel.run(f"{patched}.forward = old")
    assert kernel.run(f"found = search({words}, 'seed=1,2', workers=2)").text.count("\n") == 1
