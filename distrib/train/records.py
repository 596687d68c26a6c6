"""What a rank records of a run: events on rank 0, and the ids of samples."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from distrib.runs.events import EventWriter
from distrib.runs.storage.errors import StorageError
from distrib.train.data.loader import StepBatch
from distrib.train.data.sample_record import SampleCounter, SampleRecord
from distrib.train.health.rank_warnings import RankWarnings
from distrib.train.process.rank_tree import RankTree
from distrib.train.rank import Rank, not_kept
from distrib.train.steps import Steps


class Records:
    """The records of one rank; only rank 0 writes events.

    Args:
        rank: This rank.
        steps: The epoch of each step, and the samples of those before it.
        counter: Counts the samples of steps if `steps` does not know them.
        warnings: What this rank has warned of.
        is_kept: Whether there is a run's folder to write to.
    """

    def __init__(
        self,
        rank: Rank,
        steps: Steps,
        counter: SampleCounter | None = None,
        *,
        warnings: RankWarnings | None = None,
        is_kept: bool = True,
    ) -> None:
        self._rank = rank
        self._steps = steps
        self._counter = counter
        self._warnings = warnings or RankWarnings(rank.is_first)
        layout, attempt = rank.layout, rank.config.attempt
        self._events = EventWriter(layout.metrics_file, attempt) if rank.is_first and is_kept else None
        self._samples = None
        if rank.settings.record_samples:
            self._samples = SampleRecord(layout.samples_file(rank.info.rank), attempt)

    def event(self, kind: str, step: int, **fields: Any) -> None:
        """Writes an event that belongs to the end of `step`, counted from 1."""
        if self._events is not None:
            epoch = self._steps.position(max(step - 1, 0))[0]
            samples = (self._counter or self._steps).samples_after(step)
            self._events.write(kind, step=step, epoch=epoch, samples=samples, **fields)

    def warn(self, step: int, message: str) -> None:
        """Writes a warning event; on a rank other than 0, that is left to rank 0, which may have the same."""
        self._warnings.add(message)
        self.event("warning", step, message=message)

    @property
    def num_warnings(self) -> int:
        """How many warnings of this rank are left to rank 0."""
        return self._warnings.num_pending

    def share_warnings(self, step: int) -> None:
        """Writes the warnings that are left to rank 0; all ranks call it together."""
        ranks = RankTree(self._rank.control_group).gather_objects(self._warnings.take())
        for message in self._warnings.merge(ranks or []):
            self.event("warning", step, message=message)

    def samples(self, batch: StepBatch) -> None:
        """Counts the samples of a step, and records them if the run does; call it before the optimizer's step."""
        if self._counter is not None:
            self._counter.add(batch)
        if self._samples is not None:
            self._samples.write(batch)

    def flush(self) -> None:
        """Writes the lines that a full disk refused before; OSError if it still refuses them."""
        if self._events is not None:
            self._events.flush()
        if self._samples is not None:
            self._samples.flush()

    def end(self) -> None:
        """Writes and publishes the last records; returns on all ranks together.

        Raises:
            NotKeptError: They could not be written or published.
        """
        try:
            self.flush()
            self._rank.storage.publish_records()
        except (OSError, StorageError) as error:
            raise not_kept("the last events or samples were not kept", error, self._rank.layout.metrics_file) from error
        dist.barrier(group=self._rank.control_group)
