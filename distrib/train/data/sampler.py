"""Which samples each rank has in each step: its slice of the global batch, and the micro-batches of that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, cast

from torch.utils.data import DistributedSampler

from distrib.job.step_plan import part_of
from distrib.train.data.order import Order


class EpochIndices(list[int]):
    """The dataset indices of one micro-batch and their epoch, which seeds the augmentation of its samples."""

    def __init__(self, indices: list[int], epoch: int) -> None:
        super().__init__(indices)
        self.epoch = epoch

    def __reduce__(self) -> tuple[type[EpochIndices], tuple[list[int], int]]:
        """Pickles it as its two parts, for loader workers."""
        return EpochIndices, (list(self), self.epoch)


@dataclass(frozen=True)
class MicroBatch:
    """What one rank runs in one forward and backward pass; travels with the batch that is fetched for it.

    Attributes:
        indices: Positions in the dataset, never empty.
        num_samples: How many of them count; 0 if the rank has no sample in this step and runs the global batch's
            first one with weight 0, so that it still takes part in the synchronization of gradients.
        global_step: The optimizer step of the whole run that it belongs to, from 0.
        is_last: Whether it is the rank's last one of that step.
        global_batch_size: Samples of that step over all ranks.
    """

    indices: EpochIndices
    num_samples: int
    global_step: int = 0
    is_last: bool = True
    global_batch_size: int = 0


class GlobalBatchSampler(DistributedSampler[Any]):
    """Cuts the global batches of an order into ranks' slices and micro-batches, without padding.

    The m samples of a global batch are divided among the ranks by `part_of`; micro-batches divide a rank's slice by the
    same rule, and empty ones are left out. Iterating yields the index lists of this rank's micro-batches, so it can
    serve as a DataLoader's `batch_sampler`.

    Args:
        dataset: The dataset; only its length matters.
        order: The global batches of each epoch.
        num_replicas: The number of ranks, W.
        rank: This rank, r.
        accumulate: The largest number of micro-batches per step and rank.
    """

    def __init__(self, dataset: Sized, order: Order, *, num_replicas: int, rank: int, accumulate: int = 1) -> None:
        super().__init__(cast(Any, dataset), num_replicas=num_replicas, rank=rank)
        self.order = order
        self.accumulate = accumulate

    def micro_batches(self, epoch: int, step: int, global_step: int = 0) -> list[MicroBatch]:
        """What this rank runs in step `step` of `epoch`: at least one micro-batch.

        Args:
            epoch: The epoch, from 0.
            step: The step within the epoch, from 0.
            global_step: The step within the run, from 0.
        """
        batch = self.order.batch(epoch, step)
        mine = part_of(len(batch), self.rank, self.num_replicas)
        indices = batch[mine.start : mine.stop].tolist()
        if not indices:
            first = EpochIndices(batch[:1].tolist(), epoch)
            return [MicroBatch(first, 0, global_step, global_batch_size=len(batch))]
        parts = [part_of(len(indices), part, self.accumulate) for part in range(self.accumulate)]
        return [
            MicroBatch(
                EpochIndices(indices[part.start : part.stop], epoch),
                len(part),
                global_step,
                part.stop == len(indices),
                len(batch),
            )
            for part in parts
            if part
        ]

    def __iter__(self) -> Iterator[EpochIndices]:
        """The index lists of this rank's micro-batches in the epoch chosen by `set_epoch`."""
        for step in range(self.order.num_steps(self.epoch)):
            for micro_batch in self.micro_batches(self.epoch, step):
                yield micro_batch.indices

    def __len__(self) -> int:
        """The number of index lists that iterating yields."""
        return sum(len(self.micro_batches(self.epoch, step)) for step in range(self.order.num_steps(self.epoch)))


@dataclass(frozen=True)
class SamplerOfRun:
    """A rank's micro-batches over the rest of a run, one epoch after another.

    Attributes:
        sampler: The rank's micro-batches in each step.
        position: The (epoch, step in the epoch) of a step of the run.
        first_step: The first step of the run that is iterated over, from 0.
        end_step: The step before which to end.
    """

    sampler: GlobalBatchSampler
    position: Callable[[int], tuple[int, int]]
    first_step: int
    end_step: int

    def __iter__(self) -> Iterator[MicroBatch]:
        """The micro-batches of each step."""
        for global_step in range(self.first_step, self.end_step):
            yield from self.sampler.micro_batches(*self.position(global_step), global_step)
