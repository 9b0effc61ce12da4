"""What a message advises: it is about the right thing, in YAML's words, and short."""
import pytest

from mlkit.config.load import explain, load_config
from mlkit.config.node import ConfigError
from mlkit.parts.check import check

CONFIG = """\
defaults:
  - data: mnist
  - model: classifier
model:
  net: {_target_: mlkit.model.nets.MLP, in_shape: 784, num_classes: 10}
extra: {limit: 1, deep: {width: 8}, big: {many: [BIG]}, three: '3', none: null}
""".replace("BIG", ", ".join(map(str, range(2000))))


@pytest.fixture
def config(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "lab.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return "lab.yaml"


def says(config: str, *overrides: str) -> str:
    "The one line that a mistake gets, without its place."
    with pytest.raises(ConfigError) as e: check(config, *overrides)
    line, = str(e.value).splitlines()
    return line.removeprefix(f"command line: {' '.join(overrides)}: ")


NO_KEY = {  # an override -> the key that is meant
    "lr=0.1": "optimizer.lr", "max_epochs=3": "trainer.max_epochs",
    "epochs=3": "trainer.max_epochs", "learning_rate=1": "optimizer.lr",
    "wd=0.1": "optimizer.weight_decay", "batch=3": "data.batch_size",
    "batch_size=3": "data.batch_size", "mode=max": "callbacks.checkpoint.mode", "sede=1": "seed",
    "precision=32-true": "trainer.precision", "model.lr=0.1": "optimizer.lr",
    "trainer.lr=0.1": "optimizer.lr", "extra.deep.widht=1": "width", "optimizer={lrr: 1}": "lr",
    "--max_epochs=3": "trainer.max_epochs", "--optimizer.lr=1": "optimizer", "--sede=1": "seed"}


@pytest.mark.parametrize("override", NO_KEY)
def test_a_key_that_stands_elsewhere(config, override):
    assert f"; did you mean '{NO_KEY[override]}'?" in says(config, override)
    key = override.partition("=")[0]
    if "{" in override or key.startswith("model"): return
    with pytest.raises(ConfigError, match=f"did you mean '{NO_KEY[override]}'"):
        explain(load_config(config), key)


ADDED = {  # an override -> what would add its key; '': nothing would do
    "foo=3": "+extra.foo=3", "extra.new=1": "+extra.new=1",
    "extra.deep.new.x=1": "+extra.deep.new.x=1",
    "callbacks.mine=3": "", "callbacks.mine.monitor=a": "", "logger.mine=csv": "",
    "model.metrics.f1=3": "+model.metrics.f1=3", "model.nothing.x=3": "", "trainer.nothing=3": "",
    "callbacks={mine: {_target_: pytorch_lightning.callbacks.Timer}}":
        "+callbacks={mine: {_target_: pytorch_lightning.callbacks.Timer}}"}


@pytest.mark.parametrize("override", ADDED)
def test_what_is_offered_to_add_a_key_adds_it(config, override):
    line, way = says(config, override), ADDED[override]
    assert (way in line) if way else "+" not in line, line
    if way: check(config, way)


NEAR = {  # an override -> the value that is meant
    "optimizer=adamW": "adamw", "optimizer=ADAM": "adam", "optimizer=sdg": "sgd",
    "trainer.precision=fp16": "16", "trainer.precision=float32": "32",
    "trainer.precision=bfloat16": "bf16", "trainer.precision=fp16-mixed": "16-mixed",
    "trainer.precision=bf16mixed": "bf16-mixed", "data=MNIST": "mnist", "debug=fats": "fast"}


@pytest.mark.parametrize("override", NEAR)
def test_a_value_that_is_near(config, override):
    assert f"did you mean '{NEAR[override]}'?" in says(config, override)
    check(config, f"{override.partition('=')[0]}={NEAR[override]}")


WORDS = {  # an override -> how the line says its value
    "seed=null": "not null", "name=true": "not true", "data.batch_size=null": "got null",
    "data.batch_size={a: null}": "got {a: null}", "tags={a: [true, x]}": "not {a: [true, 'x']}",
    "data.batch_size='3'": "got '3'", "data.batch_size=${extra.three}": "got '3'",
    "data.batch_size={a: ${oc.env:HOME}}": "got what {a: ${oc.env:HOME}} gives",
    "data.batch_size=[${oc.env:HOME}]": "got what [${oc.env:HOME}] gives",
    "~extra.none=3": "its value is null, not 3",
    "extra.none.x=1": "'extra.none' is null", "+extra.limit=2": "a value already, 1;",
    "model.net=null": "got null", "trainer.devices=null": "wants list[int], str or int, got null",
    "model.net={_target_: null}": "not null", "callbacks.checkpoint.monitor=3": "wants str or null"}


@pytest.mark.parametrize("override", WORDS)
def test_values_in_the_words_of_yaml(config, override):
    line = says(config, override)
    assert WORDS[override] in line and "None" not in line and "True" not in line


@pytest.mark.parametrize("override", [
    "~extra.big=3", "+extra.big=3", "~extra=3", "extra.big+=3", "~extra.big.many=1", "~model.net=x",
    "extra.big.many.x=3", "tags=${extra.big}", "data.batch_size=${extra.big}", "name=${extra.big}",
    "~trainer=3", "x" * 5000 + "=3", "data.batch_size=[" + "1, " * 3000 + "1]",
    "seed={" + ", ".join(f"k{i}: 1" for i in range(2000)) + "}"])
def test_a_line_is_short_whatever_it_is_about(config, override):
    with pytest.raises(ConfigError) as e: check(config, override)
    lines = str(e.value).splitlines()
    assert len(lines) == 1 and len(lines[0]) < 500, len(lines[0])
