"""The events of a run, one JSON object per line: written by rank 0, and read while the file grows."""

from __future__ import annotations

import json
import math
import time as clocks
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeGuard

from distrib.runs.files.line_file import LineFile

EVENT_FIELDS = frozenset(
    {"time", "attempt", "event", "step", "epoch", "samples", "loss", "lr", "message"}
    | {"step_seconds", "data_seconds", "samples_per_second", "eval_seconds", "rank_step_seconds", "rank_data_seconds"}
    | {"rank_compute_seconds", "rank_wait_seconds"}
)
"""Field names of events, which metrics and logged values therefore cannot use."""

_LARGEST = 1e300
_LARGEST_COUNT = 2**53
"""Larger numbers, which only damage produces, would overflow in computations."""


class EventWriter:
    """Appends events to a file, each as one line.

    Args:
        path: The run's metrics.jsonl; its folder must exist.
        attempt: The attempt, from 0, that each event contains.
        clock: Unix seconds.
    """

    def __init__(self, path: Path, attempt: int, clock: Callable[[], float] = clocks.time) -> None:
        self._attempt = attempt
        self._clock = clock
        self._lines = LineFile(path)

    def write(
        self, event: str, *, step: int, epoch: int, samples: int, time: float | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Writes one event and returns it as readers will see it: NaN and infinities become null.

        Args:
            event: Its kind, such as `train`.
            step: Completed optimizer steps of the whole run.
            epoch: The epoch of that step.
            samples: Samples trained on in the whole run.
            time: Unix seconds; by default now.
            fields: Further values of the event.
        """
        head = {"time": self._clock() if time is None else time, "attempt": self._attempt, "event": event}
        record: dict[str, Any] = finite({**head, "step": step, "epoch": epoch, "samples": samples, **fields})
        self._lines.append(json.dumps(record, allow_nan=False))
        return record

    def flush(self) -> None:
        """Writes what could not be written to a full disk before; OSError if it still cannot."""
        self._lines.flush()

    def close(self) -> None:
        """Closes the file; everything that could be written already is."""
        self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def finite(value: Any) -> Any:
    """Replaces every NaN and infinity in `value`, also inside dicts and lists, by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def read_events(path: Path) -> list[dict[str, Any]]:
    """All events of a file in order, without torn lines; none if there is no file."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [event for line in lines if (event := parse_event(line)) is not None]


def parse_event(line: bytes) -> dict[str, Any] | None:
    """The event in a line; None if the line is torn or damaged, so that it holds no complete event."""
    try:
        event = _DECODER.decode(line.decode())
    except (ValueError, RecursionError):
        return None
    return event if is_event(event) else None


def _no_number(_: str) -> None:
    """NaN and Infinity, which events never contain, count as missing."""


_DECODER = json.JSONDecoder(parse_constant=_no_number)
"""Made once, since a run may have millions of events."""


def is_event(event: object) -> TypeGuard[dict[str, Any]]:
    """Whether a value has the fields that every event has."""
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return False
    get = event.get
    return is_number(get("time")) and is_count(get("step")) and is_count(get("attempt")) and is_count(get("samples"))


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, not negative, of a plausible size."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST_COUNT


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value of an event is a finite number, neither null nor a Boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


class _LinesOfBytes:
    """Reads a growing file, each time from where the last read ended; keeps an incomplete line for later."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._partial = b""

    @property
    def next_offset(self) -> int:
        """Where the next line begins, in bytes."""
        return self._position - len(self._partial)

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
    """Follows a text file, which need not exist yet; of a line rewritten with `\\r` the last version counts."""

    def __init__(self, path: Path) -> None:
        self._lines = _LinesOfBytes(path)

    @property
    def next_offset(self) -> int:
        """Where the next line begins, in bytes."""
        return self._lines.next_offset

    def poll(self) -> list[str]:
        """The lines completed since the last call, without their ends."""
        return [line for _, line in self.poll_offsets()]

    def poll_offsets(self) -> list[tuple[int, str]]:
        """The lines completed since the last call, each with the byte at which it begins."""
        offset, found = self.next_offset, []
        for line in self._lines.poll():
            found.append((offset, _as_seen(line)))
            offset += len(line) + 1
        return found

    def rest(self) -> str | None:
        """What follows the last complete line, for use once the writer has ended."""
        partial = self._lines.rest()
        return _as_seen(partial) if partial else None


def _as_seen(line: bytes) -> str:
    """What a terminal would show of a line; bytes that are not UTF-8 are replaced."""
    return line.decode(errors="replace").rstrip("\r").rpartition("\r")[2]
