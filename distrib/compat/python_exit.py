"""Running what Python would run at its own exit, in a process that then ends without the interpreter's teardown."""

from __future__ import annotations

import atexit

from distrib.compat.symbols import PYTHON_VERSIONS, PrivateSymbol

SYMBOLS = (
    PrivateSymbol(
        "atexit._run_exitfuncs",
        "registered functions must run, but tearing down an interpreter with torch and Ray takes more than a second",
        PYTHON_VERSIONS,
        "the interpreter ends as usual",
    ),
)


def run_exit_functions() -> bool:
    """Runs the functions registered with `atexit`; returns whether this Python can."""
    run = getattr(atexit, "_run_exitfuncs", None)
    if run is None:
        return False
    run()
    return True
