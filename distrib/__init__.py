"""distrib: a distributed training launcher for PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distrib.errors import Stopped
    from distrib.job.reader import Job
    from distrib.launch.options import RunOptions
    from distrib.launch.start import run
    from distrib.runs.run import Run
    from distrib.train.script.start import session
    from distrib.train.session.session import Session

__all__ = ["Job", "Run", "RunOptions", "Session", "Stopped", "run", "session"]
__version__ = "0.1.0"

_MODULES = {
    "Job": "distrib.job.reader",
    "Run": "distrib.runs.run",
    "RunOptions": "distrib.launch.options",
    "Session": "distrib.train.session.session",
    "Stopped": "distrib.errors",
    "run": "distrib.launch.start",
    "session": "distrib.train.script.start",
}


def __getattr__(name: str) -> object:
    """Imports a public name on first use, which keeps `import distrib` fast."""
    if name in _MODULES:
        import importlib

        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'distrib' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Lists the public names, including those that are not imported yet."""
    return sorted([*__all__, "__version__"])
