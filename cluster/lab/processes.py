"""Processes of the machine: finds those of a network namespace, checks and kills them."""

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
    """A process, identified by PID and start time, since PIDs are reused.

    Attributes:
        pid: Its PID on the machine.
        start_time: Clock ticks between boot and its start.
    """

    pid: int
    start_time: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this PID now; None if there is none or if it is a zombie."""
        stat = read_proc_stat(pid)
        return None if stat is None or stat.is_dead else cls(pid, str(stat.start_ticks))

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return Process.of(self.pid) == self

    def kill(self) -> None:
        """Kills it with SIGKILL and waits until it is gone."""
        while self.is_alive:
            _kill(self.pid)
            time.sleep(_POLL_SECONDS)


def list_pids(namespace: Path) -> list[int]:
    """The PIDs in a network namespace, which is given by its file."""
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
    """The command line of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def runs_ray(namespace: Path) -> bool:
    """Whether a raylet runs in a network namespace."""
    return any("/raylet/raylet " in read_command(pid) for pid in list_pids(namespace))


def kill_all(namespace: Path, *, timeout_seconds: float = 4.0) -> bool:
    """Kills all processes in a network namespace with SIGKILL; returns whether none are left."""
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
