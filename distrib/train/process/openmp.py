"""Ends the idle threads of OpenMP, so that a forked child can use OpenMP itself."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path

_LIBRARY_NAMES = ("libgomp", "libiomp", "libomp")
_PAUSE_HARD = 2  # omp_pause_hard of OpenMP 5.0's omp_pause_resource_t


def end_idle_threads() -> None:
    """Ends the OpenMP threads of this thread's last parallel region, in each OpenMP library that is loaded.

    A library keeps these threads for the next parallel region. A forked child does not have them but its copy of the
    library believes so, and the child hangs in its first parallel region. They start again when needed.
    """
    for library in _loaded_libraries():
        with suppress(OSError, AttributeError):  # a library older than OpenMP 5.0 lacks the function
            ctypes.CDLL(library).omp_pause_resource_all(_PAUSE_HARD)


def _loaded_libraries() -> set[str]:
    """The paths of the OpenMP libraries in this process; on systems without /proc none."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return set()
    files = {line.split(maxsplit=5)[5] for line in lines if line.count("/")}
    return {file for file in files if Path(file).name.startswith(_LIBRARY_NAMES)}
