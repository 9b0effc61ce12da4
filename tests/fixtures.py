"Fixtures that tests/ and benchmarks/ share; each conftest.py takes them from here."
import os
from pathlib import Path

import pytest

import hydra_oracle

# `MLKIT_TEST_ALL=1 pytest -m slow` tries the whole number of what is drawn, else there are some of
# it. The name changes, since mlkit would read it, and xdist's workers know only what stays here.
if given := os.environ.pop("MLKIT_TEST_ALL", ""): os.environ["_MLKIT_TEST_ALL"] = given
ALL = bool(os.environ.get("_MLKIT_TEST_ALL"))


@pytest.fixture
def figure(record_property):
    "Tells what was measured; it stands in the last lines of all."
    return lambda text: record_property("figure", text)


@pytest.fixture(scope="session")
def hydra_python(request) -> Path:
    "The Python of an environment with Hydra; it stays in pytest's cache for the next time."
    return hydra_oracle.environment(request.config.cache.mkdir("hydra"))


def pytest_terminal_summary(terminalreporter):
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, [])]
    figures = [text for r in reports for name, text in r.user_properties if name == "figure"]
    if figures: terminalreporter.section("figures")
    for text in figures: terminalreporter.line(text)
