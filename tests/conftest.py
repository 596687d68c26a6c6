"""What all tests share: a quick way to run the command, a check that a test leaves nothing behind, groups of tests.

With two processes (`pytest -n 2 --dist loadgroup`, as `make test` does), the tests of a file stay together, those with
the marker `runs` too, and all that start Ray or a lab run one after the other.
"""

import signal
from pathlib import Path

import hypothesis
import pytest

from tests.support.command_server import CommandServer
from tests.support.leaks import assert_nothing_leaks

TESTS = Path(__file__).parent

FIRST = ("cluster", "runs", "recovery", "launch", "inference", "train", "jobs", "scale", "cli")
"""Groups and folders of tests that take long, in the order in which they start; the others are quick and fill gaps."""

# A shell that starts this in the background, or nohup, has signals ignored, and commands would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Time limits of examples say more about the machine than about the code.
hypothesis.settings.register_profile(
    "suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], derandomize=True
)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def command_server():
    """Starts commands quickly."""
    server = CommandServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _leaks(request):
    """Fails a test that leaves environment variables, threads, processes or a process group behind."""
    with assert_nothing_leaks():
        yield


def group_of(item):
    """The tests that run in the same process as this one."""
    if item.get_closest_marker("ray") or item.path.is_relative_to(TESTS / "lab"):
        return "cluster"
    return "runs" if item.get_closest_marker("runs") else str(item.path.relative_to(TESTS))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Groups the tests of several processes; the long groups come first, so that all processes end about together."""
    if hasattr(config, "workerinput"):
        for item in items:
            item.add_marker(pytest.mark.xdist_group(group_of(item)))
        items.sort(key=rank_of)


def rank_of(item):
    """Where a test comes; labs are last in their group, since one stays up until the end."""
    first = group_of(item).split("/")[0]
    return (FIRST.index(first) if first in FIRST else len(FIRST), item.path.is_relative_to(TESTS / "lab"))
