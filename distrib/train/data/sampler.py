"""The order of samples: which indices make up each global batch, each rank's slice and each micro-batch."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.utils.data import DistributedSampler

from distrib.job.plan import split_evenly
from distrib.train.randomness import derive_seed


def epoch_permutation(num_samples: int, seed: int, epoch: int) -> torch.Tensor:
    """The order of all samples in `epoch`: int64 [num_samples], the same on every rank."""
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch))
    return torch.randperm(num_samples, generator=generator)


class EpochIndices(list[int]):
    """The dataset indices of one micro-batch; knows its epoch, which seeds the augmentation of its samples."""

    def __init__(self, indices: list[int], epoch: int) -> None:
        super().__init__(indices)
        self.epoch = epoch

    def __reduce__(self) -> tuple[type[EpochIndices], tuple[list[int], int]]:
        """Travels to loader workers as its two parts."""
        return EpochIndices, (list(self), self.epoch)


@dataclass(frozen=True)
class MicroBatch:
    """What one rank runs in one forward and backward pass.

    Attributes:
        indices: Positions in the dataset, never empty.
        num_samples: How many of them count; 0 where the rank has no sample in this step and runs the global batch's
            first one at weight 0, so that it still takes part in the synchronisation of gradients.
    """

    indices: EpochIndices
    num_samples: int


class GlobalBatchSampler(DistributedSampler[Any]):
    """Cuts each epoch into global batches, and each of those into ranks' slices and micro-batches, without padding.

    Step s of an epoch takes positions [s·B, min((s+1)·B, n)) of the epoch's permutation: m samples, of which rank r of
    W takes ⌊r·m/W⌋ … ⌊(r+1)·m/W⌋; micro-batches split that slice by the same rule, and empty ones are left out.
    Iterating yields the index lists of this rank's micro-batches, so it can serve as a DataLoader's `batch_sampler`.

    Args:
        dataset: What is sampled; only its length matters.
        batch_size: Global samples per step.
        num_replicas: The number of ranks, W.
        rank: This rank, r.
        seed: The job's seed.
        accumulate: Micro-batches per step and rank, at most.
    """

    def __init__(
        self, dataset: Sized, *, batch_size: int, num_replicas: int, rank: int, seed: int, accumulate: int = 1
    ) -> None:
        super().__init__(cast(Any, dataset), num_replicas=num_replicas, rank=rank, shuffle=True, seed=seed)
        self.num_dataset_samples = len(dataset)
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.steps_per_epoch = -(-self.num_dataset_samples // batch_size)
        self._permutation = torch.empty(0, dtype=torch.int64)
        self._permuted_epoch = -1

    def global_batch(self, epoch: int, step: int) -> torch.Tensor:
        """The indices of step `step` of `epoch` over all ranks: int64 [m]."""
        if epoch != self._permuted_epoch:
            self._permutation = epoch_permutation(self.num_dataset_samples, self.seed, epoch)
            self._permuted_epoch = epoch
        return self._permutation[step * self.batch_size : (step + 1) * self.batch_size]

    def rank_slice(self, epoch: int, step: int) -> torch.Tensor:
        """This rank's part of the global batch: int64, possibly empty."""
        batch = self.global_batch(epoch, step)
        m = len(batch)
        return batch[self.rank * m // self.num_replicas : (self.rank + 1) * m // self.num_replicas]

    def micro_batches(self, epoch: int, step: int) -> list[MicroBatch]:
        """What this rank runs in a step: at least one micro-batch."""
        indices = self.rank_slice(epoch, step).tolist()
        if not indices:
            first = self.global_batch(epoch, step)[:1].tolist()
            return [MicroBatch(EpochIndices(first, epoch), num_samples=0)]
        micro_batches, start = [], 0
        for size in split_evenly(len(indices), self.accumulate):
            if size:
                part = EpochIndices(indices[start : start + size], epoch)
                micro_batches.append(MicroBatch(part, num_samples=size))
            start += size
        return micro_batches

    def __iter__(self) -> Iterator[EpochIndices]:
        """The index lists of this rank's micro-batches in the epoch chosen by `set_epoch`."""
        for step in range(self.steps_per_epoch):
            for micro_batch in self.micro_batches(self.epoch, step):
                yield micro_batch.indices

    def __len__(self) -> int:
        """How many index lists iterating yields."""
        return sum(len(self.micro_batches(self.epoch, step)) for step in range(self.steps_per_epoch))


@dataclass(frozen=True)
class SamplerOfRun:
    """The index lists of a rank's micro-batches over the rest of a run, epochs following each other."""

    sampler: GlobalBatchSampler
    first_step: int
    end_step: int

    def __iter__(self) -> Iterator[EpochIndices]:
        """Index lists from global step `first_step` (from 0) up to, not including, `end_step`."""
        for global_step in range(self.first_step, self.end_step):
            epoch, step = divmod(global_step, self.sampler.steps_per_epoch)
            for micro_batch in self.sampler.micro_batches(epoch, step):
                yield micro_batch.indices
