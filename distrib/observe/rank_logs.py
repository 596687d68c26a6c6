"""Reads the logs of the ranks of a run as they grow, merged by time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from distrib.runs.events import LineTail
from distrib.runs.layout import RunLayout
from distrib.runs.log_times import LogTimes
from distrib.runs.run import Run

_NAME = re.compile(r"rank-(\d+)\.log")


@dataclass(frozen=True)
class LogLine:
    """A line that a rank printed.

    Attributes:
        rank: The rank.
        host: The name of its host; "" if that is not known.
        time: When it was printed, in Unix seconds; 0 if that is not known.
        text: The line, without its end.
    """

    rank: int
    host: str
    time: float
    text: str

    @property
    def origin(self) -> str:
        """The rank, and its host as far as that is known: `rank 1 on host2`."""
        return rank_on_host(self.rank, self.host)


def rank_on_host(rank: int, host: str) -> str:
    """A rank and its host, if that is known: `rank 1 on host2`."""
    return f"rank {rank} on {host}" if host else f"rank {rank}"


class RankLog:
    """The output of one rank, which need not exist yet.

    Args:
        layout: The run's files.
        rank: The rank.
    """

    def __init__(self, layout: RunLayout, rank: int) -> None:
        self._rank = rank
        self._tail = LineTail(layout.rank_log(rank))
        self._times = LogTimes(layout.rank_log_times(rank))

    def poll(self, *, is_last: bool = False) -> list[LogLine]:
        """The lines since the last call; with `is_last` also a last line that has no end."""
        lines = self._tail.poll_offsets()
        offset = self._tail.next_offset
        if is_last and (rest := self._tail.rest()):
            lines.append((offset, rest))
        if lines:
            self._times.poll()
        found = []
        for offset, text in lines:
            time, host = self._times.at(offset)
            found.append(LogLine(self._rank, host, time, text))
        return found


class RankLogs:
    """The output of a run's ranks, one file for each rank; files may appear later.

    Args:
        run: The run.
        rank: The only rank to look at; None for all.
    """

    def __init__(self, run: Run, rank: int | None = None) -> None:
        self._layout = run.layout
        self._rank = rank
        self._logs: dict[int, RankLog] = {}

    @property
    def known(self) -> str:
        """The ranks that have a log, as text."""
        return ", ".join(map(str, self._ranks()))

    def poll_exists(self) -> bool:
        """Whether there is a log to read."""
        return self._rank in self._ranks() if self._rank is not None else bool(self._ranks())

    def poll(self, *, is_last: bool = False) -> list[LogLine]:
        """The lines since the last call in the order of their times; with `is_last` also last lines without an end."""
        lines: list[LogLine] = []
        for rank in self._ranks():
            if self._rank is None or rank == self._rank:
                lines += self._logs.setdefault(rank, RankLog(self._layout, rank)).poll(is_last=is_last)
        return sorted(lines, key=lambda line: line.time)

    def _ranks(self) -> list[int]:
        matches = (_NAME.fullmatch(path.name) for path in self._layout.rank_log(0).parent.glob("rank-*.log"))
        return sorted(int(match[1]) for match in matches if match)
