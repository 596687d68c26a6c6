"""Distinguishes a living launcher from one that has died."""

import subprocess
import sys
import time

import psutil
import pytest

from distrib.runs.owner import is_dead, this_process

PRINT_OWNER = (
    "import json; from distrib.runs.owner import this_process; print(json.dumps(this_process()), flush=True); input()"
)


@pytest.fixture
def other():
    """Another process, which waits for a line, and what it says of itself."""
    import json

    with subprocess.Popen([sys.executable, "-c", PRINT_OWNER], stdin=-1, stdout=-1, text=True) as process:
        yield process, json.loads(process.stdout.readline())
        process.kill()


def test_this_process_is_alive():
    assert not is_dead(this_process())


def test_another_process_is_alive_until_it_has_died(other):
    process, owner = other
    assert not is_dead(owner)
    process.kill()
    process.wait()
    assert is_dead(owner)


def test_a_zombie_is_dead(other):
    process, owner = other
    process.kill()
    deadline = time.monotonic() + 10
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.01)
    assert is_dead(owner)


def test_a_later_process_with_the_same_number_is_another_one():
    assert is_dead({**this_process(), "start_time": 1.0})


def test_a_reboot_ends_all_processes():
    assert is_dead({**this_process(), "boot_id": "an earlier one"})


@pytest.mark.parametrize("field", ["host", "pid_namespace"])
def test_what_cannot_be_seen_from_here_is_not_called_dead(field):
    assert not is_dead({**this_process(), field: "elsewhere", "pid": 2**22 + 1})
