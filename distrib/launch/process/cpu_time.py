"""The CPU time of a process and everything that it has started."""

from __future__ import annotations

from contextlib import suppress

import psutil


def cpu_seconds_of(pid: int) -> float:
    """The CPU time of a process, its descendants, and those of them that have ended; 0 if the process has ended."""
    total = 0.0
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.Error):
                times = process.cpu_times()
                ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
                total += times.user + times.system + ended
    return total
