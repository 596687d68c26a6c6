"""The job spec: the schema of a job's YAML file, as frozen data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
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
    | {"step_seconds", "data_seconds", "samples_per_second", "eval_seconds", "rank_step_seconds", "rank_data_seconds"}
    | {"rank_compute_seconds", "rank_wait_seconds"}
)
"""Field names of events, which a metric therefore cannot use."""

COUNT_TAG, RANGE_TAG = "<count>", "<range>"
"""The names of the two forms of `resources.workers` in pydantic's errors; not part of a field's path."""

TARGET_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
ORDER_PATTERN = rf"^(shuffle|sequential)$|{TARGET_PATTERN}"
TRACKER_PATTERN = rf"^(tensorboard|mlflow|wandb|trackio)$|{TARGET_PATTERN}"
RUN_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
STEP_INTERVAL_PATTERN = r"^([1-9][0-9]* (step|epoch)s?|never)$"
SAVE_INTERVAL_PATTERN = r"^([1-9][0-9]* (step|epoch|second)s?|never)$"
DURATION_PATTERN = r"^[1-9][0-9]* (second|minute|hour)s?$"
METRIC_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
BYTES_PATTERN = r"^[1-9][0-9]*(\.[0-9]+)? ?(KiB|MiB|GiB|TiB|kB|MB|GB|TB)$"
PATTERNS_IN_WORDS = {
    TARGET_PATTERN: "module:attribute, as in torch.nn:CrossEntropyLoss",
    ORDER_PATTERN: "shuffle, sequential, or module:attribute of an own order",
    TRACKER_PATTERN: "tensorboard, mlflow, wandb, trackio, or module:attribute of an own tracker",
    RUN_NAME_PATTERN: "at most 100 letters, digits, dots, dashes and underscores, starting with a letter or a digit",
    STEP_INTERVAL_PATTERN: "an interval such as '100 steps', '1 epoch' or 'never'",
    SAVE_INTERVAL_PATTERN: "an interval such as '100 steps', '1 epoch', '60 seconds' or 'never'",
    DURATION_PATTERN: "a duration such as '90 seconds', '30 minutes' or '2 hours'",
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
        """Reads `100 steps`, `1 epoch` or `never`; the spec's patterns reject anything else."""
        if text == "never":
            return cls(0, "step")
        count, unit = text.split()
        units: dict[str, Literal["step", "epoch", "second"]] = {"step": "step", "epoch": "epoch", "second": "second"}
        return cls(int(count), units[unit.removesuffix("s")])

    def in_steps(self, steps_per_epoch: int) -> int:
        """The interval in optimizer steps; 0 for never and for seconds."""
        if self.unit == "second":
            return 0
        return self.count * (steps_per_epoch if self.unit == "epoch" else 1)


def parse_bytes(text: str) -> int:
    """Reads `8GiB` or `500 MB` as a number of bytes; the spec's pattern rejects anything else."""
    number, unit = re.findall(r"[0-9.]+|[A-Za-z]+", text)
    factor: int = (1024 if unit.endswith("iB") else 1000) ** _BYTES[unit[0]]
    return round(float(number) * factor)


class Resume(Enum):
    """What a field means for resuming a run with a job; each field of a job is marked with one."""

    MUST_MATCH = "must match"
    """Another value makes it another job, which is refused."""
    MAY_DIFFER = "may differ"
    """The new value is used from then on."""
    BY_FIELD = "by field"
    """The fields of this section are marked themselves."""


def parse_duration(text: str) -> float:
    """Parses `30 minutes` or `2 hours` into seconds; the spec has already checked the pattern."""
    count, unit = text.split()
    return float(count) * {"second": 1, "minute": 60, "hour": 3600}[unit.removesuffix("s")]


class Section(BaseModel):
    """Base of every section of the spec: unknown keys are errors and values are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


def _full_target(value: object) -> object:
    return {"target": value} if isinstance(value, str) else value


TargetText = Annotated[str, StringConstraints(pattern=TARGET_PATTERN)]


class Target(Section):
    """A class or function of a Python module, and the arguments to call it with."""

    target: Annotated[TargetText, Resume.MUST_MATCH]
    """`module:attribute`, as in `torch.nn:CrossEntropyLoss`."""
    args: Annotated[dict[str, Any], Resume.MUST_MATCH] = {}
    """Keyword arguments. A value `$steps` or `$steps_per_epoch` is replaced by the number of steps in the plan."""


TrackerText = Annotated[str, StringConstraints(pattern=TRACKER_PATTERN)]


class TrackerTarget(Target):
    """An experiment tracker."""

    target: Annotated[TrackerText, Resume.MAY_DIFFER]
    """`tensorboard`, `mlflow`, `wandb` or `trackio`, or `module:attribute` of an own tracker."""
    args: Annotated[dict[str, Any], Resume.MAY_DIFFER] = {}
    """Keyword arguments."""


AnyTracker = Annotated[TrackerTarget, BeforeValidator(_full_target, json_schema_input_type=TrackerText | TrackerTarget)]
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


AnyOrder = Annotated[OrderTarget, BeforeValidator(_full_target, json_schema_input_type=OrderText | OrderTarget)]
"""An order, or a bare string if it needs no args."""

AnyTarget = Annotated[Target, BeforeValidator(_full_target, json_schema_input_type=TargetText | Target)]
"""A target, or a bare string if it needs no args."""


class Model(Target):
    """The model, and optionally its initial weights."""

    weights: Annotated[str | None, Resume.MUST_MATCH] = None
    """A .safetensors file with initial weights: a path relative to the working directory or the spec's folder, or a
    URL. By default the model initializes itself."""


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


def _exactly_one(first: str, second: str) -> dict[str, Any]:
    """The JSON Schema rule that exactly one of two optional fields is present and not null."""

    def present(name: str) -> dict[str, Any]:
        return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}

    return {"oneOf": [present(first), present(second)]}


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

    model_config = ConfigDict(json_schema_extra=_exactly_one("epochs", "steps"))

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


class PowerSgdSettings(Section):
    """Settings of PowerSGD gradient compression."""

    rank: Annotated[int, Field(ge=1)] = 1
    """Rank of the approximated gradients: higher is more accurate but sends more data."""
    start_step: Annotated[int, Field(ge=1)] = 1000
    """Optimizer steps with uncompressed gradients before compression starts."""


class Ddp(Section):
    """Settings of DistributedDataParallel."""

    bucket_mb: Annotated[float, Field(gt=0, allow_inf_nan=False), Resume.MUST_MATCH] = 25
    """Size of a gradient bucket in MiB."""
    find_unused_parameters: Annotated[bool, Resume.MUST_MATCH] = False
    """Needed by models that do not use every parameter in every step."""
    compress: Annotated[Literal["none", "fp16", "bf16", "powersgd"], Resume.MUST_MATCH] = "none"
    """Gradient compression: none, half precision, or low rank; `bf16` and `powersgd` need GPUs."""
    powersgd: Annotated[PowerSgdSettings, Resume.MUST_MATCH] = PowerSgdSettings()
    """Settings of `compress: powersgd`."""


class WorkerRange(Section):
    """Bounds on the number of workers; the run uses as many as are available."""

    min: Annotated[int, Field(ge=1)]
    """The minimum number of workers."""
    max: Annotated[int, Field(ge=1)]
    """The maximum number of workers."""

    @model_validator(mode="after")
    def _min_is_not_above_max(self) -> Self:
        if self.min > self.max:
            raise contradiction(("", f"min ({self.min}) is greater than max ({self.max}); swap them"))
        return self


def _workers_form(value: object) -> str:
    """The form of `resources.workers`, so that only errors of that form are reported."""
    return RANGE_TAG if isinstance(value, (dict, WorkerRange)) else COUNT_TAG


class Resources(Section):
    """The resources that the job needs."""

    workers: Annotated[
        Annotated[int, Field(ge=1), Tag(COUNT_TAG)] | Annotated[WorkerRange, Tag(RANGE_TAG)],
        Discriminator(_workers_form),
    ] = 1
    """The number of ranks, each with one GPU or some CPUs; or `{min: 2, max: 8}` for as many as are available."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: cuda if there are enough GPUs, cpu if there are none, otherwise an error."""
    cpus_per_worker: Annotated[int, Field(ge=1)] = 1
    """CPUs and torch threads of each rank, under every launcher."""
    memory_per_worker: Annotated[str, StringConstraints(pattern=BYTES_PATTERN)] | None = None
    """Memory that Ray reserves for each worker, such as `8GiB`; local runs do not limit memory."""
    accelerator: Annotated[str, Field(min_length=1)] | None = None
    """GPU type that each worker needs on Ray, by Ray's name, such as `H100`."""
    placement: Literal["pack", "spread", "strict_pack", "strict_spread"] = "pack"
    """On Ray: `pack` places workers on few hosts, `spread` on many; `strict_…` waits instead of falling back."""
    labels: dict[str, str] = {}
    """Labels that a host must have on Ray."""


class Best(Section):
    """Which weights to keep as the best."""

    metric: str
    """The name of a metric, or `loss`, as computed by evaluations."""
    mode: Literal["min", "max"] = "max"
    """Whether the largest or the smallest value is the best."""


class Checkpoint(Section):
    """When to save checkpoints, and which to keep."""

    every: Annotated[str, StringConstraints(pattern=SAVE_INTERVAL_PATTERN)] = "1 epoch"
    """`N steps`, `N epochs`, `N seconds` or `never`. Unless `never`, the end of training is saved too."""
    keep: Annotated[int, Field(ge=1)] = 2
    """The number of checkpoints to keep; older ones are deleted."""
    best: Best | None = None
    """Which weights to keep in best.safetensors."""


class Failures(Section):
    """How to handle failures and stops."""

    max_restarts: Annotated[int, Field(ge=0)] = 3
    """Maximum number of automatic restarts from the newest checkpoint after a lost process or connection."""
    hang_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 300
    """Seconds after which a rank that waits for the others is considered hung."""
    grace: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30
    """Seconds that a stopping run has to save a checkpoint and exit."""
    drift: Literal["stop", "warn", "ignore"] = "stop"
    """What to do if ranks no longer have the same weights and optimizer state, which is checked at each checkpoint."""


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


Schedule = Annotated[
    LearningRateSchedule,
    BeforeValidator(_full_target, json_schema_input_type=TargetText | LearningRateSchedule),
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


class JobSpec(Section):
    """A job: what to train, on which data, with which resources."""

    model_config = ConfigDict(
        json_schema_extra={"allOf": [_exactly_one("loss", "step"), _exactly_one("optimizer", "optimizers")]}
    )

    name: Annotated[str, StringConstraints(pattern=RUN_NAME_PATTERN), Resume.MAY_DIFFER]
    """Name of the job and prefix of its run ids."""
    model: Annotated[Model, BeforeValidator(_full_target, json_schema_input_type=TargetText | Model), Resume.BY_FIELD]
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


def is_run_name(text: str) -> bool:
    """Whether `text` can be a run's id: letters, digits, dots, dashes and underscores."""
    return re.fullmatch(RUN_NAME_PATTERN.rstrip("$"), text) is not None
