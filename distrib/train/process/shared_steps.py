"""What ranks on one host announce to each other through memory, which costs nothing to look at."""

from __future__ import annotations

import mmap
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SLOT_BYTES = 8


class SharedSteps:
    """The step in which each rank last had something to announce.

    What a rank announces before a collective, every rank sees after it. A rank may announce for a later step only when
    all ranks have looked at this one, so a collective must follow each step in which something was announced.

    Args:
        memory: A slot for each rank, shared by all.
        rank: This rank.
    """

    def __init__(self, memory: mmap.mmap, rank: int) -> None:
        self._slots = memoryview(memory).cast("q")
        self._rank = rank

    def announce(self, step: int) -> None:
        """Announces something for `step`, counted from 1."""
        self._slots[self._rank] = step

    def is_announced(self, step: int) -> bool:
        """Whether any rank has announced something for `step`."""
        return step in self._slots


class EveryStep:
    """What stands for `SharedSteps` where ranks share no memory: each step counts as announced."""

    def announce(self, step: int) -> None:
        """Does nothing."""

    def is_announced(self, step: int) -> bool:
        """Always true."""
        return True


def share_steps(group: dist.ProcessGroup) -> SharedSteps | None:
    """Memory shared by all ranks of a group; None, on all of them, if they are on several hosts or cannot share any.

    All ranks call it together.
    """
    rank, world_size = dist.get_rank(group), dist.get_world_size(group)
    path, memory = None, None
    with suppress(OSError):
        path = _make_file(world_size) if rank == 0 else None
    shared: list[Any] = [(_boot_id(), path)]
    dist.broadcast_object_list(shared, group_src=0, group=group)
    boot_id, common = shared[0]
    if common is not None and boot_id and boot_id == _boot_id():
        with suppress(OSError, ValueError), open(common, "r+b") as file:
            memory = mmap.mmap(file.fileno(), world_size * _SLOT_BYTES)
    have_memory: list[Any] = [None] * world_size
    dist.all_gather_object(have_memory, memory is not None, group=group)
    if path is not None:
        with suppress(OSError):
            os.unlink(path)
    return SharedSteps(memory, rank) if memory is not None and all(have_memory) else None


def _make_file(world_size: int) -> str:
    """A temporary file that really has room for a slot for each rank."""
    descriptor, path = tempfile.mkstemp(prefix="distrib-steps-")
    try:
        os.write(descriptor, bytes(world_size * _SLOT_BYTES))
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)
    return path


def _boot_id() -> str:
    """What tells running kernels apart; empty if it is unknown."""
    with suppress(OSError):
        return _BOOT_ID.read_text()
    return ""
