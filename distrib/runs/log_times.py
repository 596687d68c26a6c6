"""When, and on which host, the lines of a rank's log were written: kept beside the log, which has the output alone.

A line of the file is `OFFSET TIME` or, where a process begins to write, `OFFSET TIME HOST`: what the log has from this
byte on was written at this time, in Unix seconds.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from contextlib import suppress
from pathlib import Path

from distrib.runs.events import LineTail

_RESOLUTION_SECONDS = 0.005
"""What is written within this time has the same time."""


class LogClock:
    """Records when a process writes to its log. A disk that refuses the times costs only the times.

    Args:
        log: Descriptor of the log.
        file: Where the times are kept.
        host: The name of this host.
    """

    def __init__(self, log: int, file: Path, host: str) -> None:
        self._log = log
        self._file: int | None = None
        self._recorded = 0.0
        with suppress(OSError):
            self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._record(time.time(), f" {host}")

    def mark(self) -> None:
        """Records that something is about to be written."""
        now = time.time()
        if self._file is not None and abs(now - self._recorded) >= _RESOLUTION_SECONDS:
            with suppress(OSError):
                self._record(now)

    def _record(self, now: float, host: str = "") -> None:
        assert self._file is not None
        self._recorded = now
        os.write(self._file, f"{os.fstat(self._log).st_size} {now:.3f}{host}\n".encode())


def mark_time(log: Path, file: Path, when: float) -> None:
    """Records that another process than the rank's is about to append to its log.

    Args:
        log: The log.
        file: Where its times are kept.
        when: The time that is to be shown, in Unix seconds.
    """
    with suppress(OSError):
        size = log.stat().st_size
        with file.open("a") as times:
            times.write(f"{size} {when:.3f}\n")


class LogTimes:
    """Reads the times of a growing log.

    Args:
        file: Where they are kept; it need not exist.
    """

    def __init__(self, file: Path) -> None:
        self._lines = LineTail(file)
        self._offsets: list[int] = []
        self._records: list[tuple[float, str]] = []

    def poll(self) -> None:
        """Reads what is new."""
        for line in self._lines.poll():
            offset, _, rest = line.partition(" ")
            when, _, host = rest.partition(" ")
            with suppress(ValueError):
                seconds, last = float(when), (self._records[-1] if self._records else (0.0, ""))
                self._offsets.append(max(int(offset), self._offsets[-1] if self._offsets else 0))
                self._records.append((max(seconds, last[0]), host or last[1]))

    def at(self, offset: int) -> tuple[float, str]:
        """When, in Unix seconds, and on which host this byte of the log was written; 0 and "" if that is not known."""
        number = bisect_right(self._offsets, offset)
        return self._records[number - 1] if number else (0.0, "")
