#!/usr/bin/env python3
"""Write README.md from nbs/index.ipynb and its committed outputs: `python .ci/readme.py`.

Pictures go to nbs/images/, links are made to start at the project's root, and no cell is run."""
import base64
import json
import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTE = "<!-- Written from nbs/index.ipynb by .ci/readme.py: edit the notebook, not this file. -->"
LINK = re.compile(r"(\]\()(?![a-z]+:|#|/)([^)\s]+)")  # a link or picture with a relative target
FENCE = re.compile(r"(^```.*?^```$)", re.M | re.S)


def text_of(value: str | list[str]) -> str:
    "Notebooks store text as one string or as a list of lines."
    return value if isinstance(value, str) else "".join(value)


def prose(source: str) -> str:
    "A Markdown cell, its links made to start at the project's root, except in fences."
    def fix(text):
        text = re.sub(r"^:::.*\n?", "", text, flags=re.M)  # Quarto's boxes are unknown to GitHub
        return LINK.sub(lambda m: m[1] + posixpath.normpath(posixpath.join("nbs", m[2])), text)
    parts = FENCE.split(source)
    return "".join(part if part.startswith("```") else fix(part) for part in parts).strip()


def options(source: str) -> tuple[set[str], str]:
    "A code cell's `#|` lines, without spaces, and its code."
    lines = source.splitlines()
    opts = {re.sub(r"\s", "", l[2:]) for l in lines if l.startswith("#|")}
    return opts, "\n".join(l for l in lines if not l.startswith("#|")).strip()


def shown(output: dict, name: str, alt: str, pictures: dict[str, bytes]) -> str:
    "One output as Markdown, stderr left out; a picture is kept in `pictures` by its file name."
    if output["output_type"] == "stream":
        if output["name"] == "stderr": return ""
        lines = text_of(output["text"]).split("\n")
        return fenced("\n".join(l.rsplit("\r", 1)[-1].rstrip() for l in lines))
    data = output.get("data", {})
    if "text/markdown" in data: return prose(text_of(data["text/markdown"]))
    images = [("image/png", "png", base64.b64decode), ("image/svg+xml", "svg", str.encode)]
    for mime, suffix, decode in images:
        if mime in data:
            pictures[f"{name}.{suffix}"] = decode(text_of(data[mime]))
            return f"![{alt}](nbs/images/{name}.{suffix})"
    if "text/html" in data and "<svg" not in text_of(data["text/html"]):  # which GitHub drops
        def keep(m: re.Match) -> str:
            file = f"{name}-{len(pictures)}.png"
            pictures[file] = base64.b64decode(m[1])
            return f'src="nbs/images/{file}"'
        html = re.sub(r"<style.*?</style>\s*", "", text_of(data["text/html"]), flags=re.S)
        return re.sub(r'src="data:image/png;base64,([^"]+)"', keep, html).strip()
    return fenced(text_of(data.get("text/plain", "")))


def fenced(text: str) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).strip("\n")
    return f"```text\n{text}\n```" if text.strip() else ""


def render(notebook: Path) -> tuple[str, dict[str, bytes]]:
    "The README's text, and its pictures by file name."
    parts, pictures = [NOTE], {}
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = text_of(cell["source"])
        if cell["cell_type"] == "markdown": parts.append(prose(source))
        if cell["cell_type"] != "code": continue
        opts, code = options(source)
        if opts & {"hide", "include:false"}: continue
        if code and "echo:false" not in opts: parts.append(f"```python\n{code}\n```")
        if "output:false" in opts: continue
        alt = "".join(re.findall(r"^#\| *fig-alt: *[\"']?(.*?)[\"']?$", source, re.M))
        for n, output in enumerate(cell["outputs"]):
            parts.append(shown(output, f"index-{cell['id']}-{n}", alt, pictures))
    return "\n\n".join(p for p in parts if p) + "\n", pictures


def main():
    text, pictures = render(ROOT / "nbs" / "index.ipynb")
    (ROOT / "README.md").write_text(text, encoding="utf-8")
    folder = ROOT / "nbs" / "images"
    for old in folder.glob("index-*"):
        if old.name not in pictures: old.unlink()
    for name, data in pictures.items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    print(f"README.md and {len(pictures)} picture(s)")


if __name__ == "__main__": main()
