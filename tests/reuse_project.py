"A project whose runs are asked for again, and changes of it: which make another run, which do not."
import os
import struct
from pathlib import Path

FILES = {
    "settings.ini": "[DEFAULT]\nlib_name = shapes\nlib_path = shapes\nnbs_path = nbs\n",
    "shapes/__init__.py": "__version__ = '1'\n",
    "shapes/core.py": '''"Core."
import os
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from shapes import tools
from shapes.tools import SCALE, scaled as rescaled

WIDTH, DEPTH = 4, 1
UNUSED = 3
NAMES = {"relu": nn.ReLU, "tanh": nn.Tanh}
GROWTH = tools.double(2)


@dataclass
class Setting:
    "How wide."
    factor: int = 1
    more: int = 0


def block(n_in, n_out, act="relu"):
    "A layer."
    return nn.Sequential(nn.Linear(n_in, n_out), NAMES[act]())


class Base(nn.Module):
    bias = 0.0

    def scaled(self, x): return rescaled(x) + self.bias  # of tools


class ShapeNet(Base):
    """A net of two layers."""
    def __init__(self, width: int = 8, setting=Setting()):
        super().__init__()
        self.body = block(16, width * setting.factor)
        self.head = nn.Linear(width * setting.factor, 2)
        self.grow = int(os.environ.get("SHAPES_GROW", "0"))

    def forward(self, x):
        assert x.ndim == 2
        return self.head(self.body(self.scaled(x.float()) * GROWTH))


class Unused(nn.Module):
    def forward(self, x): return x + UNUSED


def loss(scores, target):
    from shapes.late import smooth
    return nn.functional.cross_entropy(scores, target, label_smoothing=smooth(0.1))


def unused(x): return x + 1


if __name__ == "__main__":
    print("as a script")
''',
    "shapes/tools.py": '''SCALE = 0.5
OTHER = 1


def double(x): return 2 * x
def scaled(x): return x * SCALE
def never(x): return x - 1
''',
    "shapes/late.py": "def smooth(x): return x / 2\ndef rough(x): return x\n",
    "shapes/plots.py": "# pictures\ndef draw(): return 1\n",
    "shapes/data.py": '''from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from shapes.plots import draw


class Files(pl.LightningDataModule):
    def __init__(self, path: str, batch_size: int = 8, num_workers: int = 0):
        super().__init__()
        self.path, self.batch_size, self.num_workers = path, batch_size, num_workers

    def setup(self, stage=None):
        x = np.frombuffer(Path(self.path).read_bytes(), np.float32).reshape(-1, 16).copy()
        names = Path("data/names.txt").read_text().split()
        y = torch.tensor([names.index(o) for o in Path("data/labels.txt").read_text().split()])
        self.set = TensorDataset(torch.from_numpy(x), y)

    def train_dataloader(self):
        return DataLoader(self.set, self.batch_size, shuffle=True, num_workers=self.num_workers)

    def val_dataloader(self): return DataLoader(self.set, self.batch_size)
''',
    "configs/shapes.yaml": '''# A config.
defaults: [model: classifier]
data: {_target_: shapes.data.Files, path: data/x.bin}
model:
  net: {_target_: shapes.core.ShapeNet, width: 6}
  loss: {_target_: shapes.core.loss, _partial_: true}
trainer: {max_epochs: 1, accelerator: cpu, devices: 1}
callbacks: {progress: null}
seed: 3
''',
    "data/names.txt": "disc square\n",
    "data/labels.txt": "disc square " * 12,
    "data/notes.md": "About the data.\n",
    "README.md": "Shapes.\n",
}


def make(root: Path):
    "Write the project."
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    values = [((7 * i) % 11 - 5) / 5 for i in range(24 * 16)]
    (root / "data" / "x.bin").write_bytes(struct.pack(f"{len(values)}f", *values))


def edit(name: str, old: str, new: str):
    "A change of a file."
    def apply(root: Path):
        text = (root / name).read_text()
        assert old in text, (name, old)
        (root / name).write_text(text.replace(old, new))
    return apply


def after(name: str, text: str):
    def apply(root: Path): (root / name).write_text((root / name).read_text() + text)
    return apply


def pixel(root: Path):
    data = bytearray((root / "data" / "x.bin").read_bytes())
    data[4] ^= 1
    (root / "data" / "x.bin").write_bytes(data)


def hidden_pixel(root: Path):
    "With the old size and date."
    was = os.stat(root / "data" / "x.bin")
    pixel(root)
    os.utime(root / "data" / "x.bin", ns=(was.st_atime_ns, was.st_mtime_ns))


def copied(root: Path):
    path = root / "data" / "x.bin"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


def code(text: str):
    "What a cell does before."
    return lambda root: exec(text, {"__name__": "__main__"})


def words(*overrides: str):
    return overrides


CORE, TOOLS, YAML = "shapes/core.py", "shapes/tools.py", "configs/shapes.yaml"
SAME = {  # kind of change -> what it does
    "nothing": lambda root: None,
    "comment in an unrelated module": after("shapes/plots.py", "# more\n"),
    "function of an unrelated module": edit("shapes/plots.py", "return 1", "return 2"),
    "comment in the net": edit(CORE, "# of tools", "# of the tools"),
    "docstring of the net": edit(CORE, "A net of two layers.", "Two layers."),
    "docstring of a helper": edit(CORE, '    "A layer."\n', ""),
    "docstring of the module": edit(CORE, '"Core."', '"The core."'),
    "layout": edit(CORE, "def unused(x): return x + 1", "def unused(x):\n\n    return x + 1"),
    "blank lines above all": edit(CORE, "import os\n", "\n\n\nimport os\n"),
    "another class of the module": edit(CORE, "return x + UNUSED", "return x - UNUSED"),
    "a constant that nothing uses": edit(CORE, "UNUSED = 3", "UNUSED = 4"),
    "a function that nothing calls": edit(TOOLS, "x - 1", "x - 2"),
    "a new function": after(TOOLS, "\n\ndef new(x): return x\n"),
    "a new module": lambda root: (root / "shapes" / "new.py").write_text("x = 1\n"),
    "what runs as a script": edit(CORE, "as a script", "alone"),
    "comment in the config": edit(YAML, "# A config.", "# The config."),
    "order of keys": edit(YAML, "width: 6}", "width: 6 }"),
    "a number written otherwise": edit(YAML, "seed: 3", "seed: 0x3"),
    "data touched": lambda root: (root / "data" / "x.bin").touch(),
    "data copied": copied,
    "another file beside the data": edit("data/notes.md", "About", "On"),
    "README": edit("README.md", "Shapes.", "Discs."),
    "tags": words("tags=[again]"),
    "an unrelated variable": code("import os; os.environ['SOMETHING'] = '1'"),
    "the same value on the command line": words("trainer.max_epochs=1"),
    "an expression that is the same": edit(CORE, "x.ndim == 2", "x.ndim == 3 - 1"),
    "imports in another order": edit(
        CORE, "import os\nfrom dataclasses import dataclass",
        "from dataclasses import dataclass\nimport os"),
}
OTHER = {
    "a default in the net's __init__": edit(CORE, "setting=Setting()", "setting=Setting(2)"),
    "a default that the config overrides": edit(CORE, "width: int = 8", "width: int = 9"),
    "the net's forward": edit(CORE, "* GROWTH", "/ GROWTH"),
    "an attribute of the net's base": edit(CORE, "bias = 0.0", "bias = 0.1"),
    "a method of the net's base": edit(CORE, "+ self.bias", "- self.bias"),
    "another base": edit(CORE, "class Base(nn.Module)", "class Base(nn.Sequential)"),
    "a helper of the net": edit(CORE, "nn.Linear(n_in, n_out)", "nn.Linear(n_in, n_out, False)"),
    "a default of a helper": edit(CORE, 'act="relu"', 'act="tanh"'),
    "a table that a helper looks into": edit(CORE, '"relu": nn.ReLU', '"relu": nn.GELU'),
    "a constant of another module": edit(TOOLS, "SCALE = 0.5", "SCALE = 0.25"),
    "a helper in another module": edit(TOOLS, "x * SCALE", "x / SCALE"),
    "what a constant is computed by": edit(TOOLS, "2 * x", "3 * x"),
    "a field of a dataclass": edit(CORE, "factor: int = 1", "factor: int = 2"),
    "the loss": edit(CORE, "smooth(0.1)", "smooth(0.2)"),
    "a helper of the loss, imported late": edit("shapes/late.py", "x / 2", "x / 4"),
    "an assertion": edit(CORE, "x.ndim == 2", "x.ndim < 3"),
    "what a module does to another": after(CORE, "\nShapeNet.bias = 0.3\n"),
    "what a package does": after("shapes/__init__.py", "import torch\ntorch.manual_seed(1)\n"),
    "the datamodule": edit("shapes/data.py", "shuffle=True", "shuffle=False"),
    "a default of the datamodule": edit("shapes/data.py", "size: int = 8", "size: int = 4"),
    "a pixel": pixel,
    "a pixel, with the old date": hidden_pixel,
    "a label": edit("data/labels.txt", "disc square disc", "disc disc disc"),
    "names in a file that no argument names": edit("data/names.txt", "disc square", "square disc"),
    "a seed": words("seed=4"),
    "the learning rate": words("optimizer.lr=0.5"),
    "epochs": words("trainer.max_epochs=2"),
    "another file": words("data.path=data/y.bin"),
    "a key more": words("+model.net.setting=null"),
    "the config's own file": edit(YAML, "width: 6", "width: 7"),
    "a variable that the net reads": code("import os; os.environ['SHAPES_GROW'] = '1'"),
    "a constant, from a cell": code("import shapes.tools as t; t.SCALE = 2"),
    "a method, from a cell": code("import shapes.core as c; c.ShapeNet.forward = c.Unused.forward"),
    "the default dtype": code("import torch; torch.set_default_dtype(torch.float64)"),
    "matmul precision": code("import torch; torch.set_float32_matmul_precision('medium')"),
    "a file of the data gone": lambda root: (root / "data" / "names.txt").unlink(),
}
