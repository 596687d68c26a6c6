"""The loop: one step after another, each followed by its boundary."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Protocol

from distrib.train.boundary import StepBoundary, StepTimes
from distrib.train.data.batches import describe
from distrib.train.data.loader import StepBatch
from distrib.train.phases import Phase
from distrib.train.process.device import device_name
from distrib.train.process.process_groups import limit_waiting
from distrib.train.process.rank_tree import RankTree
from distrib.train.rank import Rank
from distrib.train.records import Records


class StepBatches(Protocol):
    """Gives the batches of one step after the other; see `StepLoader`."""

    def next(self) -> StepBatch:
        """The batches of the next step."""

    def prefetch(self) -> None:
        """Starts to fetch the batches of the step after."""


class Loop:
    """Runs the steps of a training from one position to its end, or to the step at which all ranks agree to stop.

    Each step begins with `begin_step`, which gives its batch, and ends with `end_step`, which does what is due at its
    boundary. `steps` does both for whoever runs a step for each batch.

    Args:
        rank: This rank.
        loader: The batches of each step.
        boundary: What is due at the end of each step.
        records: Events and sample ids.
        warnings: What is reported after the start event.
    """

    def __init__(
        self, rank: Rank, loader: StepBatches, boundary: StepBoundary, records: Records, warnings: list[str]
    ) -> None:
        self._rank = rank
        self._loader = loader
        self._boundary = boundary
        self._records = records
        self._warnings = warnings
        self._data_seconds = self._started = 0.0
        self._is_first = False
        self._batch: StepBatch | None = None

    def steps(self) -> Iterator[StepBatch]:
        """The batch of one step after the other."""
        while True:
            yield self.begin_step()
            if self.end_step():
                return

    def begin_step(self) -> StepBatch:
        """The batch of the next step, recorded as used."""
        self._rank.progress.enter(Phase.DATA)
        loading = time.perf_counter()
        self._batch = self._loader.next()
        self._data_seconds = time.perf_counter() - loading
        self._is_first = not self._boundary.has_started
        if self._is_first:
            self._start(self._batch)
        self._records.samples(self._batch)
        self._rank.progress.enter(Phase.FORWARD)
        self._started = time.perf_counter()
        self._rank.times.begin_step()
        return self._batch

    def end_step(self) -> bool:
        """Does what is due at the end of the step that has begun; returns whether it was the last one."""
        assert self._batch is not None
        if self._rank.device.type == "cuda":
            with self._rank.times.fetching():
                self._loader.prefetch()
        self._boundary.end_step(self._batch, StepTimes(time.perf_counter() - self._started, self._data_seconds))
        if self._is_first and not self._boundary.has_ended:
            limit_waiting(self._rank.config.request)  # the first step may have compiled something
            self._boundary.end_first_step()
        return self._boundary.has_ended

    def _start(self, batch: StepBatch) -> None:
        self._boundary.start(
            world_size=self._rank.info.world_size,
            device=device_name(self._rank.device),
            input_signature=describe(batch.batches[0]),
            ranks=_describe_ranks(self._rank),
        )
        for message in self._warnings:
            self._records.warn(batch.global_step, message)


def _describe_ranks(rank: Rank) -> list[dict[str, Any]]:
    """Where each rank runs, by rank, on rank 0, which writes it; all ranks call it together."""
    mine = {"host": rank.info.host_name, "device": str(rank.device)}
    return RankTree(rank.control_group).gather_objects(mine) or []
