"""The loop: one step after another, each followed by its boundary."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from distrib.train.boundary import StepBoundary, StepTimes
from distrib.train.data.batches import describe
from distrib.train.data.loader import StepBatch, StepLoader
from distrib.train.process.device import device_name
from distrib.train.process.process_groups import limit_waiting
from distrib.train.process.rank_tree import RankTree
from distrib.train.rank import Rank
from distrib.train.records import Records


class Loop:
    """Yields the steps of a training from one position to its end, or to the step at which all ranks agree to stop.

    Whoever consumes `steps` runs a step for each batch; what is due at the step's end is done when the next batch is
    requested.

    Args:
        rank: This rank.
        loader: The batches of each step.
        boundary: What is due at the end of each step.
        records: Events and sample ids.
        warnings: What is reported after the start event.
    """

    def __init__(
        self, rank: Rank, loader: StepLoader, boundary: StepBoundary, records: Records, warnings: list[str]
    ) -> None:
        self._rank = rank
        self._loader = loader
        self._boundary = boundary
        self._records = records
        self._warnings = warnings

    def steps(self) -> Iterator[StepBatch]:
        """The batches of one step after the other."""
        loading = time.perf_counter()
        batch = self._loader.next()
        data_seconds = time.perf_counter() - loading
        self._start(batch)
        is_first = True
        while True:
            self._records.samples(batch)
            started = time.perf_counter()
            yield batch
            self._loader.prefetch()
            self._boundary.end_step(batch, StepTimes(time.perf_counter() - started, data_seconds))
            if self._boundary.has_ended:
                return
            if is_first:
                self._boundary.prepare_saving()
                is_first = False
            loading = time.perf_counter()
            batch = self._loader.next()
            data_seconds = time.perf_counter() - loading

    def _start(self, batch: StepBatch) -> None:
        limit_waiting(self._rank.config.request, self._rank.control_group)
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
