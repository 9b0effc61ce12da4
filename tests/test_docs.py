"The docs site: it builds, and each of its pages opens in headless Chromium without a fault."
import re
import subprocess
import sys
from pathlib import Path

import pytest
from browser import check_site, find_chromium
from notebooks import NBS, NOTEBOOKS, ROOT, without_recipes

needs_smalldocs = pytest.mark.skipif(sys.version_info < (3, 11), reason="smalldocs needs Python 3.11")


def page_of(notebook: str) -> str:
    "00_config.ipynb -> config.html"
    return re.sub(r"(^|/)\d+[a-z]?_", r"\1", notebook).removesuffix(".ipynb") + ".html"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    "The site, built by the documented command. It has the worked examples' pages, which are made of their modules."
    if without_recipes("mlkit.recipes."): pytest.skip("there are no recipes here")
    out = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run([sys.executable, ROOT / ".ci" / "docs.py", "-o", out], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def faults(site) -> dict[str, list[str]]:
    "What Chromium finds wrong, page by page."
    return check_site(site)


@needs_smalldocs
@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_page(faults, notebook):
    assert faults[page_of(notebook)] == []


@needs_smalldocs
def test_no_other_page(faults):
    assert {page: f for page, f in faults.items() if page not in map(page_of, NOTEBOOKS) and f} == {}


@needs_smalldocs
def test_each_public_name_has_an_entry(site):
    from mlkit._modidx import d

    for names in d["syms"].values():
        for name, (link, module) in names.items():
            page, anchor = link.split("#")
            if "." in anchor or name.rpartition(".")[2].startswith("_"): continue
            assert f'id="{anchor}"' in (site / page).read_text(encoding="utf-8"), f"{name} is not documented on {page}"


@needs_smalldocs
def test_pictures_are_on_the_pages(site):
    pictures = {p.name: p.read_text(encoding="utf-8").count("<img") for p in site.rglob("*.html")}
    assert pictures["index.html"] > 1, pictures  # one is the logo


def test_sidebar_names_each_notebook():
    sidebar = (NBS / "_quarto.yml").read_text(encoding="utf-8").partition("sidebar:")[2]
    listed = re.findall(r"[\w/*]+\.ipynb", sidebar)
    hidden = [n for n in NOTEBOOKS if n not in listed and f"{n.rpartition('/')[0]}/*.ipynb" not in listed]
    assert hidden == []
    assert [n for n in listed if "*" not in n and not (NBS / n).is_file()] == []


FAULTS = {
    "console.html": ("<script>console.error('oh no')</script>", "console: oh no"),
    "exception.html": ("<script>nothing.there</script>", "exception: ReferenceError"),
    "image.html": ("<img src='gone.png'>", "missing image"),
    "lazy.html": ("<p style='height:9000px'></p><img loading='lazy' src='gone.png'>", "missing image"),
    "data.html": ("<img src='data:image/png;base64,AAAA'>", "missing image"),
    "script.html": ("<script src='gone.js'></script>", "status 404"),
    "style.html": ("<link rel='stylesheet' href='gone.css'>", "status 404"),
    "link.html": ("<a href='gone.html'>there</a>", "broken link: gone.html"),
    "anchor.html": ("<a href='good.html#gone'>there</a>", "broken link: good.html#gone"),
    "outside.html": ("<img src='https://example.com/a.png'>", "asks another host"),
    "late.html": ("<script>onload = () => setTimeout(() => fetch('gone.json'), 10)</script>", "status 404"),
}
GOOD = """<h1 id="here">Good</h1><a href="#here">here</a> <a href="console.html">there</a> <a href="https://example.com">far</a>
<img src="dot.svg"><img loading="lazy" src="data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7">"""


@pytest.fixture(scope="module")
def broken_site(tmp_path_factory) -> dict[str, list[str]]:
    "What is found on a site that has one fault a page, and one good page."
    folder = tmp_path_factory.mktemp("broken")
    (folder / "dot.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"><rect width="4" height="4"/></svg>')
    for name, (body, _) in {**FAULTS, "good.html": (GOOD, "")}.items():
        (folder / name).write_text(f"<!doctype html><html lang='en'><head><title>x</title><link rel='icon' href='dot.svg'></head><body>{body}</body></html>")
    return check_site(folder)


@pytest.mark.parametrize("page", FAULTS)
def test_a_fault_is_found(broken_site, page):
    assert any(f.startswith(FAULTS[page][1]) for f in broken_site[page]), broken_site[page]


def test_a_good_page_has_no_fault(broken_site):
    assert broken_site["good.html"] == []


def test_without_chromium_the_failure_says_what_to_do(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CHROMIUM", raising=False)
    with pytest.raises(FileNotFoundError, match="^no Chromium: run `apt-get update && apt-get install -y chromium`"): find_chromium()
