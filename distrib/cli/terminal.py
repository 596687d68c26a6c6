"""Output streams: colors where a terminal shows them, and streams that can no longer be written."""

from __future__ import annotations

import contextlib
import os
from typing import TextIO

RED, GREEN, YELLOW = 31, 32, 33


def colored(text: str, color: int, stream: TextIO) -> str:
    """`text` in an ANSI color; unchanged if `stream` is not a terminal or the user wants no colors."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{color}m{text}\x1b[0m"


def abandon(stream: TextIO) -> None:
    """Sends what is still buffered in a stream that cannot be written to nowhere, so that Python can exit."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
