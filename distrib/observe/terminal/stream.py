"""A text stream that can neither end a run nor hold it up: closed, full or paused readers cost only their output."""

from __future__ import annotations

import os
import select
from typing import TextIO

_MAX_BUFFERED_BYTES = 2**20
_WRITE_BYTES = select.PIPE_BUF  # as much as never blocks on a pipe that is reported to be writable


class PatientStream:
    """Writes to a terminal, pipe or file only what it accepts without blocking, and keeps the rest for later.

    A stream that fails is given up for good. What cannot be encoded is written as escapes. While a reader is paused, up
    to 1 MiB is kept; what comes on top is dropped.

    Args:
        stream: Where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._encoding = stream.encoding or "utf-8"
        self._buffer = bytearray()
        self._num_dropped = 0
        self.is_open = True
        try:
            self._descriptor: int | None = stream.fileno()
            stream.flush()
        except (OSError, ValueError):
            self._descriptor = None

    @property
    def encoding(self) -> str:
        """The encoding of the text."""
        return self._encoding

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self.is_open and self._stream.isatty()

    def fileno(self) -> int:
        """The file descriptor, OSError if there is none."""
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Buffers text."""
        if not self.is_open:
            return len(text)
        data = text.encode(self._encoding, errors="backslashreplace")
        if len(self._buffer) + len(data) > _MAX_BUFFERED_BYTES:
            self._num_dropped += 1
        else:
            self._buffer += data
        return len(text)

    def flush(self) -> None:
        """Writes what can be written now."""
        self._write(is_waiting=False)

    def drain(self) -> None:
        """Writes everything and waits for a paused reader; for use once the training has ended."""
        if self._num_dropped:
            self.write(f"({self._num_dropped} messages left out: the output could not be written in time)\n")
            self._num_dropped = 0
        self._write(is_waiting=True)

    def _write(self, *, is_waiting: bool) -> None:
        while self.is_open and self._buffer:
            try:
                if self._descriptor is None:
                    self._stream.write(self._buffer.decode(self._encoding, errors="replace"))
                    self._stream.flush()
                    self._buffer.clear()
                    return
                if not _is_writable(self._descriptor, is_waiting=is_waiting):
                    return
                written = os.write(self._descriptor, self._buffer[:_WRITE_BYTES])
                del self._buffer[:written]
            except BlockingIOError:
                if not is_waiting:
                    return
            except (OSError, ValueError):
                self.is_open = False
                self._buffer.clear()


def _is_writable(descriptor: int, *, is_waiting: bool) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(None if is_waiting else 0))
