"""One batch forward and backward on one rank, in this process: what a job does before it is started."""

from __future__ import annotations

import resource
import shlex
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from distrib.errors import DistribError
from distrib.job.step_plan import StepPlan
from distrib.train.data.batches import to_device
from distrib.train.data.loader import Fetcher
from distrib.train.data.sampler import GlobalBatchSampler
from distrib.train.data.shapes import shapes_of
from distrib.train.objective.task import Task
from distrib.train.optimization.lr_schedule import Schedules
from distrib.train.optimization.optimizer import build_optimizers
from distrib.train.optimization.precision import Precision
from distrib.train.resolved_job import Datasets, ResolvedJob

_KIB = 1024


@dataclass(frozen=True)
class Trial:
    """What one step of rank 0 did.

    Attributes:
        batch: Shapes and types of the batch.
        outputs: Those of the model's outputs, if the job has any.
        loss: The loss; NaN and infinities are as they came.
        unused_parameters: Parameters that got no gradient.
        seconds: How long the step took, without loading the batch.
        peak_memory_bytes: The most memory in use: of the GPU, or of this process.
        device: Where it ran.
    """

    batch: str
    outputs: str | None
    loss: float
    unused_parameters: tuple[str, ...]
    seconds: float
    peak_memory_bytes: int
    device: str


def try_step(resolved: ResolvedJob, datasets: Datasets, step_plan: StepPlan, device_type: str) -> Trial:
    """Runs one micro-batch of rank 0 through model, loss, backward pass, optimizer and schedule.

    Args:
        resolved: The job.
        datasets: Its datasets.
        step_plan: Its plan, whose number of ranks decides the size of the batch.
        device_type: `cpu` or `cuda`.

    Raises:
        JobError: Something of the job failed; the message has the line.
    """
    device = torch.device(device_type)
    spec = resolved.job.spec
    with _blamed_on(resolved, "data.train"):
        batch = to_device(_first_batch(resolved, datasets, step_plan), device)
    with _blamed_on(resolved, "model"):
        task = Task(resolved, device)
    with _blamed_on(resolved, "optimizer"):
        optimizers = build_optimizers(resolved, step_plan, task.model, task.loss_module)
    if task.takes_session:
        one_step = "--set train.steps=1" if spec.train.epochs is None else "--set train.epochs=null --set train.steps=1"
        command = f"distrib run {shlex.quote(resolved.job.shown_path)} {one_step}"
        raise resolved.job.error("step", f"a step with a session can only be tried by a run: {command}")
    schedules = Schedules(resolved, step_plan, optimizers)
    precision = Precision(spec.train.precision, device)
    started = time.perf_counter()
    with _blamed_on(resolved, "loss" if spec.step is None else "step"):
        with precision.autocast():
            output = task.run(task.model, batch)
        output.loss.backward()  # type: ignore[no-untyped-call]
    unused = _without_gradient(task)
    with _blamed_on(resolved, "optimizer"):
        for optimizer in optimizers.values():
            optimizer.step()
    with _blamed_on(resolved, "schedule"):
        schedules.after_step(1)
    loss = float(output.loss.detach())  # waits for the device
    return Trial(
        batch=shapes_of(batch),
        outputs=None if output.outputs is None else shapes_of(output.outputs),
        loss=loss,
        unused_parameters=unused,
        seconds=time.perf_counter() - started,
        peak_memory_bytes=_peak_memory(device),
        device=str(device),
    )


def _first_batch(resolved: ResolvedJob, datasets: Datasets, step_plan: StepPlan) -> Any:
    spec = resolved.job.spec
    sampler = GlobalBatchSampler(
        datasets.train,
        datasets.order,
        num_replicas=step_plan.world_size,
        rank=0,
        accumulate=spec.train.accumulate,
    )
    fetcher = Fetcher(datasets.train, resolved.bound_collate(), spec.train.seed)
    return fetcher.__getitems__(sampler.micro_batches(0, 0)[0].indices)


def _without_gradient(task: Task) -> tuple[str, ...]:
    modules: list[tuple[str, nn.Module]] = [("", task.model)]
    if task.loss_module is not None:
        modules.append(("loss.", task.loss_module))
    return tuple(
        prefix + name
        for prefix, module in modules
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    )


@contextmanager
def _blamed_on(resolved: ResolvedJob, field: str) -> Iterator[None]:
    """Turns any exception into an error about a field, with the line that raised it."""
    try:
        yield
    except DistribError as error:
        raise resolved.job.error(field, str(error).removeprefix(f"{field}: ")) from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "site-packages" not in frame.filename and frame.filename != __file__]
        where = (own or frames)[-1]
        message = f"one batch failed: {type(error).__name__}: {error} ({where.filename}:{where.lineno})"
        raise resolved.job.error(field, message) from error


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * _KIB
