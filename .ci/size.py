#!/usr/bin/env python3
"""The size of mlkit, wing by wing: `python .ci/size.py`.

Counted are lines that are not blank; nbdev's cell markers and its index of names are not."""
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "mlkit"


def lines_of(path: Path) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return sum(bool(o.strip()) and not o.startswith("# %%") for o in lines)


def main():
    wings = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        first, *rest = path.relative_to(PACKAGE).with_suffix("").parts
        if path.name not in ("__init__.py", "_modidx.py"):
            wings.setdefault(first, {})["/".join(rest) or first] = lines_of(path)
    for wing, rooms in wings.items():
        told = "  ".join(f"{room} {n}" for room, n in rooms.items()) if len(rooms) > 1 else ""
        print(f"{wing:10} {sum(rooms.values()):5}   {told}")
    core = sum(n for wing, rooms in wings.items() if wing != "recipes" for n in rooms.values())
    print(f"{'core':10} {core:5}   all but the recipes")


if __name__ == "__main__": main()
