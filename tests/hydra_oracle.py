"""What Hydra makes of a list of cases. It runs in an environment of its own, since Hydra wants an older OmegaConf.

stdin: a JSON list of [folder, config name, overrides]; stdout: {"lines": …} or {"error": …} for each, in a JSON list.
With `--time N`: the seconds of N rounds of each case, {"seconds": […]}, after a round to warm up.
With `--sweeps` stdin is a list of overrides of a multirun: {"values": …}, each value's Python text, or {"error": …}.
With `--copies` every use of a file gets its own copy: Hydra hands the same nodes to each, and what is laid over the one
use can show in the others.
"""
import json
import sys
import time
import warnings
from keyword import iskeyword


def lines(data, path: str = "") -> list[str]:
    "Plain data as one line a leaf, in order: 'a.b[0] = 1.0'. Types show, of keys too: 1, 1.0, True and '1' differ."
    if not isinstance(data, (dict, list)) or not data: return [f"{path} = {data!r}"]
    if isinstance(data, list): return [o for i, v in enumerate(data) for o in lines(v, f"{path}[{i}]")]
    word = lambda k: k if isinstance(k, str) and k.isidentifier() and not iskeyword(k) else repr(k)
    return [o for k, v in data.items() for o in lines(v, f"{path}{path and '.'}{word(k)}")]


def compose(folder: str, name: str, overrides: list[str]) -> dict:
    "One case: the config's lines, or how Hydra refuses it."
    import hydra
    from omegaconf import OmegaConf
    try:
        with hydra.initialize_config_dir(folder, version_base="1.3"):
            return {"lines": lines(OmegaConf.to_container(hydra.compose(name, overrides), resolve=False))}
    except Exception as e:  # its own errors, and those that it lets through: AssertionError, RecursionError …
        return {"error": f"{type(e).__name__}: {(str(e).strip() or str(e.__cause__)).splitlines()[0]}"}


def give_copies():
    "Mend Hydra, here, as the last option says."
    from copy import deepcopy
    from hydra._internal.config_repository import CachingConfigRepository as Files
    shared = Files.load_config
    Files.load_config = lambda self, config_path: deepcopy(shared(self, config_path))


def seconds(rounds: int, folder: str, name: str, overrides: list[str]) -> dict:
    "The time of each `hydra.compose`."
    import hydra
    took = []
    with hydra.initialize_config_dir(folder, version_base="1.3"):
        for _ in range(rounds + 1):
            start = time.perf_counter()
            hydra.compose(name, overrides)
            took.append(time.perf_counter() - start)
    return {"seconds": took[1:]}


def swept(override: str) -> dict:
    "The values that a multirun takes one after another."
    from hydra.core.override_parser.overrides_parser import OverridesParser
    parse = OverridesParser.create().parse_override
    try:
        o = parse(override)
        each = [f"{o.get_key_element()}={v}" for v in o.sweep_string_iterator()] if o.is_sweep_override() else [override]
        return {"values": [repr(parse(v).value()) for v in each]}
    except Exception as e: return {"error": type(e).__name__}


if __name__ == "__main__":
    if "--sweeps" in sys.argv: sys.exit(json.dump([swept(o) for o in json.load(sys.stdin)], sys.stdout))
    warnings.simplefilter("ignore")  # a list without `_self_` is what some cases are about
    if "--copies" in sys.argv: give_copies()
    timed = sys.argv[1:2] == ["--time"]
    answers = [seconds(int(sys.argv[2]), *case) if timed else compose(*case) for case in json.load(sys.stdin)]
    json.dump(answers, sys.stdout)
