"""Model outputs as named columns on the host, with one entry per row."""

from __future__ import annotations

from typing import Any

import numpy

OUTPUT = "output"
"""The name of the only column if the output is a single, unnamed tensor."""

Column = numpy.ndarray[Any, Any] | list[Any]
Columns = dict[str, Column]
