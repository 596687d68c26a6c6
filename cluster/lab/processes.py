"""Processes of the machine: which belong to a network namespace, whether one is still alive, and their end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from distrib.runs.proc_stat import read_proc_stat

_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Process:
    """One process, told from a later one of the same number by when it started.

    Attributes:
        pid: Its number outside of the hosts.
        start_time: In ticks since the machine booted.
    """

    pid: int
    start_time: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has the number `pid` now; None where there is none, or only its remains."""
        stat = read_proc_stat(pid)
        return None if stat is None or stat.is_dead else cls(pid, str(stat.start_ticks))

    @property
    def is_alive(self) -> bool:
        """Whether it is still there."""
        return Process.of(self.pid) == self

    def kill(self) -> None:
        """Ends it by SIGKILL, and waits until it is gone."""
        while self.is_alive:
            _kill(self.pid)
            time.sleep(_POLL_SECONDS)


def list_pids(namespace: Path) -> list[int]:
    """The processes in a network namespace, by the file that it is bound to."""
    try:
        wanted = namespace.stat()
    except OSError:
        return []
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                status = os.stat(f"/proc/{entry}/ns/net")
            except OSError:
                continue
            if (status.st_ino, status.st_dev) == (wanted.st_ino, wanted.st_dev):
                found.append(int(entry))
    return found


def read_command(pid: int) -> str:
    """A process's command line; empty once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def runs_ray(namespace: Path) -> bool:
    """Whether Ray's own process of a host runs in a network namespace."""
    return any("/raylet/raylet " in read_command(pid) for pid in list_pids(namespace))


def kill_all(namespace: Path, *, timeout_seconds: float = 4.0) -> bool:
    """Ends all processes in a network namespace by SIGKILL; returns whether none is left."""
    deadline = time.monotonic() + timeout_seconds
    while pids := list_pids(namespace):
        if time.monotonic() > deadline:
            return False
        for pid in pids:
            _kill(pid)
        time.sleep(_POLL_SECONDS)
    return True


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
