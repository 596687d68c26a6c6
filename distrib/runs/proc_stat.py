"""The state of a process on Linux, as /proc/PID/stat has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcStat:
    """Two fields of /proc/PID/stat.

    psutil is no substitute: it converts the start to Unix seconds with a boot time that moves when the clock is set,
    so that two processes may see different starts of the same process.

    Attributes:
        is_dead: Whether only the remains are left: the process has ended and its parent has not collected it.
        start_ticks: When it started, in clock ticks since the machine booted.
    """

    is_dead: bool
    start_ticks: int


def read_proc_stat(pid: int) -> ProcStat | None:
    """The state of the process that has this number now; None if there is none or it cannot be read."""
    try:
        content = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = content.rpartition(b")")[2].split()  # field 2, the name, may contain spaces and parentheses
    return ProcStat(fields[0] in (b"Z", b"X"), int(fields[19]))
