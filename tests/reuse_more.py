"A second project for reuse: what it reads comes by other ways, and so do the changes of it."
import os
import sqlite3
from pathlib import Path

import numpy as np

from reuse_project import after, code, edit, words

FILES = {
    "settings.ini": "[DEFAULT]\nlib_name = ways\nlib_path = ways\nnbs_path = nbs\n",
    "ways/__init__.py": "",
    "ways/net.py": '''import functools
import os
from os import getenv

import torch
from torch import nn
from torch.nn import functional as F

OPTIONS = {"scale": 1.0, "layers": [4]}
TABLE = torch.ones(3)


class Settings:
    rate = 0.1
    def __init__(self): self.factor = 1.0


SETTINGS = Settings()


def variable(name, default): return os.environ.get(name, default)
def prefixed(name): return float(getenv(f"WAYS_{name}", "1"))
def make(factor):
    def scaled(x): return x * factor
    return scaled


scaled = make(0.5)


@functools.lru_cache
def width(n): return n + 1


def collect(x, seen=[1.0]): return x * seen[-1]


class Layer(nn.Linear):
    gain = 1.0
    @property
    def twice(self): return 2 * self.gain
    def forward(self, x): return super().forward(x) * self.twice


class Net(nn.Module):
    act = staticmethod(torch.tanh)
    def __init__(self, size: int = 4):
        super().__init__()
        self.a, self.b = Layer(6, width(size)), nn.Linear(width(size), 2)
        self.a.eval()
        self.scale = float(variable("WAYS_SCALE", "1"))

    def forward(self, x):
        x = scaled(collect(x)) * OPTIONS["scale"] * SETTINGS.factor * SETTINGS.rate
        return self.b(F.relu(self.act(self.a(x)))) * self.scale * prefixed("GAIN")


def loss(scores, target):
    return F.cross_entropy(scores * TABLE.sum(), target) * OPTIONS["layers"][0]
''',
    "ways/files.py": "import glob\n"
                     "def below(folder): return sorted(glob.glob(f'{folder}/*.txt'))\n",
    "ways/unknown.py": '''import functools
import os
import socket
import subprocess
from pathlib import Path
from urllib.request import urlopen


@functools.lru_cache
def names(): return Path("data/a.txt").read_text()


def cached(): return names()
def program(): return subprocess.check_output(["cat", "data/b.txt"])
def system(): return os.system("cp data/a.txt data/copy.txt")
def spawn(): return None
def changed(): return Path("data/b.txt").read_text(), os.replace("data/c.txt", "data/b.txt")


def url():
    try: return urlopen("http://127.0.0.1:9/x", timeout=1)
    except OSError: return None


def connection():
    with socket.socket() as s: return s.connect_ex(("127.0.0.1", 9))



''',
    "ways/data.py": '''import gzip
import json
import pickle
import sqlite3
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

import ways.unknown
from ways.files import below


def facts(): return json.loads(Path("data/facts.json").read_text())


class Rows(Dataset):
    def __init__(self, x, y, workers=0): self.x, self.y, self.flip = x, y, None
    def __len__(self): return len(self.y)

    def __getitem__(self, i):
        if self.flip is None: self.flip = int(Path("data/flip.txt").read_text())
        return self.x[i] * self.flip, self.y[i]


class Ways(pl.LightningDataModule):
    def __init__(self, workers: int = 0, folder: str = "data/set", how: str = ""):
        super().__init__()
        self.workers, self.folder, self.how = workers, folder, how

    def setup(self, stage=None):
        if self.how: getattr(ways.unknown, self.how)()
        x = torch.tensor(np.array(np.load("data/x.npy", mmap_mode="r")))
        with sqlite3.connect("data/y.db") as db: y = [v for v, in db.execute("select v from y")]
        x = x + pd.read_csv("data/t.csv").v.sum()
        x = x + len(below("data/texts")) + float(Path("data/link.txt").read_text())
        x = x * float(np.memmap("data/raw.bin", np.float32)[0]) + facts()["shift"]
        with zipfile.ZipFile("data/z.zip") as z: x = x + float(z.read("a"))
        with gzip.open("data/g.gz") as f: x = x + float(f.read())
        with open("data/p.pkl", "rb") as f: x = x + pickle.load(f)
        x = x + torch.load("data/w.pt").sum() + np.fromfile("data/raw.bin", np.float32)[1]
        x = x + sum(float(o.read_text()) for o in Path(self.folder).rglob("*.num"))
        self.rows = Rows(x, torch.tensor(y))

    def train_dataloader(self):
        context = "spawn" if self.how == "spawn" else None
        workers = 1 if context else self.workers
        return DataLoader(self.rows, 6, shuffle=True, num_workers=workers,
                          multiprocessing_context=context)

    def val_dataloader(self): return DataLoader(self.rows, 6)
''',
    "configs/ways.yaml": '''defaults: [model: classifier]
data: {_target_: ways.data.Ways}
model:
  net: {_target_: ways.net.Net, size: "${oc.decode:${oc.env:WAYS_SIZE,4}}"}
  loss: {_target_: ways.net.loss, _partial_: true}
trainer: {max_epochs: 1, accelerator: cpu, devices: 1}
callbacks: {progress: null}
''',
    "data/t.csv": "v\n0.5\n", "data/facts.json": '{"shift": 1}', "data/flip.txt": "1",
    "data/a.txt": "1", "data/b.txt": "2", "data/c.txt": "3",
    "data/texts/one.txt": "1", "data/texts/note.md": "-",
    "data/set/one.num": "1", "data/set/in/two.num": "2",
}


def make(root: Path):
    "Write the project."
    import gzip
    import pickle
    import zipfile

    import torch
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    data = root / "data"
    (data / "link.txt").symlink_to("a.txt")
    np.save(data / "x.npy", np.linspace(-1, 1, 72, dtype=np.float32).reshape(12, 6))
    np.array([1, 2], np.float32).tofile(data / "raw.bin")
    rows(root, [0, 1] * 6)
    with zipfile.ZipFile(data / "z.zip", "w") as z: z.writestr("a", "1")
    (data / "g.gz").write_bytes(gzip.compress(b"1", mtime=0))
    (data / "p.pkl").write_bytes(pickle.dumps(1))
    torch.save(torch.ones(2), data / "w.pt")


def rows(root: Path, values):
    (root / "data" / "y.db").unlink(missing_ok=True)
    with sqlite3.connect(root / "data" / "y.db") as db:
        db.execute("create table y (v)")
        db.executemany("insert into y values (?)", [(v,) for v in values])


def swapped(name: str, old: bytes, new: bytes):
    "Another content of the same size and date."
    def apply(root: Path):
        path = root / name
        was, data = os.stat(path), path.read_bytes()
        assert old in data and len(old) == len(new)
        path.write_bytes(data.replace(old, new, 1))
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    return apply


def relinked(root: Path):
    (root / "data" / "link.txt").unlink()
    (root / "data" / "link.txt").symlink_to("b.txt")


def saved(name: str, make_bytes):
    return lambda root: (root / name).write_bytes(make_bytes())


def zipped(text: str):
    def apply(root: Path):
        import zipfile
        with zipfile.ZipFile(root / "data" / "z.zip", "w") as z: z.writestr("a", text)
    return apply


def arrays(root: Path):
    x = np.load(root / "data" / "x.npy")
    x[3, 3] += 1
    np.save(root / "data" / "x.npy", x)


def weights(root: Path):
    import torch
    torch.save(torch.zeros(2), root / "data" / "w.pt")


def new(name: str, text: str = "1"):
    return lambda root: (root / name).write_text(text)


def pickled(root: Path):
    import pickle
    (root / "data" / "p.pkl").write_bytes(pickle.dumps(2))


def gzipped(root: Path):
    import gzip
    (root / "data" / "g.gz").write_bytes(gzip.compress(b"2", mtime=0))


NET, DATA = "ways/net.py", "ways/data.py"
SAME = {
    "nothing": lambda root: None,
    "a file beside": new("data/other.bin"),
    "a function of another name": after(NET, "\n\ndef unused(x): return x\n"),
    "an unrelated variable": code("import os; os.environ['OTHER_SCALE'] = '2'"),
    "the same link again": lambda root: ((root / "data/link.txt").unlink(),
                                         (root / "data/link.txt").symlink_to("a.txt")),
    "a cell that only reads": code("import ways.net as n; n.width(4); n.scaled(2)"),
    "a pandas option that shows": code(
        "import pandas; pandas.set_option('display.max_rows', 7)"),
    "how numpy prints": code("import numpy; numpy.set_printoptions(precision=2)"),
}
OTHER = {
    "a file of another kind in a listed folder": new("data/texts/more.md"),  # needless
    "a table, mutated in a cell": code("import ways.net as n; n.OPTIONS['scale'] = 2.0"),
    "a list in a table": code("import ways.net as n; n.OPTIONS['layers'][0] = 5"),
    "an item of a tensor": code("import ways.net as n; n.TABLE[0] = 2"),
    "an attribute of an object": code("import ways.net as n; n.SETTINGS.factor = 2.0"),
    "an attribute of its class": code("import ways.net as n; n.Settings.rate = 2.0"),
    "a class attribute of a layer": code("import ways.net as n; n.Layer.gain = 2.0"),
    "a property": code("import ways.net as n; n.Layer.twice = property(lambda o: 3 * o.gain)"),
    "a static method": code("import ways.net as n, torch; n.Net.act = staticmethod(torch.sin)"),
    "a function put elsewhere": code("import ways.net as n; n.scaled = n.make(0.25)"),
    "what a closure holds": code("import ways.net as n; n.scaled.__closure__[0].cell_contents = 2"),
    "a default that grows": code("import ways.net as n; n.collect.__defaults__[0].append(3.0)"),
    "a cached helper": edit(NET, "n + 1", "n + 2"),
    "a cached helper, in a cell": code("import ways.net as n; n.width = lambda n: n + 2"),
    "code of a function": code("import ways.net as n; n.loss.__code__ = (lambda scores, target: "
                               "n.F.mse_loss(scores[:, 0], target.float())).__code__"),
    "a function of torch": code("import torch.nn.functional as F; F.relu = lambda x: x"),
    "a method of torch": code(
        "import torch\ndef reset(self): torch.nn.init.ones_(self.weight)\n"
        "torch.nn.Linear.reset_parameters = reset"),
    "a method of an optimizer": code(
        "import torch\ndef step(self, closure=None): return closure() if closure else None\n"
        "torch.optim.AdamW.step = torch.optim.SGD.step = torch.optim.Adam.step = step"),
    "a variable, by a helper": code("import os; os.environ['WAYS_SCALE'] = '2'"),
    "a variable, by a computed name": code("import os; os.environ['WAYS_GAIN'] = '2'"),
    "a file of the same size and date": swapped("data/t.csv", b"0.5", b"0.7"),
    "an array of the same size and date": swapped("data/raw.bin", b"\0\0\x80?", b"\0\0\x90?"),
    "a link to another file": relinked,
    "the file behind a link": new("data/a.txt", "3"),
    "a mapped array": arrays,
    "a database": lambda root: rows(root, [1, 0] * 6),
    "a table": new("data/t.csv", "v\n0.25\n"),
    "facts": new("data/facts.json", '{"shift": 2}'),
    "a file in a listed folder": new("data/texts/two.txt"),
    "a listed file gone": lambda root: (root / "data/texts/one.txt").unlink(),
    "a file in a walked folder": new("data/set/in/three.num"),
    "a new folder in a walked one": lambda root: ((root / "data/set/more").mkdir(),
                                                  new("data/set/more/x.num")(root)),
    "an archive": zipped("2"),
    "a compressed file": gzipped,
    "a pickle": pickled,
    "weights in a file": weights,
    "a file that a worker reads": new("data/flip.txt", "-1"),
    "a helper's pattern": edit("ways/files.py", "*.txt", "*.md"),
    "a function that is looked up by name": edit("ways/unknown.py", "cp data", "cp -f data"),
    "how a name is looked up": edit(NET, 'OPTIONS["scale"] *', 'eval("OPTIONS")["scale"] *'),
    "threads": code("import torch; torch.set_num_threads(torch.get_num_threads() + 1)"),
    "a backend": code("import torch; torch.backends.mkldnn.enabled = False"),
    "a pandas option": code("import pandas; pandas.set_option('compute.use_bottleneck', False)"),
    "a base in a cell": code(
        "import ways.net as n, torch\nclass Wide(torch.nn.Linear): pass\n"
        "n.Layer.__bases__ = (Wide,)"),
    "a value of the time": words("+extra.when=${now:%f}"),
    "a variable that the config reads": code("import os; os.environ['WAYS_SIZE'] = '5'"),
}
UNKNOWN = ("program", "system", "url", "spawn", "cached", "changed", "connection")
