"""What happens in a run, one JSON object per line: written by rank 0, read by everyone, also while it grows."""

from __future__ import annotations

import json
import math
import time as clocks
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from distrib.runs.line_file import LineFile


class EventWriter:
    """Appends events to a file, each as one line.

    Args:
        path: The run's metrics.jsonl; its folder must exist.
        attempt: The attempt, from 0, that is written into each event.
        clock: Unix seconds.
    """

    def __init__(self, path: Path, attempt: int, clock: Callable[[], float] = clocks.time) -> None:
        self._attempt = attempt
        self._clock = clock
        self._lines = LineFile(path)

    def write(
        self, event: str, *, step: int, epoch: int, samples: int, time: float | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Writes one event and returns it as a reader will see it: NaN and infinities are null.

        Args:
            event: Its kind, such as `train`.
            step: Completed optimizer steps of the whole run.
            epoch: The epoch of that step.
            samples: Samples trained on in the whole run.
            time: Unix seconds, where it is not now.
            fields: What else the event says.
        """
        head = {"time": self._clock() if time is None else time, "attempt": self._attempt, "event": event}
        record: dict[str, Any] = finite({**head, "step": step, "epoch": epoch, "samples": samples, **fields})
        self._lines.append(json.dumps(record, allow_nan=False))
        return record

    def flush(self) -> None:
        """Writes what a full disk has not taken before; OSError where it still does not."""
        self._lines.flush()

    def close(self) -> None:
        """Closes the file; what could be written is already with the operating system."""
        self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def finite(value: Any) -> Any:
    """`value` with every NaN and infinity, also inside dicts and lists, replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def read_events(path: Path) -> list[dict[str, Any]]:
    """All events of a file in order, without torn lines; none where there is no file."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [event for line in lines if (event := parse_event(line)) is not None]


def parse_event(line: bytes) -> dict[str, Any] | None:
    """The event in a line, or None where the line is torn: no part of a JSON object is one itself."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


class _LinesOfBytes:
    """Reads on from where it last was; holds back a line that is not complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._partial = b""

    def poll(self) -> list[bytes]:
        """The lines completed since the last call; none while there is no file."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                new = file.read()
        except FileNotFoundError:
            return []
        if not new:
            return []
        self._position += len(new)
        *lines, self._partial = (self._partial + new).split(b"\n")
        return lines

    def rest(self) -> bytes:
        """The last line, if it has no end."""
        partial, self._partial = self._partial, b""
        return partial


class EventTail:
    """Follows a run's metrics.jsonl, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self._lines = _LinesOfBytes(path)

    def poll(self) -> list[dict[str, Any]]:
        """The events written since the last call, without torn lines."""
        return [event for line in self._lines.poll() if (event := parse_event(line)) is not None]


class LineTail:
    """Follows a text file, which need not exist yet; a line that was rewritten by `\\r` counts as last seen."""

    def __init__(self, path: Path) -> None:
        self._lines = _LinesOfBytes(path)

    def poll(self) -> list[str]:
        """The lines completed since the last call, without their ends."""
        return [_as_seen(line) for line in self._lines.poll()]

    def rest(self) -> str | None:
        """What follows the last complete line: once the writer is gone, its last words."""
        partial = self._lines.rest()
        return _as_seen(partial) if partial else None


def _as_seen(line: bytes) -> str:
    """What a terminal would show of a line; bytes that are not UTF-8 are replaced."""
    return line.decode(errors="replace").rstrip("\r").rpartition("\r")[2]
