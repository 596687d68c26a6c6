"""Importing torch so that this process can be forked afterwards."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from distrib.launch.environment import environment_defaults


@contextmanager
def torch_ready_to_fork() -> Iterator[bool]:
    """Imports torch with a single thread of its own; gives whether this process can be forked while in this context.

    A forked child with several OpenMP threads hangs if its parent had used several, and CUDA does not survive a fork;
    so a process that had imported torch before, whose past is unknown, is not forked, nor is one with other threads.
    torch's `cuda.is_available` asks NVML, since the CUDA runtime's answer would spoil a later fork.
    """
    is_fresh = "torch" not in sys.modules
    with environment_defaults({"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}):
        import torch

        num_threads = torch.get_num_threads()
        if is_fresh:
            torch.set_num_threads(1)
        try:
            yield sys.platform == "linux" and is_fresh and threading.active_count() == 1
        finally:
            if is_fresh:
                torch.set_num_threads(num_threads)
