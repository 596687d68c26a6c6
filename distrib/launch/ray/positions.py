"""The positions of ranks on other hosts, published through the control store while their main threads may be stuck."""

from __future__ import annotations

import faulthandler
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from distrib.launch.process.cpu_time import cpu_seconds_of
from distrib.launch.ray.control_store import RayControlStore
from distrib.launch.ray.rank_process import RankProcess
from distrib.launch.watch.idle_script import CodePosition
from distrib.launch.watch.stacks import (
    LogMark,
    describe_main_thread,
    may_wait_for_others,
    request_stacks,
    waits_for_others,
    write_native_stacks,
)
from distrib.runs.layout import RunLayout
from distrib.train.phases import Phase, Position, RankProgress

_MAX_WRITES_PER_SECOND = 50
_SETTLE_SECONDS = 0.3
_SILENT_INTERVALS = 5
"""After how many intervals without a publication a rank's thread for it counts as unable to run."""


def publish_seconds(world_size: int) -> float:
    """The time between two publications of a rank: ranks together write to Ray's head at most 50 times a second."""
    return max(1.0, world_size / _MAX_WRITES_PER_SECOND)


class PositionPublisher:
    """Publishes a rank's position from a thread of its process.

    Args:
        control: Where to publish.
        attempt: The attempt.
        rank: The rank.
        world_size: The number of ranks.
        progress: The rank's position.
    """

    def __init__(
        self, control: RayControlStore, attempt: int, rank: int, world_size: int, progress: RankProgress
    ) -> None:
        self._control = control
        self._attempt = attempt
        self._rank = rank
        self._progress = progress
        self._interval_seconds = publish_seconds(world_size)
        self._published = float("-inf")
        self._last: Position | None = None
        self._cpu_seconds = 0.0

    def publish(self) -> None:
        """Publishes the position if that is due; CPU time is measured only while the rank does not advance."""
        if time.monotonic() - self._published < self._interval_seconds:
            return
        self._published = time.monotonic()
        position = self._progress.position
        if position == self._last:
            self._cpu_seconds = cpu_seconds_of(os.getpid())
        self._last = position
        age_seconds = (time.monotonic_ns() - position.since) / 1e9
        entry = [position.completed_steps, int(position.phase), position.since, age_seconds, self._cpu_seconds]
        self._control.write(f"position/{self._attempt}/{self._rank}", entry)

    def write_stacks(self, layout: RunLayout, script_pids: Sequence[int]) -> None:
        """Writes the stacks of this rank to its log, and reports where its main thread stands.

        Args:
            layout: The run's files.
            script_pids: The process of the script, if the rank runs one; otherwise this process is the rank.
        """
        log = layout.rank_log(self._rank)
        mark = LogMark(
            log, layout.rank_log_times(self._rank), "distrib: the ranks do not advance; stacks of this rank:"
        )
        with suppress(OSError), log.open("ab") as file:
            if not script_pids:
                faulthandler.dump_traceback(file, all_threads=True)
            for pid in script_pids:
                if request_stacks(pid):
                    time.sleep(_SETTLE_SECONDS)
        text = mark.text()
        waits = may_wait_for_others(text) if script_pids else waits_for_others(text)
        entry = [describe_main_thread(text), waits]
        self._control.write(f"stacks/{self._attempt}/{self._rank}", entry)  # first, as native stacks take seconds
        write_native_stacks((pid, layout.native_stacks(self._rank)) for pid in script_pids or [os.getpid()])


@dataclass(frozen=True)
class _Seen:
    """What a rank has published last, its position by this process's clock, and when it was read first."""

    published: list[float]
    position: Position
    at: float


class PublishedPositions:
    """What the ranks of an attempt have published; see `RankPositions`.

    Args:
        control: Where they publish.
        attempt: The attempt.
        world_size: The number of ranks.
    """

    def __init__(self, control: RayControlStore, attempt: int, world_size: int) -> None:
        self._control = control
        self._attempt = attempt
        self._world_size = world_size
        self._seen: dict[int, _Seen] = {}
        self._read = float("-inf")

    def read(self) -> Mapping[int, Position]:
        """The positions of all ranks; none before all of them have begun."""
        if time.monotonic() - self._read >= publish_seconds(self._world_size):
            self._read = time.monotonic()
            for rank in range(self._world_size):
                self._read_rank(rank)
        if len(self._seen) < self._world_size:
            return {}
        return {rank: seen.position for rank, seen in self._seen.items()}

    def _read_rank(self, rank: int) -> None:
        published = self._control.read(f"position/{self._attempt}/{rank}")
        if published is None:
            return
        before = self._seen.get(rank)
        if before is not None and before.published[:3] == published[:3]:
            position = before.position  # another host's clock: what counts is when it was first seen
        else:
            steps, phase, _, age_seconds, _ = published
            position = Position(steps, Phase(phase), time.monotonic_ns() - int(age_seconds * 1e9))
        at = before.at if before is not None and before.published == published else time.monotonic()
        self._seen[rank] = _Seen(published, position, at)

    def cpu_seconds(self) -> dict[int, float]:
        """The CPU time of the ranks, by rank.

        One that does not publish although its process lives holds Python's lock in native code. It is measured from
        outside, and counts as busy if it is on another host.
        """
        return {rank: self._cpu_seconds(rank, seen) for rank, seen in self._seen.items()}

    def _cpu_seconds(self, rank: int, seen: _Seen) -> float:
        silent_seconds = time.monotonic() - seen.at
        if silent_seconds <= _SILENT_INTERVALS * publish_seconds(self._world_size):
            return seen.published[4]
        entry = self._control.read(f"rank/{self._attempt}/{rank}")
        measured = None if entry is None else RankProcess.of_entry(entry).cpu_seconds()
        return seen.published[4] + silent_seconds if measured is None else measured

    def request_stacks(self, timeout_seconds: float) -> dict[int, CodePosition]:
        """Has all ranks write their stacks to their logs; returns where their main threads stand, by rank."""
        self._control.send_command(self._attempt, "stacks")
        found: dict[int, CodePosition] = {}
        deadline = time.monotonic() + timeout_seconds
        while len(found) < self._world_size and time.monotonic() < deadline:
            time.sleep(0.1)
            for rank in set(range(self._world_size)) - set(found):
                entry = self._control.read(f"stacks/{self._attempt}/{rank}")
                if entry is not None:
                    found[rank] = CodePosition(*entry)
        return found
