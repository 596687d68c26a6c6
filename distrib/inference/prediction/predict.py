"""Predicts every row of a dataset with several local processes and writes one output row for each, in order."""

from __future__ import annotations

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
from distrib.runs.files.atomic import move_into_place


@dataclass(frozen=True)
class Prediction:
    """The result of a prediction.

    Attributes:
        out: The output file.
        num_rows: The number of rows.
        num_workers: The number of processes.
        seconds: The duration, excluding start-up.
    """

    out: Path
    num_rows: int
    num_workers: int
    seconds: float

    @property
    def samples_per_second(self) -> float | None:
        """Rows predicted per second; None if there are no rows."""
        return self.num_rows / self.seconds if self.num_rows else None


@dataclass(frozen=True)
class PredictOptions:
    """Options of a prediction.

    Attributes:
        num_workers: The number of processes; each predicts a contiguous range of rows.
        device: `auto`, `cpu` or `cuda`; on CUDA, processes are assigned to GPUs round-robin.
        batch_size: Rows of a forward pass; by default the job's evaluation or training batch size.
        overwrites: Whether to replace an existing file.
    """

    num_workers: int = 1
    device: str = "auto"
    batch_size: int | None = None
    overwrites: bool = False


def check_out(out: Path, overwrites: bool) -> None:
    """Checks that the output file can be written.

    Raises:
        JobError: Its format is unknown, it exists, or its folder does not.
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
    """Predicts every row of a dataset.

    Args:
        trained: The model.
        data: The dataset's target.
        args: Its arguments as YAML.
        out: The output file, written atomically.
        options: How to predict.
        progress: Called regularly with (rows done, total rows).

    Raises:
        JobError: The output file, the dataset or the model is wrong.
        InferenceError: The dataset, the model or the file format fails on a row; the message names the row.
    """
    check_out(out, options.overwrites)
    target = read_target(data, args)
    with torch_ready_to_fork() as fork_check, folder_beside(out) as folder:
        from distrib.compat.pytorch import dynamo
        from distrib.inference.prediction.processes import predict_in_processes
        from distrib.inference.prediction.shard import Inherited, Shard
        from distrib.inference.predictor import choose_device
        from distrib.launch.process.fork_safety import build_to_inherit

        dynamo.install()
        choose_device(options.device)
        model = trained.build()
        trained.predict()
        spec = trained.job.spec
        dataset, can_be_inherited = build_to_inherit(lambda: build_dataset(trained.job, target))
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
        parts = predict_in_processes(shards, inherited, fork_check.can_fork, lambda done: progress(done, num_rows))
        seconds = time.perf_counter() - started
        _finish(parts, folder / f"whole{out.suffix}", out, options.overwrites)
    return Prediction(out, num_rows, len(shards), seconds)


def split_rows(num_rows: int, num_workers: int) -> list[range]:
    """Rows ⌊r·n/W⌋ … ⌊(r+1)·n/W⌋ for worker r of W; at least one worker, and no more workers than rows."""
    num_workers = max(1, min(num_workers, num_rows))
    bounds = [number * num_rows // num_workers for number in range(num_workers + 1)]
    return [range(first, stop) for first, stop in pairwise(bounds)]


def _finish(parts: Sequence[Part], whole: Path, out: Path, overwrites: bool) -> None:
    """Joins the parts and renames the file to its final name."""
    join_parts(parts, whole)
    if out.exists() and not overwrites:
        raise JobError(f"{out} was created in the meantime; `force` overwrites it", field="`out`")
    move_into_place(whole, out)


def describe(prediction: Prediction) -> dict[str, Any]:
    """A prediction as printed by `distrib predict --json`."""
    return {
        "out": str(prediction.out),
        "rows": prediction.num_rows,
        "workers": prediction.num_workers,
        "seconds": prediction.seconds,
        "samples_per_second": prediction.samples_per_second,
    }
