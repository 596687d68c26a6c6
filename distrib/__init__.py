"""distrib: a distributed multi-node training launcher for PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distrib.job.reader import Job
    from distrib.launch.options import RunOptions
    from distrib.launch.start import run
    from distrib.runs.record import Run

__all__ = ["Job", "Run", "RunOptions", "run"]
__version__ = "0.1.0"

_HOMES = {
    "Job": "distrib.job.reader",
    "Run": "distrib.runs.record",
    "RunOptions": "distrib.launch.options",
    "run": "distrib.launch.start",
}


def __getattr__(name: str) -> object:
    """Imports the public names on first use, so that `import distrib` stays instant."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'distrib' has no attribute {name!r}")
