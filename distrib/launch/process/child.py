"""Starts a child process by fork where that is safe, otherwise as a new interpreter."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from distrib.train.process.lifetime import die_with_parent
from distrib.train.process.openmp import end_idle_threads

ChildMain = Callable[..., NoReturn]
"""The function that a child process runs; it is called with the arguments and, last, what a fork inherits, or None."""

FORWARDED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What a terminal or a scheduler sends to all processes of a run; children learn of a stop from their parent."""

_SPAWN_COMMAND = "from distrib.launch.process.child import spawned_main; spawned_main()"


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Blocks the signals that end a run until a child that was started meanwhile has its own handlers."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def fork_child(main: ChildMain, arguments: tuple[Any, ...], inherited: Any, close: Sequence[int] = ()) -> int:
    """Forks a child that runs `main(*arguments, inherited)`; returns its process id.

    Args:
        main: Never returns.
        arguments: Its arguments.
        inherited: What the child uses of this process's memory.
        close: File descriptors of this process that the child closes.
    """
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    end_idle_threads()
    gc.freeze()  # so that the child's garbage collector does not copy the parent's pages
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # BLAS threads survive a fork
        pid = os.fork()
    if pid == 0:
        try:
            die_with_parent(parent)
            for descriptor in close:
                os.close(descriptor)
            main(*arguments, inherited)
        finally:
            os._exit(1)
    return pid


def spawn_child(main: ChildMain, arguments: tuple[Any, ...], keep: Sequence[int] = ()) -> int:
    """Starts a new interpreter that runs `main(*arguments, None)`; returns its process id.

    Args:
        main: A module's function; never returns.
        arguments: Its arguments, which are pickled.
        keep: File descriptors that the child inherits, under the same numbers.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", _SPAWN_COMMAND],
        stdin=subprocess.PIPE,
        pass_fds=keep,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert process.stdin is not None
    with process.stdin as pipe:
        pickle.dump((main, arguments, os.getpid()), pipe)
    process.returncode = 0  # the caller waits for the process id, as for a forked child
    return process.pid


def spawned_main() -> NoReturn:
    """The entry of a new interpreter, which reads its work from standard input."""
    main, arguments, parent = pickle.load(sys.stdin.buffer)
    die_with_parent(parent)
    main(*arguments, None)
    os._exit(1)
