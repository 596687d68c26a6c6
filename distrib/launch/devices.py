"""Which device a job trains on, and how many workers fit on this machine."""

from __future__ import annotations

import os

from distrib.job.plan import Device, Request
from distrib.job.reader import Job
from distrib.job.script import AnyJob
from distrib.job.spec.resources import WorkerRange


def choose_device(job: AnyJob, num_gpus: int) -> Device:
    """Decides `resources.device` for a machine with `num_gpus` GPUs.

    Raises:
        JobError: CUDA is required, or there are GPUs, but fewer than workers.
    """
    resources = job.spec.resources
    workers = resources.workers.min if isinstance(resources.workers, WorkerRange) else resources.workers
    if resources.device == "cpu" or (resources.device == "auto" and num_gpus == 0):
        return "cpu"
    if num_gpus == 0:
        raise job.error("resources.device", "cuda is required, but this machine has no GPU; use cpu or auto (`device`)")
    if workers > num_gpus:
        raise job.error(
            "resources.workers",
            f"{workers} workers need a GPU each, but this machine has {num_gpus}; "
            f"use {num_gpus} (`workers`), or train on the CPU (`device`)",
        )
    return "cuda"


def choose_cluster_device(job: AnyJob, num_gpus: int) -> Device:
    """Decides `resources.device` for a cluster with `num_gpus` GPUs: CUDA if there is any.

    Whether there are enough is decided when workers are placed, since hosts come and go.

    Raises:
        JobError: CUDA is required, but there is no GPU at all.
    """
    device = job.spec.resources.device
    if device == "cuda" and num_gpus == 0:
        raise job.error(
            "resources.device", "cuda is required, but no host of the cluster has a GPU; use cpu or auto (`device`)"
        )
    return "cpu" if device == "cpu" or num_gpus == 0 else "cuda"


def usable_cpus() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fit_workers(request: Request, num_gpus: int) -> int:
    """The number of workers on this machine: of a range, as many as there are GPUs or CPUs for."""
    room = num_gpus if request.device == "cuda" else usable_cpus() // request.cpus_per_worker
    return max(request.min_workers, min(request.max_workers, room))


def check_compression(job: Job, request: Request) -> None:
    """Refuses a gradient compression that the backend does not support.

    Raises:
        JobError: It does not.
    """
    needs_nccl = {
        "bf16": "only NCCL, on GPUs, sums gradients in bf16",
        "powersgd": "PowerSGD needs NCCL, on GPUs: it sums in callbacks, whose order other backends do not keep",
    }
    reason = needs_nccl.get(job.spec.ddp.compress)
    if reason is not None and request.backend == "gloo":
        raise job.error("ddp.compress", f"{reason}; ranks on CPU use gloo: use fp16 or none, or resources.device cuda")
