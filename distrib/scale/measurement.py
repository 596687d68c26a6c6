"""What the ranks of one run measured: the typed form of the file that rank 0 writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter


class MeanMax(NamedTuple):
    """A value that every rank measured: the mean over the ranks and the largest."""

    mean: float
    max: float


class GradientBucket(NamedTuple):
    """A bucket of gradients that DDP reduces as one.

    Attributes:
        num_bytes: Its size.
        ready_fraction: When its last gradient is ready, as a fraction of the forward and backward pass.
    """

    num_bytes: float
    ready_fraction: float


@dataclass(frozen=True)
class MeasuredStep:
    """The seconds of one step.

    Attributes:
        is_synced: Whether this pass synchronized its gradients; about one in six does not.
        samples: Samples of the global batch; an epoch's last step may have fewer.
        data: From the end of the previous step until the batch is ready.
        compute: Forward and backward pass, including the communication that it waits for.
        optimizer: Unscaling, clipping and the update.
        seconds: The sum of the three.
    """

    is_synced: bool
    samples: int
    data: MeanMax
    compute: MeanMax
    optimizer: MeanMax
    seconds: MeanMax


@dataclass(frozen=True)
class AllReduceTimes:
    """Repeated all-reduces of one message size on the job's own process group."""

    num_bytes: int
    seconds: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """The measurements of one run.

    Attributes:
        world_size: The number of ranks.
        global_batch_size: Samples of a full step.
        train_samples: Length of the training dataset.
        steps_per_epoch: Steps of an epoch.
        accumulate: Micro-batches per step and rank.
        device: `cpu` or `cuda`.
        device_name: The model of the GPU or CPU, if it is known.
        backend: The process group's backend, such as `gloo`.
        threads: Torch threads of a rank.
        hosts: The host name of each rank.
        gradients: Size and ready fraction of each parameter's gradient.
        buckets: DDP's buckets in the order in which it reduces them.
        steps: Every measured step.
        sweep: All-reduces of increasing size.
        peak_memory_bytes: The largest peak of a rank: of its process on a CPU, of torch's allocator on a GPU.
        cores_busy: The busy share of the cores of the busiest host while steps were measured.
    """

    world_size: int
    global_batch_size: int
    train_samples: int
    steps_per_epoch: int
    accumulate: int
    device: str
    device_name: str | None = None
    backend: str
    threads: int
    hosts: tuple[str, ...]
    gradients: tuple[GradientBucket, ...]
    buckets: tuple[GradientBucket, ...]
    steps: tuple[MeasuredStep, ...]
    sweep: tuple[AllReduceTimes, ...]
    peak_memory_bytes: float
    cores_busy: float

    @property
    def num_hosts(self) -> int:
        """The number of hosts."""
        return len(set(self.hosts))

    def full_steps(self, *, is_synced: bool) -> list[MeasuredStep]:
        """The steps that processed a whole global batch."""
        return [one for one in self.steps if one.is_synced == is_synced and one.samples == self.global_batch_size]


def read_measurement(file: Path) -> MeasuredRun:
    """Reads the file that rank 0 of a measuring run writes."""
    return TypeAdapter(MeasuredRun).validate_json(file.read_bytes())
