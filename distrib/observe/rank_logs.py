"""Reads the logs of all ranks of a run as they grow."""

from __future__ import annotations

import re

from distrib.runs.events import LineTail
from distrib.runs.run import Run

_NAME = re.compile(r"rank-(\d+)\.log")


class RankLogs:
    """The output of a run's ranks, one file for each rank; files may appear later.

    Args:
        run: The run.
        rank: The only rank to look at; None for all.
    """

    def __init__(self, run: Run, rank: int | None = None) -> None:
        self._layout = run.layout
        self._rank = rank
        self._tails: dict[int, LineTail] = {}

    @property
    def known(self) -> str:
        """The ranks that have a log, as text."""
        return ", ".join(map(str, self._ranks()))

    def poll_exists(self) -> bool:
        """Whether there is a log to read."""
        return self._rank in self._ranks() if self._rank is not None else bool(self._ranks())

    def poll(self, *, is_last: bool = False) -> list[tuple[int, str]]:
        """The lines since the last call, each with its rank; with `is_last` also last lines that have no end."""
        lines: list[tuple[int, str]] = []
        for rank in self._ranks():
            if self._rank is not None and rank != self._rank:
                continue
            tail = self._tails.setdefault(rank, LineTail(self._layout.rank_log(rank)))
            lines += [(rank, line) for line in tail.poll()]
            if is_last and (rest := tail.rest()):
                lines.append((rank, rest))
        return lines

    def _ranks(self) -> list[int]:
        matches = (_NAME.fullmatch(path.name) for path in self._layout.rank_log(0).parent.glob("rank-*.log"))
        return sorted(int(match[1]) for match in matches if match)
