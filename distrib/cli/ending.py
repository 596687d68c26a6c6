"""The end of the command's process, without the teardown of the interpreter."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import NoReturn

from distrib.compat.python_exit import run_exit_functions


def end_process(code: int, *, waits_for_threads: bool = True) -> NoReturn:
    """Ends this process with an exit code as soon as the functions registered with `atexit` have run.

    Python itself would then destroy the objects of all modules one by one: 1.5 s where torch is imported, although the
    system takes all memory back at once. And it would end by SIGINT, not with the exit code, where a KeyboardInterrupt
    passed through `exec`, though it was caught.

    Args:
        code: The exit code.
        waits_for_threads: Whether threads that are not daemons are waited for, which only the interpreter's own end
            can do.
    """
    if waits_for_threads and _has_other_threads():
        sys.exit(code)
    if not run_exit_functions():
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _has_other_threads() -> bool:
    main = threading.main_thread()
    return any(thread is not main and not thread.daemon for thread in threading.enumerate())
