"""Open the pages of a built site in headless Chromium and say what is wrong with them.

Chromium is driven over its DevTools protocol through a pipe: JSON messages, each ended by a zero
byte. The site is served on 127.0.0.1 and every other host is made unreachable, so a page that needs
something from elsewhere shows."""
import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--disable-quic", "--no-first-run", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage", "--remote-debugging-pipe",
         "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
# Runs in the page: wait for all of it, every picture and font, then tell what is there.
LOOK = """(async () => {
  if (document.readyState !== 'complete')
    await new Promise(done => addEventListener('load', done, {once: true}));
  const pictures = [...document.images];
  for (const p of pictures) p.loading = 'eager';
  const decoded = await Promise.all(pictures.map(p => p.decode().then(() => true, () => false)));
  await document.fonts.ready;
  return {
    images: pictures.map((p, i) => ({
      src: (p.currentSrc || p.src || p.outerHTML).slice(0, 200),
      ok: decoded[i] && p.complete && p.naturalWidth > 0})),
    links: [...document.querySelectorAll('a[href]')].map(a => a.href),
    anchors: [...document.querySelectorAll('[id], a[name]')].map(e => e.id || e.name),
  };
})()"""
# What is wider than the window (the page) or than its box (a block of code), in pixels.
PAGE_EXCESS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
WIDE_CODE = """[...document.querySelectorAll('pre.sourceCode')]
  .filter(p => p.scrollWidth > p.clientWidth + 1).map(p => p.innerText.slice(0, 80))"""


def find_chromium() -> str:
    "The path of a Chromium; raises FileNotFoundError, with what to do, when there is none."
    for name in [os.environ.get("CHROMIUM", ""), *NAMES]:
        if name and (path := shutil.which(name)): return path
    raise FileNotFoundError("no Chromium: run `apt-get update && apt-get install -y chromium`, "
                            "or set CHROMIUM to the path of one")


class Browser:
    "A headless Chromium with one tab; a context manager. `events`: reports since the last `open`."

    def __enter__(self) -> "Browser":
        chromium = find_chromium()
        self.home = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        ask_r, self.ask = os.pipe()
        self.answer, answer_w = os.pipe()
        # Chromium reads messages from descriptor 3 and writes them to 4.
        shell = f'exec "$@" 3<&{ask_r} 4>&{answer_w}'
        cmd = ["bash", "-c", shell, "bash", chromium, *FLAGS,
               f"--user-data-dir={self.home.name}", "about:blank"]
        self.process = subprocess.Popen(cmd, pass_fds=(ask_r, answer_w), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(ask_r)
        os.close(answer_w)
        self.buffer, self.last, self.events, self.tab = b"", 0, [], None
        target = self.call("Target.createTarget", url="about:blank", timeout=60)["targetId"]
        self.tab = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log", "Network"]: self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        os.close(self.ask)
        os.close(self.answer)
        self.process.kill()
        self.process.wait()
        self.home.cleanup()

    def call(self, method: str, timeout: float = 30, **params) -> dict:
        "Send one message and wait for its answer."
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if self.tab: message["sessionId"] = self.tab
        os.write(self.ask, json.dumps(message).encode() + b"\0")
        answer = self.wait(lambda m: m.get("id") == self.last, timeout, method)
        if "error" in answer: raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def wait(self, wanted, timeout: float, what: str) -> dict:
        "The first message that is `wanted`; all events that arrive are kept."
        end = time.monotonic() + timeout
        while True:
            while b"\0" not in self.buffer:
                left = max(0, end - time.monotonic())
                if not select.select([self.answer], [], [], left)[0]:
                    raise TimeoutError(f"Chromium: no {what} in {timeout} s")
                data = os.read(self.answer, 1 << 16)
                if not data: raise ConnectionError(f"Chromium ended before {what}")
                self.buffer += data
            raw, _, self.buffer = self.buffer.partition(b"\0")
            message = json.loads(raw)
            if "method" in message: self.events.append(message)
            if wanted(message): return message

    def open(self, url: str) -> dict:
        "Open a page and wait until it is loaded; what `LOOK` finds there."
        self.call("Page.navigate", url="about:blank")
        self.events.clear()
        self.call("Page.navigate", url=url)
        if not any(e["method"] == "Page.loadEventFired" for e in self.events):
            loaded = lambda m: m.get("method") == "Page.loadEventFired"
            self.wait(loaded, 30, f"load event of {url}")
        found = self.evaluate(LOOK)
        time.sleep(.1)  # what scripts start after the load event: the search index, say
        self.evaluate("1")
        return found

    def evaluate(self, expression: str):
        "The value of a JavaScript expression in the page."
        options = dict(expression=expression, awaitPromise=True, returnByValue=True)
        return self.call("Runtime.evaluate", **options)["result"].get("value")

    def resize(self, width: int, height: int = 1200):
        "Give the window another size, in CSS pixels."
        size = dict(width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def prefer(self, scheme: str):
        "Prefer a colour scheme: 'light' or 'dark'."
        features = [dict(name="prefers-color-scheme", value=scheme)]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, file: Path, most: int = 4000):
        "Save a picture of the whole page, of `most` pixels of its height, as PNG."
        height = self.evaluate("document.documentElement.scrollHeight")
        width = self.evaluate("innerWidth")
        clip = dict(x=0, y=0, width=width, height=min(height, most), scale=1)
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        file.write_bytes(base64.b64decode(shot["data"]))


class Quiet(SimpleHTTPRequestHandler):
    "Serves files and keeps no log."

    def log_message(self, *_): pass


def complaints(events: list[dict], base: str) -> list[str]:
    "What a page should not do: errors on the console, failed requests, requests to other hosts."
    out = []
    for event in events:
        kind, p = event["method"], event["params"]
        if kind == "Runtime.consoleAPICalled" and p["type"] in ("error", "assert"):
            said = [str(a.get("value", a.get("description", ""))) for a in p["args"]]
            out.append("console: " + " ".join(said))
        elif kind == "Runtime.exceptionThrown":
            details = p["exceptionDetails"]
            thrown = details.get("exception", {}).get("description", details["text"])
            out.append(f"exception: {thrown}")
        elif kind == "Log.entryAdded" and p["entry"]["level"] == "error":
            out.append(f"console: {p['entry']['text']} {p['entry'].get('url', '')}")
        elif kind == "Network.requestWillBeSent":
            url = p["request"]["url"]
            if not url.startswith((base, "data:", "blob:", "about:")):
                out.append(f"asks another host: {url}")
        elif kind == "Network.responseReceived" and p["response"]["status"] >= 400:
            out.append(f"status {p['response']['status']}: {p['response']['url']}")
    return list(dict.fromkeys(out))


def check_site(site: Path) -> dict[str, list[str]]:
    "Open each page of the site; what is wrong with each, by its path: an empty list if nothing is."
    handler = partial(Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, Browser() as browser:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}/"
        pages, wrong = {}, {}
        for file in sorted(site.rglob("*.html")):
            path = file.relative_to(site).as_posix()
            browser.resize(1400)
            pages[path] = browser.open(base + path)
            wrong[path] = complaints(browser.events, base)
            if path.startswith(("index", "guide/", "reference")):
                code = browser.evaluate(WIDE_CODE)
                wrong[path] += [f"code scrolls sideways at 1400 px: {o}" for o in code]
            browser.resize(390)
            excess = browser.evaluate(PAGE_EXCESS)
            if excess > 0: wrong[path].append(f"wider than 390 px by {excess}")
        server.shutdown()
    for path, page in pages.items():
        wrong[path] += [f"missing image: {i['src']}" for i in page["images"] if not i["ok"]]
        for link in dict.fromkeys(page["links"]):
            inside = link.startswith(base)
            if inside and (reason := broken(site, pages, link.removeprefix(base))):
                wrong[path].append(reason)
            elif link.startswith("file:"): wrong[path].append(f"link to a local file: {link}")
    return wrong


def broken(site: Path, pages: dict[str, dict], link: str) -> str:
    "Why a link within the site leads nowhere; empty when it leads somewhere."
    target, anchor = urldefrag(link)
    target = unquote(target.partition("?")[0])
    file = site / target
    if file.is_dir(): file = file / "index.html"
    if not file.is_file(): return f"broken link: {link}"
    page = pages.get(file.relative_to(site).as_posix())
    if anchor and page is not None and unquote(anchor) not in page["anchors"]:
        return f"broken link: {link} (no such anchor)"
    return ""
