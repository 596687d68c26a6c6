"""Stacks are written on request, which harms no process that is not ready for it, and CPU time counts all of a rank."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from distrib.launch.process.cpu_time import cpu_seconds_of
from distrib.launch.watch import stacks
from distrib.launch.watch.stacks import NATIVE_SECONDS, request_stacks, write_native_stacks
from distrib.train.process.stacks import STACK_SIGNAL

pytestmark = pytest.mark.timeout(60)

HANDLING = f"import signal; signal.signal({int(STACK_SIGNAL)}, lambda *_: print('asked', flush=True)); "
WAITING = "print('ready', flush=True); input()"


@pytest.fixture
def start():
    """Starts Python programs that wait for a line of input, and waits until each is ready."""
    started = []

    def call(code):
        process = subprocess.Popen(
            [sys.executable, "-c", code + WAITING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield call
    for process in started:
        end(process)


def end(process):
    """Has the program end by itself."""
    if not process.stdin.closed:
        process.stdin.write("\n")
        process.stdin.close()
    process.wait()
    process.stdout.close()


def test_a_process_without_a_handler_is_not_ended_by_the_request(start):
    process = start("")
    assert not request_stacks(process.pid)
    end(process)
    assert process.returncode == 0


def test_a_process_with_a_handler_gets_the_request(start):
    process = start(HANDLING)
    assert request_stacks(process.pid)
    assert process.stdout.readline() == "asked\n"


def test_a_process_that_has_ended_is_not_asked(start):
    process = start("")
    end(process)
    assert not request_stacks(process.pid)


class StuckProgram:
    """A py-spy that never ends by itself; its clock advances while it is waited for."""

    now, returncode = 0.0, 0

    def __init__(self, command, **options):
        self.is_killed = False

    def wait(self, seconds=None):
        if not self.is_killed:
            StuckProgram.now += seconds
            raise subprocess.TimeoutExpired("py-spy", seconds)
        self.returncode = -9

    def kill(self):
        self.is_killed = True


def test_native_stacks_of_all_processes_are_waited_for_together(tmp_path, monkeypatch):
    monkeypatch.setattr(stacks.shutil, "which", lambda name: name)
    monkeypatch.setattr(stacks.subprocess, "Popen", StuckProgram)
    monkeypatch.setattr(stacks.time, "monotonic", lambda: StuckProgram.now)
    assert write_native_stacks((pid, tmp_path / f"{pid}.txt") for pid in range(8)) == []
    assert StuckProgram.now == NATIVE_SECONDS
    assert list(tmp_path.iterdir()) == []


CHILD = "import time\nwhile time.process_time() < 0.5: pass"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}]); "


def test_cpu_time_includes_children_that_have_ended(start):
    process = start(PARENT)
    own = psutil.Process(process.pid).cpu_times()
    assert cpu_seconds_of(process.pid) >= own.user + own.system + 0.4  # the kernel counts in hundredths


def test_a_process_that_has_ended_uses_no_cpu_time(start):
    process = start("")
    end(process)
    assert cpu_seconds_of(process.pid) == 0.0


def test_the_signal_is_one_that_would_end_a_process():
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", f"kill -{int(STACK_SIGNAL)} $$"], os.environ)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -int(STACK_SIGNAL)
    assert STACK_SIGNAL != signal.SIGTERM
