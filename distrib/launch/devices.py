"""Which device a job trains on, and how many workers fit on this machine."""

from __future__ import annotations

import os

from distrib.job.plan import Device, Request
from distrib.job.reader import Job
from distrib.job.spec import WorkerRange


def choose_device(job: Job, num_gpus: int) -> Device:
    """Decides `resources.device` for a machine with `num_gpus` GPUs.

    Raises:
        JobError: CUDA is asked for, or GPUs are there, but fewer than workers.
    """
    resources = job.spec.resources
    workers = resources.workers.min if isinstance(resources.workers, WorkerRange) else resources.workers
    if resources.device == "cpu" or (resources.device == "auto" and num_gpus == 0):
        return "cpu"
    if num_gpus == 0:
        raise job.error("resources.device", "cuda is asked for, but this machine has no GPU; use --device cpu or auto")
    if workers > num_gpus:
        raise job.error(
            "resources.workers",
            f"{workers} workers want a GPU each, but this machine has {num_gpus}; "
            f"use --workers {num_gpus}, or --device cpu",
        )
    return "cuda"


def choose_device_on_ray(job: Job, num_gpus: int) -> Device:
    """Decides `resources.device` for a Ray cluster with `num_gpus` GPUs: CUDA wherever there is any.

    Whether there are enough is for the placement to say, since hosts come and go.

    Raises:
        JobError: CUDA is asked for where there is no GPU at all.
    """
    device = job.spec.resources.device
    if device == "cuda" and num_gpus == 0:
        raise job.error("resources.device", "cuda is asked for, but no host of Ray has a GPU; use --device cpu or auto")
    return "cpu" if device == "cpu" or num_gpus == 0 else "cuda"


def check_compression(job: Job, request: Request) -> None:
    """Refuses a compression of gradients that the backend cannot sum.

    Raises:
        JobError: It cannot.
    """
    needs_nccl = {
        "bf16": "gradients in bf16 are summed by NCCL alone, on GPUs",
        "powersgd": "PowerSGD sums from within callbacks, which NCCL alone keeps in one order, on GPUs",
    }
    reason = needs_nccl.get(job.spec.ddp.compress)
    if reason is not None and request.backend == "gloo":
        raise job.error("ddp.compress", f"{reason}; ranks on CPU use gloo: take fp16 or none, or resources.device cuda")


def usable_cpus() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fit_workers(request: Request, num_gpus: int) -> int:
    """The number of workers on this machine: of a range, as many as there are GPUs or CPUs for."""
    room = num_gpus if request.device == "cuda" else usable_cpus() // request.cpus_per_worker
    return max(request.min_workers, min(request.max_workers, room))
