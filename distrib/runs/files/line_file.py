"""A growing file of lines whose writer survives a full disk."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path


class LineFile:
    """Appends lines to a file, each with a single write.

    What cannot be written to a full disk is kept, and written with a later line or by `flush`. Threads may share it.

    Args:
        path: The file; its folder must exist. If an earlier writer died inside a line, that line is ended.
    """

    def __init__(self, path: Path) -> None:
        self._unwritten = b"\n" if ends_inside_a_line(path) else b""
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def append(self, line: str) -> None:
        """Writes a line, given without its end, or keeps it for later."""
        with self._lock:
            self._unwritten += line.encode() + b"\n"
        with contextlib.suppress(OSError):
            self.flush()

    def flush(self) -> None:
        """Writes lines that could not be written before.

        Raises:
            OSError: They still cannot be written.
        """
        with self._lock:
            while self._unwritten:
                written = os.write(self._file, self._unwritten)
                self._unwritten = self._unwritten[written:]

    def close(self) -> None:
        """Closes the file; everything that could be written already is."""
        os.close(self._file)


def ends_inside_a_line(path: Path) -> bool:
    """Whether a writer died in the middle of the file's last line."""
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except FileNotFoundError:
        return False
