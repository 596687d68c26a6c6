"""The job spec: what a user writes in a job's YAML file, as frozen data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from distrib.job.rules import contradiction, contradictions, length_contradictions

EVENT_FIELDS = frozenset(
    {"time", "attempt", "event", "step", "epoch", "samples", "loss", "lr", "message"}
    | {"step_seconds", "data_seconds", "samples_per_second", "eval_seconds"}
)
"""Names that events use for themselves and that a metric therefore cannot have."""

COUNT_TAG, RANGE_TAG = "<count>", "<range>"
"""How pydantic's errors name the two forms of `resources.workers`; neither is part of a field's path."""

TARGET_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
RUN_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
STEP_INTERVAL_PATTERN = r"^([1-9][0-9]* (step|epoch)s?|never)$"
SAVE_INTERVAL_PATTERN = r"^([1-9][0-9]* (step|epoch|second)s?|never)$"
METRIC_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
BYTES_PATTERN = r"^[1-9][0-9]*(\.[0-9]+)? ?(KiB|MiB|GiB|TiB|kB|MB|GB|TB)$"
PATTERNS_IN_WORDS = {
    TARGET_PATTERN: "module:attribute, as in torch.nn:CrossEntropyLoss",
    RUN_NAME_PATTERN: "at most 100 letters, digits, dots, dashes and underscores, starting with a letter or a digit",
    STEP_INTERVAL_PATTERN: "an interval such as '100 steps', '1 epoch' or 'never'",
    SAVE_INTERVAL_PATTERN: "an interval such as '100 steps', '1 epoch', '60 seconds' or 'never'",
    METRIC_PATTERN: "letters, digits and underscores, not starting with a digit",
    BYTES_PATTERN: "a size such as '8GiB' or '500 MB'",
}

_BYTES = {"k": 1, "K": 1, "M": 2, "G": 3, "T": 4}
"""The power of 1000 or 1024 that a unit's first letter stands for."""


@dataclass(frozen=True)
class Interval:
    """How often something happens: every `count` steps or epochs, or never (count 0)."""

    count: int
    unit: Literal["step", "epoch", "second"]

    @classmethod
    def parse(cls, text: str) -> Interval:
        """Reads `100 steps`, `1 epoch` or `never`; the spec's patterns have already refused anything else."""
        if text == "never":
            return cls(0, "step")
        count, unit = text.split()
        units: dict[str, Literal["step", "epoch", "second"]] = {"step": "step", "epoch": "epoch", "second": "second"}
        return cls(int(count), units[unit.removesuffix("s")])

    def in_steps(self, steps_per_epoch: int) -> int:
        """The interval as a number of optimizer steps; 0 for never and for seconds."""
        if self.unit == "second":
            return 0
        return self.count * (steps_per_epoch if self.unit == "epoch" else 1)


def parse_bytes(text: str) -> int:
    """Reads `8GiB` or `500 MB` as a number of bytes; the spec's pattern has already refused anything else."""
    number, unit = re.findall(r"[0-9.]+|[A-Za-z]+", text)
    factor: int = (1024 if unit.endswith("iB") else 1000) ** _BYTES[unit[0]]
    return round(float(number) * factor)


class Section(BaseModel):
    """Base of every part of the spec: unknown keys are errors, values are never converted or changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


def _full_target(value: object) -> object:
    return {"target": value} if isinstance(value, str) else value


TargetText = Annotated[str, StringConstraints(pattern=TARGET_PATTERN)]


class Target(Section):
    """Something pluggable: an attribute of a Python module, and the arguments that it is called with."""

    target: TargetText
    """Where it is: `module:attribute`, as in `torch.nn:CrossEntropyLoss`."""
    args: dict[str, Any] = {}
    """Keyword arguments. `$steps` and `$steps_per_epoch`, as a whole value, are replaced by the plan's numbers."""


AnyTarget = Annotated[Target, BeforeValidator(_full_target, json_schema_input_type=TargetText | Target)]
"""A target in full, or as a bare string where it needs no args."""


class Model(Target):
    """The model, and optionally the weights that it begins with."""

    weights: str | None = None
    """A .safetensors file that the first step begins with: a path from the working directory or the spec's folder, or
    a URL; by default the model's own initial weights."""


class Data(Section):
    """The datasets, and how they are cut into batches."""

    train: AnyTarget
    """The map-style dataset to train on."""
    eval: AnyTarget | None = None
    """The map-style dataset to evaluate on."""
    batch_size: Annotated[int, Field(ge=1)]
    """Global samples per optimizer step, whatever the number of workers."""
    eval_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Samples per rank and evaluation batch; by default batch_size / workers, rounded up."""
    loader_workers: Annotated[int, Field(ge=0)] = 0
    """Processes per rank that load data; 0 loads in the rank itself."""
    collate: AnyTarget | None = None
    """Bound with args and used as `collate_fn`; by default PyTorch's own."""


def _exactly_one(first: str, second: str) -> dict[str, Any]:
    """In JSON Schema, that one of two optional fields is there and not null, and the other is not."""

    def present(name: str) -> dict[str, Any]:
        return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}

    return {"oneOf": [present(first), present(second)]}


class LearningRateSchedule(Target):
    """A learning-rate scheduler and when it advances."""

    every: Literal["step", "epoch", "eval"] = "step"
    """`step`: after each optimizer step; `epoch`: after each epoch; `eval`: after each evaluation, with `metric`."""
    metric: str | None = None
    """With `every: eval`, the value handed to the scheduler: a metric's name, or `loss`."""

    @model_validator(mode="after")
    def _metric_goes_with_eval(self) -> Self:
        if self.every == "eval" and self.metric is None:
            raise contradiction(("every", "every: eval needs metric: the name of a metric, or loss"))
        if self.every != "eval" and self.metric is not None:
            message = f"metric goes with every: eval, not with every: {self.every}; remove one of them"
            raise contradiction(("metric", message))
        return self


class Train(Section):
    """How long, how precisely and how reproducibly to train."""

    model_config = ConfigDict(json_schema_extra=_exactly_one("epochs", "steps"))

    epochs: Annotated[int, Field(ge=1)] | None = None
    """Passes over the training data; or `steps`."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps; epochs follow each other until they are done. Or `epochs`."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """Fixes initial weights, the order of samples and all other randomness."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """`bf16` and `fp16` run the forward pass under autocast; fp16 with a gradient scaler."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Micro-batches per optimizer step and rank: the same result in less memory."""
    clip_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Largest 2-norm of all gradients together."""
    deterministic: bool = False
    """Use deterministic algorithms only, for bit-identical runs on a GPU; slower."""
    eval_every: Annotated[str, StringConstraints(pattern=STEP_INTERVAL_PATTERN)] = "1 epoch"
    """`N steps`, `N epochs` or `never`. Unless never, the end of training is evaluated too."""
    log_every: Annotated[int, Field(ge=1)] = 10
    """Steps between train events; the first and the last step are always logged."""

    @model_validator(mode="after")
    def _has_one_length(self) -> Self:
        if problems := list(length_contradictions(self)):
            raise contradiction(*problems)
        return self


class PowerSgdSettings(Section):
    """How PowerSGD compresses gradients."""

    rank: Annotated[int, Field(ge=1)] = 1
    """Of the matrices that stand for a gradient: more is more exact, and more to send."""
    start_step: Annotated[int, Field(ge=1)] = 1000
    """Optimizer steps before it begins; until then gradients travel as they are."""


class Ddp(Section):
    """Settings of DistributedDataParallel."""

    bucket_mb: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 25
    """Size of a gradient bucket in MiB."""
    find_unused_parameters: bool = False
    """For models in which a step does not use every parameter."""
    compress: Literal["none", "fp16", "bf16", "powersgd"] = "none"
    """How gradients travel: as they are, in half precision, or of low rank; `bf16` and `powersgd` on GPUs only."""
    powersgd: PowerSgdSettings = PowerSgdSettings()
    """Settings of `compress: powersgd`."""


class WorkerRange(Section):
    """A number of workers between two bounds: as many as there is room for."""

    min: Annotated[int, Field(ge=1)]
    """The fewest workers to train with."""
    max: Annotated[int, Field(ge=1)]
    """The most workers to train with."""

    @model_validator(mode="after")
    def _min_is_not_above_max(self) -> Self:
        if self.min > self.max:
            raise contradiction(("", f"min ({self.min}) is greater than max ({self.max}); swap them"))
        return self


def _workers_form(value: object) -> str:
    """Which of its two forms `resources.workers` has, so that only that form's errors are reported."""
    return RANGE_TAG if isinstance(value, (dict, WorkerRange)) else COUNT_TAG


class Resources(Section):
    """What the job runs on."""

    workers: Annotated[
        Annotated[int, Field(ge=1), Tag(COUNT_TAG)] | Annotated[WorkerRange, Tag(RANGE_TAG)],
        Discriminator(_workers_form),
    ] = 1
    """Ranks, each with one GPU or some CPUs; or `{min: 2, max: 8}`, as many as there is room for."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: cuda where there are enough GPUs, cpu where there are none, otherwise an error."""
    cpus_per_worker: Annotated[int, Field(ge=1)] = 1
    """CPUs, and so torch threads, of each rank under every launcher."""
    memory_per_worker: Annotated[str, StringConstraints(pattern=BYTES_PATTERN)] | None = None
    """Memory that a worker is scheduled with on Ray, as in `8GiB`; a local run does not limit memory."""
    accelerator: Annotated[str, Field(min_length=1)] | None = None
    """Type of GPU that each worker needs on Ray, by Ray's name for it, as in `H100`."""
    placement: Literal["pack", "spread", "strict_pack", "strict_spread"] = "pack"
    """On Ray: `pack` puts the workers on few hosts, `spread` on many; `strict_…` rather waits than does otherwise."""
    labels: dict[str, str] = {}
    """Labels that a host must have on Ray, by name."""


class Best(Section):
    """Which weights to keep as the best."""

    metric: str
    """The name of a metric, or `loss`: its value in evaluations decides."""
    mode: Literal["min", "max"] = "max"
    """Whether the greatest or the least value is the best."""


class Checkpoint(Section):
    """When to save, and what to keep."""

    every: Annotated[str, StringConstraints(pattern=SAVE_INTERVAL_PATTERN)] = "1 epoch"
    """`N steps`, `N epochs`, `N seconds` or `never`. Unless never, the end of training is saved too."""
    keep: Annotated[int, Field(ge=1)] = 2
    """The newest checkpoints that are kept."""
    best: Best | None = None
    """Which weights to keep as best.safetensors."""


class Failures(Section):
    """What to do when something goes wrong or the run is asked to stop."""

    max_restarts: Annotated[int, Field(ge=0)] = 3
    """How often a run whose process or connection was lost begins again from its newest checkpoint."""

    hang_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 300
    """Seconds after which a rank that waits in vain for the others gives up."""
    grace: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30
    """Seconds that a stopping run has to end by itself."""


def _free_metric_name(name: str) -> str:
    if name in EVENT_FIELDS:
        raise ValueError(f"events use the name '{name}' themselves; give the metric another")
    return name


MetricName = Annotated[str, StringConstraints(pattern=METRIC_PATTERN), AfterValidator(_free_metric_name)]
_METRIC_NAMES: dict[str, Any] = {
    "additionalProperties": False,
    "propertyNames": {"not": {"enum": sorted(EVENT_FIELDS)}},
}
"""What pydantic leaves out of the JSON Schema."""


class JobSpec(Section):
    """A job: what to train, on which data, with what resources."""

    model_config = ConfigDict(json_schema_extra=_exactly_one("loss", "step"))

    name: Annotated[str, StringConstraints(pattern=RUN_NAME_PATTERN)]
    """Names the job and starts the ids of its runs."""
    model: Annotated[Model, BeforeValidator(_full_target, json_schema_input_type=TargetText | Model)]
    """A class or factory that returns the `torch.nn.Module` to train."""
    data: Data
    """The datasets, and how they are cut into batches."""
    loss: AnyTarget | None = None
    """`loss(model(inputs), targets)` for batches of `(inputs, targets)`; or `step`."""
    step: AnyTarget | None = None
    """`step(model, batch)` returns the loss, or a dict with `loss`, `weight`, `outputs`, `targets`; or `loss`."""
    metrics: Annotated[dict[MetricName, AnyTarget], Field(json_schema_extra=_METRIC_NAMES)] = {}
    """torchmetrics `Metric` classes by the name under which they are reported."""
    predict: AnyTarget | None = None
    """`predict(model, batch)` returns what the trained model is to answer: a tensor, or named columns."""
    optimizer: AnyTarget
    """An `Optimizer` class (given the named parameters) or any callable (given the model)."""
    schedule: (
        Annotated[
            LearningRateSchedule,
            BeforeValidator(_full_target, json_schema_input_type=TargetText | LearningRateSchedule),
        ]
        | None
    ) = None
    """The learning-rate schedule."""
    train: Train
    """How long, how precisely and how reproducibly to train."""
    ddp: Ddp = Ddp()
    """Settings of DistributedDataParallel."""
    resources: Resources = Resources()
    """What the job runs on."""
    checkpoint: Checkpoint = Checkpoint()
    """When to save, and what to keep."""
    failures: Failures = Failures()
    """What to do when something goes wrong or the run is asked to stop."""
    storage: str = "runs"
    """The folder that holds the runs, or the URL of an object store: s3://bucket/prefix or gs://bucket/prefix."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if problems := list(contradictions(self)):
            raise contradiction(*problems)
        return self


def is_run_name(text: str) -> bool:
    """Whether `text` can be a run's id: letters, digits, dots, dashes and underscores."""
    return re.fullmatch(RUN_NAME_PATTERN.rstrip("$"), text) is not None
