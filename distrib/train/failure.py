"""Why a rank failed, as data that is kept after the rank has ended."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch.distributed as dist

from distrib.compat.messages import is_lost_connection, is_lost_loader_worker, is_out_of_shared_memory, is_timeout
from distrib.errors import DistribError
from distrib.train.advice import advice_for
from distrib.train.context import RankInfo
from distrib.train.data.loader import LoaderFailedError
from distrib.train.phases import Position
from distrib.train.process.tracebacks import is_raised_by_torch, user_traceback

Kind = Literal["user", "infrastructure", "hang"]

_MAX_TEXT_LENGTH = 50_000


class NonFiniteLossError(DistribError):
    """The loss became NaN or infinite."""


class DriftError(DistribError):
    """Ranks that should hold the same have different weights or optimizer states.

    Args:
        message: What differs, and where.
        rank: The only rank that differs from all others, if there is one.
        host: Its host.
    """

    def __init__(self, message: str, rank: int | None = None, host: str | None = None) -> None:
        super().__init__(message)
        self.rank = rank
        self.host = host


class PeerFailedError(DistribError):
    """Another rank failed, so this one ends too."""


@dataclass(frozen=True)
class Failure:
    """The error that ended a rank.

    Attributes:
        rank: The rank, or None where no rank can be named.
        host: The name of its host.
        type: The exception's class, or the signal.
        message: The exception's text.
        traceback: The user's frames and below, as Python prints them; None if there are none.
        kind: `user` for the job's own errors, `infrastructure` for a lost process, connection or loader worker, `hang`
            for a wait that timed out.
        time: Unix seconds.
        is_in_collective: Whether torch itself raised it in a collective or a backward pass, neither of which names the
            cause: the rank's own error, a lost peer, or one that hangs.
        advice: What to do about it, if its text does not say so.
        others: What other ranks reported, in one line.
        completed_steps: The optimizer steps that the rank had completed; None if that is not known.
        phase: What it did after them.
    """

    rank: int | None
    host: str
    type: str
    message: str
    traceback: str | None
    kind: Kind
    time: float
    is_in_collective: bool = False
    advice: str | None = None
    others: str | None = None
    completed_steps: int | None = None
    phase: str | None = None

    @classmethod
    def of(cls, error: BaseException, place: RankInfo, position: Position | None = None) -> Failure:
        """Describes an exception of the rank at `place`, which stood at this position."""
        name, message, shown = type(error).__name__, error_text(error), None
        if isinstance(error, LoaderFailedError):
            name, message, shown = error.type, error.message, error.traceback or None
        elif not isinstance(error, DistribError):
            shown = _shortened(user_traceback(error)) or None
        in_collective = isinstance(error, RuntimeError) and is_raised_by_torch(error)
        rank, host = place.rank, place.host_name
        if isinstance(error, DriftError):
            rank, host = error.rank if error.rank is not None else rank, error.host or host
        advice = None if isinstance(error, DistribError) else advice_for(name, message)
        failure = cls(rank, host, name, message, shown, _kind(error), time.time(), in_collective, advice)
        return failure if position is None else failure.at(position)

    def at(self, position: Position) -> Failure:
        """The failure with the position at which its rank stood, unless that is known already."""
        if self.phase is not None:
            return self
        return replace(self, completed_steps=position.completed_steps, phase=position.phase.label)

    @classmethod
    def of_launcher(cls, error: BaseException) -> Failure:
        """Describes an error of the launcher itself."""
        return cls(
            None, os.uname().nodename, type(error).__name__, error_text(error), None, "infrastructure", time.time()
        )

    @property
    def headline(self) -> str:
        """Which rank failed and why, in a line."""
        rank = "a rank" if self.rank is None else f"rank {self.rank}"
        return f"{rank} on {self.host} failed: {self.type}: {self.message}"

    @classmethod
    def read(cls, path: Path) -> Failure | None:
        """What `write` has written, or None."""
        for file in (path, _elsewhere(path)):
            try:
                return cls(**json.loads(file.read_bytes()))
            except (OSError, ValueError, TypeError):
                continue
        return None

    def write(self, path: Path) -> None:
        """Writes the failure for the launcher to read; to the temporary folder if `path` cannot be written."""
        text = json.dumps(self.as_dict())
        try:
            path.write_text(text)
        except OSError:
            path = _elsewhere(path)
            path.write_text(text)

    @staticmethod
    def remove(path: Path) -> None:
        """Removes what `write` has written, if anything."""
        for file in (path, _elsewhere(path)):
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)

    def as_dict(self) -> dict[str, object]:
        """Plain data for run.json."""
        return asdict(self)


def _elsewhere(path: Path) -> Path:
    """Where a failure is written if `path` cannot be written: a file of this user for this path."""
    name = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"distrib-{os.getuid()}-{name}.error.json"


def error_text(error: BaseException) -> str:
    """The text of an exception, shortened if it is very long; never raises, even if its `__str__` does."""
    try:
        return _shortened(str(error))
    except Exception as problem:
        return f"(its text cannot be shown: {type(problem).__name__})"


def _shortened(text: str) -> str:
    """A text without its middle if it is very long."""
    half = _MAX_TEXT_LENGTH // 2
    return text if len(text) <= _MAX_TEXT_LENGTH else f"{text[:half]}\n…\n{text[-half:]}"


def _kind(error: BaseException) -> Kind:
    text = error_text(error)
    is_connection = isinstance(error, dist.DistError | ConnectionError | PeerFailedError) or (
        isinstance(error, RuntimeError) and is_lost_connection(text)
    )
    if is_connection:
        return "hang" if is_timeout(text) else "infrastructure"
    if isinstance(error, RuntimeError) and is_lost_loader_worker(text):
        return "user" if is_out_of_shared_memory(text) else "infrastructure"
    return "user"
