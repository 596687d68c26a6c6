"""Batch inference: the rows of a dataset to a file, one output row for each, in order, over local processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from distrib.errors import JobError
from distrib.inference.new_file import check_new_file, folder_beside
from distrib.inference.prediction.dataset import build_dataset, read_target
from distrib.inference.prediction.writers import Part, check_format, join_parts
from distrib.inference.trained_model import TrainedModel
from distrib.launch.process.fork_safety import torch_ready_to_fork


@dataclass(frozen=True)
class Prediction:
    """What was predicted.

    Attributes:
        out: The file.
        num_rows: Its rows.
        num_workers: How many processes answered them.
        seconds: How long that took, start-up apart.
    """

    out: Path
    num_rows: int
    num_workers: int
    seconds: float

    @property
    def samples_per_second(self) -> float | None:
        """Rows answered a second; None where there were none."""
        return self.num_rows / self.seconds if self.num_rows else None


@dataclass(frozen=True)
class PredictOptions:
    """How to predict.

    Attributes:
        num_workers: Processes, each with its own part of the rows.
        device: `auto`, `cpu` or `cuda`; on CUDA the processes take the GPUs in turn.
        batch_size: Rows of a forward pass; None for what the job evaluates or trains with.
        overwrites: Whether a file that exists is replaced.
    """

    num_workers: int = 1
    device: str = "auto"
    batch_size: int | None = None
    overwrites: bool = False


def check_out(out: Path, overwrites: bool) -> None:
    """Refuses a file that cannot or must not be written.

    Raises:
        JobError: saying why.
    """
    check_format(out)
    check_new_file(out, overwrites)


def predict(
    trained: TrainedModel,
    data: str,
    args: str | None,
    out: Path,
    options: PredictOptions,
    progress: Callable[[int, int], None],
) -> Prediction:
    """Answers every row of a dataset.

    Args:
        trained: The model.
        data: The dataset's target.
        args: Its arguments as YAML.
        out: The file; it appears whole or not at all.
        options: How.
        progress: Told now and then (rows done, rows in all).

    Raises:
        JobError: The file, the dataset or the model is not as it must be.
        InferenceError: The dataset, the model or the format refuses a row; the message names it.
    """
    check_out(out, options.overwrites)
    target = read_target(data, args)
    with torch_ready_to_fork() as can_fork, folder_beside(out) as folder:
        from distrib.compat import torch_dynamo
        from distrib.inference.prediction.processes import answer_in_processes
        from distrib.inference.prediction.shard import Inherited, Shard
        from distrib.inference.predictor import choose_device
        from distrib.launch.process.fork_safety import build_to_inherit

        torch_dynamo.install()
        choose_device(options.device)
        model = trained.build()
        trained.predict()
        spec = trained.job.spec
        dataset, can_be_inherited = build_to_inherit(lambda: build_dataset(trained.job, target), spec.train.seed)
        num_rows = len(dataset)
        shards = [
            Shard(
                number=number,
                rows=rows,
                part=folder / f"part-{number}{out.suffix}",
                trained=trained,
                data=target,
                batch_size=options.batch_size or spec.data.eval_batch_size or spec.data.batch_size,
                num_threads=spec.resources.cpus_per_worker,
                device=options.device,
            )
            for number, rows in enumerate(split_rows(num_rows, options.num_workers))
        ]
        started = time.perf_counter()
        inherited = Inherited(model, dataset if can_be_inherited else None)
        parts = answer_in_processes(shards, inherited, can_fork, lambda done: progress(done, num_rows))
        seconds = time.perf_counter() - started
        _finish(parts, folder / f"whole{out.suffix}", out, options.overwrites)
    return Prediction(out, num_rows, len(shards), seconds)


def split_rows(num_rows: int, num_workers: int) -> list[range]:
    """Rows ⌊r·n/W⌋ … ⌊(r+1)·n/W⌋ for worker r of W, at most as many workers as rows but one at least."""
    num_workers = max(1, min(num_workers, num_rows))
    bounds = [number * num_rows // num_workers for number in range(num_workers + 1)]
    return [range(first, stop) for first, stop in pairwise(bounds)]


def _finish(parts: Sequence[Part], whole: Path, out: Path, overwrites: bool) -> None:
    """Joins the parts and gives the file its name."""
    join_parts(parts, whole)
    with whole.open("rb") as file:
        os.fsync(file.fileno())
    if out.exists() and not overwrites:
        raise JobError(f"{out} has appeared meanwhile; --force overwrites it", field="--out")
    whole.replace(out)


def describe(prediction: Prediction) -> dict[str, Any]:
    """A prediction as `distrib predict --json` prints it."""
    return {
        "out": str(prediction.out),
        "rows": prediction.num_rows,
        "workers": prediction.num_workers,
        "seconds": prediction.seconds,
        "samples_per_second": prediction.samples_per_second,
    }
