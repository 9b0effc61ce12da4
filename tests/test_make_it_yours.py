"README's walk-through, done to the letter in a folder outside the project."
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent


def steps() -> list[tuple[str, str, list[str]]]:
    """The fences of 'Make it yours': what each is, what it holds, and the file names in the words
    before it."""
    section = (
        (ROOT / "README.md").read_text(
            encoding="utf-8").partition("## Make it yours")[2].partition("\n## ")[0])
    section = section[section.index("A project of your own"):]
    parts = re.split(r"^```(\w*)\n(.*?)^```$", section, flags=re.M | re.S)
    return [(kind, text, re.findall(r"`(\S+\.\w+)`", before))
            for before, kind, text in zip(parts[::3], parts[1::3], parts[2::3])]


def test_the_walk_through(tmp_path):
    package = {p: p.stat().st_mtime_ns for p in (ROOT / "mlkit").rglob("*.py")}
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    folder, cells, notebook = tmp_path, [], None
    for kind, text, named in steps():
        notebook = next((n for n in named if n.endswith(".ipynb")), notebook)
        if kind == "python": cells.append(nbformat.v4.new_code_cell(text.rstrip()))
        elif kind == "yaml": (folder / named[-1]).write_text(text)
        else:
            if cells: nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / notebook)
            done = subprocess.run(["bash", "-euc", text], cwd=folder, env=env,
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            folder = tmp_path / "shapes"
    (run,) = folder.glob("runs/shapes/*/run.json")
    info = json.loads(run.read_text())
    assert info["status"] == "done" and info["metrics"]["test/acc"] >= 0.95
    assert len(cells) == 3 and (folder / "shapes" / "core.py").is_file()
    assert package == {p: p.stat().st_mtime_ns for p in (ROOT / "mlkit").rglob("*.py")}
