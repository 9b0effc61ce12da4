"The notebooks. Who does without the worked examples, `mlkit/recipes`, has none of theirs."
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"


def is_here(notebook: str) -> bool:
    return (not notebook.startswith("recipes/")
            or (ROOT / "mlkit" / notebook).with_suffix(".py").is_file())


def without_recipes(text: str) -> bool:
    "Does a text, of a config, name a worked example where there are none?"
    return "mlkit.recipes." in text and not (ROOT / "mlkit" / "recipes").is_dir()


ALL = [p.relative_to(NBS) for p in NBS.rglob("*.ipynb")]
NOTEBOOKS = sorted(p.as_posix() for p in ALL if not any(part[0] in "._" for part in p.parts)
                   and is_here(p.as_posix()))
GUIDE = [n for n in NOTEBOOKS if n.startswith(("index", "reference", "guide/"))]
RECIPES = [n for n in NOTEBOOKS if n.startswith("recipes/")]
