"""What other people's annotations mean for a check: right, a warning, or an error; and what their
code gets."""
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import DictConfig, ListConfig

from mlkit.cli import mlkit_train
from mlkit.config.load import load_config
from mlkit.config.node import ConfigError
from mlkit.parts.build import build
from mlkit.parts.check import check, find_problems

CODE = '''
from __future__ import annotations

import argparse
import types
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import (Annotated, Any, Callable, ClassVar, Generic, Iterable, Optional, Protocol, Type,
                    TYPE_CHECKING, TypeVar, Union, runtime_checkable)

import numpy as np
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from pydantic import AfterValidator, BaseModel, Field, field_validator, validate_call
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import Dataset

if TYPE_CHECKING: from nowhere import Thing

OptimizerCallable = Callable[[Iterable], Optimizer]  # as jsonargparse's users write it
LRSchedulerCallable = Callable[[Optimizer], Union[LRScheduler, ReduceLROnPlateau]]
Net = TypeVar("Net", bound=nn.Module)
Number = TypeVar("Number", int, float)


class Attributes(dict): __getattr__ = dict.__getitem__
class Mode(Enum): FAST, SLOW = "fast", "slow"

class Steps(Protocol):
    def step(self, n: int) -> int: ...

@runtime_checkable
class Closes(Protocol):
    def close(self) -> None: ...

class Stepper:
    def step(self, n): return n + 1

class Backbone(nn.Module):
    def grow(self): return self

class Tokenizer:
    def encode(self, text): return [len(text)]
    def decode(self, ids): return "x"

class Fake:
    def encode(self, text): return [0]

class Nothing: pass

@dataclass
class Shape:
    width: int
    parts: dict[str, list[int]] | None = None

class Limits(BaseModel):
    low: int = 0
    high: int = Field(9, le=99)
    word: str = "a"

    @field_validator("word")
    @classmethod
    def short(cls, v):
        if len(v) > 3: raise ValueError("three letters at most")
        return v

def even(n: int) -> int:
    if n % 2: raise ValueError("wants to be even")
    return n

class All:
    "Keeps what it gets."
    def __init__(self, optimizer: torch.optim.Optimizer = None,
                 scheduler: LRScheduler | None = None,
                 many: list[Optimizer] | None = None,
                 make: OptimizerCallable | None = None, plan: LRSchedulerCallable | None = None,
                 act: type[nn.Module] = nn.ReLU, act2: Type[nn.Module] = nn.ReLU,
                 kinds: dict[str, type[nn.Module]] | None = None,
                 cfg: DictConfig | None = None, names: ListConfig | None = None,
                 conf: OmegaConf | None = None, either: Union[DictConfig, dict] = None,
                 args: argparse.Namespace | None = None,
                 simple: Optional[types.SimpleNamespace] = None, own: Attributes | None = None,
                 steps: Steps | None = None, closes: Closes | None = None,
                 net: Net | None = None, number: Number = 1, nets: Iterable[Net] = (),
                 later: "Backbone | None" = None, thing: Thing | None = None,
                 other: "Unheard[int]" = None,
                 shape: Shape | None = None, shapes: list[Shape] | None = None,
                 limits: Limits | None = None, two: Annotated[int, AfterValidator(even)] = 2,
                 weight: Tensor | None = None, array: np.ndarray | None = None,
                 data: Dataset | None = None, backbone: Backbone | None = None,
                 text: Tokenizer | None = None, width: int = 3, rate: float = 0.1,
                 pick: Any = None, words: list[str] | None = None, call: Callable = len,
                 size=(1, 2), sizes=((1, 2), (3, 4)), root=Path("."), mode=Mode.FAST,
                 kept=frozenset(), free=None, on=True):
        vars(self).update(locals())

def some(*nets: nn.Module, sep: str = ","): return nets
def each(**nets: nn.Module): return nets
@validate_call
def scaled(n: int, by: Annotated[float, Field(gt=0)] = 1.0): return n * by
class Box(Generic[Net]):
    def __init__(self, net: Net): self.net = net
'''
WORDS = {"ADAM": "_target_: torch.optim.Adam", "RELU": "_target_: torch.nn.ReLU",
         "STEP": "_target_: torch.optim.lr_scheduler.StepLR", "MINE": "_target_: neighbours",
         "LATER": "_partial_: true"}
CASES = r"""
right  optimizer: {ADAM, LATER}                   optimizer.func is torch.optim.Adam
right  optimizer: {ADAM, LATER, lr: 0.1}          optimizer.keywords == {"lr": 0.1}
error  optimizer: {ADAM}                          needs 'params'
error  optimizer: adam                            wants torch.optim.Optimizer
warning  optimizer: {RELU, LATER}                 wants torch.optim.Optimizer
right  scheduler: {STEP, LATER, step_size: 1}     scheduler.keywords == {"step_size": 1}
right  scheduler: {_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, LATER}  scheduler.func
right  scheduler: null                            scheduler is None
error  scheduler: {STEP, step_size: 1}            needs 'optimizer'
right  many: [{ADAM, LATER}, {ADAM, LATER}]       len(many) == 2
right  make: {ADAM, LATER}, plan: {STEP, LATER, step_size: 2}  plan.func
warning  make: {RELU, LATER}                      wants Callable
right  act: {RELU, LATER}, act2: {RELU, LATER}    act is act2 is torch.nn.ReLU
right  act: {_target_: torch.nn.LeakyReLU, LATER, negative_slope: 0.2}  act.keywords
right  kinds: {a: {RELU, LATER}}                  kinds == {"a": torch.nn.ReLU}
error  act: relu                                  wants type[torch.nn.Module]
right  cfg: {a: {b: [1, {c: 2}]}}                 type(cfg) is DictConfig and cfg.a.b[1].c == 2
right  names: [a, b]                              type(names) is ListConfig and names[1] == "b"
right  conf: {a: 1}                               type(conf) is DictConfig and conf.a == 1
right  either: {a: 1}                             type(either) is dict
right  cfg: {net: {RELU}}                         isinstance(cfg.net, torch.nn.ReLU)
error  cfg: 3                                     wants omegaconf.DictConfig or null, got 3
right  args: {lr: 0.1, net: {width: 3}}           type(args) is Namespace and args.net.width == 3
right  args: {}                                   args == Namespace()
right  simple: {a: {b: 1}}                        simple.a.b == 1
right  own: {a: 1}                                own.a == 1
warning  own: [1]                                   wants neighbours.Attributes or null
right  steps: {MINE.Stepper}                      steps.step(1) == 2
warning  closes: {MINE.Stepper}                   wants neighbours.Closes or null
right  net: {RELU}                                isinstance(net, torch.nn.ReLU)
right  nets: [{RELU}, {RELU}]                     len(nets) == 2
right  number: 3                                  number == 3
right  number: 0.5                                number == 0.5
error  number: three                              wants int or float
error  net: 3                                     wants torch.nn.Module or null
right  later: {MINE.Backbone}                     later.grow() is later
warning  later: {RELU}                            wants neighbours.Backbone or null
right  thing: anything, other: [x]                thing == "anything"
right  shape: {width: 3}                          shape.width == 3
right  shapes: [{width: 3, parts: {a: [1]}}]      shapes[0].parts == {"a": [1]}
error  shape: {width: wide}                       wants int
error  shape: {width: 3, deep: 1}                 it has no 'deep'
right  limits: {high: 10}                         limits.high == 10
right  two: 4                                     two == 4
error  two: 3                                     wants to be even
right  weight: [1.0, 2.0]                         torch.equal(weight, torch.tensor([1.0, 2.0]))
warning  weight: [1.0, [2.0]]                     wants torch.Tensor or null
warning  array: [1, 2]                            wants numpy.ndarray or null
warning  data: [1, 2]                             wants torch.utils.data.Dataset or null
error  weight: heavy                              wants torch.Tensor or null
warning  data: {a: 1}                               wants torch.utils.data.Dataset or null
warning  backbone: {RELU}                         wants neighbours.Backbone or null
warning  backbone: {MINE.Backbone, LATER}         leave out `_partial_: true`
warning  text: {MINE.Fake}                        wants neighbours.Tokenizer or null
error  text: {MINE.Nothing}                       wants neighbours.Tokenizer or null
error  backbone: {MINE.Nothing}                   wants neighbours.Backbone or null
error  call: {MINE.Nothing}                       wants Callable
error  width: {RELU}                              wants int
error  width: wide                                wants int
error  width: 3.5                                 wants int
error  width: null                                wants int
warning  words: {_target_: torch.nn.ModuleList}   wants list[str] or null
right  size: [3, 4]                               (1, 2) + size == (1, 2, 3, 4)
right  size: 3                                    size == 3
right  size: same                                 size == "same"
right  sizes: [[5, 6]]                            sizes == ((5, 6),)
right  sizes: [1, 2]                              sizes == [1, 2]
right  root: data, mode: slow                     (root / "a").name == "a" and mode.name == "SLOW"
right  mode: other, root: 3                       mode == "other"
right  kept: [1, 1]                               kept == {1}
right  free: [1], 'on': x                       free == [1]
right  pick: {RELU, LATER}                        pick.func is torch.nn.ReLU
"""
FUNCTIONS = r"""
right  {MINE.some, _args_: [{RELU}, {RELU}]}      len(it) == 2
error  {MINE.some, _args_: [{RELU}, relu]}        wants torch.nn.Module
warning  {MINE.some, _args_: [{RELU, LATER}]}     leave out `_partial_: true`
right  {MINE.each, a: {RELU}}                     list(it) == ["a"]
error  {MINE.each, a: relu}                       wants torch.nn.Module
right  {MINE.scaled, n: 2, by: 3}                 it == 6
error  {MINE.scaled, n: 2, by: -1}                which should be greater than 0
right  {MINE.Box, net: {RELU}}                    isinstance(it.net, torch.nn.ReLU)
warning  {MINE.Box, net: {RELU, LATER}}           leave out `_partial_: true`
error  {MINE.Limits, high: 100}                   which should be 99 or less
error  {_target_: torch.nn.TransformerEncoder, num_layers: 1, encoder_layer: {ADAM, LATER}}  wants
"""


def cases(text: str) -> list[list[str]]:
    for word, meaning in WORDS.items(): text = text.replace(word, meaning)
    return [[o.strip() for o in line.replace("  ", "\t", 1).split("\t")[:1]] +
            [o.strip() for o in line.split("  ", 1)[1].rsplit("  ", 1)]
            for line in text.strip().splitlines()]


ALL = [*([v, f"{{_target_: neighbours.All, {node}}}", says] for v, node, says in cases(CASES)),
       *cases(FUNCTIONS)]


@pytest.fixture(scope="module", autouse=True)
def neighbours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("neighbours")
    (folder / "neighbours.py").write_text(CODE)
    (folder / "pyproject.toml").touch()
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.mark.parametrize("verdict, node, says", ALL, ids=[o[1][23:60] for o in ALL])
def test_what_an_annotation_means(verdict, node, says):
    cfg = load_config(dict(extra=dict(it=yaml.safe_load(node))), trust=["neighbours"])
    found = find_problems(cfg.extra)
    if verdict == "right":
        assert not found, found
        it = build(cfg.extra.it)
        names = dict(torch=torch, DictConfig=DictConfig, ListConfig=ListConfig, it=it,
                     Namespace=Namespace, **getattr(it, "__dict__", {}))
        assert eval(says, names), vars(it)
        return
    problem, = found
    assert problem.is_warning == (verdict == "warning"), problem
    assert says in problem.message and "\n" not in problem.message
    if verdict == "warning": build(cfg.extra.it)  # it is what the code gets


@pytest.mark.parametrize("key, value, says", [
    ("word", "long", "word: 'long', three letters at most"),
    ("high", 100, "high: 100, which should be less than or equal to 99"),
    ("low", "x", "low: 'x', which should be a valid integer"),
    ("low", [1] * 90, "..., which should be a valid integer")])
def test_a_model_of_pydantic_refuses_in_plain_words(key, value, says):
    cfg = load_config(dict(extra=dict(_target_="neighbours.Limits")), trust=["neighbours"])
    cfg.extra[key] = value
    with pytest.raises(ConfigError) as e: build(cfg.extra)
    assert says in str(e.value), e.value
    assert not any(o in str(e.value) for o in ("Input", "pydantic.dev", "[type=", "Value error"))




def test_a_warning_stops_nothing_and_strict_makes_it_an_error(neighbours, monkeypatch, capsys):
    code = CODE + '''
class Holder(nn.Module):
    def __init__(self, net: Backbone):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), net, nn.Linear(784, 10))
    def forward(self, x): return self.layers(x)
'''
    (neighbours / "holders.py").write_text(code)
    net = dict(_target_="holders.Holder", net=dict(_target_="torch.nn.ReLU"))
    text = yaml.safe_dump(dict(
        defaults=[dict(data="mnist"), dict(model="classifier"), dict(debug="fast")],
        model=dict(net=net), trainer=dict(accelerator="cpu")))
    (neighbours / "main.yaml").write_text(text)
    monkeypatch.chdir(neighbours)
    line = ("main.yaml:9:7: model.net.net._target_: warning: holders.Holder wants "
            "holders.Backbone, got torch.nn.ReLU; if that is meant, let the annotation say so")
    place = next(i for i, o in enumerate(text.splitlines(), 1) if "torch.nn.ReLU" in o)
    line = line.replace(":9:", f":{place}:")

    def run(*args):
        code = mlkit_train(["main.yaml", *args])
        out, err = capsys.readouterr()
        return code, out, [o for o in err.splitlines() if o.startswith("main.yaml")]

    assert run("--check") == (0, "no mistakes, 1 to look at\n", [line])
    assert run("--check", "--strict") == (2, "", [line.replace("warning: ", "")])
    assert run("--strict")[::2] == (2, [line.replace("warning: ", "")])
    assert run("--check", "-m", "seed=1,2") == (0, "no problems in 2 combinations\n", [line])
    assert run("--strict", "-m", "seed=1,2")[0] == 2
    code, out, lines = run()
    assert (code, lines) == (0, [line]) and "run: not kept" in out
    told = set()
    for _ in range(2): check(Path("main.yaml"), told=told)
    assert len(capsys.readouterr().err.splitlines()) == 1
