"""What a test must not leave behind: environment variables, threads, processes, a process group."""

import os
import sys
import threading
import time
from contextlib import contextmanager, suppress

import psutil
import pytest

SECONDS = 10.0
"""How long threads and processes may take to end after a test."""

SHARED_PREFIX = "shared-"
"""How the names of threads begin that fixtures start in one test and keep for others."""

SET_BY_IMPORTS = frozenset({"TORCHINDUCTOR_CACHE_DIR", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "RAY_CLIENT_MODE"})
"""Environment variables that importing parts of torch and Ray sets."""

KEPT_BY_PYTHON = ("multiprocessing.resource_tracker", "multiprocessing.forkserver", "QueueFeederThread")
"""Parts of the names of processes and threads of multiprocessing that last as long as the interpreter."""

_shared_processes = set()


def share_process(pid):
    """Marks a child process that a fixture starts in one test and keeps for others."""
    _shared_processes.add(pid)


@contextmanager
def assert_nothing_leaks():
    """Fails the test if anything is left that was not there before; environment variables are restored."""
    environment, threads, processes = dict(os.environ), set(threading.enumerate()), set(_children())
    yield
    found = [*_restore(environment), *_wait_for(lambda: _new_threads(threads))]
    found += _wait_for(lambda: _new_processes(processes))
    if "torch.distributed" in sys.modules and sys.modules["torch.distributed"].is_initialized():
        sys.modules["torch.distributed"].destroy_process_group()
        found.append("a process group")
    if found:
        pytest.fail(f"the test left behind: {', '.join(found)}", pytrace=False)


def _restore(environment):
    """Restores the environment; returns what had changed."""
    names = {
        name
        for name in environment.keys() | os.environ.keys()
        if environment.get(name) != os.environ.get(name) and not name.startswith("PYTEST_")
    } - SET_BY_IMPORTS
    for name in names:
        if name in environment:
            os.environ[name] = environment[name]
        else:
            del os.environ[name]
    return [f"the environment variable {name}" for name in sorted(names)]


def _new_threads(before):
    new = set(threading.enumerate()) - before
    return [f"the thread {thread.name}" for thread in new if not _is_shared(thread)]


def _new_processes(before):
    new = map(_describe, set(_children()) - before)
    return [text for text in new if not any(name in text for name in KEPT_BY_PYTHON)]


def _is_shared(thread):
    """Whether it is multiprocessing's or of a shared fixture; HTTP servers start one for each connection."""
    if thread.name in KEPT_BY_PYTHON:
        return True
    return thread.name.startswith(SHARED_PREFIX) or "(process_request_thread)" in thread.name


def _children():
    """The living child processes of this one that are not shared; they compare by number and start time."""
    living = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.pid not in _shared_processes and child.status() != psutil.STATUS_ZOMBIE:
                living.append(child)
    return living


def _describe(process):
    with suppress(psutil.Error):
        return f"the process {process.pid} ({' '.join(process.cmdline())[:100]})"
    return f"the process {process.pid}"


def _wait_for(left):
    """What is still left after a while."""
    deadline = time.monotonic() + SECONDS
    while (found := left()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found
