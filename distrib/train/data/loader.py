"""From dataset and indices to batches on the device."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset, TensorDataset, default_collate

from distrib.job.plan import StepPlan
from distrib.train.data.batches import pin_memory as pin
from distrib.train.data.batches import tensors_in, to_device
from distrib.train.data.sampler import EpochIndices, GlobalBatchSampler, MicroBatch, SamplerOfRun
from distrib.train.process import die_with_parent
from distrib.train.randomness import derive_seed, reseed
from distrib.train.tracebacks import user_traceback

Collate = Callable[[list[Any]], Any]


class Fetcher:
    """Turns the indices of a micro-batch into a collated batch, in this process or in a loader worker.

    A `TensorDataset` is indexed as a whole. Any other dataset that offers `__getitems__` is asked for all samples at
    once, seeded by the first of them; else each sample is fetched seeded from (seed, epoch, index), so that random
    augmentation depends neither on loader workers nor on prefetching, restarts or the number of ranks.
    """

    def __init__(self, dataset: Any, collate: Collate | None, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed
        self.collate = collate or default_collate
        self.is_whole = (
            collate is None
            and isinstance(dataset, TensorDataset)
            and type(dataset).__getitem__ is TensorDataset.__getitem__
        )
        self.is_by_batch = _offers_batches(dataset)

    def __getitems__(self, indices: EpochIndices) -> Any:
        """The collated batch of `indices`."""
        if self.is_whole:
            rows = torch.tensor(indices, dtype=torch.int64)
            return [tensor[rows] for tensor in self.dataset.tensors]
        if self.is_by_batch:
            reseed(derive_seed("sample", self.seed, indices.epoch, indices[0]))
            return self.collate(self.dataset.__getitems__(list(indices)))
        return self.collate([self._sample(indices.epoch, index) for index in indices])

    def _sample(self, epoch: int, index: int) -> Any:
        reseed(derive_seed("sample", self.seed, epoch, index))
        return self.dataset[index]


def _offers_batches(dataset: Any) -> bool:
    """Whether a dataset fetches many samples at once by itself; a plain `Subset` does if its dataset does."""
    if isinstance(dataset, Subset) and type(dataset).__getitems__ is Subset.__getitems__:
        return _offers_batches(dataset.dataset)
    return hasattr(dataset, "__getitems__")


class LoaderFailedError(Exception):
    """The user's dataset or collate function raised in a loader worker.

    Attributes:
        type: The name of the exception's class.
        message: Its text.
        traceback: The user's frames, as Python prints them.
    """

    def __init__(self, type_name: str, message: str, traceback: str) -> None:
        super().__init__(type_name, message, traceback)
        self.type = type_name
        self.message = message
        self.traceback = traceback


class _InLoaderWorker:
    """A fetcher whose errors travel to the rank as they are: torch would wrap them in text of its own."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    def __getitems__(self, indices: EpochIndices) -> Any:
        """The batch, or the error in its place."""
        try:
            return self._fetcher.__getitems__(indices)
        except Exception as error:
            return LoaderFailedError(type(error).__name__, str(error), user_traceback(error))


def _raise_errors(batches: Iterator[Any]) -> Iterator[Any]:
    for batch in batches:
        if isinstance(batch, LoaderFailedError):
            raise batch
        yield batch


def _as_is(batch: Any) -> Any:
    return batch


def _start_loader_worker(_worker: int) -> None:
    """Leaves signals to the rank: one sent to all processes asks for a stop in good order, which needs its samples."""
    die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def iterate(
    fetcher: Fetcher, index_lists: Iterable[EpochIndices], loader_workers: int, pin_memory: bool
) -> Iterator[Any]:
    """Host batches for `index_lists`, in order: fetched here, or ahead of need by `loader_workers` processes."""
    if loader_workers == 0:
        batches: Iterator[Any] = map(fetcher.__getitems__, index_lists)
        return (pin(batch) for batch in batches) if pin_memory else batches
    loader: DataLoader[Any] = DataLoader(
        _InLoaderWorker(fetcher),  # type: ignore[arg-type]
        batch_sampler=index_lists,
        num_workers=loader_workers,
        collate_fn=_as_is,
        pin_memory=pin_memory,
        worker_init_fn=_start_loader_worker,
        generator=torch.Generator().manual_seed(fetcher.seed),
    )
    return _raise_errors(iter(loader))


@dataclass(frozen=True)
class StepBatch:
    """All that a rank runs in one optimizer step."""

    epoch: int
    step: int
    micro_batches: list[MicroBatch]
    batches: list[Any]


class StepLoader:
    """A rank's batches step by step, on its device.

    On CUDA the next step's batches are copied from pinned memory on a side stream while the current step computes.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        sampler: GlobalBatchSampler,
        schedule: StepPlan,
        device: torch.device,
        loader_workers: int,
        first_step: int,
    ) -> None:
        self._sampler = sampler
        self._schedule = schedule
        self._device = device
        self._next_step = first_step
        self._side_stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        index_lists = SamplerOfRun(sampler, first_step, schedule.total_steps)
        self._host_batches = iterate(fetcher, index_lists, loader_workers, pin_memory=device.type == "cuda")
        self._ahead: StepBatch | None = None

    def next(self) -> StepBatch:
        """The batches of the next step, ready for use on the current stream."""
        batch = self._ahead or self._load()
        self._ahead = None
        if self._side_stream is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._side_stream)
            for tensor in tensors_in(batch.batches):
                tensor.record_stream(current)
        return batch

    def prefetch(self) -> None:
        """On CUDA, starts to copy the batches of the step after; call it between steps, since it may use randomness."""
        if self._side_stream is not None and self._ahead is None and self._next_step < self._schedule.total_steps:
            self._ahead = self._load()

    def _load(self) -> StepBatch:
        epoch, step = self._schedule.position(self._next_step)
        micro_batches = self._sampler.micro_batches(epoch, step)
        batches = [next(self._host_batches) for _ in micro_batches]
        if self._side_stream is not None:
            with torch.cuda.stream(self._side_stream):
                batches = [to_device(batch, self._device) for batch in batches]
        self._next_step += 1
        return StepBatch(epoch, step, micro_batches, batches)
