"""Tracebacks as a user wants to see them."""

from __future__ import annotations

import os
import traceback
from types import TracebackType

import torch

_TORCH = os.path.dirname(os.path.abspath(torch.__file__))
_COLLECTIVE_FILES = tuple(
    os.path.join(_TORCH, part)
    for part in ("distributed" + os.sep, "nn/parallel" + os.sep, "autograd" + os.sep, "_tensor.py", "_ops.py")
)


def user_traceback(error: BaseException) -> str:
    """The traceback from the user's first frame on; whole where none is the user's.

    The frames before it belong to this package and to torch: how the user's code came to be called.
    """
    frames = user_frames(error)
    shown = frames if frames is not None else error.__traceback__
    return "".join(traceback.format_exception(type(error), error, shown))


def is_raised_by_torch(error: BaseException) -> bool:
    """Whether torch itself raised an error in a collective or a backward pass, not code that one of them called."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None:
        frames = frames.tb_next
    return frames is not None and frames.tb_frame.f_code.co_filename.startswith(_COLLECTIVE_FILES)


def user_frames(error: BaseException) -> TracebackType | None:
    """The frames of an error from the user's first on; None where none is the user's."""
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
    theirs = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith((ours, theirs)):
        frames = frames.tb_next
    return frames
