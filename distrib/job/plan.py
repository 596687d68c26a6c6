"""The plan: the resources that a job requests, and what every rank does at a given number of workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from distrib.job.launcher_names import LauncherName
from distrib.job.spec import Interval, JobSpec, Target, WorkerRange, parse_bytes

if TYPE_CHECKING:
    from distrib.job.script import ScriptSpec

Device = Literal["cpu", "cuda"]

_A_TRACE = 0.001
"""The amount that Ray itself requests of a resource that only marks a host."""


@dataclass(frozen=True)
class Facts:
    """What is known only from the job's code: the lengths of its datasets, in samples."""

    train_samples: int
    eval_samples: int | None = None


@dataclass(frozen=True)
class Request:
    """What a job requests from a launcher; a function of the spec and the device."""

    launcher: LauncherName
    min_workers: int
    max_workers: int
    device: Device
    backend: Literal["gloo", "nccl"]
    cpus_per_worker: int
    hang_timeout_seconds: float
    grace_seconds: float
    memory_bytes: int | None = None
    accelerator: str | None = None
    placement: Literal["pack", "spread", "strict_pack", "strict_spread"] = "pack"
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def resources_per_worker(self) -> dict[str, float]:
        """The resources of one worker in Ray's terms."""
        resources = {"CPU": float(self.cpus_per_worker)}
        if self.device == "cuda":
            resources["GPU"] = 1.0
        if self.memory_bytes is not None:
            resources["memory"] = float(self.memory_bytes)
        if self.accelerator is not None:
            resources[f"accelerator_type:{self.accelerator}"] = _A_TRACE
        return resources


@dataclass(frozen=True)
class StepPlan:
    """What every rank does: a pure function of the job, its facts and the number of workers.

    Sizes are in samples. `rank_batches` are the slices of a full global batch by rank, `last_rank_batches` those of an
    epoch's last batch, `micro_batches` the largest slice split for accumulation. An interval of 0 steps means never.
    """

    world_size: int
    train_samples: int
    eval_samples: int | None
    global_batch_size: int
    last_batch_size: int
    steps_per_epoch: int
    total_steps: int
    rank_batches: tuple[int, ...]
    last_rank_batches: tuple[int, ...]
    micro_batches: tuple[int, ...]
    accumulate: int
    eval_batch_size: int
    eval_interval_steps: int
    log_interval_steps: int
    save_interval_steps: int
    save_interval_seconds: int
    notes: tuple[str, ...]

    def batch_size_at(self, step: int) -> int:
        """Samples of the global batch of step `step`, counted from 0 within an epoch."""
        return self.last_batch_size if step == self.steps_per_epoch - 1 else self.global_batch_size

    def position(self, completed_steps: int) -> tuple[int, int]:
        """The next (epoch, step in the epoch) after `completed_steps` steps; at the end of an epoch, (epoch + 1, 0)."""
        return divmod(completed_steps, self.steps_per_epoch)

    def samples_after(self, completed_steps: int) -> int:
        """Samples processed in the first `completed_steps` optimizer steps of the run."""
        epoch, step = self.position(completed_steps)
        return epoch * self.train_samples + min(step * self.global_batch_size, self.train_samples)

    def is_logged(self, completed_steps: int) -> bool:
        """Whether a train event is due: at the first step, at every interval and at the last step."""
        return completed_steps in (1, self.total_steps) or completed_steps % self.log_interval_steps == 0

    def is_evaluated(self, completed_steps: int) -> bool:
        """Whether an evaluation is due: at every interval and, unless never, at the last step."""
        if self.eval_interval_steps == 0:
            return False
        return completed_steps % self.eval_interval_steps == 0 or completed_steps == self.total_steps

    @property
    def smallest_micro_batch(self) -> int:
        """Samples of the smallest micro-batch that any rank runs, empty ones apart."""
        sizes = [size for size in (*self.rank_batches, *self.last_rank_batches) if size]
        return min(part for size in sizes for part in split_evenly(size, self.accumulate) if part)

    @property
    def is_ever_saved(self) -> bool:
        """Whether the run saves checkpoints at all."""
        return self.save_interval_steps > 0 or self.save_interval_seconds > 0

    def is_saved(self, completed_steps: int) -> bool:
        """Whether a checkpoint is due by steps: at every interval and, unless never, at the last step."""
        if completed_steps == self.total_steps:
            return self.is_ever_saved
        return self.save_interval_steps > 0 and completed_steps % self.save_interval_steps == 0

    def is_end_of_epoch(self, completed_steps: int) -> bool:
        """Whether `completed_steps` ends an epoch."""
        return completed_steps % self.steps_per_epoch == 0


@dataclass(frozen=True)
class Memory:
    """The least memory that a rank needs, excluding activations and batches."""

    num_parameters: int
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int | None


@dataclass(frozen=True)
class LaunchDescription:
    """What a launcher starts for a request, in its own terms.

    Attributes:
        workers: What runs the ranks, for people, such as `local processes`.
        settings: What is passed to the system that starts them, by name.
    """

    workers: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Everything that is known about a run before it starts; `distrib plan` prints it and `run` executes it."""

    request: Request
    schedule: StepPlan
    memory: Memory | None = None
    launch: LaunchDescription | None = None
    script: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data for JSON."""
        return asdict(self)


def part_of(total: int, part: int, parts: int) -> range:
    """The positions that belong to part `part` of `parts`: ⌊part·total/parts⌋ … ⌊(part+1)·total/parts⌋ of `total`."""
    return range(part * total // parts, (part + 1) * total // parts)


def split_evenly(total: int, parts: int) -> tuple[int, ...]:
    """The sizes of the `parts` consecutive slices into which `part_of` cuts `total` items."""
    return tuple(len(part_of(total, part, parts)) for part in range(parts))


def make_request(spec: JobSpec | ScriptSpec, launcher: LauncherName, device: Device) -> Request:
    """What `spec` requests from `launcher`, with `device: auto` already resolved."""
    resources = spec.resources
    workers = resources.workers
    bounds = (workers.min, workers.max) if isinstance(workers, WorkerRange) else (workers, workers)
    return Request(
        launcher=launcher,
        min_workers=bounds[0],
        max_workers=bounds[1],
        device=device,
        backend="nccl" if device == "cuda" else "gloo",
        cpus_per_worker=resources.cpus_per_worker,
        hang_timeout_seconds=spec.failures.hang_timeout,
        grace_seconds=spec.failures.grace,
        memory_bytes=None if resources.memory_per_worker is None else parse_bytes(resources.memory_per_worker),
        accelerator=resources.accelerator,
        placement=resources.placement,
        labels=resources.labels,
    )


def make_step_plan(spec: JobSpec, facts: Facts, world_size: int) -> StepPlan:
    """The step plan of `spec` on `world_size` ranks; the same on every rank and in `distrib plan`."""
    samples, batch = facts.train_samples, spec.data.batch_size
    full_batch = min(batch, samples)
    steps_per_epoch = -(-samples // batch)
    last_batch = samples - (steps_per_epoch - 1) * batch
    total_steps = spec.train.steps or (spec.train.epochs or 0) * steps_per_epoch
    rank_batches = split_evenly(full_batch, world_size)
    save_interval = Interval.parse(spec.checkpoint.every)
    eval_interval = Interval.parse(spec.train.eval_every).in_steps(steps_per_epoch) if facts.eval_samples else 0
    return StepPlan(
        world_size=world_size,
        train_samples=samples,
        eval_samples=facts.eval_samples,
        global_batch_size=full_batch,
        last_batch_size=last_batch,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        rank_batches=rank_batches,
        last_rank_batches=split_evenly(last_batch, world_size),
        micro_batches=tuple(size for size in split_evenly(max(rank_batches), spec.train.accumulate) if size),
        accumulate=spec.train.accumulate,
        eval_batch_size=spec.data.eval_batch_size or -(-full_batch // world_size),
        eval_interval_steps=eval_interval,
        log_interval_steps=spec.train.log_every,
        save_interval_steps=save_interval.in_steps(steps_per_epoch),
        save_interval_seconds=save_interval.count if save_interval.unit == "second" else 0,
        notes=tuple(_notes(spec, facts, world_size)),
    )


def _notes(spec: JobSpec, facts: Facts, world_size: int) -> list[str]:
    """What is valid but may be surprising."""
    notes = []
    batch, samples = spec.data.batch_size, facts.train_samples
    if batch > samples:
        notes.append(f"data.batch_size {batch} is larger than the dataset: each step takes all {samples} samples")
    if min(batch, samples) < world_size:
        notes.append(
            f"the global batch of {min(batch, samples)} is smaller than the {world_size} workers: "
            "some ranks have no samples in a step"
        )
    return notes


def with_steps(target: Target, schedule: StepPlan) -> Target:
    """`target` with `$steps` and `$steps_per_epoch` in its args replaced by numbers."""
    numbers = {"$steps": schedule.total_steps, "$steps_per_epoch": schedule.steps_per_epoch}

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            return numbers.get(value, value)
        if isinstance(value, Mapping):
            return {key: fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [fill(item) for item in value]
        return value

    return target.model_copy(update={"args": fill(target.args)})
