"""What an editor says of configs: their schema in yaml-language-server (npm), and in jsonschema."""
import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from omegaconf import OmegaConf

import test_mistakes as mistakes
from mlkit.parts.schema import schema
from test_mistakes import project  # noqa: F401, a fixture: the corpus looks at its classes

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
SERVER = os.environ.get("YAML_LANGUAGE_SERVER") or shutil.which("yaml-language-server")


# -- a language server's client

class Client:
    def __init__(self, process):
        self.process, self.number, self.told = process, 0, {}

    def send(self, method: str, params: Any, **more):
        data = json.dumps(dict(jsonrpc="2.0", method=method, params=params, **more)).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(data), data))
        self.process.stdin.flush()

    def read(self) -> dict:
        length = 0
        while (line := self.process.stdout.readline().strip()):
            if line.lower().startswith(b"content-length"): length = int(line.split(b":")[1])
        got = json.loads(self.process.stdout.read(length))
        if "method" in got and "id" in got:  # the server asks for the user's settings
            asked = got["params"].get("items", []) if got["params"] else []
            answer = [dict(validate=True, completion=True, schemaStore=dict(enable=False))
                      if o.get("section") == "yaml" else None for o in asked]
            data = json.dumps(dict(jsonrpc="2.0", id=got["id"], result=answer)).encode()
            self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(data), data))
            self.process.stdin.flush()
        if got.get("method") == "textDocument/publishDiagnostics":
            self.told[got["params"]["uri"]] = got["params"]["diagnostics"]
        return got

    def ask(self, method: str, params: Any) -> Any:
        self.number += 1
        self.send(method, params, id=self.number)
        while (got := self.read()).get("id") != self.number or "method" in got: pass
        return got["result"]

    def open(self, file: Path, text: str) -> str:
        uri = file.as_uri()
        self.send("textDocument/didOpen", dict(textDocument=dict(uri=uri, languageId="yaml",
                                                                 version=1, text=text)))
        return uri

    def marks(self, file: Path, text: str) -> list[tuple[int, str]]:
        "(line, from 1, and message) of what the editor marks."
        uri = self.open(file, text)
        while uri not in self.told: self.read()
        return [(o["range"]["start"]["line"] + 1, o["message"]) for o in self.told.pop(uri)]

    def words(self, file: Path, text: str) -> list[str]:
        "What the editor offers where the text has a |."
        before = text[:text.index("|")]
        uri = self.open(file, text.replace("|", "", 1))
        at = dict(line=before.count("\n"), character=len(before.rpartition("\n")[2]))
        got = self.ask("textDocument/completion", dict(textDocument=dict(uri=uri), position=at))
        return [o["label"] for o in (got["items"] if isinstance(got, dict) else got or ())]


@contextmanager
def language_server():
    if not SERVER: pytest.skip("there is none: npm install -g yaml-language-server")
    with subprocess.Popen([SERVER, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as process:
        try:
            client = Client(process)
            client.ask("initialize", dict(processId=None, rootUri=None, capabilities=dict(
                workspace=dict(configuration=True),
                textDocument=dict(publishDiagnostics={}, completion={}))))
            client.send("initialized", {})
            yield client
        finally: process.kill()


def with_schema(config: Path, folder: Path) -> str:
    "The first line of a config that has a schema, which is written into a folder."
    file = folder / f"{config.stem}.schema.json"
    file.write_text(json.dumps(schema(config)))
    return f"# yaml-language-server: $schema={file}\n"


# -- the real server

@pytest.mark.slow
def test_each_recipe_in_the_real_server(tmp_path):
    with language_server() as editor:
        for i, config in enumerate(RECIPES):
            head, text = with_schema(config, tmp_path), config.read_text()
            def file(name): return tmp_path / f"{i}_{name}.yaml"
            assert editor.marks(file("right"), head + text) == [], config
            lines = text.splitlines()
            if "trainer:" not in lines: lines.append("trainer:")
            n = lines.index("trainer:")
            def put(line): return head + "\n".join([*lines[:n + 1], f"  {line}", *lines[n + 1:]])
            for wrong in ("max_epoch: 3", "accumulate_grad_batches: many"):
                (line, why), *_ = marked = editor.marks(file(wrong.split(":")[0]), put(wrong))
                assert line == n + 3, (config, wrong, marked)
            assert "gradient_clip_val" in editor.words(file("keys"), put("|")), config


@pytest.mark.slow
def test_what_the_real_server_offers(tmp_path):
    head = with_schema(ROOT / "configs/mnist.yaml", tmp_path)
    with language_server() as editor:
        def words(text): return editor.words(tmp_path / f"{abs(hash(text))}.yaml", head + text)
        assert {"max_epochs", "precision"} <= {*words("trainer:\n  |\n")}
        assert {"adam", "adamw", "sgd"} <= {*words("defaults:\n  - optimizer: |\n")}
        assert {"optimizer", "scheduler"} <= {*words("defaults:\n  - |\n")}
        assert {"widths", "dropout"} <= {*words("model:\n  net:\n    |\n")}
        assert {"monitor", "mode"} <= {*words("callbacks:\n  checkpoint:\n    |\n")}
        assert "32-true" in str(words("trainer:\n  precision: |\n"))
        assert {"trainer", "data", "seed"} <= {*words("|\n")}


# -- more than a server could be asked for, by jsonschema

def marked(found: dict, data: Any) -> list[str]:
    return [o.message for o in jsonschema.Draft7Validator(found).iter_errors(data)]


@cache
def of_mnist() -> dict: return schema(ROOT / "configs/mnist.yaml")


def loaded(text: str) -> Any: return OmegaConf.to_container(OmegaConf.create(text or "{}"))
def read(file: Path) -> Any: return loaded(file.read_text())


@pytest.mark.slow
def test_nothing_is_marked_that_is_valid(project, monkeypatch):  # noqa: F811
    monkeypatch.chdir(project)
    wrong, n = [], 0
    texts = {f"{k}{i}": mistakes.right(k, v) for k in mistakes.VALID
             for i, v in enumerate(mistakes.valid(k)[::4])}
    for name, text in texts.items():
        file = mistakes.write(project, {f"schema/{name}.yaml": text}) / f"schema/{name}.yaml"
        if said := marked(schema(file), read(file)): wrong.append((text, said))
        n += 1
    assert n > 60 and not wrong, wrong


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["misspelt key", "unknown option"])
def test_mistakes_are_marked(kind, project, monkeypatch):  # noqa: F811
    schemas, missed, n = {}, [], 0
    for i, m in enumerate(mistakes.corpus(mistakes.KINDS[kind])):
        if m.args or [*m.edits] != [m.config] or m.base == "lab": continue  # of new targets
        if m.base not in schemas:
            folder = mistakes.write(project / "schemas" / m.base, mistakes.BASES[m.base])
            monkeypatch.chdir(folder)
            schemas[m.base] = schema(m.config)
        n += 1
        if not marked(schemas[m.base], loaded(m.files()[m.config])): missed.append(str(m))
    assert n > 5 and not missed, missed


@pytest.mark.parametrize("text, right", [
    ("seed: yes-please", False), ("seed: ${extra.n}", True), ("seed: 1_000", True),
    ("trainer: {max_epochs: null}", True), ("trainer: {max_epochs: -2}", False),
    ("trainer: {max_epochs: '???'}", True), ("trainer: {deterministic: warn}", True),
    ("trainer: {precision: 32-tru}", False), ("trainer: {_target_: my.Trainer, speed: 1}", True),
    ("model: {net: {widths: [8, x]}}", False), ("model: {net: {widths: [8, 16]}}", True),
    ("model: {net: {_target_: my.Net, any: 1}}", True), ("model: {net: resnet}", False),
    ("model: {loss: {reduction: sum}}", True), ("model: {loss: {reductio: sum}}", False),
    ("optimizer: {lr: 1, betas: [0.9, 0.99]}", True), ("optimizer: {betas: [0.9]}", False),
    ("optimizer: {lr: -1}", False), ("optimizer: sgd", False), ("optimizer: null", True),
    ("callbacks: {checkpoint: null}", True), ("callbacks: {checkpoint: {moniter: x}}", False),
    ("callbacks: {mine: {_target_: my.Callback}}", True), ("trainr: {}", False),
    ("extra: {anything: {at: [all]}}", True), ("defaults: [data: mnits]", False),
    ("defaults: [dta: mnist]", False), ("defaults: [_self_, override /data: mnist]", True),
    ("defaults: [callbacks: [default, rich]]", True), ("extends: base.yaml", True),
    ("logger: {csv: {_target_: my.Logger}}", True), ("tags: [a]", True), ("", True)])
def test_what_is_marked(text, right):
    said = marked(of_mnist(), loaded(text))
    assert (not said) == right, said


# -- options of groups

OPTIONS = {
    "optimizer/mine": ("_target_: torch.optim.Adam\n_partial_: true\nlr: 0.1\n", "lrr: 1", "lr: x"),
    "model/net/mine": ("_target_: mlkit.model.nets.MLP\nin_shape: [1, 28, 28]\nnum_classes: 10\n",
                       "with: 3", "num_classes: ten"),
    "callbacks/mine": ("stop:\n  _target_: pytorch_lightning.callbacks.EarlyStopping\n"
                       "  monitor: val/loss\n", "  patiens: 3", "  patience: long"),
    "data/mine": ("_target_: mlkit.data.mnist.MNIST\nbatch_size: 32\n", "batchsize: 3",
                  "batch_size: few"),
    "experiment/mine": ("# @package _global_\ntrainer: {max_epochs: 3}\n", "trainr: {}", "seed: x")}


@pytest.fixture
def options(tmp_path, monkeypatch) -> dict[str, tuple[Path, list[str]]]:
    monkeypatch.chdir(mistakes.write(tmp_path, {"pyproject.toml": ""}))
    found = {}
    for name, (text, *wrong) in OPTIONS.items():
        file = mistakes.write(tmp_path / "configs", {f"{name}.yaml": text}) / f"{name}.yaml"
        replaced = [[o for o in text.splitlines() if o.split(":")[0] != w.split(":")[0]] + [w]
                    for w in wrong]
        found[name] = (file, ["\n".join(o) for o in replaced])
    return found


@pytest.mark.parametrize("name", OPTIONS)
def test_options_have_schemas(name, options):
    file, wrong = options[name]
    found = schema(str(file.relative_to(Path.cwd())))
    assert marked(found, read(file)) == []
    assert [bool(marked(found, loaded(o))) for o in wrong] == [True, True], wrong


@pytest.mark.slow
def test_options_in_the_real_server(options, tmp_path):
    with language_server() as editor:
        for name, (file, wrong) in options.items():  # it keeps schemas by name
            head = with_schema(file, file.parent)
            assert editor.marks(file, head + file.read_text()) == [], name
            for i, text in enumerate(wrong):
                (line, why), *_ = editor.marks(file.with_stem(f"wrong{i}"), head + text)
                assert line == len(text.splitlines()) + 1, (name, text, why)
        file = options["model/net/mine"][0]
        head = with_schema(file, file.parent)
        assert {"dropout", "in_shape"} <= {*editor.words(tmp_path / "words.yaml", head + "|\n")}


@pytest.mark.parametrize("config", RECIPES, ids=[o.stem for o in RECIPES])
def test_no_recipe_is_marked(config): assert marked(schema(config), read(config)) == []
