"""Answers as named columns on the host, with one entry for each row."""

from __future__ import annotations

from typing import Any

import numpy

OUTPUT = "output"
"""The name of the only column where the outputs are one tensor and so have no name."""

Column = numpy.ndarray[Any, Any] | list[Any]
Columns = dict[str, Column]
