"""The device and the threads of a process."""

from __future__ import annotations

import os

import torch

from distrib.errors import TrainingFailedError
from distrib.job.plan import Request


def use_threads(count: int) -> None:
    """Sets the torch threads of this process; call it before the first parallel computation."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    torch.set_num_threads(count)


def use_device(request: Request, gpu: int, *, deterministic: bool) -> torch.device:
    """Makes the rank's device the current one and returns it.

    Raises:
        TrainingFailedError: It is a GPU that torch cannot use.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    if request.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise TrainingFailedError(
            "this rank was given a GPU, but torch sees none: is this torch built for CPUs only, or is the driver "
            "missing?"
        )
    device = torch.device("cuda", gpu)
    torch.cuda.set_device(device)
    return device


def device_name(device: torch.device) -> str:
    """The name of the device for events."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
