"""The learning-rate schedule: built from the spec, rebuilt when a run is extended, tried over its whole length."""

from __future__ import annotations

import copy
import inspect
import types
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from distrib.errors import DistribError
from distrib.job.spec.training import DEFAULT_OPTIMIZER, LearningRateSchedule
from distrib.job.step_plan import StepPlan, with_steps
from distrib.train.checkpoint.plain_state import FromJob
from distrib.train.optimization.group_values import (
    depends_on_length,
    group_values,
    is_same,
    replace_planned,
    without_parameters,
)
from distrib.train.resolved_job import ResolvedJob

_MAX_TRIED_STEPS = 100_000


class ScheduleError(DistribError):
    """A schedule cannot be used for the job, or not over its whole length."""


class SchedulerState:
    """The learning-rate schedule, advanced after each step, epoch or evaluation as the spec says.

    Its state has the arguments with which it was built. If a run is extended, and they depend on its length or were
    changed, the schedule is built anew and advanced to where the run is.

    Attributes:
        warnings: What the user should know of the schedule of an extended run.
    """

    def __init__(
        self,
        resolved: ResolvedJob,
        step_plan: StepPlan,
        optimizer: torch.optim.Optimizer,
        name: str = DEFAULT_OPTIMIZER,
    ) -> None:
        spec = resolved.job.spec.optimizer_specs[name]
        self.warnings: list[str] = []
        self._spec = spec.schedule
        self._field = spec.schedule_field
        self._optimizer_field = spec.field
        self._args: dict[str, Any] = {}
        self._depends_on_length = depends_on_length(spec.target)
        self._step_plan = step_plan
        self._optimizer = optimizer
        self._num_advances = 0
        self._first_groups = group_values(optimizer)
        self._build: Callable[[], Any] | None = None
        self._scheduler: Any = None
        factory = resolved.schedules[name]
        if self._spec is not None and factory is not None:
            args = self._args = dict(with_steps(self._spec, step_plan).args)
            self._build = lambda: factory(optimizer, **args)
            self._scheduler = self._build()
            _check_interface(self._scheduler, self._spec, spec.schedule_field)

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's state, and for which arguments and length; empty if nothing depends on these."""
        state: dict[str, Any] = {}
        if self._scheduler is not None:
            state = {
                "scheduler": _without_code(self._scheduler.state_dict()),
                "args": self._args,
                "num_advances": self._num_advances,
            }
        if self._depends_on_length:
            state["first_groups"] = self._first_groups
        return state and {**state, "total_steps": self._step_plan.total_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned; call it after the optimizer is restored."""
        is_extended = bool(state) and state["total_steps"] != self._step_plan.total_steps
        if is_extended and self._depends_on_length:
            replace_planned(self._optimizer, state["first_groups"], self._first_groups, self._optimizer_field)
        if self._scheduler is None or not state:
            return
        if state.get("args", self._args) != self._args:
            self._rebuild(state["num_advances"])
            return
        self._num_advances = state["num_advances"]
        self._scheduler.load_state_dict(_with_code(state["scheduler"], self._scheduler.state_dict()))
        if is_extended:
            self.warnings += self._outdated_numbers(state["total_steps"])

    def _outdated_numbers(self, total_steps: int) -> list[str]:
        """Reports an argument that is the length of the run before it was extended."""
        assert self._spec is not None
        if self._spec.every == "eval":
            return []
        length = total_steps if self._spec.every == "step" else self._step_plan.position(total_steps)[0]
        return [
            f"{self._field}: {name} is {length}, the length of the run before it was extended, and stays so; if the "
            f"schedule is to end with the run, use $steps, or set {self._field}.args.{name} where you extend"
            for name, value in self._args.items()
            if type(value) is int and value == length == self._spec.args[name]
        ]

    def _rebuild(self, num_advances: int) -> None:
        """Builds the schedule anew, from the optimizer's first values on, and advances it.

        Values that it does not set, such as an optimizer's own counters, stay as they are.
        """
        assert self._build is not None
        groups = self._optimizer.param_groups
        before = [without_parameters(group) for group in groups]
        for group, first in zip(groups, self._first_groups, strict=True):
            for name in without_parameters(group):
                del group[name]
            group.update(copy.deepcopy(first))
        self._scheduler = self._build()
        set_by_schedule = self._changed_values()
        with warnings.catch_warnings(action="ignore"):  # of steps of a scheduler without steps of the optimizer
            for _ in range(num_advances):
                self._advance()
                set_by_schedule |= self._changed_values()
        for group, values in zip(groups, before, strict=True):
            group.update({name: value for name, value in values.items() if name not in set_by_schedule})

    def _changed_values(self) -> set[str]:
        """The names of the groups' values that are not those with which the optimizer was built."""
        return {"lr"} | {
            name
            for group, first in zip(self._optimizer.param_groups, self._first_groups, strict=True)
            for name, value in without_parameters(group).items()
            if name not in first or not is_same(value, first[name])
        }

    def _advance(self, *metric: Any) -> None:
        self._num_advances += 1
        self._scheduler.step(*metric)

    def after_step(self, completed_steps: int) -> None:
        """Advances a schedule by steps and, at the end of an epoch, one by epochs."""
        every = None if self._spec is None else self._spec.every
        if every == "step" or (every == "epoch" and self._step_plan.is_end_of_epoch(completed_steps)):
            self._advance()

    def after_evaluation(self, results: dict[str, Any]) -> None:
        """Advances a schedule by evaluations, with its metric."""
        if self._spec is not None and self._spec.every == "eval" and self._spec.metric is not None:
            self._advance(*[results[self._spec.metric]][: _needs_metric(self._scheduler)])


class Schedules:
    """The learning-rate schedules of all optimizers.

    Args:
        resolved: The job.
        step_plan: Its plan.
        optimizers: By name, before they are restored: to build a schedule changes learning rates.
    """

    def __init__(
        self, resolved: ResolvedJob, step_plan: StepPlan, optimizers: Mapping[str, torch.optim.Optimizer]
    ) -> None:
        self._has_names = resolved.job.spec.optimizers is not None
        self._optimizers = optimizers
        self._states = {
            name: SchedulerState(resolved, step_plan, optimizer, name) for name, optimizer in optimizers.items()
        }

    @property
    def learning_rates(self) -> float | dict[str, float]:
        """The learning rate, or those of all optimizers by name if the job names them."""
        rates = {name: float(optimizer.param_groups[0]["lr"]) for name, optimizer in self._optimizers.items()}
        return rates if self._has_names else next(iter(rates.values()))

    @property
    def warnings(self) -> list[str]:
        """What the user should know of the schedules of an extended run."""
        return [message for state in self._states.values() for message in state.warnings]

    def state_dict(self) -> dict[str, Any]:
        """The state of each schedule."""
        return {name: state.state_dict() for name, state in self._states.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned; call it after the optimizers are restored."""
        for name, each in self._states.items():
            each.load_state_dict(state[name])

    def after_step(self, completed_steps: int) -> None:
        """Advances the schedules by steps and, at the end of an epoch, those by epochs."""
        for state in self._states.values():
            state.after_step(completed_steps)

    def after_evaluation(self, results: dict[str, Any]) -> None:
        """Advances the schedules by evaluations."""
        for state in self._states.values():
            state.after_evaluation(results)


def _without_code(state: Any) -> Any:
    """A scheduler's state without functions and classes, such as those by which it anneals."""
    if type(state) is dict:  # others keep their types, or are refused
        return {key: _without_code(value) for key, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(map(_without_code, state))
    is_code = isinstance(state, type | types.FunctionType | types.BuiltinFunctionType | types.MethodType)
    return FromJob(getattr(state, "__qualname__", "")) if is_code else state


def _with_code(state: Any, built: Any) -> Any:
    """A saved state with the functions and classes of the scheduler that was built anew."""
    if isinstance(state, FromJob):
        return built
    if isinstance(state, dict):
        of = built if isinstance(built, dict) else {}
        return {key: _with_code(value, of.get(key)) for key, value in state.items()}
    if type(state) in (list, tuple):
        others = built if type(built) is type(state) and len(built) == len(state) else [None] * len(state)
        return type(state)(_with_code(value, other) for value, other in zip(state, others, strict=True))
    return state


def check_extension(resolved: ResolvedJob) -> None:
    """Refuses to extend a run whose schedule cannot be rebuilt for another length.

    Raises:
        JobError: It cannot.
    """
    for each in resolved.job.spec.optimizer_specs.values():
        spec = each.schedule
        if spec is not None and spec.every == "eval" and depends_on_length(spec):
            raise resolved.job.error(
                each.schedule_field,
                f"{spec.target} depends on $steps and on what evaluations gave, so it cannot be rebuilt for a longer "
                "run; name a number instead of $steps",
            )


def check_length(
    resolved: ResolvedJob, step_plan: StepPlan, make_optimizer: Callable[[], torch.optim.Optimizer], name: str
) -> None:
    """Refuses a schedule that ends before the run does, as one with a fixed number of steps may.

    Args:
        resolved: The job.
        step_plan: Its plan.
        make_optimizer: Builds the optimizer anew.
        name: The optimizer's name.

    Raises:
        JobError: It raises before the last step.
    """
    field, spec = (each := resolved.job.spec.optimizer_specs[name]).schedule_field, each.schedule
    if spec is None or spec.every == "eval":
        return
    length = step_plan.total_steps if spec.every == "step" else step_plan.position(step_plan.total_steps)[0]

    def build() -> Any:
        return SchedulerState(resolved, step_plan, make_optimizer(), name)._scheduler

    with warnings.catch_warnings(action="ignore"):
        error = _error_at_the_end(build(), length)
        if error is None or length > _MAX_TRIED_STEPS:
            return
        scheduler = build()  # the jump to the end may be what failed
        for number in range(length):
            try:
                scheduler.step()
            except Exception as error:
                raise resolved.job.error(
                    field,
                    f"{spec.target} fails at its step {number + 1} of {length}: {type(error).__name__}: {error}; "
                    "make it as long as the run, with $steps in its args",
                ) from error


def _error_at_the_end(scheduler: Any, length: int) -> Exception | None:
    """What the last of its steps raises, to which it is moved at once."""
    try:
        scheduler.last_epoch = length - 1
        scheduler.step()
    except Exception as error:
        return error
    return None


def _check_interface(scheduler: Any, spec: LearningRateSchedule, field: str) -> None:
    for method in ("step", "state_dict", "load_state_dict"):
        if not callable(getattr(scheduler, method, None)):
            raise ScheduleError(
                f"{field}: {spec.target} gave a {type(scheduler).__name__}, which has no {method}(); a "
                "scheduler as those in torch.optim.lr_scheduler is needed"
            )
    if spec.every != "eval" and _needs_metric(scheduler):
        raise ScheduleError(
            f"{field}: {spec.target} needs the value of a metric; set every: eval and metric: the name of a metric, "
            "or loss"
        )


def _needs_metric(scheduler: Any) -> bool:
    """Whether a scheduler's step needs a metric."""
    parameters = list(inspect.signature(scheduler.step).parameters.values())
    return bool(parameters) and parameters[0].default is inspect.Parameter.empty
