"""Writes a large file without the page cache, and hashes it while writing."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import mmap
import os
from pathlib import Path
from typing import Any

_BUFFER_BYTES = 2**22
"""A multiple of every block size, as direct writes require."""


class HashedFile(io.RawIOBase):
    """Writes a new file from beginning to end; it is flushed to disk once closed.

    If the file system allows it, all but the end is written to disk directly. That keeps the page cache for data that
    will be read again, and needs a fraction of the processor time: a page cache that grows by gigabytes is costly.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        self._buffer = mmap.mmap(-1, _BUFFER_BYTES)
        self._filled = 0
        self._num_bytes = 0
        self._digest = hashlib.sha256()
        self._is_direct: bool | None = None

    @property
    def description(self) -> dict[str, Any]:
        """Size in bytes and SHA-256, once closed."""
        return {"bytes": self._num_bytes, "sha256": self._digest.hexdigest()}

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The descriptor, for callers that flush; `close` does the flush that matters."""
        return self._descriptor

    def tell(self) -> int:
        """The bytes written."""
        return self._num_bytes

    def write(self, data: Any) -> int:
        """Writes all of `data`; OSError if the disk is full."""
        view = memoryview(data).cast("B")
        position = 0
        while position < len(view):
            count = min(len(view) - position, _BUFFER_BYTES - self._filled)
            self._buffer[self._filled : self._filled + count] = view[position : position + count]
            self._filled += count
            position += count
            if self._filled == _BUFFER_BYTES:
                self._set_direct(True)
                self._write_buffer()
        self._num_bytes += position
        return position

    def close(self) -> None:
        """Writes the end and waits until everything is on disk."""
        if self.closed:
            return
        try:
            if self._filled:
                self._set_direct(False)
                self._write_buffer()
            os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)
            self._buffer.close()
            super().close()

    def _write_buffer(self) -> None:
        with memoryview(self._buffer) as buffer, buffer[: self._filled] as filled:
            self._digest.update(filled)
            position = 0
            while position < self._filled:
                try:
                    position += os.write(self._descriptor, filled[position:])
                except OSError:
                    if not self._is_direct:
                        raise
                    self._set_direct(False)  # a file system that accepts the flag but not the writes, or a full disk
        self._filled = 0

    def _set_direct(self, is_direct: bool) -> None:
        """Turns direct writing on, unless it was refused before, or off."""
        flag = getattr(os, "O_DIRECT", 0)
        if not flag or is_direct == bool(self._is_direct) or (is_direct and self._is_direct is False):
            return
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        self._is_direct = False
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags | flag if is_direct else flags & ~flag)
            self._is_direct = is_direct
