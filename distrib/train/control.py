"""How ranks agree on what happens at the end of a step, without synchronizing at every step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
import torch.distributed as dist

from distrib.train.context import RankContext
from distrib.train.phases import Phase
from distrib.train.process.rank_tree import RankTree

_EXCHANGE_SECONDS = 0.5
_SHARE_OF_GRACE = 0.25
"""How much of `failures.grace` may pass until a request to stop is seen, if steps are as slow as the slowest lately."""
_INTERVAL, _STOP, _NON_FINITE, _SAVE_STATUS, _SAVE_DUE, _ENDED, _HEADER = range(7)  # columns of a rank's row
_ANSWER_HEADER = 8
"""Values of rank 0's answer before the sums: those of `Agreement` in the order of `_agree`."""


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
        num_ended: On how many ranks the job's code has ended the training.
        save: Whether a checkpoint is due at this step by rank 0's clock.
        is_saved: Whether every rank's part of the save in flight is on disk.
        is_save_failed: Whether every rank has finished with the save in flight, and one of them failed.
        non_finite: (rank, global step from 1) of the first loss that is not finite, or None.
        sums: Of each value the sum over the ranks: the same bits on every rank.
        ended_ranks: On rank 0, the ranks whose code has ended the training; empty on the others.
        values: On rank 0, the values of each rank, by rank; empty on the others.
    """

    stop: bool
    num_ended: int
    save: bool
    is_saved: bool
    is_save_failed: bool
    non_finite: tuple[int, int] | None
    sums: list[float]
    ended_ranks: list[int]
    values: list[list[float]]


class ExchangeInterval:
    """Decides how many steps lie between two exchanges: about half a second, by the whole time of a step.

    A stop has to reach its step well within the grace although the speed of later steps is unknown. So the interval at
    most doubles from one exchange to the next, and is short enough for steps like the slowest lately.

    Args:
        longest: The most steps between two exchanges.
        grace_seconds: The time that a run has to stop.
    """

    def __init__(self, longest: int, grace_seconds: float) -> None:
        self._longest = longest
        self._limit_seconds = _SHARE_OF_GRACE * grace_seconds
        self._interval = 1
        self._slowest = 0.0
        self._num_steps, self._seconds = 0, 0.0

    def record(self, step_seconds: float) -> None:
        """Takes the time of a step into account: its computation and the wait for its data."""
        self._num_steps += 1
        self._seconds += step_seconds
        self._slowest = max(self._slowest, step_seconds)

    def next(self) -> int:
        """The number of steps until the next exchange; at least 1."""
        mean = self._seconds / max(1, self._num_steps)
        by_mean = int(_EXCHANGE_SECONDS / max(mean, 1e-6))
        by_slowest = int(self._limit_seconds / max(self._slowest, 1e-6))
        self._interval = max(1, min(2 * self._interval, self._longest, by_mean, by_slowest))
        self._num_steps, self._seconds = 0, 0.0
        self._slowest /= 2  # forgets a first step that compiled something, or a stall of the disk
        return self._interval


class Control:
    """Exchanges flags and sums between the ranks at steps that all of them know beforehand.

    Each exchange sets the step of the next one, about half a second later by rank 0's clock; nothing is synchronized
    in between.

    Args:
        group: A gloo group of all ranks.
        context: The launcher.
        interval: The distance between exchanges.
        deadline: When the run is to stop, in Unix seconds.
    """

    def __init__(
        self,
        group: dist.ProcessGroup,
        context: RankContext,
        interval: ExchangeInterval,
        deadline: float | None = None,
    ) -> None:
        self._deadline = deadline
        self._tree = RankTree(group)
        self._context = context
        self._interval = interval
        self._next = 1

    @property
    def is_past_deadline(self) -> bool:
        """Whether the time that the run may take is over, by this host's clock."""
        return self._deadline is not None and time.time() >= self._deadline

    def resume_after(self, completed_steps: int) -> None:
        """Makes the next step the next exchange."""
        self._next = completed_steps + 1

    def record_step(self, completed_steps: int, seconds: float) -> None:
        """Reports a step to the launcher; the whole times of rank 0's steps set the distance to the next exchange."""
        self._context.progress.complete_step(completed_steps)
        self._interval.record(seconds)

    def is_due(self, completed_steps: int) -> bool:
        """Whether all ranks exchange at the end of this step."""
        return completed_steps >= self._next

    def exchange(
        self,
        completed_steps: int,
        non_finite_step: int | None,
        values: list[float],
        *,
        save_status: SaveStatus = SaveStatus.PENDING,
        save_is_due: bool = False,
        is_ended: bool = False,
    ) -> Agreement:
        """Shares this rank's state with all others; every rank calls it at the same step with equally many values.

        Args:
            completed_steps: The global step that has just ended.
            non_finite_step: The first global step whose loss was not finite here since the last exchange.
            values: What to sum over the ranks, in float64.
            save_status: The progress of this rank's part of the save in flight.
            save_is_due: Whether a checkpoint is due by this rank's clock; rank 0's value counts.
            is_ended: Whether the job's code on this rank has ended the training.
        """
        flags = (
            self._context.stop_requested() or self.is_past_deadline,
            non_finite_step or 0,
            save_status,
            save_is_due,
            is_ended,
        )
        mine = [float(self._interval.next()), *map(float, flags), *values]
        rows = torch.empty(0, len(mine), dtype=torch.float64)

        def agree(gathered: torch.Tensor) -> list[float]:
            nonlocal rows
            rows = gathered
            return _agree(rows)

        with self._context.progress.during(Phase.REDUCE):
            answer = self._tree.combine(mine, _ANSWER_HEADER + len(values), agree)
        interval, stop, num_ended, save, is_saved, is_save_failed, rank, step = map(int, answer[:_ANSWER_HEADER])
        self._next = completed_steps + interval
        return Agreement(
            stop=bool(stop),
            num_ended=num_ended,
            save=bool(save),
            is_saved=bool(is_saved),
            is_save_failed=bool(is_save_failed),
            non_finite=(rank, step) if step else None,
            sums=answer[_ANSWER_HEADER:],
            ended_ranks=rows[:, _ENDED].nonzero().flatten().tolist(),
            values=rows[:, _HEADER:].tolist(),
        )


def _agree(rows: torch.Tensor) -> list[float]:
    """What the rows of all ranks amount to."""
    failed = [(step, rank) for rank, step in enumerate(rows[:, _NON_FINITE].tolist()) if step]
    step, rank = min(failed, default=(0.0, 0))
    statuses = rows[:, _SAVE_STATUS].tolist()
    header = [
        rows[0, _INTERVAL].item(),
        rows[:, _STOP].any().item(),
        rows[:, _ENDED].sum().item(),
        rows[0, _SAVE_DUE].item(),
        all(status == SaveStatus.DONE for status in statuses),
        is_failed(statuses),
        rank,
        step,
    ]
    return [*map(float, header), *rows[:, _HEADER:].sum(0).tolist()]
