"""Whether ranks make progress: the steps that they have completed, and the CPU time that they use."""

from __future__ import annotations

import os
import struct
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distrib.launch.local.processes import RankProcesses

_NUMBER = struct.Struct("<q")
_POLL_SECONDS = 1.0
_MARGIN_SECONDS = 3.0
"""How much longer than a rank waits for the others the launcher waits: a rank that reports its wait is more precise."""
_IDLE_SHARE = 0.02
"""Ranks that use less than this share of a CPU together are idle; threads that poll use less."""
_WAITED_SHARE = 0.9


@dataclass
class StepCounters:
    """One number per rank in memory that the ranks share with the launcher.

    Attributes:
        descriptor: Of the file in memory.
        world_size: The number of ranks.
    """

    descriptor: int
    world_size: int

    @classmethod
    def create(cls, world_size: int) -> StepCounters:
        """Counters at 0; the creator closes them."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("distrib-steps")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, _NUMBER.size * world_size)
        return cls(descriptor, world_size)

    def report(self, rank: int, completed_steps: int) -> None:
        """Sets a rank's number."""
        os.pwrite(self.descriptor, _NUMBER.pack(completed_steps), _NUMBER.size * rank)

    def read(self) -> list[int]:
        """The numbers of all ranks."""
        content = os.pread(self.descriptor, _NUMBER.size * self.world_size, 0)
        return [number for (number,) in _NUMBER.iter_unpack(content)]

    def close(self) -> None:
        """Closes this process's descriptor."""
        os.close(self.descriptor)


class StallWatch:
    """Finds out that ranks hang where none of them waits for another: a lone rank, or all in the same place.

    Ranks that complete no step but use CPU time, as in a long evaluation or while a dataset is built, do not hang.

    Args:
        ranks: The ranks.
        timeout_seconds: How long they may be idle, `failures.hang_timeout`.

    Attributes:
        late_ranks: Once they hang, the ranks that have completed the fewest steps.
    """

    def __init__(self, ranks: RankProcesses, timeout_seconds: float) -> None:
        self._ranks = ranks
        self.timeout_seconds = timeout_seconds
        self.late_ranks: list[int] | None = None
        self._polled = self._step_ended = self._active = time.monotonic()
        self._progress: tuple[int, list[int]] = (0, [])
        self._cpu_seconds: float | None = None

    @property
    def has_waited(self) -> bool:
        """Whether no step has ended for about as long as a rank waits for another."""
        return time.monotonic() - self._step_ended >= _WAITED_SHARE * self.timeout_seconds

    def is_stalled(self, num_events: int) -> bool:
        """Whether the ranks have been idle for too long; called several times a second.

        Args:
            num_events: The number of events that the ranks have written.
        """
        now = time.monotonic()
        elapsed = now - self._polled
        if elapsed < _POLL_SECONDS:
            return False
        self._polled = now
        steps = self._ranks.steps.read()
        if (num_events, steps) != self._progress:
            self._progress = (num_events, steps)
            self._step_ended = self._active = now
            self._cpu_seconds = None
            return False
        before, self._cpu_seconds = self._cpu_seconds, self._ranks.cpu_seconds()
        if before is not None and self._cpu_seconds - before > _IDLE_SHARE * elapsed:
            self._active = now
            return False
        if now - self._active < self.timeout_seconds + _MARGIN_SECONDS:
            return False
        self.late_ranks = [rank for rank, step in enumerate(steps) if step == min(steps)]
        return True
