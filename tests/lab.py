"""A real JupyterLab in a real browser: `with Lab(folder) as lab: lab.open("a.ipynb")`.

The server is JupyterLab's own, in a folder of its own and with nothing of the user's settings. The
browser is Debian's Chromium, which Playwright drives; what a person would click is asked of
JupyterLab by the names of its commands."""
import json
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from browser import find_chromium
from kernel import surroundings

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
         "--disable-dev-shm-usage", "--disable-component-update", "--no-first-run"]
# Runs in the page: what changes on the screen of an output, frame by frame.
FILM = """(i => {
  const area = () => jupyterapp.shell.currentWidget.content.widgets[i].outputArea.node;
  window.film = []; let drawn = 0;
  new MutationObserver(() => drawn++).observe(area(), {childList: true, subtree: true});
  const board = () => area().querySelector('.mlkit-board');
  const frame = () => {
    const o = board(), box = o && o.getBoundingClientRect();
    film.push({time: performance.now(), height: box ? box.height : 0, drawn,
               blank: !o || !o.innerText.trim(), area: area().getBoundingClientRect().height,
               open: !!o?.querySelector('details[open]'),
               wide: o ? o.scrollWidth - o.clientWidth : 0,
               out: o ? box.right - area().getBoundingClientRect().right : 0,
               text: o ? o.innerText.slice(0, 300) : ''});
    if (window.film) requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
})(%d)"""

CONTRAST = """(i => {
  const light = o => { const c = o.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255).map(v =>
     v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2] };
  const behind = o => { for (; o; o = o.parentElement) {
    const c = getComputedStyle(o).backgroundColor;
    if (c !== 'transparent' && !c.endsWith(' 0)')) return light(c) } return 1 };
  const all = jupyterapp.shell.currentWidget.content.widgets[i].outputArea.node
    .querySelectorAll('.mlkit-board .line, .mlkit-board td, .mlkit-board text');
  return Math.min(...[...all].filter(o => o.getClientRects().length).map(o => {
    const style = getComputedStyle(o), [a, b] =
      [light(o.tagName === 'text' ? style.fill : style.color), behind(o)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05) }));
})(%d)"""


class Lab:
    "JupyterLab over a folder, and a browser with one tab. `base`: its address."
    def __init__(self, folder: Path, width: int = 1200, height: int = 900, **env: str):
        self.folder, self.size = folder, dict(width=width, height=height)
        self.env = surroundings(folder, **env)

    def __enter__(self) -> "Lab":
        from playwright.sync_api import sync_playwright
        self.home = tempfile.TemporaryDirectory(prefix="lab-", ignore_cleanup_errors=True)
        own = {f"JUPYTER_{o}_DIR": f"{self.home.name}/{o}" for o in ("CONFIG", "DATA", "RUNTIME")}
        token = secrets.token_hex(8)
        words = ["--no-browser", "--port=0", f"--IdentityProvider.token={token}", "--allow-root",
                 f"--ServerApp.root_dir={self.folder}", "--LabApp.expose_app_in_browser=True",
                 "--LabApp.news_url=", "--LabApp.check_for_updates_class="
                 "jupyterlab.NeverCheckForUpdate"]
        self.log = open(f"{self.home.name}/log", "w+")
        command = [sys.executable, "-m", "jupyterlab", *words]
        self.server = subprocess.Popen(command, stdout=self.log, stderr=self.log, cwd=self.folder,
                                       stdin=subprocess.DEVNULL, env=self.env | own)
        self.base = f"http://127.0.0.1:{self._port(Path(own['JUPYTER_RUNTIME_DIR']))}"
        self.playwright = sync_playwright().start()
        self.browser = self.playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        self.page = self.browser.new_page(viewport=self.size)
        self.page.set_default_timeout(300_000)  # a machine may be busy
        self.token = token
        return self

    def _port(self, folder: Path) -> int:
        for _ in range(600):
            for file in folder.glob("jpserver-*.json"):
                if text := file.read_text(): return json.loads(text)["port"]
            assert self.server.poll() is None, Path(self.log.name).read_text()
            time.sleep(0.1)
        raise TimeoutError("JupyterLab did not start")

    def __exit__(self, *_):
        self.browser.close()
        self.playwright.stop()
        self.server.terminate()
        try: self.server.wait(20)
        except subprocess.TimeoutExpired: self.server.kill()
        self.log.close()
        self.home.cleanup()

    def open(self, name: str):
        "Open a notebook, or load the tab again, and wait until its kernel is there."
        self.page.goto(f"{self.base}/lab/tree/{name}?reset&token={self.token}")
        self.page.wait_for_function(f"""() => {{
          const o = window.jupyterapp?.shell.currentWidget;
          return o?.context?.path === {name!r}
                 && o.sessionContext?.isReady && o.content.widgets.length > 0
                 && o.sessionContext.session?.kernel?.status === 'idle' }}""")

    def reload(self):
        "Load the tab again, while its kernel may be busy."
        self.page.reload()
        self.page.wait_for_function("""() => {
          const o = window.jupyterapp?.shell.currentWidget;
          return o?.sessionContext?.session?.kernel && o.content.widgets.length > 0 }""")

    def command(self, name: str, wait: bool = True, **args):
        "Do what a menu of JupyterLab does."
        call = f"jupyterapp.commands.execute({json.dumps(name)}, {json.dumps(args)})"
        return self.page.evaluate(f"async () => {{ {'await' if wait else ''} {call} }}")

    def start(self, cell: int):
        "Begin to run a cell."
        self.page.evaluate(f"jupyterapp.shell.currentWidget.content.activeCellIndex = {cell}")
        self.command("notebook:run-cell", wait=False)

    def edit(self, cell: int, text: str):
        "Write another text into a cell, by the keyboard."
        self.page.evaluate(f"jupyterapp.shell.currentWidget.content.activeCellIndex = {cell}")
        self.command("notebook:enter-edit-mode")
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(text)
        self.command("notebook:enter-command-mode")
        assert self.page.evaluate(f"{self._cell(cell)}.model.sharedModel.source") == text

    def run(self, cell: int) -> str:
        "Run a cell to its end; what it shows, as text."
        self.start(cell)
        return self.wait(cell)

    def wait(self, cell: int) -> str:
        "Wait until a cell has run; what it shows, as text."
        prompt = f"{self._cell(cell)}.inputArea?.promptNode.innerText ?? '*'"  # not drawn yet
        done = f"() => !/\\*/.test({prompt})"
        self.page.wait_for_timeout(100)
        self.page.wait_for_function(done)
        return self.shown(cell)

    def _cell(self, cell: int) -> str:
        return f"jupyterapp.shell.currentWidget.content.widgets[{cell}]"

    def shown(self, cell: int) -> str:
        "The text of a cell's outputs, as it stands on the screen."
        return self.page.evaluate(f"{self._cell(cell)}.outputArea.node.innerText")

    def wait_for(self, cell: int, text: str):
        "Wait until a cell shows a text (a regular expression)."
        found = f"() => {json.dumps(text)} && new RegExp({json.dumps(text)}).test("
        self.page.wait_for_function(f"{found}{self._cell(cell)}.outputArea.node.innerText)")

    def interrupt(self): self.command("notebook:interrupt-kernel")

    def restart(self):
        "Restart the kernel; the outputs stay."
        self.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext"
                           ".session.kernel.restart()")

    def contrast(self, cell: int) -> float:
        "How much the words of a cell's board differ from what is behind them: 1 to 21, as in WCAG."
        return self.page.evaluate(CONTRAST % cell)

    def theme(self, name: str):
        "'JupyterLab Light' or 'JupyterLab Dark'."
        self.command("apputils:change-theme", theme=name)
        self.page.wait_for_timeout(500)

    def film(self, cell: int):
        "From now on, note what a cell's board looks like in each frame; see `frames`."
        self.page.evaluate(FILM % cell)

    def frames(self) -> list[dict]:
        "The frames since `film`."
        return self.page.evaluate("() => { const o = film; window.film = null; return o }")

    def picture(self, file: Path, cell: int | None = None):
        "Save a picture of the tab, or of a cell's outputs."
        if cell is None: return self.page.screenshot(path=str(file))
        area = f"{self._cell(cell)}.outputArea.node"
        self.page.evaluate(f"{area}.scrollIntoView()")
        box = self.page.evaluate(f"{area}.getBoundingClientRect().toJSON()")
        clip = {k: box[k] for k in ("x", "y", "width", "height")}
        self.page.screenshot(path=str(file), clip=clip)

