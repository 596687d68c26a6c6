"""The origin of a run: its code, versions, machine and command, found without importing any of the packages."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

GIT_TIMEOUT_SECONDS = 2.0
PACKAGES = ("distrib", "torch", "ray")


def collect_provenance(spec_folder: Path, command: list[str]) -> dict[str, Any]:
    """The origin of a run as run.json contains it.

    Args:
        spec_folder: The folder of the job's file, whose git state is recorded; the job's modules may be there.
        command: The command line of the newest launch, which may have changed options such as the workers.
    """
    return {
        "git": _git_state(spec_folder),
        "spec_folder": str(spec_folder),
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
        "host": socket.gethostname(),
        "platform": f"{sys.platform} {platform.release()} {platform.machine()}",
        "num_cpus": os.cpu_count(),
        "command": command,
    }


def _git_state(folder: Path) -> dict[str, Any] | None:
    """The commit of a folder and whether tracked files differ from it; None without git, a repository or a commit."""
    command = ["git", "--no-optional-locks", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        status = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=True, timeout=GIT_TIMEOUT_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = status.stdout.splitlines()
    commits = [line.split()[2] for line in lines if line.startswith("# branch.oid ")]
    if not commits or commits[0] == "(initial)":
        return None
    return {"commit": commits[0], "dirty": any(not line.startswith("#") for line in lines)}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
