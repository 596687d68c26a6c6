"""From dataset and indices to batches on the device."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from distrib.errors import DistribError, listed
from distrib.job.step_plan import StepPlan
from distrib.train.data.batches import pin_memory as pin
from distrib.train.data.batches import tensors_in, to_device
from distrib.train.data.collate import Collate, collate_samples
from distrib.train.data.order_check import OrderCheck
from distrib.train.data.sampler import EpochIndices, GlobalBatchSampler, MicroBatch, SamplerOfRun
from distrib.train.process.handles import Handles
from distrib.train.process.lifetime import die_with_parent
from distrib.train.process.openmp import end_idle_threads
from distrib.train.process.randomness import derive_seed, reseed
from distrib.train.process.tracebacks import user_traceback


class Fetcher:
    """Turns the indices of a micro-batch into a collated batch, in this process or in a loader worker.

    A `TensorDataset` is indexed as a whole. Any other dataset that has `__getitems__` fetches all samples at once,
    seeded by the first of them. Otherwise each sample is fetched with the generators seeded from (seed, epoch, index),
    so that random augmentation does not depend on loader workers, prefetching, restarts or the number of ranks.
    """

    def __init__(self, dataset: Any, collate: Collate | None, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed
        self.collate = collate
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
            samples = self.dataset.__getitems__(list(indices))
        else:
            samples = [self._sample(indices.epoch, index) for index in indices]
        return collate_samples(samples, indices) if self.collate is None else self.collate(samples)

    def _sample(self, epoch: int, index: int) -> Any:
        reseed(derive_seed("sample", self.seed, epoch, index))
        try:
            return self.dataset[index]
        except StopIteration as error:  # which the generators that batches pass through would replace
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise SampleError(
                f"the dataset raised StopIteration for sample {index} ({where.filename}:{where.lineno}); an iterator "
                "that it uses is exhausted"
            ) from error


def _offers_batches(dataset: Any) -> bool:
    """Whether a dataset can fetch many samples at once; a plain `Subset` can if its dataset can."""
    if isinstance(dataset, Subset) and type(dataset).__getitems__ is Subset.__getitems__:
        return _offers_batches(dataset.dataset)
    return hasattr(dataset, "__getitems__")


class SampleError(DistribError):
    """The dataset has no sample of an index that is below its length."""


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
    """A fetcher whose errors are returned to the rank unchanged; torch would wrap them in another text."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    def __getitems__(self, micro_batch: MicroBatch) -> tuple[MicroBatch, Any]:
        """`micro_batch` with its batch, or with the error in the batch's place."""
        try:
            return micro_batch, self._fetcher.__getitems__(micro_batch.indices)
        except Exception as error:
            return micro_batch, LoaderFailedError(type(error).__name__, str(error), user_traceback(error))


def _as_is(batch: Any) -> Any:
    return batch


def _start_loader_worker(_worker: int) -> None:
    """Leaves signals to the rank: one sent to all processes requests an orderly stop, which still needs samples."""
    die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def loader_warnings(loader_workers: int, before: Handles) -> list[str]:
    """Reports what the job keeps open, which loader workers share with this rank and with each other.

    Args:
        loader_workers: Their number.
        before: What was open before the job's modules were imported and its datasets built.
    """
    kept = Handles.now().added_since(before) if loader_workers else []
    if not kept:
        return []
    return [
        f"data.loader_workers: the loader processes share what the job keeps open: {listed(kept)}; "
        "samples that are read through it can be wrong or wait forever; open it in each process with the first sample, "
        "or set data.loader_workers: 0"
    ]


def iterate(
    fetcher: Fetcher, micro_batches: Iterable[MicroBatch], loader_workers: int, pin_memory: bool
) -> Iterator[tuple[MicroBatch, Any]]:
    """Each of `micro_batches` with its batch on the host, in order.

    Args:
        fetcher: Fetches the batches.
        micro_batches: What to fetch.
        loader_workers: Processes that fetch ahead; with 0 this process fetches each batch when it is needed.
        pin_memory: Whether batches are put into pinned memory.
    """
    if loader_workers == 0:
        for micro_batch in micro_batches:
            batch = fetcher.__getitems__(micro_batch.indices)
            yield micro_batch, pin(batch) if pin_memory else batch
        return
    loader: DataLoader[Any] = DataLoader(
        _InLoaderWorker(fetcher),  # type: ignore[arg-type]
        batch_sampler=micro_batches,  # type: ignore[arg-type]
        num_workers=loader_workers,
        collate_fn=_as_is,
        pin_memory=pin_memory,
        worker_init_fn=_start_loader_worker,
        generator=torch.Generator().manual_seed(fetcher.seed),
    )
    end_idle_threads()  # a loader worker may use OpenMP, which a rank that trains has used
    for micro_batch, batch in loader:
        if isinstance(batch, LoaderFailedError):
            raise batch
        yield micro_batch, batch


@dataclass(frozen=True)
class StepBatch:
    """All that a rank runs in one optimizer step.

    Attributes:
        global_step: The step of the whole run, from 0.
        epoch: Its epoch.
        micro_batches: What was fetched.
        batches: The fetched batches, on the rank's device.
    """

    global_step: int
    epoch: int
    micro_batches: list[MicroBatch]
    batches: list[Any]

    @property
    def global_batch_size(self) -> int:
        """Samples of the step over all ranks."""
        return self.micro_batches[0].global_batch_size

    @property
    def sample_ids(self) -> list[int]:
        """The dataset indices of the samples that count."""
        return [index for part in self.micro_batches if part.num_samples for index in part.indices]


class StepLoader:
    """A rank's batches step by step, on its device.

    On CUDA the next step's batches are copied from pinned memory on a side stream while the current step computes. On
    CPU, rows of a `TensorDataset` can be fetched while the rank waits for the others' gradients.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        sampler: GlobalBatchSampler,
        step_plan: StepPlan,
        device: torch.device,
        loader_workers: int,
        first_step: int,
        order_check: OrderCheck,
    ) -> None:
        self._rank = sampler.rank
        self._seed = fetcher.seed
        self._device = device
        self._order_check = order_check
        self._num_left = step_plan.total_steps - first_step
        self._position = step_plan.position
        self._total_steps = step_plan.total_steps
        self._is_plain = (
            fetcher.is_whole
            and loader_workers == 0
            and device.type == "cpu"
            and not any(tensor.requires_grad for tensor in fetcher.dataset.tensors)  # backward passes record no graph
        )
        self._side_stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        micro_batches = SamplerOfRun(sampler, step_plan.position, first_step, step_plan.total_steps)
        self._fetched = iterate(fetcher, micro_batches, loader_workers, pin_memory=device.type == "cuda")
        self._ahead: StepBatch | None = None

    def next(self) -> StepBatch:
        """The batches of the next step, ready for use on the current stream.

        The global random generators are left as the step shall find them, seeded from (seed, step, rank).
        """
        batch = self._ahead or self._load()
        self._ahead = None
        self._order_check.begin_step(batch.epoch)
        if self._side_stream is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._side_stream)
            for tensor in tensors_in(batch.batches):
                tensor.record_stream(current)
        reseed(derive_seed("step", self._seed, batch.global_step, self._rank))
        return batch

    def prefetch(self) -> None:
        """On CUDA, starts to copy the batches of the step after; call it between steps, since it may use randomness."""
        if self._side_stream is not None and self._ahead is None and self._num_left:
            self._ahead = self._load()

    def fetch_while_waiting(self) -> None:
        """Fetches the next step's batches if that runs no code of the job, draws no random number, begins no epoch."""
        if self._is_plain and self._ahead is None and self._num_left:
            _, step_of_epoch = self._position(self._total_steps - self._num_left)
            if step_of_epoch > 0:
                self._ahead = self._load()

    def _load(self) -> StepBatch:
        fetched = [next(self._fetched)]
        while not fetched[-1][0].is_last:
            fetched.append(next(self._fetched))
        micro_batches, batches = [part for part, _ in fetched], [batch for _, batch in fetched]
        if self._side_stream is not None:
            with torch.cuda.stream(self._side_stream):
                batches = [to_device(batch, self._device) for batch in batches]
        self._num_left -= 1
        first = micro_batches[0]
        return StepBatch(first.global_step, first.indices.epoch, micro_batches, batches)
