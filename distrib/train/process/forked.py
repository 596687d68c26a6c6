"""Work in a forked process, which leaves nothing behind in this one."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
import warnings
from collections.abc import Callable

import torch

from distrib.train.process.lifetime import die_with_parent


def run_forked(work: Callable[[], bytes], patience_seconds: float) -> bytes:
    """Runs `work` in a forked process.

    File positions are shared with the process, so they are put back afterwards.

    Args:
        work: What to do; what it prints is dropped, and it may not raise.
        patience_seconds: How long to wait for it.

    Returns:
        What it returned; nothing if it takes too long, its process dies or there can be none.
    """
    reading, writing = os.pipe()
    positions = _file_positions()
    try:
        with warnings.catch_warnings(action="ignore"):  # of the fork of a process with threads
            pid = os.fork()
    except OSError:  # too little memory for a second process, or too many processes
        os.close(reading)
        os.close(writing)
        return b""
    if pid == 0:
        _run_and_exit(work, writing)
    os.close(writing)
    try:
        return _read(reading, patience_seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # of a program that ignores SIGCHLD
            os.waitpid(pid, 0)
        os.close(reading)
        for descriptor, (name, position) in positions.items():
            with contextlib.suppress(OSError):  # other threads may have closed it, or opened another file
                if os.readlink(f"/proc/self/fd/{descriptor}") == name:
                    os.lseek(descriptor, position, os.SEEK_SET)


def _run_and_exit(work: Callable[[], bytes], writing: int) -> None:
    answer = b""
    with contextlib.suppress(BaseException):
        die_with_parent()
        silent = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(silent, descriptor)
        torch.set_num_threads(1)  # the threads of the pool were not forked
        answer = work()
    with contextlib.suppress(OSError):
        os.write(writing, answer)
    os._exit(0)


def _read(reading: int, patience_seconds: float) -> bytes:
    deadline, answer = time.monotonic() + patience_seconds, b""
    poll = select.poll()  # which takes any descriptor, unlike select
    poll.register(reading, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0 and poll.poll(left * 1000):
        data = os.read(reading, 2**16)
        if not data:
            return answer
        answer += data
    return b""


def _file_positions() -> dict[int, tuple[str, int]]:
    """The names and positions of this process's open files."""
    positions = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # pipes and sockets have none
            positions[int(name)] = os.readlink(f"/proc/self/fd/{name}"), os.lseek(int(name), 0, os.SEEK_CUR)
    return positions
