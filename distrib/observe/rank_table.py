"""The ranks of a run side by side: where each runs, and what its steps consist of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distrib.observe.history import Event
from distrib.runs.events import is_number

_PARTS = ("step", "data", "compute", "wait")
_UNKNOWN: dict[str, Any] = {**{f"{part}_seconds": None for part in _PARTS}, "slow_at": None}
_MAX_ROWS = 8
_HEAD = ["rank", "host", *_PARTS, ""]
_UNIT = 1000.0
"""Shown in milliseconds."""


class RankHealth:
    """What is known of the ranks from the events so far."""

    def __init__(self) -> None:
        self._hosts: list[str] = []
        self._slow: dict[int, str] = {}
        self._last: Event | None = None

    def add(self, event: Event) -> None:
        """Takes an event into account."""
        kind = event["event"]
        if kind == "start":
            ranks = event.get("ranks")
            listed = ranks if isinstance(ranks, list) else []
            self._hosts = [str(each.get("host", "–")) if isinstance(each, dict) else "–" for each in listed]
            self._slow, self._last = {}, None
        elif kind == "train":
            self._last = event
        elif kind == "warning" and isinstance(event.get("rank"), int) and event.get("slow_at"):
            self._slow[event["rank"]] = str(event["slow_at"])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Each rank's host, mean seconds of the parts of a step in the newest log interval, and what it is slow at."""
        parts = {name: self._values(f"rank_{name}_seconds") for name in _PARTS}
        return [
            {
                "rank": rank,
                "host": self._hosts[rank] if rank < len(self._hosts) else None,
                **{f"{name}_seconds": values[rank] if rank < len(values) else None for name, values in parts.items()},
                "slow_at": self._slow.get(rank),
            }
            for rank in range(len(parts["step"]))
        ]

    def _values(self, name: str) -> list[Any]:
        values = None if self._last is None else self._last.get(name)
        return values if isinstance(values, list) else []

    def lines(self) -> list[str]:
        """A table for people; of many ranks, those that need the longest for a step. Empty for a single rank."""
        rows = self.rows
        if len(rows) < 2:
            return []
        shown = sorted(sorted(rows, key=_own, reverse=True)[:_MAX_ROWS], key=lambda row: int(row["rank"]))
        cells = [
            [str(row["rank"]), row["host"] or "–", *(_time(row[f"{part}_seconds"]) for part in _PARTS), _note(row)]
            for row in shown
        ]
        widths = [max(map(len, column)) for column in zip(_HEAD, *cells, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if column in (1, len(_HEAD) - 1) else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in [_HEAD, *cells]
        ]
        more = len(rows) - len(shown)
        return [f"{lines[0]}  (ms a step)", *lines[1:], *([f"and {more} faster ranks"] if more else [])]


def with_positions(rows: list[dict[str, Any]], positions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of ranks with the positions that the launcher has last seen: `step`, `phase` and `since`, null if unknown.

    Args:
        rows: As `RankHealth.rows` has them; perhaps none yet.
        positions: Those of a run that is running.
    """
    known = {each["rank"]: each for each in positions}
    if not rows:
        rows = [{"rank": rank, "host": each["host"], **_UNKNOWN} for rank, each in known.items()]
    parts = ("step", "phase", "since")
    return [{**row, **{part: known.get(row["rank"], {}).get(part) for part in parts}} for row in rows]


def read_positions(file: Path) -> list[dict[str, Any]]:
    """What the launcher has written of the ranks' positions; nothing if there is no such table."""
    try:
        ranks = json.loads(file.read_bytes())["ranks"]
        return [{"host": None, **each} for each in ranks if isinstance(each["rank"], int)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _own(row: dict[str, Any]) -> float:
    """Seconds a step that the rank needs when it waits for no other."""
    return sum(value for value in (row["data_seconds"], row["compute_seconds"]) if is_number(value))


def _time(seconds: object) -> str:
    return f"{_UNIT * seconds:.3g}" if is_number(seconds) else "–"


def _note(row: dict[str, Any]) -> str:
    return "" if row["slow_at"] is None else f"slow at {row['slow_at']}"
