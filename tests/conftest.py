"What every test starts from: no tracker on the network, and none of the settings of whoever runs them."
import os
from pathlib import Path

import pytest

for name in [n for n in os.environ if n.startswith("MLKIT_")] + ["IN_TEST"]: os.environ.pop(name, None)
os.environ["WANDB_MODE"] = "offline"


@pytest.fixture(scope="session")
def root() -> Path:
    "The project's root."
    return Path(__file__).resolve().parent.parent
