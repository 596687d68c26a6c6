"""Tracebacks as a user wants to see them."""

from __future__ import annotations

import os
import traceback
from types import TracebackType

import torch


def user_traceback(error: BaseException) -> str:
    """The traceback from the user's first frame on; whole where none is the user's.

    The frames before it belong to this package and to torch: how the user's code came to be called.
    """
    frames = user_frames(error)
    shown = frames if frames is not None else error.__traceback__
    return "".join(traceback.format_exception(type(error), error, shown))


def user_frames(error: BaseException) -> TracebackType | None:
    """The frames of an error from the user's first on; None where none is the user's."""
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
    theirs = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith((ours, theirs)):
        frames = frames.tb_next
    return frames
