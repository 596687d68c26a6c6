"""Runs commands on a host and starts its first process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.lab.errors import LabError
from cluster.lab.processes import Process
from cluster.lab.state import Host

_INSIDE = [sys.executable, "-I", "-S", str(Path(__file__).with_name("inside.py"))]
DEADLINE_FILE = "deadline"


def start_first_process(host: Host, namespace: Path, folder: Path) -> Process:
    """Starts the host's init process; when it ends, the host ends. `folder` contains the host's `hosts` file.

    Raises:
        LabError: The machine does not allow it.
    """
    done = subprocess.run(
        [*_INSIDE, "start", str(namespace), host.name, str(folder)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    process = Process.of(int(done.stdout)) if done.returncode == 0 else None
    if process is None:
        raise LabError(f"this machine does not allow the namespaces of {host.name}: {last_line(done.stderr)}")
    return process


def command_on(host: Host, command: Sequence[str], folder: Path | str) -> list[str]:
    """The command line for this machine that runs `command` on a host, in `folder`.

    Raises:
        LabError: The host is down.
    """
    if host.first is None or not host.is_alive:
        raise LabError(f"{host.name} is down; restart it with python -m cluster.lab join {host.name}")
    return [*_INSIDE, "run", str(host.first.pid), host.first.start_time, str(folder), *command]


def hide(host: Host, path: str) -> None:
    """Hides `path` from a host by mounting an empty folder over it.

    Raises:
        LabError: The host is down, or there is no such folder.
    """
    mount = command_on(host, ["mount", "-t", "tmpfs", "distrib-lab", path], "/")
    done = subprocess.run(mount, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{path} cannot be hidden from {host.name}: {last_line(done.stderr)}")


def last_line(text: str) -> str:
    """The last line of an error output, where most programs state the cause."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no message"
