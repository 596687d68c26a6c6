"""What this process holds that a forked child would share with it or lose: open files, shared memory, threads, CUDA."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_STATELESS_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
"""Devices without a position: sharing an open one changes nothing."""
_SURVIVING_THREADS = ("jemalloc_bg_thd",)
"""Names of threads whose library handles a fork itself; jemalloc comes with pyarrow, which scikit-learn imports."""


@dataclass(frozen=True)
class Handles:
    """A snapshot of this process; on systems without /proc, of its Python threads only.

    Attributes:
        files: Open descriptors and what they are open on. A forked child shares their position and state.
        shared_memory: Writable shared mappings. A forked child writes to the same memory.
        threads: Threads that a forked child lacks: those of Python, and native ones that have a name of their own.
            Nameless ones are taken for those of OpenMP and BLAS libraries, which survive a fork: see `train.openmp`.
        has_used_cuda: Whether CUDA is initialized, which no forked child can use.
    """

    files: frozenset[str]
    shared_memory: frozenset[str]
    threads: frozenset[str]
    has_used_cuda: bool

    @classmethod
    def now(cls) -> Handles:
        """The present state."""
        return cls(frozenset(_files()), frozenset(_shared_memory()), frozenset(_threads()), _has_used_cuda())

    def has_connected_since(self, before: Handles) -> bool:
        """Whether a connection has been opened since an earlier snapshot, which a forked child would disturb."""
        return any(name.startswith("socket:") for name in self.files - before.files)

    def added_since(self, before: Handles) -> list[str]:
        """What has been added since an earlier snapshot, each item in words; empty if forking is as safe as then."""
        return [
            *(f"an open file: {name}" for name in sorted(self.files - before.files)),
            *(f"writable shared memory: {name}" for name in sorted(self.shared_memory - before.shared_memory)),
            *(f"a thread: {name}" for name in sorted(self.threads - before.threads)),
            *(["CUDA is in use"] if self.has_used_cuda and not before.has_used_cuda else []),
        ]


def _files() -> Iterator[str]:
    for number in _list("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor of the listing itself is closed by now
            target = os.readlink(f"/proc/self/fd/{number}")
            if target not in _STATELESS_DEVICES:
                yield f"{target} ({number})"


def _shared_memory() -> Iterator[str]:
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        address, permissions, *_, name = line.split(maxsplit=5)
        if permissions[1] == "w" and permissions[3] == "s":
            yield f"{name} ({address.partition('-')[0]})"


def _threads() -> Iterator[str]:
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            yield f"{thread.name} ({thread.native_id})"
    python_threads = {thread.native_id for thread in threading.enumerate()}
    process_name = _thread_name(os.getpid())  # nameless threads have that of the process
    for number in map(int, _list("/proc/self/task")):
        name = _thread_name(number)
        if number not in python_threads and name not in (None, process_name, *_SURVIVING_THREADS):
            yield f"{name} ({number})"


def _thread_name(thread: int) -> str | None:
    with contextlib.suppress(OSError):
        return Path(f"/proc/self/task/{thread}/comm").read_text().strip()
    return None


def _has_used_cuda() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def _list(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
