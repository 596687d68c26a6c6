"""The plan: the resources that a job requests, and what every rank does at a given number of workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from distrib.job.launcher_names import LauncherName
from distrib.job.spec.amounts import parse_bytes
from distrib.job.spec.job import JobSpec
from distrib.job.spec.resources import WorkerRange
from distrib.job.step_plan import StepPlan

if TYPE_CHECKING:
    from distrib.job.script import ScriptSpec

Device = Literal["cpu", "cuda"]

_A_TRACE = 0.001
"""The amount that Ray itself requests of a resource that only marks a host."""


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
        worker: What runs a rank, for people, such as `local process`.
        settings: What is passed to the system that starts them, by name.
        is_elastic: Whether the number of workers can change while a run with a range of them runs.
        notes: What is valid but may be surprising.
    """

    worker: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_elastic: bool = True
    notes: tuple[str, ...] = ()


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
