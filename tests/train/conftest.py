"""The runs that the tests of this folder look at, by name.

A test says which it needs with `@pytest.mark.runs(name, …)`, and they start, in that order, when the session does.
"""

import os
import sys
from pathlib import Path

import pytest

SUPPORT = str(Path(__file__).parents[1] / "support")
if SUPPORT not in sys.path:
    sys.path.append(SUPPORT)

from exact_runs import Runs  # noqa: E402
from exact_specs import SPECS  # noqa: E402
from fault_specs import FAULT_SPECS  # noqa: E402

from tests.support.ranks import start_rank_server  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "runs(*names): the runs, defined in exact_specs.py, that a test looks at")


@pytest.fixture(scope="session")
def runs(request, tmp_path_factory, command_server):
    """The runs by name."""
    num_processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    runs = Runs(
        tmp_path_factory.mktemp("runs"), SPECS | FAULT_SPECS, command_server, num_at_once=1 if num_processes > 1 else 2
    )
    for item in request.session.items:
        for mark in item.iter_markers("runs"):
            for name in mark.args:
                runs.start(name)
    yield runs
    runs.close()


@pytest.fixture(scope="session")
def rank_server():
    """For tests that use `run_ranks`: the process that ranks are forked from, which outlives each of them."""
    start_rank_server()


@pytest.fixture
def run(request, runs):
    """The first run that the test has marked."""
    return runs[request.node.get_closest_marker("runs").args[0]]
