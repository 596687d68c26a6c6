"""`model.weights`: the file of weights that a run begins with."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from distrib.job.reader import Job
from distrib.runs.storage.errors import StorageError
from distrib.runs.storage.location import is_relative, problem_of
from distrib.runs.storage.open import local_copy
from distrib.train.checkpoint.weights import WeightsError, load_weights, misfits
from distrib.train.resolved_job import ResolvedJob

_FIELD = "model.weights"


def check_weights(blueprint: ResolvedJob, working_directory: Path) -> None:
    """Checks that `model.weights` fits the model, which is built without memory for its values if possible.

    Raises:
        JobError: The file is missing or contains no weights, or names or shapes differ; the message lists them.
    """
    job = blueprint.job
    if job.spec.model.weights is None:
        return
    try:
        with _local_file(job, working_directory) as file:
            model = _built_for_a_look(blueprint)
            problem = None if model is None else misfits(model, file)
    except (WeightsError, StorageError) as error:
        raise job.error(_FIELD, str(error)) from None
    if problem is not None:
        raise job.error(_FIELD, f"{job.spec.model.weights} does not fit the model: {problem}")


def load_first_weights(job: Job, working_directory: Path, model: nn.Module) -> None:
    """Gives the unwrapped `model` the weights that the job names, if it names any.

    Raises:
        WeightsError: They do not fit, or no longer exist.
    """
    if job.spec.model.weights is not None:
        with _local_file(job, working_directory) as file:
            load_weights(model, file)


@contextmanager
def _local_file(job: Job, working_directory: Path) -> Iterator[Path]:
    """The file itself, or a temporary copy of what a URL names."""
    named = job.spec.model.weights
    assert named is not None
    if (problem := problem_of(named)) is not None:
        raise WeightsError(problem)
    folders = list(dict.fromkeys([working_directory.absolute(), job.folder]))
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(local_copy(named, folders))
        except FileNotFoundError:
            where = f" in {' or '.join(map(str, folders))}" if is_relative(named) else ""
            raise WeightsError(f"there is no file {named}{where}; give the path of a .safetensors file") from None
        yield file


def _built_for_a_look(blueprint: ResolvedJob) -> nn.Module | None:
    """The model on the meta device, or on the CPU if that fails; None if building it fails there too."""
    for device in ("meta", "cpu"):
        try:
            with torch.random.fork_rng(devices=[]), torch.device(device), warnings.catch_warnings(action="ignore"):
                model = blueprint.model(**blueprint.job.spec.model.args)
        except Exception:
            continue
        if isinstance(model, nn.Module):
            return model
    return None
