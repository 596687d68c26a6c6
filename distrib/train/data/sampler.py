"""The order of samples: which indices make up each global batch, each rank's slice and each micro-batch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.utils.data import DistributedSampler

from distrib.job.plan import part_of
from distrib.train.process.randomness import derive_seed

_KEPT_EPOCHS = 2
"""Permutations kept at a time: batches are fetched ahead, so the next epoch begins before this one has ended."""


def epoch_permutation(num_samples: int, seed: int, epoch: int) -> torch.Tensor:
    """The order of all samples in `epoch`: int64 [num_samples], the same on every rank."""
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch))
    return torch.randperm(num_samples, generator=generator)


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
    """

    indices: EpochIndices
    num_samples: int
    global_step: int = 0
    is_last: bool = True


class GlobalBatchSampler(DistributedSampler[Any]):
    """Cuts each epoch into global batches, and those into ranks' slices and micro-batches, without padding.

    Step s of an epoch takes positions [s·B, min((s+1)·B, n)) of the epoch's permutation: m samples, which are divided
    among the ranks by `part_of`; micro-batches divide a rank's slice by the same rule, and empty ones are left out.
    Iterating yields the index lists of this rank's micro-batches, so it can serve as a DataLoader's `batch_sampler`.

    Args:
        dataset: The dataset; only its length matters.
        batch_size: Global samples per step.
        num_replicas: The number of ranks, W.
        rank: This rank, r.
        seed: The job's seed.
        accumulate: The largest number of micro-batches per step and rank.
    """

    def __init__(
        self, dataset: Sized, *, batch_size: int, num_replicas: int, rank: int, seed: int, accumulate: int = 1
    ) -> None:
        super().__init__(cast(Any, dataset), num_replicas=num_replicas, rank=rank, shuffle=True, seed=seed)
        self.num_dataset_samples = len(dataset)
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.steps_per_epoch = -(-self.num_dataset_samples // batch_size)
        self._permutations: OrderedDict[int, torch.Tensor] = OrderedDict()

    def global_batch(self, epoch: int, step: int) -> torch.Tensor:
        """The indices of step `step` of `epoch` over all ranks: int64 [m]."""
        return self._permutation(epoch)[step * self.batch_size : (step + 1) * self.batch_size]

    def rank_slice(self, epoch: int, step: int) -> torch.Tensor:
        """This rank's part of the global batch: int64, possibly empty."""
        batch = self.global_batch(epoch, step)
        mine = part_of(len(batch), self.rank, self.num_replicas)
        return batch[mine.start : mine.stop]

    def micro_batches(self, epoch: int, step: int) -> list[MicroBatch]:
        """What this rank runs in a step: at least one micro-batch."""
        global_step = epoch * self.steps_per_epoch + step
        indices = self.rank_slice(epoch, step).tolist()
        if not indices:
            first = self.global_batch(epoch, step)[:1].tolist()
            return [MicroBatch(EpochIndices(first, epoch), 0, global_step)]
        parts = [part_of(len(indices), part, self.accumulate) for part in range(self.accumulate)]
        return [
            MicroBatch(
                EpochIndices(indices[part.start : part.stop], epoch), len(part), global_step, part.stop == len(indices)
            )
            for part in parts
            if part
        ]

    def _permutation(self, epoch: int) -> torch.Tensor:
        if epoch not in self._permutations:
            self._permutations[epoch] = epoch_permutation(self.num_dataset_samples, self.seed, epoch)
            if len(self._permutations) > _KEPT_EPOCHS:
                self._permutations.popitem(last=False)
        return self._permutations[epoch]

    def __iter__(self) -> Iterator[EpochIndices]:
        """The index lists of this rank's micro-batches in the epoch chosen by `set_epoch`."""
        for step in range(self.steps_per_epoch):
            for micro_batch in self.micro_batches(self.epoch, step):
                yield micro_batch.indices

    def __len__(self) -> int:
        """The number of index lists that iterating yields."""
        return sum(len(self.micro_batches(self.epoch, step)) for step in range(self.steps_per_epoch))


@dataclass(frozen=True)
class SamplerOfRun:
    """A rank's micro-batches over the rest of a run, one epoch after another."""

    sampler: GlobalBatchSampler
    first_step: int
    end_step: int

    def __iter__(self) -> Iterator[MicroBatch]:
        """Micro-batches from global step `first_step` (from 0) up to, but not including, `end_step`."""
        for global_step in range(self.first_step, self.end_step):
            yield from self.sampler.micro_batches(*divmod(global_step, self.sampler.steps_per_epoch))
