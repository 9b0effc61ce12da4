"The docs site: it builds, and each of its pages opens in headless Chromium without a fault."
import re
import subprocess
import sys
from pathlib import Path

import pytest

from browser import check_site, find_chromium
from notebooks import NBS, NOTEBOOKS, ROOT, without_recipes

needs_smalldocs = pytest.mark.skipif(sys.version_info < (3, 11), reason="smalldocs needs 3.11")


def page_of(notebook: str) -> str:
    "config/09_load.ipynb -> config/load.html"
    return re.sub(r"(^|/)\d+[a-z]?_", r"\1", notebook).removesuffix(".ipynb") + ".html"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    "The site, built once by the documented command."
    if without_recipes("mlkit.recipes."): pytest.skip("the examples' pages need their modules")
    out = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, ROOT / ".ci" / "docs.py", "-o", out]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@needs_smalldocs
@pytest.mark.slow
def test_every_page_in_chromium(site):
    """No error on a console, no missing picture, no broken link, no other host, nothing wider than
    390 px; at 1400 px no code of index, Guide and Reference scrolls sideways."""
    faults = check_site(site)
    assert set(map(page_of, NOTEBOOKS)) <= faults.keys()
    assert {page: found for page, found in faults.items() if found} == {}


@needs_smalldocs
@pytest.mark.slow
def test_each_public_name_has_an_entry(site):
    from mlkit._modidx import d

    missing = []
    for names in d["syms"].values():
        for name, (link, _) in names.items():
            page, anchor = link.split("#")
            if "." in anchor or name.rpartition(".")[2].startswith("_"): continue
            text = (site / page).read_text(encoding="utf-8")
            if f'id="{anchor}"' not in text: missing.append(name)
    assert missing == []


@needs_smalldocs
@pytest.mark.slow
def test_llms_txt_lists_the_public_face_and_the_guide(site):
    text = (site / "llms.txt").read_text(encoding="utf-8")
    assert "- `train(cfg" in text and "- `ConfigError(" in text
    pages = re.findall(r"\]\(https://\S+?/mlkit/(\S+?)\)", text)
    assert {f"guide/{p.stem}.llms.md" for p in (NBS / "guide").glob("*.ipynb")} <= set(pages)
    assert [p for p in pages if not (site / p).is_file()] == []


def test_sidebar_names_each_notebook():
    sidebar = (NBS / "_quarto.yml").read_text(encoding="utf-8").partition("sidebar:")[2]
    listed = re.findall(r"[\w/*]+\.ipynb", sidebar)
    folder = lambda notebook: f"{notebook.rpartition('/')[0]}/*.ipynb"
    assert [n for n in NOTEBOOKS if n not in listed and folder(n) not in listed] == []
    assert [n for n in listed if "*" not in n and not (NBS / n).is_file()] == []


def test_index_names_each_room():
    index = (NBS / "index.ipynb").read_text(encoding="utf-8")
    rooms = [n for n in NOTEBOOKS if n not in ("index.ipynb", "reference.ipynb")]
    assert [n for n in rooms if f"]({n})" not in index] == []


FAULTS = {
    "console.html": ("<script>console.error('oh no')</script>", "console: oh no"),
    "exception.html": ("<script>nothing.there</script>", "exception: ReferenceError"),
    "image.html": ("<img src='gone.png'>", "missing image"),
    "lazy.html": ("<p style='height:9000px'></p><img loading='lazy' src='gone.png'>",
                  "missing image"),
    "data.html": ("<img src='data:image/png;base64,AAAA'>", "missing image"),
    "script.html": ("<script src='gone.js'></script>", "status 404"),
    "style.html": ("<link rel='stylesheet' href='gone.css'>", "status 404"),
    "link.html": ("<a href='gone.html'>there</a>", "broken link: gone.html"),
    "anchor.html": ("<a href='good.html#gone'>there</a>", "broken link: good.html#gone"),
    "outside.html": ("<img src='https://example.com/a.png'>", "asks another host"),
    "late.html": ("<script>onload = () => setTimeout(() => fetch('gone.json'), 10)</script>",
                  "status 404"),
    "wide.html": ("<p style='width:500px'>wide</p>", "wider than 390 px by"),
    "guide/code.html": (f"<pre class='sourceCode' style='overflow-x:auto'>{'x = 1; ' * 400}</pre>",
                        "code scrolls sideways at 1400 px: x = 1;"),
}
GOOD = """<h1 id="here">Good</h1><a href="#here">here</a> <a href="console.html">there</a>
<a href="https://example.com">far</a> <img src="dot.svg"><img loading="lazy"
src="data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7">"""
HEAD = """<!doctype html><html lang='en'>
<head><title>x</title><link rel='icon' href='/dot.svg'></head>"""
DOT = """<svg xmlns='http://www.w3.org/2000/svg' width='4' height='4'>
<rect width='4' height='4'/></svg>"""


@pytest.fixture(scope="module")
def broken_site(tmp_path_factory) -> dict[str, list[str]]:
    "What is found on a site that has one fault a page, and one good page."
    folder = tmp_path_factory.mktemp("broken")
    (folder / "guide").mkdir()
    (folder / "dot.svg").write_text(DOT)
    for name, (body, _) in {**FAULTS, "good.html": (GOOD, "")}.items():
        (folder / name).write_text(f"{HEAD}<body>{body}</body></html>")
    return check_site(folder)


@pytest.mark.parametrize("page", FAULTS)
def test_a_fault_is_found(broken_site, page):
    assert any(f.startswith(FAULTS[page][1]) for f in broken_site[page]), broken_site[page]


def test_a_good_page_has_no_fault(broken_site):
    assert broken_site["good.html"] == []


def test_without_chromium_the_failure_says_what_to_do(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CHROMIUM", raising=False)
    message = "^no Chromium: run `apt-get update && apt-get install -y chromium`"
    with pytest.raises(FileNotFoundError, match=message): find_chromium()
