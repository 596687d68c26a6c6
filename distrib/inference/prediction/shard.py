"""The work of one predicting process: predicts a contiguous range of rows and writes a part file."""

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
from distrib.inference.predictor import PendingOutputs, Predictor, choose_device
from distrib.inference.signature import example_batch
from distrib.inference.trained_model import TrainedModel
from distrib.job.spec.targets import Target
from distrib.train.data.loader import Fetcher, LoaderFailedError, iterate
from distrib.train.data.sampler import EpochIndices, MicroBatch
from distrib.train.process.device import use_threads
from distrib.train.process.lifetime import temporary_files_removed
from distrib.train.process.tracebacks import user_frames, user_traceback


@dataclass(frozen=True)
class Shard:
    """The range of rows that one process predicts; picklable.

    Attributes:
        number: The index of the shard; also selects the GPU.
        rows: The rows to predict.
        part: The output file of this shard.
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
    """What a forked process inherits from its parent."""

    model: nn.Module | None = None
    dataset: Any = None


class RowError(InferenceError):
    """The dataset, the collate function or the model failed on a row."""


def predict_shard(shard: Shard, inherited: Inherited, report: Callable[[int], None]) -> Part:
    """Predicts the rows of a shard and writes them to its part file.

    Args:
        shard: The shard.
        inherited: The model and the dataset, if they are already built.
        report: Called after each batch with the number of rows done.

    Raises:
        RowError: A row failed; the message names its index and contains the user's traceback.
        InferenceError: The file format cannot represent the outputs.
    """
    use_threads(shard.num_threads)
    job = shard.trained.job
    shard.trained.add_import_paths()
    device = choose_device(shard.device, shard.number)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # The parent has already reported anything about the weights.
    model = shard.trained.build(notify=lambda _: None) if inherited.model is None else inherited.model
    dataset = build_dataset(job, shard.data) if inherited.dataset is None else inherited.dataset
    predictor = Predictor(model, device, job.spec.train.precision, shard.trained.predict())
    fetcher = Fetcher(dataset, bound_collate(job), job.spec.train.seed)
    writer = open_part(shard.part, shard.rows.start)
    with temporary_files_removed(job.spec.data.loader_workers):
        if not shard.rows:
            _write_nothing(predictor, shard.trained.signature, writer)
        for num_done in _answer(shard, predictor, fetcher, writer):
            report(num_done)
    return writer.close()


def _answer(shard: Shard, predictor: Predictor, fetcher: Fetcher, writer: PartWriter) -> Iterator[int]:
    """Predicts batch after batch; on CUDA a batch is computed while the previous one is written."""
    rows, size = shard.rows, shard.batch_size
    lists = [EpochIndices(list(rows[start : start + size]), 0) for start in range(0, len(rows), size)]
    pin = predictor.device.type == "cuda"
    parts = [MicroBatch(indices, len(indices)) for indices in lists]
    loader_workers = shard.trained.job.spec.data.loader_workers
    batches = (batch for _, batch in iterate(fetcher, parts, loader_workers, pin_memory=pin))
    previous: PendingOutputs | None = None
    num_done = 0
    for indices in lists:
        pending = _start(predictor, fetcher, indices, batches)
        if previous is not None:
            writer.write(previous.columns())
        previous = pending
        num_done += len(indices)
        yield num_done
    if previous is not None:
        writer.write(previous.columns())


def _start(predictor: Predictor, fetcher: Fetcher, indices: EpochIndices, batches: Iterator[Any]) -> PendingOutputs:
    def predict(rows: EpochIndices) -> None:
        predictor(fetcher.__getitems__(rows), len(rows))

    retry: Callable[[EpochIndices], Any] = fetcher.__getitems__
    try:
        batch = next(batches)
    except Exception as error:
        who, problem = "the dataset", error
    else:
        try:
            return predictor.start(batch, len(indices))
        except Exception as error:
            who, problem, retry = "the model", error, predict
    # Outside of the except block, so that it does not become the context of errors of single rows.
    raise _find_row(problem, who, indices, retry)


def _find_row(error: Exception, who: str, indices: EpochIndices, retry: Callable[[EpochIndices], Any]) -> Exception:
    """The error that names the first row at fault: one that fails alone, or together with the first row."""
    if isinstance(error, InferenceError) or is_broken_cuda(str(error)):
        return _row_error(error, who, f"rows {indices[0]} to {indices[-1]}")
    for others in ([], [indices[0]]):
        for index in indices:
            try:
                retry(EpochIndices([*others, index], indices.epoch))
            except Exception as again:
                beside = f" together with row {others[0]}" if others else ""
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
    return RowError(f"{where}: {who} fails on it: {name}: {message}\n{shown}".rstrip())


def _write_nothing(predictor: Predictor, signature: Any, writer: PartWriter) -> None:
    """Gives a file without rows the columns and types that a synthetic row produces, if the model accepts one."""
    try:
        columns = predictor(example_batch(signature, 1), 1)
    except Exception:  # a synthetic row may be invalid for the model
        return
    writer.write({name: column[:0] for name, column in columns.items()})
