"""What a process of a rank owes its parent: to end with it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

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
