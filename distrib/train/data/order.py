"""The order of samples: which indices each global batch of an epoch has, a pure function of (dataset, epoch, seed)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import torch

from distrib.job.step_plan import OrderFacts
from distrib.train.data.permutation import MAX_RANDPERM, epoch_permutation, feistel_slice

KEPT_EPOCHS = 2
"""Orders kept at least: batches are fetched ahead, so the next epoch begins before this one has ended."""
MAX_KEPT_EPOCHS, MAX_KEPT_SAMPLES = 64, 2**20
"""As many are kept at most, of so many samples together: loader workers may be several short epochs ahead."""

Kept = TypeVar("Kept")


class Order(Protocol):
    """The global batches of each epoch."""

    def num_steps(self, epoch: int) -> int:
        """How many global batches an epoch has."""

    def batch(self, epoch: int, step: int) -> torch.Tensor:
        """The indices of a global batch, `step` counted from 0 within `epoch`: int64 [m], m at least 1."""

    @property
    def facts(self) -> OrderFacts | None:
        """What the plan needs to know of it; None if that follows from the length of the dataset."""

    def digest(self, epoch: int) -> int | None:
        """A number that ranks with the same order have in common; None if it cannot differ."""


class Sequential:
    """The dataset's own order."""

    def __init__(self, num_samples: int, batch_size: int) -> None:
        self._num_samples = num_samples
        self._batch_size = batch_size

    def num_steps(self, epoch: int) -> int:
        """See `Order`."""
        return -(-self._num_samples // self._batch_size)

    def batch(self, epoch: int, step: int) -> torch.Tensor:
        """See `Order`."""
        return self._slice(epoch, *self._bounds(step))

    @property
    def facts(self) -> None:
        """See `Order`."""

    def digest(self, epoch: int) -> None:
        """See `Order`."""

    def _bounds(self, step: int) -> tuple[int, int]:
        return step * self._batch_size, min((step + 1) * self._batch_size, self._num_samples)

    def _slice(self, epoch: int, start: int, stop: int) -> torch.Tensor:
        return torch.arange(start, stop)


class Shuffle(Sequential):
    """A new random permutation of the dataset in each epoch; see `permutation`."""

    def __init__(self, num_samples: int, batch_size: int, seed: int) -> None:
        super().__init__(num_samples, batch_size)
        self._seed = seed
        self._permutations = RecentEpochs(lambda epoch: epoch_permutation(num_samples, seed, epoch), len)

    def _slice(self, epoch: int, start: int, stop: int) -> torch.Tensor:
        if self._num_samples > MAX_RANDPERM:
            return feistel_slice(self._num_samples, self._seed, epoch, start, stop)
        return self._permutations[epoch][start:stop]


class RecentEpochs(Generic[Kept]):
    """What was computed for the epochs that were needed last.

    Args:
        compute: Computes it for an epoch.
        count: The number of its samples.
    """

    def __init__(self, compute: Callable[[int], Kept], count: Callable[[Kept], int]) -> None:
        self._compute = compute
        self._count = count
        self._kept: OrderedDict[int, Kept] = OrderedDict()
        self._num_samples = 0

    def __getitem__(self, epoch: int) -> Kept:
        if epoch in self._kept:
            self._kept.move_to_end(epoch)
            return self._kept[epoch]
        computed = self._kept[epoch] = self._compute(epoch)
        self._num_samples += self._count(computed)
        while len(self._kept) > MAX_KEPT_EPOCHS or (
            self._num_samples > MAX_KEPT_SAMPLES and len(self._kept) > KEPT_EPOCHS
        ):
            _, dropped = self._kept.popitem(last=False)
            self._num_samples -= self._count(dropped)
        return computed
