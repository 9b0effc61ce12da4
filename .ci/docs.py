#!/usr/bin/env python3
"""Build the docs site from nbs/ into _docs/: `python .ci/docs.py`, or with Quarto: `python .ci/docs.py --quarto`.

nbdev processes each notebook into _proc/ (documentation made of the exported code, links between the pages), then
smalldocs or Quarto renders what nbs/_quarto.yml describes. Nothing is downloaded, and the pages show the outputs that
are committed: only imports and exported cells are run, for the signatures."""
import argparse
import ast
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup
from nbdev.processors import FilterDefaults, add_fold, add_links, exec_show_docs, mv_exports
from nbdev.serve_drv import exec_nb

ROOT = Path(__file__).resolve().parent.parent
NUMBER = re.compile(r"\b\d+[a-z]?_(\w+\.ipynb)")  # 00_config.ipynb: the number orders the files, the page drops it
ENTRY = re.compile(r"^#{2,4} (\S+)$", re.M)       # the heading of one entry of the API


def imports_only(cell) -> bool:
    return all(isinstance(o, (ast.Import, ast.ImportFrom)) for o in cell.parsed_() or ())


def keep_source(cell):
    "Let the source of an exported cell stay on its page; a cell of imports alone says nothing there."
    if cell.cell_type != "code" or "export" not in cell.directives_ or imports_only(cell): return
    cell.directives_["exports"] = cell.directives_.pop("export")


class RunExports(exec_show_docs):
    "Run what the signatures need, exported cells and imports, and never an example that imports something itself."

    def __call__(self, cell):
        if cell.cell_type != "code" or not cell.source: return
        needed = cell.directives_.keys() & {"export", "exports", "exporti", "exec_doc"} or "show_doc(" in cell.source
        if needed or imports_only(cell): super().__call__(cell)


def fold(cell):
    "Fold that source under the documentation made of it."
    if cell.cell_type == "code" and "exports" in cell.directives_:
        cell.source = f'#| code-fold: true\n#| code-summary: "Source"\n{cell.source}'


def link_names(cell):
    "Link a name in backticks to its entry, when it is one of ours: `run` here is not fastcore's `run`."
    lookup = NbdevLookup(incl_libs=(get_config().lib_name,))
    if cell.cell_type == "markdown": cell.source = lookup.linkify(cell.source)
    for out in cell.get("outputs", []):
        data = out.get("data", {})
        if "text/markdown" in data: data["text/markdown"] = lookup.linkify("".join(data["text/markdown"]))


class DocsFirst(mv_exports):
    "Put the documentation of a cell before its source, in the order of the source."

    def begin(self):
        out, cells = [], list(self.nb.cells)
        while cells:
            out.append(cells.pop(0))
            docs = []
            while cells and getattr(cells[0], "has_sd", False): docs.insert(0, cells.pop(0))
            out[-1:] = [*docs, out[-1]]
        self.nb.cells[:] = out


class Pages(FilterDefaults):
    "nbdev's own processing, with the source of each exported cell kept, folded, and links to our own names only."

    def base_procs(self):
        ours = {add_fold: fold, add_links: link_names, exec_show_docs: RunExports, mv_exports: DocsFirst}
        return [keep_source, *(ours.get(p, p) for p in super().base_procs())]


def process(src: Path, dst: Path):
    "Turn the notebook `src` into the page `dst`."
    os.environ["IN_TEST"] = "1"  # nbdev's word for: export nothing now
    exec_nb(src, dst, Pages)


def markdown(nb: dict):
    "Yield each Markdown text of a page with the function that replaces it."
    for cell in nb["cells"]:
        if cell["cell_type"] in ("markdown", "raw"): yield "".join(cell["source"]), lambda s, c=cell: c.update(source=s)
        for out in cell.get("outputs", []):
            data = out.get("data", {})
            if "text/markdown" in data: yield "".join(data["text/markdown"]), lambda s, d=data: d.update({"text/markdown": s})


def relink(proc: Path):
    "Point every link between pages at a file and, where the page has that entry, at the entry."
    cfg = get_config()
    home = f"{cfg.doc_host}{cfg.doc_baseurl}/"
    pages = {p: json.loads(p.read_text(encoding="utf-8")) for p in proc.rglob("*.ipynb")}
    entries = {p.relative_to(proc).with_suffix(".html").as_posix(): {e.lower() for text, _ in markdown(nb) for e in ENTRY.findall(text)}
               for p, nb in pages.items()}
    for path, nb in pages.items():
        up = "../" * (len(path.relative_to(proc).parts) - 1)

        def entry(m: re.Match) -> str:
            page, name = m[1], m[2]
            while name and name not in entries.get(page, ()): name = name.rpartition(".")[0]  # a method: its class
            return f"]({up}{page}{'#' if name else ''}{name})"

        for text, put in markdown(nb):
            text = re.sub(r"^output-file: .*\n", "", text, flags=re.M)  # the file has its page's name already
            put(NUMBER.sub(r"\1", re.sub(rf"\]\({re.escape(home)}([^)#]+)#([^)]+)\)", entry, text)))
        path.write_text(json.dumps(nb, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def prepare(nbs: Path, proc: Path):
    "Fill `proc` with every page, and with every file that pages need."
    shutil.rmtree(proc, ignore_errors=True)
    jobs = []
    for src in sorted(nbs.rglob("*")):
        rel = src.relative_to(nbs)
        if src.is_dir() or (rel.name != "_quarto.yml" and any(p[0] in "._" for p in rel.parts)): continue
        dst = proc / rel.with_name(NUMBER.sub(r"\1", rel.name))
        dst.parent.mkdir(parents=True, exist_ok=True)
        if src.suffix == ".ipynb": jobs.append((src, dst))
        elif rel.name == "_quarto.yml": dst.write_text(NUMBER.sub(r"\1", src.read_text(encoding="utf-8")), encoding="utf-8")
        else: shutil.copy2(src, dst)
    # A process for each notebook, since running its exported cells may change what the modules it imports hold.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, 8), mp_context=spawn, max_tasks_per_child=1) as pool:
        list(pool.map(process, *zip(*jobs)))
    relink(proc)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quarto", action="store_true", help="render with Quarto, not with smalldocs")
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "_docs", help="the site's folder, beside which _proc/ is made (default _docs)")
    args = parser.parse_args()
    out = args.out.resolve()
    proc = out.parent / "_proc"
    os.chdir(ROOT)
    prepare(ROOT / "nbs", proc)
    if args.quarto: cmd = ["quarto", "render", str(proc), "--no-execute"]
    else: cmd = [sys.executable, "-m", "smalldocs.cli", "render", "--strict", str(proc)]
    if code := subprocess.run(cmd, stdin=subprocess.DEVNULL).returncode: sys.exit(code)
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(proc / "_docs", out)
    print(f"{len(list(out.rglob('*.html')))} pages in {out}")


if __name__ == "__main__": main()
