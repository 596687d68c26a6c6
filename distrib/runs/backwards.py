"""Reading a growing file of events from its end, so that a long run's newest events are found at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from distrib.errors import JobError
from distrib.runs.events import parse_event

BLOCK_BYTES = 1 << 16
MAX_SEARCHED_LINES = 2000
"""How much of a running run's events is searched for the values to list."""


def newest_event(lines: Iterable[bytes], kind: str) -> dict[str, Any] | None:
    """The last event of a kind.

    Args:
        lines: The lines of metrics.jsonl, last one first.
        kind: Such as `train`.
    """
    mark = f'"{kind}"'.encode()
    for line in lines:
        if mark in line and (event := parse_event(line)) is not None and event["event"] == kind:
            return event
    return None


def newest_step(lines: Iterable[bytes]) -> int:
    """The number of optimizer steps that the newest events report; 0 if there are none.

    These are the newest train event and what follows it: a checkpoint or evaluation may report a later step than the
    last train event, and one that a step committed late may report an earlier step. Events of earlier attempts do not
    count, since steps after the last checkpoint are lost with an attempt.

    Args:
        lines: The lines of metrics.jsonl, last one first.
    """
    attempt: Any = None
    step = 0
    for line in lines:
        event = parse_event(line)
        if event is None:
            continue
        attempt = event["attempt"] if attempt is None else attempt
        if event["attempt"] != attempt:
            break
        step = max(step, event["step"])
        if event["event"] == "train":
            break
    return step


def lines_backwards(path: Path) -> Iterator[bytes]:
    """The lines of a file, last one first, read block by block; none if there is no file.

    Raises:
        JobError: The file cannot be read.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise JobError(f"{path} cannot be read: {error.strerror or error}") from None
    with file:
        position = file.seek(0, os.SEEK_END)
        pending: list[bytes] = []  # blocks, last one first, of the line whose start is not found yet
        while position:
            size = min(BLOCK_BYTES, position)
            position -= size
            file.seek(position)
            first, *others = file.read(size).split(b"\n")
            if others:
                yield b"".join([others[-1], *reversed(pending)])
                yield from reversed(others[:-1])
                pending = []
            pending.append(first)
        yield b"".join(reversed(pending))
