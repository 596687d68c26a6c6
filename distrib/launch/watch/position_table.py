"""Where the ranks stand, as a table in the run's folder that other programs can read while the ranks run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from distrib.launch.watch.hangs import RankPositions
from distrib.runs.files.atomic import atomic_write
from distrib.runs.layout import RunLayout
from distrib.train.phases import Phase, Position

_SECONDS = 2.0
_RANKS_PER_SECOND = 64
"""The table is written less often for more ranks."""


class RecordedPositions:
    """Positions that are written to `positions.json` whenever they are read, at most every two seconds.

    Args:
        positions: Where they are read from.
        layout: The run's files.
        hosts: The names of the ranks' hosts, as far as they are known.
        is_script: Whether the ranks run a script: one without a session has no positions.
    """

    def __init__(
        self,
        positions: RankPositions,
        layout: RunLayout,
        hosts: Callable[[], Mapping[int, str]],
        *,
        is_script: bool,
    ) -> None:
        self._positions = positions
        self._file = layout.positions_file
        self._find_hosts = hosts
        self._hosts: Mapping[int, str] = {}
        self._is_script = is_script
        self._written = float("-inf")

    def read(self) -> Mapping[int, Position]:
        """See `RankPositions`."""
        positions = self._positions.read()
        if time.monotonic() - self._written >= max(_SECONDS, len(positions) / _RANKS_PER_SECOND):
            self._written = time.monotonic()
            self._write(positions)
        return positions

    def cpu_seconds(self) -> Mapping[int, float]:
        """See `RankPositions`."""
        return self._positions.cpu_seconds()

    def remove(self) -> None:
        """Removes the table: the ranks have ended."""
        with suppress(OSError):
            self._file.unlink(missing_ok=True)

    def _write(self, positions: Mapping[int, Position]) -> None:
        if not positions or (self._is_script and all(each.phase is Phase.START for each in positions.values())):
            return
        if len(self._hosts) < len(positions):
            self._hosts = self._find_hosts()
        now, ticks = time.time(), time.monotonic_ns()
        ranks = [
            {
                "rank": rank,
                "host": self._hosts.get(rank),
                "step": position.completed_steps or None,
                "phase": position.phase.label,
                "since": round(now - (ticks - position.since) / 1e9, 3),
            }
            for rank, position in sorted(positions.items())
        ]
        with suppress(OSError):  # the disk is full; the next table may find room
            atomic_write(self._file, json.dumps({"time": now, "ranks": ranks}) + "\n", is_durable=False)
