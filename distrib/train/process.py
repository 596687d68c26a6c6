"""What a process of a rank owes others: to end with its parent, and to leave no temporary files."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import util

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def die_with_parent(parent: int | None = None) -> None:
    """Asks Linux to kill this process as soon as its parent ends, however that ends; does nothing elsewhere.

    Args:
        parent: The parent's process id, where known: if it has ended already, this process ends at once.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


@contextmanager
def temporary_files_removed(loader_workers: int) -> Iterator[None]:
    """Removes the temporary folder that this process shares with its loader workers, which end without doing so."""
    if loader_workers == 0:
        yield
        return
    folder = util.get_temp_dir()
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
