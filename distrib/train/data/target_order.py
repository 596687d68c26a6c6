"""An order of samples that the job's own code gives: `order(dataset, epoch, seed)`, checked before it is used."""

from __future__ import annotations

import hashlib
import operator
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy
import torch

from distrib.errors import DistribError
from distrib.job.step_plan import OrderFacts
from distrib.train.data.order import RecentEpochs
from distrib.train.process.randomness import derive_seed, reseed

_DIGEST_BYTES = 6
"""So that a digest is exact as a floating-point number, in which ranks exchange it."""


class OrderError(DistribError):
    """The job's `data.order` gave what cannot be trained on."""

    def __init__(self, message: str) -> None:
        super().__init__(f"data.order: {message}")


class OrderFunction(Protocol):
    """What `data.order` names; it may have `num_steps(dataset, epoch, seed)` too."""

    def __call__(self, dataset: Any, epoch: int, seed: int, /) -> Any:
        """The indices of an epoch, or lists of indices, each of them one global batch."""


@dataclass(frozen=True)
class EpochBatches:
    """The global batches of one epoch.

    Attributes:
        indices: All indices: int64 [samples].
        ends: The positions at which batches end, one for each step: int64 [steps].
        is_batched: Whether the order gave the batches themselves.
    """

    indices: torch.Tensor
    ends: torch.Tensor
    is_batched: bool

    def batch(self, step: int) -> torch.Tensor:
        """The indices of a global batch."""
        return self.indices[int(self.ends[step - 1]) if step else 0 : int(self.ends[step])]

    @property
    def sizes(self) -> torch.Tensor:
        """The samples of each batch."""
        return torch.diff(self.ends, prepend=torch.zeros(1, dtype=torch.int64))


class TargetOrder:
    """An order by a function of (dataset, epoch, seed); see `Order`.

    Args:
        function: The function, or an object that is called.
        name: What to call it in messages.
        dataset: The dataset.
        batch_size: Samples of each global batch, if the function gives indices rather than batches.
        seed: The job's seed.
        train_length: The epochs and the steps of the run, one of them None.
    """

    def __init__(
        self,
        function: OrderFunction,
        name: str,
        dataset: Any,
        *,
        batch_size: int,
        seed: int,
        train_length: tuple[int | None, int | None],
    ) -> None:
        self._function = function
        self._name = name
        self._dataset = dataset
        self._batch_size = batch_size
        self._seed = seed
        self._train_length = train_length
        self._num_steps: Callable[[Any, int, int], int] | None = getattr(function, "num_steps", None)
        self._epochs = RecentEpochs(self._compute, lambda batches: len(batches.indices))
        self._digests: dict[int, int] = {}

    @cached_property
    def facts(self) -> OrderFacts:
        """See `Order`; computes the first epoch."""
        first = self._epochs[0]
        sizes = first.sizes
        bounds = (int(sizes.min()), int(sizes.max()), int(sizes[-1])) if first.is_batched else None
        steps = (len(sizes),) if self._num_steps is None else self._steps_of_run()
        return OrderFacts(len(first.indices), steps, self._num_steps is not None, bounds)

    def num_steps(self, epoch: int) -> int:
        """See `Order`."""
        if self._num_steps is None:
            return self.facts.num_steps[0]
        count = self._num_steps(self._dataset, epoch, self._seed)
        try:
            number = 0 if isinstance(count, bool) else operator.index(count)
        except TypeError:
            number = 0
        if number < 1:
            raise OrderError(f"num_steps of {self._name} gave {count!r} for epoch {epoch}, not a number of steps")
        return number

    def batch(self, epoch: int, step: int) -> torch.Tensor:
        """See `Order`."""
        return self._epochs[epoch].batch(step)

    def digest(self, epoch: int) -> int:
        """See `Order`; the plan is part of it, since ranks with different plans would wait for each other."""
        if epoch not in self._digests:
            batches = self._epochs[epoch]
            digest = hashlib.sha256(repr(self.facts).encode())
            for tensor in (batches.indices, batches.ends):
                digest.update(tensor.numpy().data)
            self._digests[epoch] = int.from_bytes(digest.digest()[:_DIGEST_BYTES], "big")
        return self._digests[epoch]

    def _steps_of_run(self) -> tuple[int, ...]:
        """The steps of each epoch that the run has."""
        num_epochs, num_steps = self._train_length
        found: list[int] = []
        total = 0
        while len(found) < (num_epochs or 0) or total < (num_steps or 0):
            found.append(self.num_steps(len(found)))
            total += found[-1]
        return tuple(found)

    def _compute(self, epoch: int) -> EpochBatches:
        """The batches of an epoch, checked."""
        reseed(derive_seed("order", self._seed, epoch))  # so that even global generators give the same on every rank
        batches = read_batches(self._function(self._dataset, epoch, self._seed), self._batch_size, f"epoch {epoch}")
        self._check_range(batches.indices, epoch)
        found = len(batches.ends)
        if self._num_steps is not None and found != (expected := self.num_steps(epoch)):
            raise OrderError(f"{self._name} gave {found} steps in epoch {epoch}, but its num_steps says {expected}")
        if self._num_steps is None and epoch and found != (expected := self.facts.num_steps[0]):
            raise OrderError(
                f"{self._name} gave {found} steps in epoch {epoch} and {expected} in epoch 0; an order whose steps "
                "differ between epochs is an object that has num_steps(dataset, epoch, seed) too"
            )
        return batches

    def _check_range(self, indices: torch.Tensor, epoch: int) -> None:
        num_samples = len(self._dataset)
        for index in (int(indices.min()), int(indices.max())):
            if not 0 <= index < num_samples:
                raise OrderError(
                    f"{self._name} gave index {index} in epoch {epoch}; the dataset has {num_samples:,} samples, "
                    f"0 to {num_samples - 1}"
                )


def read_batches(result: Any, batch_size: int, where: str) -> EpochBatches:
    """The global batches that an order has returned.

    Args:
        result: Indices, or lists of indices: sequences, iterators, arrays or tensors.
        batch_size: Samples of each global batch of which only indices are given.
        where: Which epoch it is, for messages.

    Raises:
        OrderError: It is empty, or has something else than indices.
    """
    items = _items(result, where)
    if not len(items):
        raise OrderError(f"{where} is empty; an order returns at least one index")
    if _is_list(items[0]):
        batches = [_indices(item, f"batch {number} of {where}") for number, item in enumerate(items)]
        for number, batch in enumerate(batches):
            if not len(batch):
                raise OrderError(f"batch {number} of {where} is empty")
        ends = torch.tensor([len(batch) for batch in batches]).cumsum(0)
        return EpochBatches(torch.cat(batches), ends, is_batched=True)
    indices = _indices(items, where)
    ends = torch.arange(batch_size, len(indices) + batch_size, batch_size).clamp(max=len(indices))
    return EpochBatches(indices, ends, is_batched=False)


def _items(value: Any, where: str) -> Sequence[Any] | torch.Tensor | numpy.ndarray[Any, Any]:
    if isinstance(value, torch.Tensor | numpy.ndarray):
        if value.ndim == 0:
            raise OrderError(f"{where} is a single number, not a list of indices")
        return value
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise OrderError(f"{where} is a {type(value).__name__}, not indices or lists of indices")
    return value if isinstance(value, Sequence) else list(value)


def _is_list(value: Any) -> bool:
    """Whether one item of an order is a global batch, not an index."""
    if isinstance(value, torch.Tensor | numpy.ndarray):
        return value.ndim > 0
    return isinstance(value, Iterable) and not isinstance(value, str | bytes)


def _indices(value: Any, where: str) -> torch.Tensor:
    """Indices as int64 [n]."""
    items = _items(value, where)
    try:
        array = items.cpu().numpy() if isinstance(items, torch.Tensor) else numpy.asarray(items)
    except (TypeError, ValueError):
        array = numpy.asarray(None)
    if array.size and (array.ndim != 1 or array.dtype.kind not in "iu"):
        wrong = next((item for item in items if _is_list(item) or not _is_index(item)), items[0])
        raise OrderError(f"{where} has {wrong!r} among its indices, which are integers")
    return torch.from_numpy(array.astype(numpy.int64))


def _is_index(value: Any) -> bool:
    if isinstance(value, torch.Tensor | numpy.ndarray | numpy.generic):
        return bool(numpy.asarray(value).dtype.kind in "iu")
    return isinstance(value, int) and not isinstance(value, bool)


def blame(error: BaseException, name: str) -> str:
    """What an exception of the job's order says, with the line that raised it."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{name} could not be computed: {type(error).__name__}: {error} ({where.filename}:{where.lineno})"
