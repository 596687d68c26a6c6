"""Tracebacks reduced to what concerns the user's code."""

from __future__ import annotations

import os
import traceback
from types import TracebackType

import torch

import distrib

_PACKAGE = os.path.dirname(os.path.abspath(distrib.__file__)) + os.sep
_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_RUNPY = "<frozen runpy>"
_HIDDEN = (_PACKAGE, _TORCH, _RUNPY)
"""Beginnings of the files whose frames only show how the user's code was called."""
_COLLECTIVE_FILES = tuple(
    os.path.join(_TORCH, part)
    for part in ("distributed" + os.sep, "nn/parallel" + os.sep, "autograd" + os.sep, "_tensor.py", "_ops.py")
)


def user_traceback(error: BaseException) -> str:
    """The traceback from the user's first frame on.

    Earlier frames belong to this package and to torch and only show how the user's code was called. If torch raised the
    error and no frame is the user's, as in a model of torch's own, there is nothing to show and the text is empty, as
    there is if Python finds no module of the name that it should run. An error that this package raised is a bug, whose
    traceback is complete.
    """
    frames = user_frames(error)
    if frames is None and _file_of(error).startswith((_TORCH, _RUNPY)):
        return ""
    shown = frames if frames is not None else error.__traceback__
    return "".join(traceback.format_exception(type(error), error, shown))


def is_raised_by_torch(error: BaseException) -> bool:
    """Whether torch itself raised an error in a collective or a backward pass, not code that one of them called."""
    return _file_of(error).startswith(_COLLECTIVE_FILES)


def user_frames(error: BaseException) -> TracebackType | None:
    """The frames of an error from the user's first one on; None if there are none."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_HIDDEN):
        frames = frames.tb_next
    return frames


def _file_of(error: BaseException) -> str:
    """The source file that raised an error; empty if it is unknown."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None:
        frames = frames.tb_next
    return "" if frames is None else frames.tb_frame.f_code.co_filename
