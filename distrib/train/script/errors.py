"""Errors in how a script uses its session, with the script's line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from distrib.train.objective.task import TaskError

_OTHERS = (str(Path(__file__).parents[2]), str(Path(torch.__file__).parent), "<frozen")


class UsageError(TaskError):
    """A script uses its session wrongly.

    Args:
        message: What is wrong and how to fix it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(f"{_location()}{message}")


def _location() -> str:
    """`FILE:LINE: ` of the newest frame outside of this package and of torch, which calls its hooks."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OTHERS):
        frame = frame.f_back
    file = frame.f_code.co_filename
    near = os.path.relpath(file) if os.path.isabs(file) else file
    return f"{file if near.startswith('..') else near}:{frame.f_lineno}: "
