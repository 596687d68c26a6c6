"""Whether this process can be forked, and whether its children may use what it has built."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from distrib.launch.process.environment import environment_defaults
from distrib.train.randomness import derive_seed, reseed

Built = TypeVar("Built")


@contextmanager
def torch_ready_to_fork() -> Iterator[bool]:
    """Imports torch with a single thread; yields whether this process can be forked while in this context.

    A forked child with several OpenMP threads hangs if its parent had used several, and CUDA does not survive a fork.
    So a process that had imported torch before, whose history is unknown, is not forked, nor is one with other threads.
    `torch.cuda.is_available` queries NVML, since initializing the CUDA runtime would make a later fork unsafe.
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


def build_to_inherit(build: Callable[[], Built], seed: int) -> tuple[Built, bool]:
    """Builds something; returns it and whether a forked process may use it as it is.

    An open file has one position, which forked processes would share and so read wrongly; a thread does not survive a
    fork. If building leaves either behind, each process must build its own.
    """
    files, threads = _open_files(), threading.active_count()
    reseed(derive_seed("data", seed))
    built = build()
    return built, _open_files() <= files and threading.active_count() == threads


def _open_files() -> set[tuple[str, str]]:
    """The open descriptors of this process and what they are open on."""
    found: set[tuple[str, str]] = set()
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return found
    for name in names:
        try:
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
        except OSError:  # the descriptor of the listing itself
            continue
    return found
