"""The job spec: the schema of a job's YAML file, as frozen data."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from distrib.job.rules import contradiction, contradictions
from distrib.job.spec.patterns import METRIC_PATTERN, RUN_NAME_PATTERN
from distrib.job.spec.resources import Checkpoint, Ddp, Failures, Resources
from distrib.job.spec.section import Resume, Section, exactly_one
from distrib.job.spec.targets import AnyTarget, AnyTracker, Model, TargetText, full_target
from distrib.job.spec.training import (
    DEFAULT_OPTIMIZER,
    Data,
    NamedOptimizer,
    OptimizerName,
    OptimizerSpec,
    Schedule,
    Train,
)
from distrib.runs.events import EVENT_FIELDS


def _free_metric_name(name: str) -> str:
    if name in EVENT_FIELDS:
        raise ValueError(f"'{name}' is a field of events; give the metric another name")
    return name


MetricName = Annotated[str, StringConstraints(pattern=METRIC_PATTERN), AfterValidator(_free_metric_name)]


_METRIC_NAMES: dict[str, Any] = {
    "additionalProperties": False,
    "propertyNames": {"not": {"enum": sorted(EVENT_FIELDS)}},
}
"""Rules that pydantic does not put into the JSON Schema."""


class JobSpec(Section):
    """A job: what to train, on which data, with which resources."""

    model_config = ConfigDict(
        json_schema_extra={"allOf": [exactly_one("loss", "step"), exactly_one("optimizer", "optimizers")]}
    )

    name: Annotated[str, StringConstraints(pattern=RUN_NAME_PATTERN), Resume.MAY_DIFFER]
    """Name of the job and prefix of its run ids."""
    model: Annotated[Model, BeforeValidator(full_target, json_schema_input_type=TargetText | Model), Resume.BY_FIELD]
    """A class or factory that returns the `torch.nn.Module` to train."""
    data: Annotated[Data, Resume.BY_FIELD]
    """The datasets, and how they are split into batches."""
    loss: Annotated[AnyTarget | None, Resume.MUST_MATCH] = None
    """`loss(model(inputs), targets)` for batches of `(inputs, targets)`; exclusive with `step`."""
    step: Annotated[AnyTarget | None, Resume.MUST_MATCH] = None
    """`step(model, batch)` returns the loss, or a dict with `loss`, `weight`, `outputs`, `targets`; exclusive with
    `loss`."""
    metrics: Annotated[dict[MetricName, AnyTarget], Field(json_schema_extra=_METRIC_NAMES), Resume.MAY_DIFFER] = {}
    """torchmetrics `Metric` classes by the name to report them under."""
    predict: Annotated[AnyTarget | None, Resume.MAY_DIFFER] = None
    """`predict(model, batch)` returns the outputs of the trained model: a tensor, or named columns."""
    optimizer: Annotated[AnyTarget | None, Resume.MUST_MATCH] = None
    """An `Optimizer` class, called with the named parameters, or any callable, called with the model; exclusive with
    `optimizers`."""
    optimizers: Annotated[dict[OptimizerName, NamedOptimizer] | None, Field(min_length=1), Resume.MUST_MATCH] = None
    """Several optimizers by name, each with the parameters that it updates; exclusive with `optimizer`."""
    schedule: Annotated[Schedule | None, Resume.MUST_MATCH] = None
    """The learning-rate schedule of `optimizer`."""
    callbacks: Annotated[list[AnyTarget], Resume.MUST_MATCH] = []
    """Objects with any of `on_start(session)`, `on_step(session, output)`, `on_evaluation(session, results)`,
    `on_end(session)`, and `state_dict` and `load_state_dict` if they have a state."""
    train: Annotated[Train, Resume.BY_FIELD]
    """Length, precision and reproducibility of the training."""
    ddp: Annotated[Ddp, Resume.BY_FIELD] = Ddp()
    """Settings of DistributedDataParallel."""
    resources: Annotated[Resources, Resume.MAY_DIFFER] = Resources()
    """The resources that the job needs."""
    checkpoint: Annotated[Checkpoint, Resume.MAY_DIFFER] = Checkpoint()
    """When to save checkpoints, and which to keep."""
    failures: Annotated[Failures, Resume.MAY_DIFFER] = Failures()
    """How to handle failures and stops."""
    trackers: Annotated[list[AnyTracker], Resume.MAY_DIFFER] = []
    """Experiment trackers to feed with the run's parameters, metrics and result."""
    storage: Annotated[str, Resume.MAY_DIFFER] = "runs"
    """The folder for runs, or the URL of an object store: s3://bucket/prefix or gs://bucket/prefix."""

    @property
    def optimizer_specs(self) -> dict[str, OptimizerSpec]:
        """Each optimizer by name; a job with `optimizer` has one."""
        if self.optimizers is not None:
            return {
                name: OptimizerSpec(f"optimizers.{name}", each, tuple(each.parameters), each.schedule)
                for name, each in self.optimizers.items()
            }
        assert self.optimizer is not None
        return {DEFAULT_OPTIMIZER: OptimizerSpec("optimizer", self.optimizer, None, self.schedule)}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if problems := list(contradictions(self)):
            raise contradiction(*problems)
        return self
