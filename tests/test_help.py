"Completion as a person meets it: a real shell, and a real Tab key. And `--help CFG`."
import os
import pty
import re
import select
import shutil
import sys
import time
from pathlib import Path

import pytest

from shell import ROOT, command
from test_commands import MNIST

SHELLS = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}


def after_tab(shell: str, line: str, want: str) -> str:
    """What a shell shows when its user has typed a line and Tab; read until it is there, or for 30
    seconds."""
    child, terminal = pty.fork()
    if not child:
        os.chdir(ROOT)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        os.execvpe(shell, SHELLS[shell],
                   {**os.environ, "PATH": path, "PS1": "ready> ", "TERM": "dumb"})
    shown, deadline = "", time.time() + 30

    def read_until(text):  # a pattern
        nonlocal shown
        shown = ""
        while not re.search(text, shown) and time.time() < deadline:
            if select.select([terminal], [], [], 0.1)[0]:
                shown += os.read(terminal, 4096).decode(errors="replace")
    try:
        read_until("ready> ")
        os.write(terminal, f'eval "$(mlkit_train --completion {shell})"; echo lo""aded\n'.encode())
        read_until(r"loaded\s[\s\S]*ready> ")
        os.write(terminal, f"{line}\t".encode())
        read_until(re.escape(want))
        return shown
    finally:
        os.kill(child, 9)
        os.close(terminal)
        os.waitpid(child, 0)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("typed,want",
                         [("optimizer=s", "optimizer=sgd"),
                          ("trainer.max_e", "trainer.max_epochs="),
                                        ("model.compile=t", "model.compile=true"),
                                        ("optimizer=sgd optimizer.mom", "optimizer.momentum=")])
def test_tab(shell, typed, want):
    if not shutil.which(shell): pytest.skip(f"{shell} is not installed")
    line = f"mlkit_train {MNIST} {typed}"
    assert want in after_tab(shell, line, want)


def test_help_of_a_config():
    done = command("mlkit_train", "--help", MNIST, "optimizer=sgd")
    assert done.returncode == 0 and not done.stderr
    # groups and options
    for text in ("optimizer +adam  adamw  sgd\\*", "debug +fast  overfit  profile",
                 # first sentences
                 "model.net: mlkit.model.nets.ConvNet: ", "optimizer: torch.optim.SGD: ",
                 "  num_classes  int ", "  momentum ", "max_epochs ", "int or null"):
        assert re.search(text, done.stdout), text
    assert command("mlkit_train", MNIST, "--help").stdout.startswith("Groups, ")
    usages = [command(f"mlkit_{o}", "--help", COLUMNS="80").stdout
              for o in ("train", "eval", "predict", "reproduce", "runs")]
    assert all(o.startswith("usage: ") for o in usages)
    assert max(map(len, [o for text in (done.stdout, *usages) for o in text.splitlines()])) <= 80
    parts = re.findall(r"^(\w+): ", done.stdout, re.M)
    assert parts[:2] == ["data", "model"] and "Ellipsis" not in done.stdout
    wrong = command("mlkit_train", "--help", "configs/mnits.yaml")
    assert (wrong.returncode == 2
            and wrong.stderr
            == "configs/mnits.yaml: no such config file; did you mean 'configs/mnist.yaml'?\n")


def test_completion_says_which_shells_there_are():
    done = command("mlkit_train", "--completion", "fish")
    assert done.returncode == 2 and done.stderr == "--completion wants bash or zsh, not 'fish'\n"


def test_no_comment_of_a_parameter_goes_on_below_it():
    "What reads them, here and for the pages, takes a line."
    import ast
    for file in (Path(__file__).parents[1] / "mlkit").rglob("*.py"):
        text = file.read_text()
        for f in [o for o in ast.walk(ast.parse(text)) if isinstance(o, ast.FunctionDef)]:
            header = text.splitlines()[f.lineno - 1:f.body[0].lineno - 1]
            assert not [o for o in header if o.strip()[:1] == "#"], (file, f.name)


def test_each_public_name_has_help():
    "Each comment of a parameter, and an example that is Python and calls it."
    import ast
    import inspect

    import mlkit.all as face
    from mlkit.base.help import help_text
    for name in face.__all__:
        o = getattr(face, name)
        is_ours = getattr(o, "__module__", "").startswith("mlkit")
        if not is_ours or name.endswith(("Error", "Failed")): continue
        text, code = o.getdoc(), inspect.unwrap(o.__init__ if isinstance(o, type) else o)
        documented = [p for p in inspect.signature(code).parameters if p != "self"]
        rows = {line.split("  ")[0].lstrip("*") for line in text.splitlines()}
        assert not {*documented} - rows - {"kwargs"}, (name, text)
        example = text.removeprefix(help_text(o)).strip()
        used = {n.id for n in ast.walk(ast.parse(example)) if isinstance(n, ast.Name)}
        assert name in used or name in ("Run", "Config"), (name, example)
