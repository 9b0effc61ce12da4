"""What the house rules are checked on: the modules of mlkit as syntax trees.

CONTRIBUTING.md says the rules in words; test_project.py has the tests.
"""
import ast
import importlib
import importlib.util
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from notebooks import ROOT

# A module imports from floors below its own, and within its own wing.
FLOORS = {"base": 0, "config": 1, "data": 1, "model": 1, "parts": 2, "run": 2, "fit": 3, "show": 3,
          "train": 4, "use": 4, "many": 5, "doctor": 5, "ship": 6, "recipes": 7,
          "cli": 7, "magic": 7, "completion": 7, "new": 7, "all": 7}
# Doors on one floor that may lead to each other, as rooms of one wing may.
TOGETHER = [{"train", "use"}, {"cli", "completion", "all", "new"}]
# The files that may touch private names of these libraries.
PRIVATE = {"mlkit/fit/lightning.py": {"pytorch_lightning", "lightning_fabric", "torch",
                                      "torchmetrics"},
           "mlkit/config/node.py": {"omegaconf"}, "mlkit/config/yaml.py": {"yaml"}}
PUBLIC_IN_SPITE = {"_asdict", "_fields", "_make", "_replace",  # of named tuples
                   "_getframe", "_exit"}                       # of sys and os
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Room:
    "A module of mlkit."
    path: str  # from the project's root: mlkit/config/load.py

    @cached_property
    def text(self) -> str: return (ROOT / self.path).read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module: return ast.parse(self.text)

    @property
    def name(self) -> str: return self.path.removesuffix(".py").replace("/", ".")

    @property
    def wing(self) -> str: return self.name.split(".")[1]

    @property
    def lines(self) -> list[str]:
        "Its lines that are not blank; nbdev's markers are not counted."
        return [o for o in self.text.splitlines() if o.strip() and not o.startswith("# %%")]

    @cached_property
    def imports(self) -> list[tuple[int, str, list[str]]]:
        "(line, module, names) of each import, those within functions too."
        package, out = self.name.rpartition(".")[0], []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                out += [(node.lineno, alias.name, []) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                module = node.module or ""
                if node.level:
                    module = importlib.util.resolve_name("." * node.level + module, package)
                out.append((node.lineno, module, [alias.name for alias in node.names]))
        return out


ROOMS = [Room(p.relative_to(ROOT).as_posix()) for p in sorted((ROOT / "mlkit").rglob("*.py"))
         if p.name not in ("__init__.py", "_modidx.py")]
NAMES = {room.name for room in ROOMS}


# Floors

def rooms_used(room: Room) -> Iterator[tuple[int, str]]:
    "(line, module) of each room that a room imports."
    for line, module, names in room.imports:
        if module in NAMES: yield line, module
        else: yield from ((line, f"{module}.{n}") for n in names if f"{module}.{n}" in NAMES)


def may_use(wing: str, other: str) -> bool:
    same = wing == other or any({wing, other} <= doors for doors in TOGETHER)
    return same or FLOORS[other] < FLOORS[wing]


def imports_upward(room: Room) -> list[str]:
    return [f"{room.path}:{line}: imports {other}" for line, other in rooms_used(room)
            if not may_use(room.wing, other.split(".")[1])]


def docstrings(tree: ast.Module) -> set[int]:
    "The ids of the constants that are docstrings."
    owners = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | Function)]
    first = [n.body[0] for n in owners if n.body]
    return {id(n.value) for n in first if isinstance(n, ast.Expr)}


def spells_upward(room: Room) -> list[str]:
    "Texts, docstrings aside, that hold the path of a module of a higher floor."
    told, out = docstrings(room.tree), []
    for node in ast.walk(room.tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str): continue
        if id(node) in told: continue
        wings = re.findall(r"\bmlkit\.(\w+)", node.value)
        higher = [w for w in wings if FLOORS.get(w, 0) > FLOORS[room.wing]]
        out += [f"{room.path}:{node.lineno}: spells mlkit.{w}" for w in higher]
    return out


def is_own(module: str) -> bool: return module.split(".")[0] == "mlkit"


def groups_out_of_order(room: Room) -> list[str]:
    "Python's own modules come first, then other libraries, then mlkit."
    def rank(node):
        if isinstance(node, ast.Import): top = node.names[0].name.split(".")[0]
        elif node.level: return 3
        else: top = node.module.split(".")[0]
        if top == "__future__": return 0
        return 3 if top == "mlkit" else 1 if top in sys.stdlib_module_names else 2
    ranks = [(n.lineno, rank(n)) for n in room.tree.body
             if isinstance(n, ast.Import | ast.ImportFrom)]
    return [f"{room.path}:{line}: an import of an earlier group" for (_, before), (line, now)
            in zip(ranks, ranks[1:]) if now < before]


# Private names

def is_private(name: str) -> bool:
    "`_x`; not `__x__`, nor a word that both begins and ends so, as `_target_`."
    return name.startswith("_") and not name.endswith("_") and name not in PUBLIC_IN_SPITE


def own_names(room: Room) -> set[str]:
    "What a room defines itself: functions, classes, names, and attributes of `self` or `cls`."
    out = set()
    for node in ast.walk(room.tree):
        if isinstance(node, Function | ast.ClassDef): out.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store): out.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                out.add(node.attr)
    return out


def private_uses(room: Room) -> list[str]:
    "Private names of others that a room touches: of other rooms, or of libraries."
    own, out = own_names(room), []
    allowed = PRIVATE.get(room.path, set())
    for line, module, names in room.imports:
        private = [p for p in [*module.split("."), *names] if is_private(p)]
        if private and module.split(".")[0] not in allowed:
            out.append(f"{room.path}:{line}: {private[0]} from {module}")
    for node in ast.walk(room.tree):
        if isinstance(node, ast.Attribute): name = node.attr
        elif (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
              and node.func.id in ("getattr", "hasattr", "setattr", "delattr")
              and len(node.args) > 1
              and isinstance(node.args[1], ast.Constant)): name = node.args[1].value
        else: continue
        if is_private(name) and name not in own and not allowed:
            out.append(f"{room.path}:{node.lineno}: {name}")
    return out


# What is printed, and HTML

_TAG = re.compile(r"</?(p|b|h\d|t[drh]|table|div|span|img|code|progress)\b")


def speaks_itself(room: Room) -> list[str]:
    "Calls of `print`, and HTML that is put together, in other rooms than the one for these."
    if room.path == "mlkit/base/shown.py": return []
    out = [f"{room.path}:{line}: imports {module}; base.shown makes HTML"
           for line, module, _ in room.imports if module == "html"]
    for node in ast.walk(room.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            out.append(f"{room.path}:{node.lineno}: print; base.shown has tell")
        if isinstance(node, ast.JoinedStr) and _TAG.search(ast.unparse(node)):
            out.append(f"{room.path}:{node.lineno}: HTML; base.shown has html")
    return out


# Parameters

def comments_of(text: str) -> tuple[dict[int, str], set[int]]:
    "The comments by line, and the lines that are nothing but a comment."
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(text).readline)
              if t.type == tokenize.COMMENT]
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens}
    return comments, {t.start[0] for t in tokens if t.line.lstrip().startswith("#")}


def is_public(name: str) -> bool: return not name.startswith("_") or name == "__init__"


def decorators(node: Function | ast.ClassDef) -> set[str]:
    plain = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    return {d.attr if isinstance(d, ast.Attribute) else d.id for d in plain
            if isinstance(d, ast.Attribute | ast.Name)}


def class_of(function: Function) -> str | None:
    "The class that a patched function belongs to."
    if "patch" not in decorators(function): return None
    first = (function.args.posonlyargs + function.args.args)[0].annotation
    return ast.unparse(first) if first else None


def overrides(room: Room, name: str) -> bool:
    "Is it a method of a base class, too? Then its parameters are explained there."
    owner, _, method = name.rpartition(".")
    if not owner or method == "__init__": return False
    cls = getattr(importlib.import_module(room.name), owner)
    return any(method in base.__dict__ for base in cls.__mro__[1:])


def public_functions(room: Room) -> Iterator[tuple[str, Function]]:
    "(name, function) of public functions, and of methods of public classes that are new there."
    return ((name, f) for name, f in _functions(room) if not overrides(room, name))


def _functions(room: Room) -> Iterator[tuple[str, Function]]:
    for node in room.tree.body:
        if isinstance(node, Function) and is_public(node.name):
            owner = class_of(node)
            if owner is None or is_public(owner):
                yield (f"{owner}.{node.name}" if owner else node.name), node
        elif isinstance(node, ast.ClassDef) and is_public(node.name):
            yield from ((f"{node.name}.{n.name}", n) for n in node.body
                        if isinstance(n, Function) and is_public(n.name))


def undocumented(room: Room, name: str, function: Function) -> list[str]:
    "Parameters without a type, or without a comment of their own."
    comments, alone = comments_of(room.text)
    args = function.args
    every = [*args.posonlyargs, *args.args, *args.kwonlyargs]
    method = "." in name and "staticmethod" not in decorators(function)
    places = {a.lineno: a.arg for a in every}  # a comment belongs to the last of its line
    if function.returns: places[function.returns.lineno] = "return"
    def has_comment(line: int, arg: str) -> bool:
        return (line in comments and places.get(line) == arg) or line - 1 in alone
    out = []
    for arg in every[1 if method else 0:]:
        if arg.arg.startswith("_"): continue  # a caller does not pass it
        lacks = [word for word, there in (("type", arg.annotation is not None),
                                          ("comment", has_comment(arg.lineno, arg.arg)))
                 if not there]
        if lacks:
            out.append(f"{room.path}:{arg.lineno}: {name}({arg.arg}): no {' and no '.join(lacks)}")
    return out


def undocumented_return(room: Room, name: str, function: Function) -> list[str]:
    "A function that gives something back says what, by a type or a comment."
    comments, _ = comments_of(room.text)
    if function.returns or function.body[0].lineno - 1 in comments: return []
    where = f"{room.path}:{function.lineno}: {name} -> : "
    inner = [n for f in ast.walk(function) if isinstance(f, Function | ast.Lambda)
             and f is not function
             for n in ast.walk(f)]
    gives = [n for n in ast.walk(function) if n not in inner
             and (isinstance(n, ast.Return) and n.value or isinstance(n, ast.Yield))]
    return [where + "no type and no comment"] if gives else []


def undocumented_fields(room: Room) -> list[str]:
    "The fields of public dataclasses are parameters, too."
    comments, alone = comments_of(room.text)
    classes = [n for n in room.tree.body if isinstance(n, ast.ClassDef) and is_public(n.name)]
    fields = [(c, f) for c in classes if "dataclass" in decorators(c)
              for f in c.body if isinstance(f, ast.AnnAssign) and is_public(f.target.id)]
    return [f"{room.path}:{f.lineno}: {c.name}.{f.target.id}: no comment" for c, f in fields
            if f.lineno not in comments and f.lineno - 1 not in alone]
