"""What a process of a rank owes others: to end with its parent, and to leave no temporary files."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import util

_SHORT_FOLDER = "/tmp"
_LONGEST_PARENT = 70
"""The longest temporary folder in which the sockets of loader workers have paths of at most 107 bytes."""
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
def short_temporary_folders(longest: int) -> Iterator[None]:
    """Lets new temporary folders be made in /tmp if TMPDIR is longer than that: the paths of sockets have a limit."""
    before = tempfile.gettempdir()
    is_needed = len(os.fsencode(before)) > longest and os.access(_SHORT_FOLDER, os.W_OK | os.X_OK)
    if is_needed:
        tempfile.tempdir = _SHORT_FOLDER
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextmanager
def temporary_files_removed(loader_workers: int) -> Iterator[None]:
    """Removes the temporary folder that this process shares with its loader workers, which end without doing so."""
    if loader_workers == 0:
        yield
        return
    with short_temporary_folders(_LONGEST_PARENT):
        folder = util.get_temp_dir()  # which multiprocessing keeps using
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
