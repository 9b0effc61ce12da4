"""A config is a cell: `%%config` writes it and names each mistake at the cell's own line, `%config`
shows it, and what IPython's `%config` does it still does. In a real kernel."""
import re
import shutil
from pathlib import Path

import pytest

from fixtures import ALL
from kernel import Kernel
from test_mistakes import BASES, CODE, KINDS, Mistake, corpus, only_looks_wrong, project, write

assert project  # a fixture

pytestmark = pytest.mark.slow
SMALL = "defaults: [data: mnist, model: classifier]\nmodel:\n  net:\n    _target_: {}\n"
MLP = "mlkit.model.nets.MLP\n    in_shape: [1, 28, 28]\n    num_classes: 10"


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("magic"), CODE)
    with Kernel(folder) as found:
        assert not found.run("%load_ext mlkit").error
        yield found


@pytest.fixture
def configs(kernel) -> Path:
    shutil.rmtree(kernel.folder / "configs", ignore_errors=True)
    return kernel.folder / "configs"


def is_of_one_file(m: Mistake) -> bool:
    is_plain = not (m.args or m.env or m.dotenv) and list(m.edits) == [m.config]
    text = m.edits[m.config] if is_plain else None
    is_of_data = "source: full" in str(text)  # that it is not there is seen as it is to be read
    return text is not None and "\0" not in text and not is_of_data


def in_cell(at: str, config: str, n: int) -> str:
    "main.yaml:3:1: key -> Cell In[5]:4:1: key"
    def moved(o: re.Match) -> str: return f"Cell In[{n}]" + (f":{int(o[1]) + 1}" if o[1] else "")
    return re.sub(rf"^{re.escape(config)}(?::(\d+))?", moved, at)


def test_each_mistake_of_the_corpus_has_the_cells_line(kernel, configs, project, figure):  # noqa: F811
    found = [m for f in KINDS.values() for m in corpus(f) if is_of_one_file(m)]
    found, missed = found if ALL else found[::15], []
    for m in found:
        shutil.rmtree(configs, ignore_errors=True)
        write(configs, {k: v for k, v in m.files().items() if k != m.config})
        cell = kernel.run(f"%%config {m.config}\n{m.edits[m.config]}")
        lines = cell.traceback.removeprefix("ConfigError: ").splitlines()
        if len(lines) > 1 and re.fullmatch(r"\d+ problems", lines[0]): del lines[0]
        for at, line in zip(m.at, lines):
            ways = [in_cell(o, m.config, cell.count) for o in ([at] if isinstance(at, str) else at)]
            if not line.startswith(tuple(ways)): missed.append(f"{m}\n{line}\nnot {ways}")
        if len(lines) != len(m.at): missed.append(f"{m}\n{cell}")
    figure(f"%%config: the cell's line for {len(found) - len(missed)} / {len(found)} mistakes")
    assert len(found) > 30 and not missed, "\n\n".join(missed)


def test_a_warning_is_told_at_the_cells_line(kernel, configs, project):  # noqa: F811
    for m in corpus(only_looks_wrong):
        if not is_of_one_file(m): continue
        shutil.rmtree(configs, ignore_errors=True)
        write(configs, {k: v for k, v in m.files().items() if k != m.config})
        cell = kernel.run(f"%%config {m.config}\n{m.edits[m.config]}")
        line, last = cell.text.splitlines()
        assert line.startswith(in_cell(m.at[0], m.config, cell.count)), line
        assert ": warning: " in line
        assert last == f"configs/{m.config}: no mistakes"


def test_what_is_right_is_written_and_shown(kernel, configs):
    for base, files in BASES.items():
        shutil.rmtree(configs, ignore_errors=True)
        write(configs, files)
        (configs / "main.yaml").unlink()
        cell = kernel.run(f"%%config main\n{files['main.yaml']}")
        assert cell.lines == ["configs/main.yaml: no problems"], (base, cell)
        assert (configs / "main.yaml").read_text().partition("\n")[2].rstrip("\n") == (
            files["main.yaml"].rstrip("\n"))
        for name in ("main.yaml", "main", "configs/main.yaml"):
            shown = kernel.run(f"%config {name} trainer.max_epochs=7 +extra.a='b c'").shown[-1]
            assert re.search(r"max_epochs: 7 +command line", shown["text/plain"]), shown
            assert "<table" in shown["text/html"] and "b c" in shown["text/plain"]
    assert kernel.run("%config nowhere.yaml").traceback.startswith(
        "ConfigError: nowhere.yaml: no such config file")


def test_no_file_of_the_users_is_lost(kernel, configs):
    text = f"%%config a.yaml\n{SMALL.format(MLP)}"
    for _ in range(2): assert not kernel.run(text).error
    assert not kernel.run(f"{text}seed: 3\n").error  # it wrote it itself
    file = configs / "a.yaml"
    file.write_text(file.read_text() + "tags: [mine]\n")
    cell = kernel.run(text)
    assert "a.yaml: was changed since a cell wrote it; to overwrite it: %%" in cell.traceback
    assert "mine" in file.read_text()
    assert not kernel.run(text.replace("%%config", "%%config -f")).error
    file.write_text("seed: 3\n")
    assert "no cell wrote it" in kernel.run(text).traceback and file.read_text() == "seed: 3\n"
    file.unlink()
    file.symlink_to(kernel.folder / "pyproject.toml")
    assert "leads out of configs" in kernel.run(text).traceback
    for name in ("../a.yaml", "/tmp/a.yaml"):
        assert "leads out of configs" in kernel.run(text.replace("a.yaml", name)).traceback
    assert kernel.run("%%config\nseed: 3").traceback.startswith("UserError: %%config: which file?")


def test_a_name_with_spaces_stands_in_quotes(kernel, configs):
    name, text = "mein schönes Netz.yaml", f"{SMALL.format(MLP)}name: schoen\n"
    for line in (f"%%config {name}\n{text}", f"%config {name} seed=3", "%%config my net\nseed: 3"):
        cell = kernel.run(line)
        assert "is no key=value; a name with spaces stands in quotes: \"m" in cell.traceback, cell
    assert not configs.exists()
    cell = kernel.run(f"%%config '{name}' seed=3\n{text}")
    assert cell.lines == [f"configs/{name}: no problems"], cell
    for quoted in (f'"{name}"', '"mein schönes Netz"', f"'configs/{name}'"):
        shown = kernel.run(f"%config {quoted} seed=3").shown[-1]
        assert re.search("seed: 3 +command line", shown["text/plain"]), shown
    for line in ("%%config 'a\nseed: 3", "%config 'a", "%config 'a' seed=3"):
        assert len(kernel.run(line).traceback.splitlines()) == 1, line
    assert not kernel.run("%config InlineBackend.rc = {'a': 'b.yaml'}").error


def test_options_of_groups(kernel, configs):
    right = {"optimizer/a": "_target_: torch.optim.SGD\n_partial_: true\nlr: 0.1\n",
             "model/net/a": "_target_: mlkit.model.nets.MLP\nnum_classes: 10\n",
             "trainer/a": "_target_: pytorch_lightning.Trainer\nmax_epochs: 3\n",
             "mine/a": "width: 3\n", "data/a": "# @package data\nbatch_size: 3\n",
             "callbacks/a": "stop:\n  _target_: pytorch_lightning.callbacks.EarlyStopping\n"
                            "  monitor: val/loss\n",
             "experiments/a": f"{SMALL.format(MLP)}"}
    for name, text in right.items():
        cell = kernel.run(f"%%config {name}\n{text}")
        assert cell.lines == [f"configs/{name}.yaml: no problems"], cell
        assert not kernel.run(f"%config {name}").error
    wrong = {"optimizer/a": ("_target_: torch.optim.SGD\nmomentun: 1\n", "optimizer.momentun"),
             "model/net/a": ("_target_: mlkit.model.nets.MLPs\nx: 1\n", "model.net._target_"),
             "experiments/a": (SMALL.format(MLP) + "sede: 3\n", "sede")}
    for name, (text, key) in wrong.items():
        cell = kernel.run(f"%%config {name}\n\n{text}")
        at = [i for i, o in enumerate(text.splitlines(), 3) if key.split(".")[-1] in o][0]
        assert re.search(rf"\]:{at}:\d+: {re.escape(key)}: ", cell.traceback), cell


def test_the_line_is_that_of_the_cell_as_it_stands(kernel, configs):
    cell = kernel.run(f"\n\n%%config a.yaml\n{SMALL.format(MLP)}sede: 3\n")
    assert "]:10:1: sede" in cell.traceback, cell
    cell = kernel.run(f"%%config a.yaml\r\n{SMALL.format(MLP)}sede: 3\n")
    assert "]:8:1: sede" in cell.traceback, cell
    cell = kernel.run(f"%%config a.yaml seed=-1\n{SMALL.format(MLP)}")
    assert cell.traceback.startswith("ConfigError: command line: seed=-1: "), cell
    cell = kernel.run(f"%%config a.yaml\n# @package _global_\n{SMALL.format(MLP)}")
    assert cell.lines == ["configs/a.yaml: no problems"], cell


def test_ipythons_own_config(kernel, configs):
    kernel.run("%matplotlib inline")
    assert "InlineBackend" in kernel.run("%config").text
    kernel.run("%config InteractiveShell.ast_node_interactivity = 'all'")
    assert len(kernel.run("1\n2").shown) == 2
    kernel.run("%config InteractiveShell.ast_node_interactivity = 'last_expr'")
    assert kernel.value("%config ZMQInteractiveShell.ast_node_interactivity") == "'last_expr'"
    assert "figure_format" in kernel.run("%config InlineBackend").text
    assert "Invalid config statement" in kernel.run("%config Nonsense").text
    for line in ("%reload_ext mlkit", "%unload_ext mlkit", "%load_ext mlkit"):
        assert not kernel.run(line).error
    assert "InlineBackend" in kernel.run("%config").text
