"""Colour, where there is a terminal to show it."""

from __future__ import annotations

import os
from typing import TextIO

RED, GREEN, YELLOW = 31, 32, 33


def colored(text: str, color: int, stream: TextIO) -> str:
    """`text` in one of the ANSI colours, or as it is where `stream` is no terminal or the user wants no colours."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{color}m{text}\x1b[0m"
