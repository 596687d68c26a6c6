"""How ranks agree on what happens at the end of a step, without synchronizing at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch.distributed as dist

from distrib.train.process_groups import gather_rows

_EXCHANGE_SECONDS = 0.5
_HEADER = 5  # proposed interval, stop requested, first step with a non-finite loss, status of the save, save due


class SaveStatus(IntEnum):
    """The progress of one rank's part of a save."""

    PENDING = 0
    DONE = 1
    FAILED = 2


def is_failed(statuses: Sequence[float]) -> bool:
    """Whether all ranks have finished with a save, and one of them failed."""
    return SaveStatus.PENDING not in statuses and SaveStatus.FAILED in statuses


@dataclass(frozen=True)
class Agreement:
    """What all ranks know after an exchange.

    Attributes:
        stop: Whether any rank was requested to stop.
        save: Whether a checkpoint is due at this step by rank 0's clock.
        is_saved: Whether every rank's part of the save in flight is on disk.
        is_save_failed: Whether every rank has finished with the save in flight, and one of them failed.
        non_finite: (rank, global step from 1) of the first loss that is not finite, or None.
        sums: Of each value the sum over the ranks, added in rank order: the same bits on every rank.
    """

    stop: bool
    save: bool
    is_saved: bool
    is_save_failed: bool
    non_finite: tuple[int, int] | None
    sums: list[float]


class Control:
    """Exchanges flags and sums between the ranks at steps that all of them know beforehand.

    Each exchange sets the step of the next one, about half a second later by rank 0's clock; nothing is synchronized
    in between.
    """

    def __init__(self, group: dist.ProcessGroup, stop_requested: Callable[[], bool], longest_interval: int) -> None:
        self._group = group
        self._stop_requested = stop_requested
        self._longest_interval = longest_interval
        self._next = 1

    def resume_after(self, completed_steps: int) -> None:
        """Makes the next step the next exchange."""
        self._next = completed_steps + 1

    def is_due(self, completed_steps: int) -> bool:
        """Whether all ranks exchange at the end of this step."""
        return completed_steps >= self._next

    def exchange(
        self,
        completed_steps: int,
        step_seconds: float,
        non_finite_step: int | None,
        values: list[float],
        *,
        save_status: SaveStatus = SaveStatus.PENDING,
        save_is_due: bool = False,
    ) -> Agreement:
        """Shares this rank's state with all others; every rank calls it at the same step with equally many values.

        Args:
            completed_steps: The global step that has just ended.
            step_seconds: How long a step takes; rank 0's value sets the distance to the next exchange.
            non_finite_step: The first global step whose loss was not finite here since the last exchange.
            values: What to sum over the ranks, in float64.
            save_status: The progress of this rank's part of the save in flight.
            save_is_due: Whether a checkpoint is due by this rank's clock; rank 0's value counts.
        """
        interval = min(max(1, int(_EXCHANGE_SECONDS / max(step_seconds, 1e-6))), self._longest_interval)
        flags = (self._stop_requested(), non_finite_step or 0, save_status, save_is_due)
        mine = [float(interval), *map(float, flags), *values]
        rows = gather_rows(mine, self._group)
        self._next = completed_steps + int(rows[0][0])
        failed = [(int(row[2]), rank) for rank, row in enumerate(rows) if row[2]]
        return Agreement(
            stop=any(row[1] for row in rows),
            save=bool(rows[0][4]),
            is_saved=all(row[3] == SaveStatus.DONE for row in rows),
            is_save_failed=is_failed([row[3] for row in rows]),
            non_finite=(min(failed)[1], min(failed)[0]) if failed else None,
            sums=[sum(row[_HEADER + i] for row in rows) for i in range(len(values))],
        )
