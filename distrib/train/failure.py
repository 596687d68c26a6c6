"""Why a rank failed, as data that outlives it."""

from __future__ import annotations

import json
import os
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist

from distrib.errors import DistribError
from distrib.train.host import Place

Kind = Literal["user", "infrastructure", "hang"]

_CONNECTION_SIGNS = ("gloo/", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe")
_LOADER_SIGN = "DataLoader worker (pid"
_TIMEOUT_SIGNS = ("Timed out waiting", "timed out", "timeout")


class NonFiniteLossError(DistribError):
    """The loss became NaN or infinite."""


class PeerFailedError(DistribError):
    """Another rank failed, and this one ends for that reason alone."""


@dataclass(frozen=True)
class Failure:
    """The error that ended a rank.

    Attributes:
        rank: The rank, or None where no rank can be named.
        host: The name of its host.
        type: The exception's class, or the signal.
        message: The exception's text.
        traceback: The user's frames and below, as Python prints them; None where there is none to show.
        kind: `user` for the job's own errors, `infrastructure` for a lost process, connection or loader worker, `hang`
            for a wait that timed out.
        time: Unix seconds.
    """

    rank: int | None
    host: str
    type: str
    message: str
    traceback: str | None
    kind: Kind
    time: float

    @classmethod
    def of(cls, error: BaseException, place: Place) -> Failure:
        """Describes an exception of the rank at `place`."""
        is_message = isinstance(error, DistribError)
        return cls(
            rank=place.rank,
            host=place.host_name,
            type=type(error).__name__,
            message=str(error),
            traceback=None if is_message else _user_traceback(error),
            kind=_kind(error),
            time=time.time(),
        )

    @classmethod
    def read(cls, path: Path) -> Failure | None:
        """What `write` has written, or None."""
        try:
            return cls(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Writes the failure for the launcher to read."""
        path.write_text(json.dumps(self.as_dict()))

    def as_dict(self) -> dict[str, object]:
        """Plain data for run.json."""
        return asdict(self)


def _kind(error: BaseException) -> Kind:
    text = str(error)
    is_connection = isinstance(error, dist.DistError | ConnectionError | PeerFailedError) or (
        isinstance(error, RuntimeError) and any(sign in text for sign in _CONNECTION_SIGNS)
    )
    if is_connection:
        return "hang" if any(sign in text for sign in _TIMEOUT_SIGNS) else "infrastructure"
    if isinstance(error, RuntimeError) and _LOADER_SIGN in text:
        return "infrastructure"
    return "user"


def _user_traceback(error: BaseException) -> str:
    """The traceback from the user's first frame on; whole where none is the user's.

    The frames before it belong to this package and to torch: how the user's code came to be called.
    """
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
    theirs = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith((ours, theirs)):
        frames = frames.tb_next
    shown = frames if frames is not None else error.__traceback__
    return "".join(traceback.format_exception(type(error), error, shown))
