"""Checks whether this machine can run a lab."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from cluster.lab.errors import LabError
from cluster.lab.ray_node import MAX_TEMP_DIR_LENGTH

_TOOLS = {"ip": "iproute2", "tc": "iproute2", "bridge": "iproute2", "mount": "util-linux"}
_MAX_NAME_LENGTH = 11  # interface names contain the lab's name and have at most 15 characters
MAX_HOSTS = 99


def find_obstacle() -> str | None:
    """The reason why this machine cannot run a lab, with the fix; None if there is no known obstacle."""
    if not sys.platform.startswith("linux"):
        return "a lab needs Linux: its hosts are network namespaces"
    if os.geteuid() != 0:
        return 'a lab needs root, for its network namespaces; run it under sudo -E env PATH="$PATH"'
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            return f"a lab needs the command {tool}, from the package {package}; on Debian: apt-get install {package}"
    return None


def check_machine() -> None:
    """Raises LabError if this machine cannot run a lab."""
    obstacle = find_obstacle()
    if obstacle is not None:
        raise LabError(obstacle)


def check_name(name: str) -> None:
    """Raises LabError if this is not a valid name of a lab."""
    if re.fullmatch(r"[a-z0-9][a-z0-9-]*", name, re.ASCII) is None or len(name) > _MAX_NAME_LENGTH:
        raise LabError(
            f"{name!r} cannot name a lab; use up to {_MAX_NAME_LENGTH} lowercase letters, digits and dashes, "
            "a letter or digit first"
        )


def check_folder(folder: Path) -> None:
    """Raises LabError if the paths of Ray's sockets would be too long."""
    excess = len(str(folder / f"host{MAX_HOSTS}" / "ray")) - MAX_TEMP_DIR_LENGTH
    if excess > 0:
        raise LabError(
            f"the path {folder} is {excess} characters too long for Ray's sockets; choose a shorter --folder"
        )
