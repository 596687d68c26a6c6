"""Kills what is left of a local Ray cluster once its launcher has ended, even by SIGKILL; a separate program.

Arguments: the cluster's temporary folder. Standard input is a pipe whose other end the launcher holds. It imports only
the standard library, to start quickly. Ray's main processes die with the launcher, but not the processes that they have
started; so it lists twice a second which processes there are.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_POLL_SECONDS = 0.5
_TIMEOUT_SECONDS = 5.0

Process = tuple[int, int]
"""A process id and, as ids are reused, the process's start time in ticks since boot."""


class Reaper:
    """The launcher's side: starts the program, and triggers it.

    Args:
        folder: The cluster's temporary folder, whose name no other process knows.
    """

    def __init__(self, folder: str) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if sys.platform == "linux":
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, folder], stdin=subprocess.PIPE, start_new_session=True
            )

    def reap(self) -> None:
        """Triggers it now, and waits until it is done."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()


def main() -> None:
    """Waits for the launcher's end, kills what is left of its cluster and removes the folder."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    folder = sys.argv[1]
    known: set[Process] = set()
    while not select.select([sys.stdin], [], [], _POLL_SECONDS)[0]:
        known = remaining(known, folder)
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while (known := remaining(known, folder)) and time.monotonic() < deadline:
        for pid, _ in known:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)  # one that was killed may have just started another
    shutil.rmtree(folder, ignore_errors=True)


def remaining(known: set[Process], folder: str) -> set[Process]:
    """Those of `known` that are alive, those whose command contains the folder, and all their descendants."""
    alive: dict[Process, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (path / "stat").read_bytes().rpartition(b")")[2].split()  # from field 3, the state, on
            if fields[0] not in (b"Z", b"X"):
                alive[int(path.name), int(fields[19])] = int(fields[1])
    found = {process for process in alive if process in known or is_named(process[0], folder)}
    while True:
        pids = {pid for pid, _ in found}
        more = {process for process, parent in alive.items() if parent in pids} - found
        if not more:
            return found
        found |= more


def is_named(pid: int, folder: str) -> bool:
    """Whether a process other than this one has the folder in its command."""
    with contextlib.suppress(OSError):
        return pid != os.getpid() and os.fsencode(folder) in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


if __name__ == "__main__":
    main()
