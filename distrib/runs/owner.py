"""The process that owns a run, and whether it is still alive."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from distrib.runs.proc_stat import read_proc_stat


def this_process() -> dict[str, Any]:
    """Identifies this process, also against a later one with the same number."""
    return {**_machine(), "pid": os.getpid(), "start_time": _start_time(os.getpid())}


def is_of_this_machine(owner: Mapping[str, Any]) -> bool:
    """Whether the process runs, or ran, where this process could observe it."""
    machine = _machine()
    return all(owner.get(key) == machine[key] for key in ("host", "pid_namespace"))


def is_dead(owner: Mapping[str, Any]) -> bool:
    """Whether the process has certainly ended; False if it cannot be observed from here, as on another host."""
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
    """Host, boot and PID namespace, since containers number their own processes."""
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
    """When a process started, on a clock of its machine; 0 for one that has ended, None if unknown."""
    if sys.platform != "linux":
        import psutil

        try:
            return psutil.Process(pid).create_time()
        except psutil.Error:
            return None
    stat = read_proc_stat(pid)
    if stat is None:
        return None
    return 0.0 if stat.is_dead else float(stat.start_ticks)
