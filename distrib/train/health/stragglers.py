"""Finds ranks that are persistently slower than the others, and datasets that all ranks wait for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median_low
from typing import Any, Literal

from distrib.job.step_plan import split_evenly
from distrib.train.health.times import MeanTimes

_BLOCK_STEPS, _BLOCK_SECONDS = 10, 2.0
"""The least that is compared at once: log intervals are joined until they have as many steps and seconds."""
_NUM_BLOCKS = 5
"""How many blocks in a row a rank must be slow in."""
_RATIO = 1.5
"""A slow rank needs this many times as long as the median rank, which a rank with equal samples does not."""
_SHARE_OF_STEP = 0.1
"""A slow rank delays the others by at least this share of a step."""
_DEVIATIONS = 6.0
"""By how many standard deviations of the difference: steps may vary tenfold by nature."""
_STARVED_SHARE = 0.5
"""The share of a step that the median rank waits for data if the dataset is too slow for all."""


@dataclass(frozen=True)
class HealthWarning:
    """What is to be reported.

    Attributes:
        message: For people.
        fields: For programs: `rank`, `host` and `slow_at` of a slow rank.
    """

    message: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Block:
    """The sums of one rank over some log intervals."""

    num_steps: int = 0
    num_samples: int = 0
    seconds: float = 0.0
    data: float = 0.0
    compute: float = 0.0
    square: float = 0.0

    def add(self, times: MeanTimes, num_steps: int, seconds: float, num_samples: int) -> None:
        self.num_steps += num_steps
        self.num_samples += num_samples
        self.seconds += seconds
        self.data += num_steps * times.data
        self.compute += num_steps * times.compute
        self.square += num_steps * times.square

    def join(self, other: _Block) -> None:
        self.num_steps += other.num_steps
        self.num_samples += other.num_samples
        self.seconds += other.seconds
        self.data += other.data
        self.compute += other.compute
        self.square += other.square

    @property
    def own(self) -> float:
        """Mean seconds of a step without waiting for other ranks."""
        return (self.data + self.compute) / self.num_steps

    @property
    def variance_of_mean(self) -> float:
        return max(0.0, self.square / self.num_steps - self.own**2) / self.num_steps


@dataclass
class _Streak:
    """The blocks in a row in which a rank was slow, and those of the median rank meanwhile."""

    num_blocks: int = 0
    mine: _Block = field(default_factory=_Block)
    median: _Block = field(default_factory=_Block)

    def add(self, mine: _Block, median: _Block) -> None:
        self.num_blocks += 1
        self.mine.join(mine)
        self.median.join(median)

    @property
    def is_certain(self) -> bool:
        """Whether the difference is neither short nor chance."""
        deviation = math.sqrt(self.mine.variance_of_mean + self.median.variance_of_mean)
        return self.num_blocks >= _NUM_BLOCKS and self.mine.own - self.median.own > _DEVIATIONS * deviation


class StragglerWatch:
    """Compares the times of the ranks from one log interval to the next; warns once about each slow rank.

    Args:
        hosts: The name of each rank's host.
        loader_workers: The job's `data.loader_workers`, for the advice.
    """

    def __init__(self, hosts: Sequence[str], loader_workers: int) -> None:
        self._hosts = hosts
        self._loader_workers = loader_workers
        self._blocks = [_Block() for _ in hosts]
        self._streaks = [_Streak() for _ in hosts]
        self._reported: set[int] = set()
        self._starved = _Streak()
        self._is_starvation_reported = False

    def observe(
        self, ranks: Sequence[MeanTimes], batch_sizes: Mapping[int, int], step_seconds: float
    ) -> list[HealthWarning]:
        """Takes a log interval into account.

        Args:
            ranks: The times of each rank.
            batch_sizes: How many steps of the interval had how many samples: a rank that has more may take longer.
            step_seconds: The mean duration of a step.

        Returns:
            What is to be reported now.
        """
        if any(times.own <= 0 for times in ranks):  # not measured
            return []
        num_steps, samples = sum(batch_sizes.values()), _samples_of_ranks(batch_sizes, len(ranks))
        for block, times, num_samples in zip(self._blocks, ranks, samples, strict=True):
            block.add(times, num_steps, num_steps * step_seconds, num_samples)
        first = self._blocks[0]
        if first.num_steps < _BLOCK_STEPS or first.seconds < _BLOCK_SECONDS:
            return []
        blocks, self._blocks = self._blocks, [_Block() for _ in self._hosts]
        return [*self._compare(blocks), *self._check_data(blocks)]

    def _compare(self, blocks: list[_Block]) -> list[HealthWarning]:
        middle = _median(blocks, lambda block: block.own)
        median = blocks[middle]
        found = []
        for rank, (mine, streak) in enumerate(zip(blocks, self._streaks, strict=True)):
            fair = max(1.0, mine.num_samples / max(1, median.num_samples))
            step_seconds = mine.seconds / mine.num_steps
            is_slow = mine.own > _RATIO * fair * median.own and mine.own - median.own > _SHARE_OF_STEP * step_seconds
            if not is_slow or rank in self._reported:
                self._streaks[rank] = _Streak()
                continue
            streak.add(mine, median)
            if streak.is_certain:
                self._reported.add(rank)
                found.append(self._slow_rank(rank, streak))
        return found

    def _slow_rank(self, rank: int, streak: _Streak) -> HealthWarning:
        mine, median = streak.mine, streak.median
        slow_at: Literal["data", "compute"] = (
            "data" if mine.data - median.data > mine.compute - median.compute else "compute"
        )
        part = getattr(mine, slow_at) / mine.num_steps, getattr(median, slow_at) / median.num_steps
        what, advice = {
            "data": ("waiting for its data", "check the storage, the free CPUs and the loader workers of its host"),
            "compute": (
                "computing",
                "look for other programs on its host, and for a device that is hot or clocked down; "
                "`distrib doctor` compares hosts",
            ),
        }[slow_at]
        return HealthWarning(
            f"rank {rank} on {self._hosts[rank]} delays the others: it needs {mine.own:.3g} s a step, the median rank "
            f"{median.own:.3g} s, over the last {mine.num_steps} steps; it is slow at {what} ({part[0]:.3g} s against "
            f"{part[1]:.3g} s): {advice}",
            {"rank": rank, "host": self._hosts[rank], "slow_at": slow_at},
        )

    def _check_data(self, blocks: list[_Block]) -> list[HealthWarning]:
        """Finds that the ranks mostly wait for data, without one of them being slower than the others."""
        median = blocks[_median(blocks, lambda block: block.data)]
        if median.data < _STARVED_SHARE * median.seconds:
            self._starved = _Streak()
            return []
        self._starved.add(median, median)
        if self._is_starvation_reported or self._starved.num_blocks < _NUM_BLOCKS:
            return []
        self._is_starvation_reported = True
        waited = self._starved.mine
        return [
            HealthWarning(
                f"the ranks wait for data {100 * waited.data / waited.seconds:.0f} % of the time "
                f"({waited.data / waited.num_steps:.3g} s a step): the dataset is slower than the training; raise "
                f"data.loader_workers (now {self._loader_workers}), or make the dataset faster",
                {"slow_at": "data"},
            )
        ]


def _samples_of_ranks(batch_sizes: Mapping[int, int], world_size: int) -> list[int]:
    """How many samples of these global batches each rank had."""
    samples = [0] * world_size
    for size, count in batch_sizes.items():
        samples = [known + count * part for known, part in zip(samples, split_evenly(size, world_size), strict=True)]
    return samples


def _median(blocks: Sequence[_Block], value: Callable[[_Block], float]) -> int:
    """The number of the block with the lower median of a value."""
    values = [value(block) for block in blocks]
    return values.index(median_low(values))
