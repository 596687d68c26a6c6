"""What one predicting process does: answers a contiguous range of the rows and writes them to a part file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distrib.compat.messages import is_broken_cuda
from distrib.errors import InferenceError
from distrib.inference.prediction.dataset import bound_collate, build_dataset
from distrib.inference.prediction.writers import Part, PartWriter, open_part
from distrib.inference.predictor import Pending, Predictor, choose_device
from distrib.inference.signature import example_batch
from distrib.inference.trained_model import TrainedModel
from distrib.job.spec import Target
from distrib.train.data.loader import Fetcher, LoaderFailedError, iterate
from distrib.train.data.sampler import EpochIndices, MicroBatch
from distrib.train.device import use_threads
from distrib.train.process import temporary_files_removed
from distrib.train.tracebacks import user_frames, user_traceback


@dataclass(frozen=True)
class Shard:
    """The work of one process; picklable.

    Attributes:
        number: Which of the shards this is, from 0; also which GPU it uses.
        rows: The rows that it answers.
        part: The file for its answers.
        trained: The model.
        data: The dataset.
        batch_size: Rows of each forward pass.
        num_threads: Torch threads.
        device: `auto`, `cpu` or `cuda`.
    """

    number: int
    rows: range
    part: Path
    trained: TrainedModel
    data: Target
    batch_size: int
    num_threads: int
    device: str


@dataclass(frozen=True)
class Inherited:
    """What a forked process has from its parent."""

    model: nn.Module | None = None
    dataset: Any = None


class RowError(InferenceError):
    """A row that the dataset, the collate function or the model refuses."""


def answer_shard(shard: Shard, inherited: Inherited, report: Callable[[int], None]) -> Part:
    """Answers the rows of a shard and writes them.

    Args:
        shard: The work.
        inherited: The model and the dataset, as far as they are built.
        report: Told after each batch how many rows are done.

    Raises:
        RowError: A row is refused; the message names its index and has the user's traceback.
        InferenceError: The format cannot hold the outputs.
    """
    use_threads(shard.num_threads)
    job = shard.trained.job
    shard.trained.add_import_paths()
    device = choose_device(shard.device, shard.number)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # What there is to tell of the weights, the parent has told.
    model = shard.trained.build(tell=lambda _: None) if inherited.model is None else inherited.model
    dataset = build_dataset(job, shard.data) if inherited.dataset is None else inherited.dataset
    forward = Predictor(model, device, job.spec.train.precision, shard.trained.predict())
    fetcher = Fetcher(dataset, bound_collate(job), job.spec.train.seed)
    writer = open_part(shard.part, shard.rows.start)
    with temporary_files_removed(job.spec.data.loader_workers):
        if not shard.rows:
            _write_nothing(forward, shard.trained.signature, writer)
        for num_done in _answer(shard, forward, fetcher, writer):
            report(num_done)
    return writer.close()


def _answer(shard: Shard, forward: Predictor, fetcher: Fetcher, writer: PartWriter) -> Iterator[int]:
    """Answers batch after batch; on CUDA one is under way while the one before is written."""
    rows, size = shard.rows, shard.batch_size
    lists = [EpochIndices(list(rows[start : start + size]), 0) for start in range(0, len(rows), size)]
    pin = forward.device.type == "cuda"
    parts = [MicroBatch(indices, len(indices)) for indices in lists]
    loader_workers = shard.trained.job.spec.data.loader_workers
    batches = (batch for _, batch in iterate(fetcher, parts, loader_workers, pin_memory=pin))
    before: Pending | None = None
    num_done = 0
    for indices in lists:
        pending = _start(forward, fetcher, indices, batches)
        if before is not None:
            writer.write(before.columns())
        before = pending
        num_done += len(indices)
        yield num_done
    if before is not None:
        writer.write(before.columns())


def _start(forward: Predictor, fetcher: Fetcher, indices: EpochIndices, batches: Iterator[Any]) -> Pending:
    def answer(rows: EpochIndices) -> None:
        forward(fetcher.__getitems__(rows), len(rows))

    retry: Callable[[EpochIndices], Any] = fetcher.__getitems__
    try:
        batch = next(batches)
    except Exception as error:
        who, problem = "the dataset", error
    else:
        try:
            return forward.start(batch, len(indices))
        except Exception as error:
            who, problem, retry = "the model", error, answer
    # Not while the error is handled: it would become the context of whatever a single row raises.
    raise _refusal(problem, who, indices, retry)


def _refusal(error: Exception, who: str, indices: EpochIndices, retry: Callable[[EpochIndices], Any]) -> Exception:
    """The error that names the first row at fault: one refused alone, or else one refused beside the batch's first."""
    if isinstance(error, InferenceError) or is_broken_cuda(str(error)):
        return _row_error(error, who, f"rows {indices[0]} to {indices[-1]}")
    for others in ([], [indices[0]]):
        for index in indices:
            try:
                retry(EpochIndices([*others, index], indices.epoch))
            except Exception as again:
                beside = f" beside row {others[0]}" if others else ""
                return _row_error(again, who, f"row {index}{beside}")
    return _row_error(error, who, f"rows {indices[0]} to {indices[-1]} together")


def _row_error(error: Exception, who: str, where: str) -> Exception:
    if isinstance(error, InferenceError):
        return RowError(f"{where}: {error}")
    name, message, shown = type(error).__name__, str(error), ""
    if isinstance(error, LoaderFailedError):
        name, message, shown = error.type, error.message, error.traceback
    elif user_frames(error) is not None:
        shown = user_traceback(error)
    return RowError(f"{where}: {who} refuses it: {name}: {message}\n{shown}".rstrip())


def _write_nothing(forward: Predictor, signature: Any, writer: PartWriter) -> None:
    """Gives a file without rows the shape and types it would have, where an invented row tells them."""
    try:
        columns = forward(example_batch(signature, 1), 1)
    except Exception:  # whatever the model says of an invented row, no row of the user's is at fault
        return
    writer.write({name: column[:0] for name, column in columns.items()})
