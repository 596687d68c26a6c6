"""Time-outs of process groups that exist already."""

from __future__ import annotations

from datetime import timedelta

import torch.distributed as dist

from distrib.compat.symbols import TORCH_VERSIONS, PrivateSymbol

SYMBOLS = (
    PrivateSymbol(
        "torch.distributed.ProcessGroup.set_timeout",
        "lowers the time-out once all ranks have started; public torch sets one only when a group is created",
        TORCH_VERSIONS,
        "the time-out of the start is kept",
    ),
)


def set_timeout(group: dist.ProcessGroup, timeout: timedelta) -> None:
    """Lets collectives of `group` that begin from now on wait at most `timeout`."""
    if hasattr(group, "set_timeout"):
        group.set_timeout(timeout)
