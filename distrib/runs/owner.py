"""Which process a run belongs to, and whether that process is still alive."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """What tells this process from every other, also from a later one with the same number."""
    return {**_machine(), "pid": os.getpid(), "start_time": _start_time(os.getpid())}


def is_of_this_machine(owner: Mapping[str, Any]) -> bool:
    """Whether the process runs, or ran, where it can be seen from here."""
    machine = _machine()
    return all(owner.get(key) == machine[key] for key in ("host", "pid_namespace"))


def is_dead(owner: Mapping[str, Any]) -> bool:
    """Whether the process is certainly gone; False where it cannot be seen from here, as on another host."""
    machine = _machine()
    if owner.get("host") != machine["host"]:
        return False
    if owner.get("boot_id") != machine["boot_id"]:
        return True
    if owner.get("pid_namespace") != machine["pid_namespace"]:
        return False
    pid = owner.get("pid")
    return isinstance(pid, int) and not _is_alive(pid, owner.get("start_time"))


@cache
def _machine() -> dict[str, Any]:
    """Host, boot and, as containers count processes for themselves, the PID namespace."""
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot_id, namespace = None, None
    return {"host": socket.gethostname(), "boot_id": boot_id, "pid_namespace": namespace}


def _is_alive(pid: int, start_time: object) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    now = _start_time(pid)
    return now is None or now == start_time


def _start_time(pid: int) -> float | None:
    """When a process started, in a clock of its machine's own; 0 for one that has ended, None where unknown."""
    if sys.platform != "linux":
        import psutil

        try:
            return psutil.Process(pid).create_time()
        except psutil.Error:
            return None
    try:
        # Fields 3 (state) and 22 (ticks since boot); field 2, the name, may hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return 0.0 if fields[0] in (b"Z", b"X") else float(fields[19])
