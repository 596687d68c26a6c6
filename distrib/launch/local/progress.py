"""The positions of the ranks on this machine, in memory that they share with the launcher."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from mmap import mmap

from distrib.train.phases import Position, RankProgress


@dataclass(frozen=True)
class SharedProgress:
    """One position per rank in a file in memory.

    Attributes:
        descriptor: Of the file.
        world_size: The number of ranks.
    """

    descriptor: int
    world_size: int

    @classmethod
    def create(cls, world_size: int) -> SharedProgress:
        """Positions at the start; the creator closes them."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("distrib-progress")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, RankProgress.SIZE * world_size)
        shared = cls(descriptor, world_size)
        for rank in range(world_size):
            shared.of_rank(rank)
        return shared

    def of_rank(self, rank: int) -> RankProgress:
        """Where a rank publishes its position."""
        return RankProgress(mmap(self.descriptor, RankProgress.SIZE * self.world_size), RankProgress.SIZE * rank)

    def read(self) -> dict[int, Position]:
        """The positions of all ranks."""
        content = os.pread(self.descriptor, RankProgress.SIZE * self.world_size, 0)
        return {rank: RankProgress.decode(content, RankProgress.SIZE * rank) for rank in range(self.world_size)}

    def close(self) -> None:
        """Closes this process's descriptor."""
        os.close(self.descriptor)
