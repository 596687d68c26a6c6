"""Whether this machine can carry a lab at all."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from cluster.lab.errors import LabError
from cluster.lab.ray_node import MAX_TEMP_DIR_LENGTH

_TOOLS = {"ip": "iproute2", "tc": "iproute2", "bridge": "iproute2", "mount": "util-linux"}
_MAX_NAME_LENGTH = 11  # an interface is called after the lab, and 15 letters are all that it can have
MAX_HOSTS = 99


def find_obstacle() -> str | None:
    """Why there can be no lab on this machine, with the way out; None where nothing is known to be in the way."""
    if not sys.platform.startswith("linux"):
        return "a lab needs Linux: its hosts are network namespaces"
    if os.geteuid() != 0:
        return 'a lab needs root, for its network namespaces; run it under sudo -E env PATH="$PATH"'
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            return f"a lab needs the command {tool}, of the package {package}; on Debian: apt-get install {package}"
    return None


def check_machine() -> None:
    """Raises LabError where there can be no lab on this machine."""
    obstacle = find_obstacle()
    if obstacle is not None:
        raise LabError(obstacle)


def check_name(name: str) -> None:
    """Raises LabError where a lab cannot be called that."""
    if re.fullmatch(r"[a-z0-9][a-z0-9-]*", name, re.ASCII) is None or len(name) > _MAX_NAME_LENGTH:
        raise LabError(
            f"{name!r} cannot name a lab; use up to {_MAX_NAME_LENGTH} lower-case letters, digits and dashes, "
            "a letter or digit first"
        )


def check_folder(folder: Path) -> None:
    """Raises LabError where the paths of Ray's sockets would get too long."""
    excess = len(str(folder / f"host{MAX_HOSTS}" / "ray")) - MAX_TEMP_DIR_LENGTH
    if excess > 0:
        raise LabError(
            f"the path {folder} is {excess} letters too long for the sockets of Ray; choose a shorter --folder"
        )
