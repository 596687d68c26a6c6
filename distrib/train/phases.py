"""Where a rank stands: its completed steps, what it does at present and since when, readable without its help."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from mmap import mmap


class Phase(IntEnum):
    """What a rank does at present. In `REDUCE` it waits for the other ranks; otherwise it works by itself."""

    START = 0
    DATA = 1
    FORWARD = 2
    BACKWARD = 3
    REDUCE = 4
    OPTIMIZER = 5
    CALLBACKS = 6
    EVALUATION = 7
    CHECKPOINT = 8
    SNAPSHOT = 9

    @property
    def label(self) -> str:
        """Its name in messages."""
        return self.name.lower()


@dataclass(frozen=True)
class Position:
    """Where a rank stands.

    Attributes:
        completed_steps: The optimizer steps that it has completed in this run; 0 before the first step of an attempt.
        phase: What it does.
        since: When it began to, in nanoseconds of the host's monotonic clock.
    """

    completed_steps: int
    phase: Phase
    since: int


class RankProgress:
    """Publishes a rank's position in memory that others may read at any time, even while the rank is stuck.

    A change of phase costs well under a microsecond.

    Args:
        memory: Where to write; shared with the reader.
        offset: Of this rank's part of the memory, in bytes.
    """

    _FORMAT = struct.Struct("=qqq")
    SIZE = _FORMAT.size
    """The bytes of one rank's position."""

    def __init__(self, memory: bytearray | mmap, offset: int = 0) -> None:
        self._memory = memory
        self._offset = offset
        self._completed_steps = 0
        self._phase = Phase.START
        self._write = self._FORMAT.pack_into
        self.enter(Phase.START)

    @classmethod
    def private(cls) -> RankProgress:
        """One in this process's own memory."""
        return cls(bytearray(cls.SIZE))

    @classmethod
    def decode(cls, memory: bytes | bytearray | mmap, offset: int = 0) -> Position:
        """The position at this offset."""
        completed_steps, phase, since = cls._FORMAT.unpack_from(memory, offset)
        return Position(completed_steps, Phase(phase), since)

    @property
    def position(self) -> Position:
        """The present position."""
        return self.decode(self._memory, self._offset)

    def enter(self, phase: Phase) -> None:
        """Begins a phase; entering the present one again shows that it advances."""
        self._phase = phase
        self._write(self._memory, self._offset, self._completed_steps, phase, time.monotonic_ns())

    def complete_step(self, completed_steps: int) -> None:
        """Publishes with the next phase that this step has been completed."""
        self._completed_steps = completed_steps

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """A phase within another one, which continues afterwards; after an error the rank counts as failed in it."""
        outer = self._phase
        self.enter(phase)
        yield
        self.enter(outer)
