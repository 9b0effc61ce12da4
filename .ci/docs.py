#!/usr/bin/env python3
"""Build the docs site from nbs/ into _docs/: `python .ci/docs.py`, or with Quarto: `--quarto`.

nbdev processes each notebook into _proc/ (documentation made of the exported code, links between
the pages), then smalldocs or Quarto renders what nbs/_quarto.yml describes. Nothing is downloaded,
and the pages show the outputs that are committed: only imports, exported cells and `show_doc` are
run, for the signatures. `llms.txt` lists the public face and the guide."""
import argparse
import ast
import dataclasses
import importlib
import inspect
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import textwrap
import types
import typing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import fastcore.docments
import nbdev.showdoc
from fastcore.docments import docments
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup
from nbdev.processors import (
    FilterDefaults,
    add_fold,
    add_links,
    clean_magics,
    exec_show_docs,
    mv_exports,
)
from nbdev.serve_drv import exec_nb

ROOT = Path(__file__).resolve().parent.parent
NUMBER = re.compile(r"\b\d+[a-z]?_(\w+\.ipynb)")  # 02_loader.ipynb: the page is named loader
ENTRY = re.compile(r"^#{2,4} (\S+)$", re.M)       # the heading of one entry of the API
GLOB = re.compile(r"^( *contents:) (\w+)/\*\.ipynb$", re.M)  # a folder's notebooks, in the sidebar
MAGIC = re.compile(r"^\s*%%?(?!%?(config|load_ext|env)\b).*", re.M)
USERS = ("index", "guide/", "recipes/", "reference")  # pages whose names link to Reference


def imports_only(cell) -> bool:
    tree = cell.parsed_()  # None of a cell magic, which is not Python
    return bool(tree) and all(isinstance(o, (ast.Import, ast.ImportFrom)) for o in tree)


def keep_source(cell):
    "Keep the source of an exported cell on its page, unless it is a cell of imports alone."
    if cell.cell_type != "code" or imports_only(cell): return
    for word in cell.directives_.keys() & {"export", "exporti"}:
        cell.directives_["exports"] = cell.directives_.pop(word)


class RunExports(exec_show_docs):
    "Run what the signatures need: exported cells, imports, `show_doc`; no other example."

    def __call__(self, cell):
        if cell.cell_type != "code" or not cell.source: return
        exported = cell.directives_.keys() & {"export", "exports", "exporti", "exec_doc"}
        if exported and "nbdev_export()" in cell.source and hasattr(self, "k"):
            self.k.cell(cell)  # a message of its; nbdev takes it for a call, and would skip it
        if exported or "show_doc(" in cell.source or imports_only(cell): super().__call__(cell)


def fold(cell):
    "Fold that source under the documentation made of it."
    if cell.cell_type == "code" and "exports" in cell.directives_:
        cell.source = f'#| code-fold: true\n#| code-summary: "Source"\n{cell.source}'


def link_names(cell):
    "Link a name in backticks to its entry, when it is one of ours."
    lookup = NbdevLookup(incl_libs=(get_config().lib_name,))
    if cell.cell_type == "markdown": cell.source = lookup.linkify(cell.source)
    for out in cell.get("outputs", []):
        data = out.get("data", {})
        if "text/markdown" not in data: continue
        data["text/markdown"] = lookup.linkify("".join(data["text/markdown"]))


def drop_magics(cell):
    "Remove magics as nbdev does, but those that a page is about."
    if cell.cell_type == "code": cell.source = MAGIC.sub("", cell.source).strip()


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
    "nbdev's processing, with the exported source kept, folded, and links to our own names only."

    def base_procs(self):
        ours = {add_fold: fold, add_links: link_names, clean_magics: drop_magics,
                exec_show_docs: RunExports, mv_exports: DocsFirst}
        return [keep_source, *(ours.get(p, p) for p in super().base_procs())]


def type_text(kind) -> str:
    "A type as one writes it: `str | Path`, `Iterable[str]`."
    if kind in (inspect.Parameter.empty, None): return ""
    if isinstance(kind, str): return kind
    if kind is type(None): return "None"
    if kind is ...: return "..."
    if isinstance(kind, list): return f"[{', '.join(map(type_text, kind))}]"
    home, args = typing.get_origin(kind), typing.get_args(kind)
    if home in (typing.Union, types.UnionType): return " | ".join(map(type_text, args))
    if home is typing.Literal: return " | ".join(map(repr, args))
    name = getattr(home or kind, "__name__", str(kind))
    return f"{name}[{', '.join(map(type_text, args))}]" if args else name


def value_text(value) -> str:
    "A default as one writes it; a class or a function by its name."
    return getattr(value, "__name__", None) or repr(value)


def typed(p: inspect.Parameter) -> str:
    "A parameter with its type and its default: `batch_size: int = 128`."
    name, equals, default = Entry.short(p).partition("=")
    kind = type_text(p.annotation)
    return name + (f": {kind}" if kind else "") + (f" = {default}" if equals else "")


def signature_as_written(what, **kwargs) -> inspect.Signature:
    "What `show_doc` asks for: annotations that only type checkers import stay text, as pandas'."
    try: return inspect.signature(what, **kwargs)
    except NameError: return inspect.signature(what)


fastcore.docments.signature = signature_as_written


class Entry(nbdev.showdoc.BasicMarkdownRenderer):
    "An entry of the API: a name, its signature, what it does, and a table of its parameters."
    room = ""  # the module that the page exports

    def _repr_markdown_(self):
        what = self.sym.fget if isinstance(self.sym, property) else self.sym
        lines = ["---", ""]
        if source := NbdevLookup().code(self.fn):
            style = 'style="float:right; font-size:smaller"'
            source = source.removesuffix("#LNone")
            lines += [f'[source]({source}){{target="_blank" {style}}}', ""]
        lines += [f"{'#' * self.title_level} {self.nm}", ""]
        own_init = inspect.isclass(what) and "__init__" in vars(what)
        try: parameters = inspect.signature(what).parameters if callable(what) else {}
        except (TypeError, ValueError): parameters = {}
        if inspect.isclass(what) and not own_init and issubclass(what, Exception): parameters = {}
        parameters = {k: p for k, p in parameters.items() if k != "self"}
        call = ", ".join(self.short(p) for p in parameters.values())
        indent = " " * (len(self.nm) + 1)
        signature = textwrap.fill(f"{self.nm}({call})", 96, subsequent_indent=indent)
        lines += ["```python", signature, "```", "", inspect.getdoc(what) or "", ""]
        if own_init: lines += [inspect.cleandoc(what.__init__.__doc__ or ""), ""]
        return "\n".join([*lines, *self.table(what, parameters)])

    @staticmethod
    def short(p: inspect.Parameter) -> str:
        star = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        return star + p.name + ("" if p.default is p.empty else f"={value_text(p.default)}")

    @staticmethod
    def table(what, parameters) -> list[str]:
        "The parameters and what is returned: name, type, default, comment."
        if dataclasses.is_dataclass(what) and Entry.room:  # a cell's class has no source
            what = getattr(importlib.import_module(f"mlkit.{Entry.room}"), what.__name__, what)
        found = docments(what, full=True, returns=True) if callable(what) else {}
        rows = []
        for k, p in parameters.items():
            name, _, default = Entry.short(p).partition("=")
            comment = found[k].docment if k in found else None
            rows.append((name, type_text(p.annotation), default, comment or ""))
        back = found.get("return")
        if back and not inspect.isclass(what) and type_text(back.anno):
            rows.append(("returns", type_text(back.anno), "", back.docment or ""))
        if not rows: return []
        code = lambda text: f"`{text}`" if text else ""
        plain = lambda text: re.sub(r"(`[^`]*`)|<", lambda m: m[1] or "&lt;", text)
        rows = [(name if name == "returns" else code(name), code(kind), code(default), plain(said))
                for name, kind, default, said in rows]
        tidy = lambda text: text.replace("|", "\\|").replace("\n", " ")
        cells = [" | ".join(map(tidy, row)) for row in rows]
        head = ["| parameter | type | default | what it is |", "|---|---|---|---|"]
        return [*head, *(f"| {row} |" for row in cells)]


def process(src: Path, dst: Path):
    "Turn the notebook `src` into the page `dst`."
    nbdev.showdoc.BasicMarkdownRenderer = Entry
    exported = re.search(r"#\| default_exp ([\w.]+)", src.read_text(encoding="utf-8"))
    Entry.room = exported[1] if exported else ""
    os.environ["IN_TEST"] = "1"  # nbdev's word for: export nothing now
    exec_nb(src, dst, Pages)


def markdown(nb: dict):
    "Yield each Markdown text of a page with the function that replaces it."
    for cell in nb["cells"]:
        if cell["cell_type"] in ("markdown", "raw"):
            yield "".join(cell["source"]), lambda s, c=cell: c.update(source=s)
        for out in cell.get("outputs", []):
            data, kind = out.get("data", {}), "text/markdown"
            if kind in data: yield "".join(data[kind]), lambda s, d=data: d.update({kind: s})


def relink(proc: Path):
    """Point every link between pages at a file and, where the page has that entry, at the entry.
    On pages for users, a name of the public face links to its entry on the page Reference."""
    cfg = get_config()
    home = f"{cfg.doc_host}{cfg.doc_baseurl}/"
    to_entry = re.compile(rf"\]\({re.escape(home)}([^)#]+)#([^)]+)\)")
    pages = {p: json.loads(p.read_text(encoding="utf-8")) for p in proc.rglob("*.ipynb")}
    entries = {}
    for path, nb in pages.items():
        found = {e.lower() for text, _ in markdown(nb) for e in ENTRY.findall(text)}
        entries[path.relative_to(proc).with_suffix(".html").as_posix()] = found
    face = entries.get("reference.html", set())
    for path, nb in pages.items():
        name_here = path.relative_to(proc).as_posix()
        up = "../" * name_here.count("/")

        def entry(m: re.Match) -> str:
            page, name = m[1], m[2]
            for_users = name_here.startswith(USERS)
            if for_users and name.partition(".")[0] in face: page = "reference.html"
            while name and name not in entries.get(page, ()):
                name = name.rpartition(".")[0]  # a method: its class
            return f"]({up}{page}{'#' if name else ''}{name})"

        for text, put in markdown(nb):
            text = re.sub(r"^output-file: .*\n", "", text, flags=re.M)  # the page's name already
            put(NUMBER.sub(r"\1", to_entry.sub(entry, text)))
        path.write_text(json.dumps(nb, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def describe_site(nbs: Path) -> str:
    "_quarto.yml with the pages of each folder named, in the order of their numbers."
    def pages(m: re.Match) -> str:
        indent = " " * (len(m[1]) - len(m[1].lstrip()) + 2)
        names = [f"{indent}- {m[2]}/{p.name}" for p in sorted((nbs / m[2]).glob("*.ipynb"))]
        return "\n".join([m[1], *names])

    return NUMBER.sub(r"\1", GLOB.sub(pages, (nbs / "_quarto.yml").read_text(encoding="utf-8")))


def prepare(nbs: Path, proc: Path):
    "Fill `proc` with every page, and with every file that pages need."
    shutil.rmtree(proc, ignore_errors=True)
    proc.mkdir(parents=True)
    (proc / "_quarto.yml").write_text(describe_site(nbs), encoding="utf-8")
    jobs = []
    for src in sorted(nbs.rglob("*")):
        rel = src.relative_to(nbs)
        if src.is_dir() or any(p[0] in "._" for p in rel.parts) or "runs" in rel.parts: continue
        dst = proc / rel.with_name(NUMBER.sub(r"\1", rel.name))
        dst.parent.mkdir(parents=True, exist_ok=True)
        if src.suffix == ".ipynb": jobs.append((src, dst))
        else: shutil.copy2(src, dst)
    # A process for each notebook: its exported cells may change what the modules it imports hold.
    # Where there is a fork server, it imports torch once for all of them.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(["mlkit.all", "nbdev.serve_drv", "nbdev.showdoc"])
    workers = min(os.cpu_count() or 1, 8)
    with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
        list(pool.map(process, *zip(*jobs)))
    relink(proc)


def title_and_summary(notebook: Path) -> tuple[str, str]:
    "The `# title` and the `> summary` of a notebook's first cell."
    cell = json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]
    title, _, summary = "".join(cell["source"]).partition("\n")
    return title.lstrip("# "), summary.strip().lstrip("> ")


def list_for_machines(nbs: Path, proc: Path) -> str:
    "llms.txt: what mlkit is, its public face with signatures, and the guide (https://llmstxt.org)."
    cfg = get_config()
    home = f"{cfg.doc_host}{cfg.doc_baseurl}/"
    _, summary = title_and_summary(nbs / "index.ipynb")
    lines = [f"# {cfg.lib_name}", "", f"> {summary}", "", "## Guide", ""]
    order = re.findall(r"guide/\w+\.ipynb", (proc / "_quarto.yml").read_text(encoding="utf-8"))
    for page in ["index.ipynb", *dict.fromkeys(order), "reference.ipynb"]:
        title, summary = title_and_summary(nbs / page)
        lines.append(f"- [{title}]({home}{page.removesuffix('.ipynb')}.llms.md): {summary}")
    lines += ["", "## `from mlkit.all import *`", ""]
    face = importlib.import_module(f"{cfg.lib_name}.all")
    for name in face.__all__:
        obj = getattr(face, name)
        if not getattr(obj, "__module__", "").startswith(f"{cfg.lib_name}."): continue
        try: parameters = inspect.signature(obj).parameters.values()
        except ValueError: parameters = ()
        args = ", ".join(map(typed, parameters))
        lines.append(f"- `{name}({args})`: {(inspect.getdoc(obj) or '').partition(chr(10))[0]}")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quarto", action="store_true", help="render with Quarto, not smalldocs")
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "_docs",
                        help="the site's folder, beside which _proc/ is made (default _docs)")
    args = parser.parse_args()
    out = args.out.resolve()
    proc = out.parent / "_proc"
    os.chdir(ROOT)
    prepare(ROOT / "nbs", proc)
    if args.quarto: cmd = ["quarto", "render", str(proc), "--no-execute"]
    else: cmd = [sys.executable, "-m", "smalldocs.cli", "render", "--strict", str(proc)]
    if code := subprocess.run(cmd, stdin=subprocess.DEVNULL).returncode: sys.exit(code)
    text = list_for_machines(ROOT / "nbs", proc)
    (proc / "_docs" / "llms.txt").write_text(text, encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(proc / "_docs", out)
    print(f"{len(list(out.rglob('*.html')))} pages in {out}")


if __name__ == "__main__": main()
