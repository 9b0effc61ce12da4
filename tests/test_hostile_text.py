"""Texts that want to be endless: YAML and overrides nested, chained, multiplied or broken. All that
may come of one is a config or a ConfigError, and soon."""
import gc
import random
import signal
import time
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path

import pytest

from fixtures import ALL
from mlkit.config.load import load_config
from mlkit.config.node import ConfigError
from mlkit.parts.check import check

ROOT = Path(__file__).parents[1]
MNIST = f"extends: {ROOT / 'configs' / 'mnist.yaml'}\n"


@contextmanager
def soon(seconds: int):
    "What is not linear takes minutes; a machine that is busy does not."
    def late(*_): pytest.fail(f"takes more than {seconds} s")
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try: yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").touch()
    return Path("c.yaml")


def said(config: Path, text: str, *overrides: str, calls=(load_config, check)) -> str:
    "What is wrong with a config; '' if nothing is."
    config.write_text(text, encoding="utf-8", errors="surrogatepass")
    found = ""
    for call in calls:
        try:
            with redirect_stderr(StringIO()): call(config, *overrides)
        except ConfigError as e:
            found = str(e)
            assert all(len(o) < 1500 for o in found.splitlines()), found
    return found


def chain(n: int, link: str, end: str = "1") -> str:
    "A mapping whose keys k0, k1, … each refer to the next."
    links = "".join(f"  k{i}: {link.format(f'extra.k{i + 1}')}\n" for i in range(n))
    return f"extra:\n{links}  k{n}: {end}\n"


def nest(n: int, start: str, end: str, inner: str = "1") -> str: return start * n + inner + end * n
def extra(value: str) -> str: return f"extra: {{a: {value}, b: [x]}}"


LOOP, DEEP = "leads back to itself", "more than 60 levels deep"
ENDLESS = {  # what is wrong with it -> texts, or a text with overrides
    LOOP: [
        extra(f"'{o}'") for o in
        ("${oc.dict.values:extra}", "${oc.select:extra.a}", "${extra}", "${extra.a}", "${.a}",
         "${..extra}", "${oc.create:${extra}}", "x${extra.a}", "${oc.decode:${extra.a}}",
         "${oc.deprecated:extra.a}", "${oc.decode:\"\\${extra.a}\"}", "${extra.${.a}}",
         "${oc.create:{x: ${extra}}}", "${oc.select:x,${extra}}")] + [
        extra("[['${extra}']]"), extra("{c: '${oc.dict.values:extra.a}'}"), "seed: ${seed}",
        "extra: {a: '${oc.dict.values:model}'}\nmodel: {more: '${extra}'}", "model: ${model}",
        "trainer: {max_epochs: '${optimizer.lr}'}\noptimizer: {lr: '${trainer.max_epochs}'}",
        ("", "+extra.a=${extra}"), ("", "+extra.a=1", "extra.a=${oc.dict.values:extra}"),
        ("", "+extra={a: {b: [${extra}]}}")],
    "more than 40": [
        chain(300, "${{{}}}"), chain(60, "x${{{}}}"), chain(300, "{{a: '${{{}}}'}}", "{a: 1}"),
        chain(300, "['${{{}}}']", "[1]"), chain(2000, "${{{}}}"), chain(99, "${{oc.select:{}}}"),
        "extra:\n" + "".join(f"  k{i}: ${{.k{i + 1}}}\n" for i in range(300)) + "  k300: 1",
        ("", *(f"+extra.k{i}=${{extra.k{i + 1}}}" for i in range(80)), "+extra.k80=1")],
    "more than 1,0": [
        chain(40, "${{{0}}}${{{0}}}"), chain(30, "['${{{0}}}', '${{{0}}}']"),
        chain(25, "{{a: '${{{0}}}', b: '${{{0}}}'}}"), chain(12, "'${{{0}}}, ${{{0}}} ${{{0}}}'")],
    DEEP: [
        extra(nest(100, "{a: ", "}")), extra(nest(100, "[", "]")), extra(nest(50, "[{a: ", "}]")),
        extra(nest(30_000, "[", "]")), extra(nest(3000, "{a: ", "}")),
        extra("[" * 50_000), "\n".join(f"{'  ' * n}a:" for n in range(100)),
        ("", f"+extra.x={nest(100, '[', ']')}"), ("", f"+{'a.' * 100}b=1"),
        ("", f"+extra.x={nest(100, '{a:', '}')}"), ("", f"+{'a.' * 20_000}b=1")],
    "nested too deeply": [
        ("", f"+extra.x={nest(3000, '[', ']')}"), ("", f"+extra.x={'[' * 50_000}"),
        ("", f"+extra.x={nest(3000, 'str(', ')')}")],
    "characters, too many": [
        extra(f"'{'$' * 50_000}{{'"), extra(f"'{'${extra.b}' * 2000}'"),
        ("", f"+extra.x={'${b}' * 9999}"),
        extra("'${a:" + " " * 50_000 + "b c'"), extra("'${extra.b}" + "\\" * 50_000 + "'")],
    "aliases": [
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcde", "bcdef")),
        "k0: &k0 {a: 1}\n" + "".join(
            f"k{i}: &k{i} {{<<: [*k{i - 1}, *k{i - 1}]}}\n" for i in range(1, 40))],
    "alias in itself": ["extra: &a {b: *a}", "extra: &a [*a]"],
    "large a number": [extra("0x" + "f" * 10_000)], "limit": [extra("1" * 10_000)],
    "too long": [("", "+extra.x=" + nest(25, "json_str(", ")", r"""'\"'"""))],
    "not closed": [
        ("", '+extra.x="' + "\\" * 50_001 + '"'), ("", '+extra.x="' + "\\" * 50_000),
        ("", "+extra.x=${" + "{}" * 20_000), ("", "+extra.x=" + "${a" * 20_000)],
    "is not an override": [
        ("", "a-" * 30_000 + "!=1"), ("", "a" + " " * 50_000 + "b"), ("", "=" * 9999)],
    "": [
        ("", '+extra.x="' + "\\" * 50_000 + '"'), ("", '+extra.x="' + "\\" * 50_000 + 'x"'),
        ("", "+extra.x=a" + " " * 50_000 + "b"), ("", "+extra.x=" + "1_" * 25_000 + "x"),
        ("", "+extra.x='" + "1" * 50_000 + "_e'"), extra("1" * 50_000 + "_e"),
        extra("'" + "a " * 20_000 + "'"), extra("a" + " " * 50_000 + "'b"), extra("_" * 50_000),
        extra("'${oc.dict.keys:extra}'"), chain(25, "${{{}}}"), chain(8, "${{{0}}}${{{0}}}"),
        "extra: {b: 1, " + ", ".join(f"k{i}: '${{extra.b}}'" for i in range(500)) + "}"],
}


@pytest.mark.parametrize("why", ENDLESS)
def test_what_has_no_end_is_one_line_soon(why, config):
    for text in ENDLESS[why]:
        text, *overrides = [text] if isinstance(text, str) else text
        with soon(60): lines = said(config, f"{MNIST}{text}\n", *overrides).splitlines()
        assert bool(why) == any(why in o for o in lines), (text[:100], overrides[:1], lines[:3])
        assert len(lines) <= 3, lines


MANY = {  # what is said of the last -> a config of that, 2,000 times
    "nothing reads this key": "".join(f"key{i}: 1\n" for i in range(2000)),
    "has no argument 'k1999'": "callbacks:\n  p:\n    _target_: mlkit.fit.progress.Progress\n"
    + "".join(f"    k{i}: 1\n" for i in range(2000)),
    "'no1999' not found": "extra:\n" + "".join(f"  k{i}: ${{no{i}}}\n" for i in range(2000)),
    "'no.k1999' not found": "extra:\n" + "".join(f"  k{i}: ${{no.k{i}}}\n" for i in range(2000)),
    "there is no key 'k1999'": ("", *(f"k{i}=1" for i in range(2000))),
    "there is no key 'x1999'": (
        "extra:\n" + "".join(f"  k{i}: 1\n" for i in range(9999)),
        *(f"extra.x{i}=1" for i in range(2000))),
    "": "extra:\n  a:\n" + "".join(f"    k{i}: 1\n" for i in range(4000)) + "  b:\n"
    + "".join(f"    k{i}: ${{extra.a.k{i}}}\n" for i in range(4000)) + "tags: ['${extra.b}']",
}


@pytest.mark.parametrize("why", MANY)
def test_many_mistakes_are_said_soon(why, config):
    text, *overrides = [MANY[why]] if isinstance(MANY[why], str) else MANY[why]
    with soon(40): lines = said(config, f"{MNIST}{text}\n", *overrides).splitlines()
    assert not why or len(lines) == 2000 and why in lines[-1], lines[-1:]
    assert gc.isenabled()


# -- at random

PIECES = """a a.b = += + ++ ~ @ : , . .. / \\ ' " [ ] { } ( ) ${ } ${a} ${.a} $ # null true 1 -1
    1e3 .5 inf nan 007 1_000 0x1f str( int( choice( range( optimizer lr trainer max_epochs data
    model net callbacks logger _target_ torch.nn.Linear ??? ${oc.env:HOME} ${oc.select:a} é \0 \x1b
    \ud800 defaults extends _self_ hydra.mode=MULTIRUN !!str & * | > - ? %""".split()
PIECES += [" ", "  ", "\t", "\n"]
FILES = [ROOT / "configs" / "mnist.yaml", *(ROOT / "mlkit" / "configs").rglob("*.yaml")]


def override(rng: random.Random) -> str:
    word = lambda n: "".join(rng.choice(PIECES) for _ in range(rng.randrange(n)))
    key = rng.choice(["optimizer.lr", "trainer.max_epochs", "extra.x", "model", word(5), word(3)])
    return f"{rng.choice(['', '+', '++', '~'])}{key}{rng.choice(['=', '=', '+=', ''])}{word(9)}"


def mutated(rng: random.Random) -> str:
    text = rng.choice(FILES).read_text(encoding="utf-8")
    for _ in range(rng.randrange(1, 6)):
        at, end = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        piece = rng.choice([*PIECES, text[at:at + rng.randrange(40)]])
        rest = text[min(end, at + rng.randrange(9)):]
        text = text[:at] + piece * rng.choice([1, 1, 1, 9]) + rest
    return text


@pytest.mark.parametrize("n, files", [(120, 20), pytest.param(
    *((20_000, 3000) if ALL else (1200, 150)), marks=pytest.mark.slow)])
def test_at_random_nothing_but_a_config_error(n, files, config, figure):
    rng, longest = random.Random(n), (0.0, "")
    texts = [(MNIST, override(rng)) for _ in range(n)] + [(mutated(rng),) for _ in range(files)]
    said(config, MNIST, "data._target_=mlkit.data.mnist.MNISTS")  # imports Lightning: 3 s
    for text in texts:
        start = time.process_time()
        with soon(60): said(config, *text, calls=(load_config, check)[:3 - len(text)])
        longest = max(longest, (time.process_time() - start, text[-1]))
    figure(f"at random: {n:,} overrides and {files:,} files; the longest took {longest[0]:.2f} s "
           f"of the processor: {longest[1][:60]!r}")
