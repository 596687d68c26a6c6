"""The sections on workers, communication, checkpoints and failures."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, StringConstraints, Tag, model_validator

from distrib.job.rules import contradiction
from distrib.job.spec.patterns import BYTES_PATTERN, SAVE_INTERVAL_PATTERN
from distrib.job.spec.section import Resume, Section

COUNT_TAG, RANGE_TAG = "<count>", "<range>"
"""The names of the two forms of `resources.workers` in pydantic's errors; not part of a field's path."""


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
