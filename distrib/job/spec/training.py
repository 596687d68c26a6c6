"""The sections on data, optimization and the length of the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from distrib.job.rules import contradiction, length_contradictions
from distrib.job.spec.patterns import DURATION_PATTERN, METRIC_PATTERN, STEP_INTERVAL_PATTERN
from distrib.job.spec.section import Resume, Section, exactly_one
from distrib.job.spec.targets import AnyOrder, AnyTarget, OrderTarget, Target, TargetText, full_target


class Data(Section):
    """The datasets, and how they are split into batches."""

    train: Annotated[AnyTarget, Resume.MUST_MATCH]
    """The map-style dataset to train on."""
    eval: Annotated[AnyTarget | None, Resume.MUST_MATCH] = None
    """The map-style dataset to evaluate on."""
    batch_size: Annotated[int, Field(ge=1), Resume.MUST_MATCH]
    """Samples per optimizer step, over all workers together."""
    eval_batch_size: Annotated[Annotated[int, Field(ge=1)] | None, Resume.MAY_DIFFER] = None
    """Samples per rank and evaluation batch; by default batch_size / workers, rounded up."""
    order: Annotated[AnyOrder, Resume.MUST_MATCH] = OrderTarget(target="shuffle")
    """`shuffle`, `sequential`, or `order(dataset, epoch, seed)`, which returns the indices of an epoch, or lists of
    indices, each one global batch."""
    loader_workers: Annotated[int, Field(ge=0), Resume.MAY_DIFFER] = 0
    """Data loader processes per rank; 0 loads in the rank's own process."""
    collate: Annotated[AnyTarget | None, Resume.MUST_MATCH] = None
    """The `collate_fn`, bound with args; by default PyTorch's own."""


class LearningRateSchedule(Target):
    """A learning-rate scheduler and when it advances."""

    every: Literal["step", "epoch", "eval"] = "step"
    """`step`: after each optimizer step; `epoch`: after each epoch; `eval`: after each evaluation, with `metric`."""
    metric: str | None = None
    """With `every: eval`, the value passed to the scheduler: a metric's name, or `loss`."""

    @model_validator(mode="after")
    def _metric_goes_with_eval(self) -> Self:
        if self.every == "eval" and self.metric is None:
            raise contradiction(("every", "every: eval needs metric: the name of a metric, or loss"))
        if self.every != "eval" and self.metric is not None:
            message = f"metric works only with every: eval, not with every: {self.every}; remove one of them"
            raise contradiction(("metric", message))
        return self


class Train(Section):
    """Length, precision and reproducibility of the training."""

    model_config = ConfigDict(json_schema_extra=exactly_one("epochs", "steps"))

    epochs: Annotated[Annotated[int, Field(ge=1)] | None, Resume.MUST_MATCH] = None
    """Passes over the training data; exclusive with `steps`."""
    steps: Annotated[Annotated[int, Field(ge=1)] | None, Resume.MUST_MATCH] = None
    """Optimizer steps, over as many epochs as needed; exclusive with `epochs`."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1), Resume.MUST_MATCH] = 0
    """Seed of the initial weights, the order of samples and all other randomness."""
    precision: Annotated[Literal["fp32", "bf16", "fp16"], Resume.MUST_MATCH] = "fp32"
    """`bf16` and `fp16` run the forward pass under autocast; `fp16` also scales gradients."""
    accumulate: Annotated[int, Field(ge=1), Resume.MUST_MATCH] = 1
    """Micro-batches per optimizer step and rank: the same result with less memory."""
    clip_norm: Annotated[Annotated[float, Field(gt=0, allow_inf_nan=False)] | None, Resume.MUST_MATCH] = None
    """Clips the 2-norm of all gradients together to this value."""
    deterministic: Annotated[bool, Resume.MUST_MATCH] = False
    """Use only deterministic algorithms, for bit-identical runs on a GPU; slower."""
    eval_every: Annotated[str, StringConstraints(pattern=STEP_INTERVAL_PATTERN), Resume.MAY_DIFFER] = "1 epoch"
    """`N steps`, `N epochs` or `never`. Unless `never`, the end of training is evaluated too."""
    log_every: Annotated[int, Field(ge=1), Resume.MAY_DIFFER] = 10
    """Steps between train events; the first and the last step are always logged."""
    time_limit: Annotated[Annotated[str, StringConstraints(pattern=DURATION_PATTERN)] | None, Resume.MAY_DIFFER] = None
    """`N seconds`, `N minutes` or `N hours` after the launch the run saves a checkpoint and stops; the same command
    continues it."""

    @model_validator(mode="after")
    def _has_one_length(self) -> Self:
        if problems := list(length_contradictions(self)):
            raise contradiction(*problems)
        return self


Schedule = Annotated[
    LearningRateSchedule,
    BeforeValidator(full_target, json_schema_input_type=TargetText | LearningRateSchedule),
]
"""A learning-rate schedule, or a bare string if it needs no args and advances with each step."""


class NamedOptimizer(Target):
    """One of several optimizers: an `Optimizer` class, or a callable, called with the named parameters."""

    parameters: Annotated[list[Annotated[str, StringConstraints(min_length=1)]], Field(min_length=1), Resume.MUST_MATCH]
    """Patterns for the names of its parameters, such as `generator.*`; each parameter belongs to one optimizer."""
    schedule: Annotated[Schedule | None, Resume.MUST_MATCH] = None
    """Its learning-rate schedule."""


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer of a job, however it is written.

    Attributes:
        field: Its dotted path in the spec.
        target: What to build it with.
        patterns: Which parameters belong to it; None for all.
        schedule: Its learning-rate schedule.
    """

    field: str
    target: Target
    patterns: tuple[str, ...] | None
    schedule: LearningRateSchedule | None

    @property
    def schedule_field(self) -> str:
        """The dotted path of its schedule in the spec."""
        return "schedule" if self.patterns is None else f"{self.field}.schedule"


OptimizerName = Annotated[str, StringConstraints(pattern=METRIC_PATTERN)]


DEFAULT_OPTIMIZER = "optimizer"
"""How the only optimizer of a job is called."""
