"""What a job's model, loss, metrics, optimizer and schedule raise, found before anything is started."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import traceback
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from distrib.compat.messages import without_compute_warning
from distrib.errors import DistribError, JobError
from distrib.job.spec.targets import Target
from distrib.job.step_plan import StepPlan
from distrib.train.callbacks import build_callbacks
from distrib.train.checkpoint.plain_state import dump_state
from distrib.train.objective.task import build_metric
from distrib.train.optimization.lr_schedule import SchedulerState, check_length
from distrib.train.optimization.optimizer import build_optimizers
from distrib.train.resolved_job import ResolvedJob
from distrib.train.session.mentions import mentions, takes_session

Built = TypeVar("Built")

_NUMBER_START = re.compile(r"[-+]?\.?[0-9]")
_MAX_NAMES = 3


def check_parts(resolved: ResolvedJob, step_plan: StepPlan, *, may_allocate: bool) -> None:
    """Builds model, loss, metrics, optimizer and schedule on the meta device, where nothing is allocated.

    What fails there is tried again on the CPU, since some code does not work without values.

    Args:
        resolved: The job.
        step_plan: Its plan.
        may_allocate: Whether a model that cannot be built on the meta device is built on the CPU; otherwise it is not
            checked, and the ranks report what is wrong with it.

    Raises:
        JobError: One of them cannot be built, or cannot train.
    """
    build_callbacks(resolved)
    _check_metrics(resolved)
    try:
        model = _build_model(resolved, "meta")
    except JobError:
        if not may_allocate:
            return
        model = None
    if model is not None:
        with contextlib.suppress(_OnMetaOnlyError):
            _check_with(resolved, step_plan, model, "meta")
            return
    _check_with(resolved, step_plan, _build_model(resolved, "cpu"), "cpu")


class _OnMetaOnlyError(Exception):
    """Something failed on the meta device that may work with values."""


def _build_model(resolved: ResolvedJob, device: str) -> nn.Module:
    target = resolved.job.spec.model
    model = _built(resolved, "model", target, device, lambda: resolved.model(**target.args))
    if not isinstance(model, nn.Module):
        raise resolved.job.error("model", f"{target.target} gave a {type(model).__name__}, not a torch.nn.Module")
    return model


def _check_metrics(resolved: ResolvedJob) -> None:
    """Builds the metrics, on the CPU: they are small, and some compute with their arguments.

    One that lacks what only the ranks may have, such as a GPU, a file or a package, is left to them.
    """
    for name, factory in resolved.metrics.items():
        target = resolved.job.spec.metrics[name]
        build = functools.partial(build_metric, factory, target, name)
        try:
            _built(resolved, f"metrics.{name}", target, "cpu", build)
        except JobError as error:
            if not isinstance(error.__cause__, RuntimeError | OSError | ImportError):
                raise


def _check_with(resolved: ResolvedJob, step_plan: StepPlan, model: nn.Module, device: str) -> None:
    spec = resolved.job.spec
    _check_scalars(resolved)
    loss = None
    if spec.loss is not None and inspect.isclass(resolved.loss):
        args = spec.loss.args
        loss = _retried(resolved, "loss", spec.loss, device, lambda: resolved.loss(**args))  # type: ignore[misc]
    loss = loss if isinstance(loss, nn.Module) else None
    _check_trainable(resolved, model, loss)

    def make_optimizers() -> dict[str, torch.optim.Optimizer]:
        return build_optimizers(resolved, step_plan, model, loss)

    first = next(iter(spec.optimizer_specs.values()))
    field = "optimizer" if spec.optimizers is None else "optimizers"
    optimizers = _retried(resolved, field, first.target, device, make_optimizers)
    for name, each in spec.optimizer_specs.items():
        _check_closure(resolved, optimizers[name], each.field)
        if each.schedule is not None:
            _check_schedule(resolved, step_plan, name, device, make_optimizers)


def _check_schedule(
    resolved: ResolvedJob,
    step_plan: StepPlan,
    name: str,
    device: str,
    make_optimizers: Callable[[], dict[str, torch.optim.Optimizer]],
) -> None:
    spec = resolved.job.spec.optimizer_specs[name]
    assert spec.schedule is not None

    def build() -> str:
        return dump_state(SchedulerState(resolved, step_plan, make_optimizers()[name], name).state_dict())

    _retried(resolved, spec.schedule_field, spec.schedule, device, build)
    check_length(resolved, step_plan, lambda: make_optimizers()[name], name)


def _retried(
    resolved: ResolvedJob, field: str, target: Target, device: str, build: Callable[[], Built]
) -> Built:  # fmt: skip
    """What `build` gives; an error of torch's about the meta device says nothing about the job."""
    try:
        return _built(resolved, field, target, device, build)
    except JobError as error:
        if device == "meta" and not isinstance(error.__cause__, DistribError):
            raise _OnMetaOnlyError from error
        raise


def _built(resolved: ResolvedJob, field: str, target: Target, device: str, build: Callable[[], Built]) -> Built:
    try:
        with torch.random.fork_rng(devices=[]), torch.device(device), warnings.catch_warnings(action="ignore"):
            return build()
    except DistribError as error:
        raise resolved.job.error(field, str(error).removeprefix(f"{field}: ")) from error
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
        raise resolved.job.error(field, f"{target.target} could not be built: {reason}{_hint(target)}") from error


def _hint(target: Target) -> str:
    """Names arguments that are text but look like numbers, as a learning rate in quotes or with a typing error does."""
    for name, value in target.args.items():
        if not isinstance(value, str):
            continue
        is_number = False
        with contextlib.suppress(ValueError):
            float(value)
            is_number = True
        if is_number:
            return f"; args.{name} is the text {value!r}, not a number: remove the quotes"
        if _NUMBER_START.match(value):
            return f"; args.{name} is the text {value!r}: if it should be a number, write it as 0.001 or 1e-3"
    return ""


def _check_trainable(resolved: ResolvedJob, model: nn.Module, loss: nn.Module | None) -> None:
    """Refuses a model without parameters to train, or whose parameters have no shape yet."""
    named: dict[str, Any] = dict(model.named_parameters())
    parts = [("", model)] if loss is None else [("", model), ("loss.", loss)]
    tensors: list[tuple[str, Any]] = []
    for prefix, part in parts:
        tensors += [(prefix + name, each) for name, each in [*part.named_parameters(), *part.named_buffers()]]
    lazy = [name for name, each in tensors if torch.nn.parameter.is_lazy(each)]
    if lazy:
        more = f" and {len(lazy) - _MAX_NAMES} more" if len(lazy) > _MAX_NAMES else ""
        raise resolved.job.error(
            "loss" if lazy[0].startswith("loss.") and loss is not None else "model",
            f"{', '.join(lazy[:_MAX_NAMES])}{more}: lazy layers have no shape before a first forward pass, and so "
            "cannot be trained in parallel or saved; give the sizes (nn.Linear instead of nn.LazyLinear), or run a "
            "batch through the model in a factory that returns it",
        )
    others = [] if loss is None else list(loss.parameters())
    if not any(parameter.requires_grad for parameter in [*named.values(), *others]):
        what = "it has no parameters" if not named else f"all its {len(named)} parameters are frozen"
        raise resolved.job.error("model", f"there is nothing to train: {what} (requires_grad is false)")


def _check_closure(resolved: ResolvedJob, optimizer: torch.optim.Optimizer, field: str) -> None:
    """Refuses an optimizer that evaluates the loss several times a step."""
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    drives = resolved.step is not None and takes_session(resolved.step) and mentions(resolved.step, "minimize")
    if not drives and closure is not None and closure.default is inspect.Parameter.empty:
        name = type(optimizer).__name__
        raise resolved.job.error(
            field,
            f"{name} evaluates the loss several times a step: use a step(model, batch, session) that calls "
            "session.minimize(lambda: …) with a function of the loss, or another optimizer, such as torch.optim:AdamW",
        )


def _check_scalars(resolved: ResolvedJob) -> None:
    """Refuses a metric of several numbers where one is needed, as far as it shows before it has seen data."""
    spec = resolved.job.spec
    needed = {"checkpoint.best.metric": None if spec.checkpoint.best is None else spec.checkpoint.best.metric}
    for each in spec.optimizer_specs.values():
        needed[f"{each.schedule_field}.metric"] = None if each.schedule is None else each.schedule.metric
    for field, name in needed.items():
        factory = None if name is None else resolved.metrics.get(name)
        if name is None or factory is None:
            continue
        try:
            with without_compute_warning():
                value = factory(**spec.metrics[name].args).compute()
        except Exception:
            continue  # it has no value before it has seen data
        if isinstance(value, dict | list | tuple) or (isinstance(value, torch.Tensor) and value.numel() > 1):
            form = f"has the shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else "are several values"
            raise resolved.job.error(
                field, f"the value of metric {name} {form}, and a single number is needed; average it, or name another"
            )
