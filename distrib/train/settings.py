"""What the engine needs to know of a training besides its parts: from a job's spec, or from a script."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from distrib.job.spec.job import JobSpec
from distrib.job.spec.resources import Ddp

PrecisionName = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The settings of a training that hold on every rank.

    Attributes:
        seed: Of the order of samples and all other randomness.
        precision: Of the forward pass.
        accumulate: Micro-batches per step and rank.
        clip_norm: The largest norm of the gradients, or None.
        deterministic: Whether only deterministic algorithms are used.
        loader_workers: Processes that fetch samples on each rank.
        keep: The number of checkpoints to keep.
        ddp: How gradients are communicated.
        drift: What to do if ranks no longer have the same weights.
        record_samples: Whether each rank records the ids of its samples.
    """

    seed: int = 0
    precision: PrecisionName = "fp32"
    accumulate: int = 1
    clip_norm: float | None = None
    deterministic: bool = False
    loader_workers: int = 0
    keep: int = 2
    ddp: Ddp = field(default_factory=Ddp)
    drift: Literal["stop", "warn", "ignore"] = "stop"
    record_samples: bool = False

    @classmethod
    def of_job(cls, spec: JobSpec, *, record_samples: bool = False) -> TrainingSettings:
        """The settings in a job's spec."""
        train = spec.train
        return cls(
            seed=train.seed,
            precision=train.precision,
            accumulate=train.accumulate,
            clip_norm=train.clip_norm,
            deterministic=train.deterministic,
            loader_workers=spec.data.loader_workers,
            keep=spec.checkpoint.keep,
            ddp=spec.ddp,
            drift=spec.failures.drift,
            record_samples=record_samples,
        )
