"""Runs one side of a comparison: a command with a time limit, after which nothing of it is left running."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

REPOSITORY = Path(__file__).parents[2]
MARK = "DISTRIB_BENCH_SIDE"
"""Environment variable that marks the processes of one side."""

SHARED_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
}


class SideFailedError(Exception):
    """A side that did not do what it was asked; says how it ended and shows the end of its stderr."""


@dataclass(frozen=True)
class Finished:
    """A command that ended as expected, with the Unix times just before its start and just after its end."""

    started: float
    ended: float


def run_side(
    name: str,
    command: Sequence[str],
    *,
    timeout_seconds: float,
    environment: Mapping[str, str] | None = None,
    exit_code: int = 0,
    watch: Callable[[int], AbstractContextManager[object]] = lambda pid: nullcontext(),
) -> Finished:
    """Runs `command` from the repository's root to its end.

    Args:
        name: What the side is called in an error.
        command: Program and arguments.
        timeout_seconds: When to give up.
        environment: Variables beside those of this process and the shared ones.
        exit_code: The one that is expected.
        watch: Entered with the process id for as long as the command runs.

    Raises:
        SideFailedError: If it ended otherwise or was too slow.
    """
    mark = secrets.token_hex(8)
    variables = {**os.environ, **SHARED_ENVIRONMENT, **(environment or {}), MARK: mark}
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        started = time.time()
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        try:
            with killed_after(timeout_seconds, process) as too_slow, watch(process.pid):
                process.wait()  # without a time limit of its own, which would poll
                ended = time.time()
        finally:
            kill_all(process, mark)
        if too_slow.is_set():
            raise SideFailedError(f"{name} was still running after {timeout_seconds:g} s\n{tail(errors)}")
        if process.returncode != exit_code:
            raise SideFailedError(f"{name} exited with {process.returncode}, not {exit_code}\n{tail(errors)}")
    return Finished(started, ended)


@contextlib.contextmanager
def killed_after(seconds: float, process: subprocess.Popen[bytes]) -> Iterator[threading.Event]:
    """Kills `process` unless the block ends in time; the event tells whether it had to."""
    too_slow = threading.Event()

    def kill() -> None:
        too_slow.set()
        process.kill()

    timer = threading.Timer(seconds, kill)
    timer.start()
    try:
        yield too_slow
    finally:
        timer.cancel()


def kill_all(process: subprocess.Popen[bytes], mark: str) -> None:
    """Kills the process, its group, and whatever else carries its mark: ranks may have sessions of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for other in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if other.environ().get(MARK) == mark:
                other.kill()


def tail(file: IO[bytes], num_lines: int = 25) -> str:
    """The last lines of what was written to a file."""
    file.seek(0)
    return "\n".join(file.read().decode(errors="replace").splitlines()[-num_lines:])
