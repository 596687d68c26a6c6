"""Ends what is left of a Ray of our own once its launcher has ended, however that ended; a program of its own.

Arguments: the name of the environment variable that the processes of that Ray have, and its folder. Standard input is a
pipe whose other end the launcher holds. It imports nothing but the standard library, since it starts beside Ray.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_PATIENCE_SECONDS = 5.0


class Reaper:
    """The launcher's side: starts the program, and ends it.

    Args:
        variable: The name of an environment variable that all processes of the Ray have, and no others.
        folder: The Ray's temporary folder.
    """

    def __init__(self, variable: str, folder: str) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if sys.platform == "linux":
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, variable, folder],
                stdin=subprocess.PIPE,
                env={key: value for key, value in os.environ.items() if key != variable},
                start_new_session=True,
            )

    def reap(self) -> None:
        """Has it do its work now, and waits for it."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()


def main() -> None:
    """Waits for the launcher's end, kills the processes of its Ray and removes the folder."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    variable, folder = sys.argv[1:]
    sys.stdin.buffer.read()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while processes_with(variable) and time.monotonic() < deadline:
        for pid in processes_with(variable):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)  # one that was killed may have just started another
    shutil.rmtree(folder, ignore_errors=True)


def processes_with(variable: str) -> list[int]:
    """The processes that were started with an environment variable of this name."""
    start = f"{variable}=".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(entry.startswith(start) for entry in (folder / "environ").read_bytes().split(b"\0")):
                found.append(int(folder.name))
    return found


if __name__ == "__main__":
    main()
