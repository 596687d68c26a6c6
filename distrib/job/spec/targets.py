"""Classes and functions that a job spec names, with their arguments."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, StringConstraints, model_validator

from distrib.job.rules import contradiction
from distrib.job.spec.patterns import ORDER_PATTERN, TARGET_PATTERN, TRACKER_PATTERN
from distrib.job.spec.section import Resume, Section


def full_target(value: object) -> object:
    """A bare string as a target without args."""
    return {"target": value} if isinstance(value, str) else value


TargetText = Annotated[str, StringConstraints(pattern=TARGET_PATTERN)]


class Target(Section):
    """A class or function of a Python module, and the arguments to call it with."""

    target: Annotated[TargetText, Resume.MUST_MATCH]
    """`module:attribute`, as in `torch.nn:CrossEntropyLoss`."""
    args: Annotated[dict[str, Any], Resume.MUST_MATCH] = {}
    """Keyword arguments. In those of optimizers and schedules, the plan's numbers replace `$steps` and
    `$steps_per_epoch`."""


TrackerText = Annotated[str, StringConstraints(pattern=TRACKER_PATTERN)]


class TrackerTarget(Target):
    """An experiment tracker."""

    target: Annotated[TrackerText, Resume.MAY_DIFFER]
    """`tensorboard`, `mlflow`, `wandb` or `trackio`, or `module:attribute` of an own tracker."""
    args: Annotated[dict[str, Any], Resume.MAY_DIFFER] = {}
    """Keyword arguments."""


AnyTracker = Annotated[TrackerTarget, BeforeValidator(full_target, json_schema_input_type=TrackerText | TrackerTarget)]
"""A tracker, or a bare string if it needs no args."""


OrderText = Annotated[str, StringConstraints(pattern=ORDER_PATTERN)]


class OrderTarget(Target):
    """The order of samples."""

    target: Annotated[OrderText, Resume.MUST_MATCH]
    """`shuffle`, `sequential`, or `module:attribute` of an own order."""
    args: Annotated[dict[str, Any], Resume.MUST_MATCH] = {}
    """Keyword arguments of an own order."""

    @property
    def is_own(self) -> bool:
        """Whether it is code of the job, neither `shuffle` nor `sequential`."""
        return ":" in self.target

    @model_validator(mode="after")
    def _only_own_orders_have_args(self) -> Self:
        if self.args and not self.is_own:
            raise contradiction(("args", f"{self.target} has no args; remove them"))
        return self


AnyOrder = Annotated[OrderTarget, BeforeValidator(full_target, json_schema_input_type=OrderText | OrderTarget)]
"""An order, or a bare string if it needs no args."""


AnyTarget = Annotated[Target, BeforeValidator(full_target, json_schema_input_type=TargetText | Target)]
"""A target, or a bare string if it needs no args."""


class Model(Target):
    """The model, and optionally its initial weights."""

    weights: Annotated[str | None, Resume.MUST_MATCH] = None
    """A .safetensors file with initial weights: a path relative to the working directory or the spec's folder, or a
    URL. By default the model initializes itself."""
