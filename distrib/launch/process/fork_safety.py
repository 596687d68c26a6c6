"""Whether this process can be forked, and whether its children may use what it has built."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from distrib.launch.process.environment import environment_defaults
from distrib.launch.process.garbage import imports_uncollected
from distrib.train.process.handles import Handles

Built = TypeVar("Built")


@dataclass(frozen=True)
class ForkCheck:
    """Whether this process can still be forked after it has imported and run code of others.

    Attributes:
        baseline: Its handles before that; None if it could not be forked from the start.
    """

    baseline: Handles | None

    def problems(self) -> list[str]:
        """What makes forking unsafe now, in words; empty if nothing does."""
        if self.baseline is None:
            return ["this process has used torch or threads before"]
        if not Handles.now().added_since(self.baseline):
            return []
        gc.unfreeze()
        gc.collect()  # closes files that nothing refers to
        return Handles.now().added_since(self.baseline)

    @property
    def can_fork(self) -> bool:
        """Whether forked children work and share nothing with each other."""
        return not self.problems()


@contextmanager
def torch_ready_to_fork() -> Iterator[ForkCheck]:
    """Imports torch with a single thread; yields a check of whether this process can be forked while in this context.

    A process that had imported torch before, whose history is unknown, is not forked, nor is one with other threads.
    `torch.cuda.is_available` queries NVML, since initializing the CUDA runtime would make a later fork unsafe.
    """
    is_fresh = "torch" not in sys.modules
    with environment_defaults({"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}):
        with imports_uncollected():
            import torch

        num_threads = torch.get_num_threads()
        if is_fresh:
            torch.set_num_threads(1)
        torch.cuda.device_count()  # keeps NVML's files open from now on
        is_safe = sys.platform == "linux" and is_fresh and threading.active_count() == 1
        try:
            yield ForkCheck(Handles.now() if is_safe else None)
        finally:
            if is_fresh:
                torch.set_num_threads(num_threads)
            gc.unfreeze()


def build_to_inherit(build: Callable[[], Built]) -> tuple[Built, bool]:
    """Builds something; returns it and whether a forked process may use it as it is.

    An open file has one position, which forked processes would share and so read wrongly; a thread does not survive a
    fork. If building leaves either behind, each process must build its own.
    """
    gc.freeze()  # so that what earlier code has dropped is not closed while building, which would hide a new file
    before = Handles.now()
    built = build()
    return built, not Handles.now().added_since(before)
