"""The newest event of a kind, without reading a long run's events from the start."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distrib.runs.events import parse_event

BLOCK_BYTES = 1 << 16


def newest_event(path: Path, kind: str) -> dict[str, Any] | None:
    """The last event of a kind, read from the file's end."""
    mark = f'"{kind}"'.encode()
    for line in _lines_backwards(path):
        if mark in line and (event := parse_event(line)) is not None and event.get("event") == kind:
            return event
    return None


def _lines_backwards(path: Path) -> Iterator[bytes]:
    """The lines of a file, last one first, read block by block."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        position = file.seek(0, os.SEEK_END)
        begun: list[bytes] = []  # blocks, last one first, of the line whose start is not found yet
        while position:
            size = min(BLOCK_BYTES, position)
            position -= size
            file.seek(position)
            first, *others = file.read(size).split(b"\n")
            if others:
                yield b"".join([others[-1], *reversed(begun)])
                yield from reversed(others[:-1])
                begun = []
            begun.append(first)
        yield b"".join(reversed(begun))
