"What every test starts from: no tracker on the network, and none of the user's own settings."
import gc
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from fixtures import figure, hydra_python, pytest_terminal_summary  # noqa: F401

for name in [n for n in os.environ if n.startswith("MLKIT_")] + ["IN_TEST"]:
    os.environ.pop(name, None)
os.environ["WANDB_MODE"] = "offline"
for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):  # what mlkit remembers of folders
    os.environ[name] = tempfile.mkdtemp(prefix="mlkit-test-")
# where a shell starts pytest behind, all that the tests start would ignore it
signal.signal(signal.SIGINT, signal.default_int_handler)
# a collector that looks at all of torch now and then takes a tenth of the time
gc.set_threshold(50_000, 20, 100)
# one core each
if "PYTEST_XDIST_WORKER" in os.environ: os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def no_modules_of_other_tests(tmp_path_factory):
    "What an earlier test wrote and imported is forgotten when its folder has left `sys.path`."
    base = str(tmp_path_factory.getbasetemp())
    folders = tuple(o for o in sys.path if o.startswith(base))
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if file.startswith(base) and not file.startswith(folders): del sys.modules[name]


@pytest.fixture(scope="session")
def root() -> Path:
    "The project's root."
    return Path(__file__).resolve().parent.parent


def pytest_xdist_auto_num_workers() -> int:
    "Of `-n auto`: one more than there are cores, since a tenth of all time is spent in waiting."
    return (os.cpu_count() or 1) + 1
