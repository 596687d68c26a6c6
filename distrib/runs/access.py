"""Who may read a run's folder: the user alone, or a group."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from distrib.errors import JobError

ACCESS_VARIABLE = "DISTRIB_RUN_ACCESS"
_PRIVATE, _GROUP = 0o700, 0o2750
"""Files get the modes that the umask gives them, so the folder decides; setgid passes the group on to what is in it."""


def make_run_folder(folder: Path) -> None:
    """Creates a run's folder, readable to whom DISTRIB_RUN_ACCESS names; one that exists is left as it is.

    `private`, the default, is the user alone, `group` the group of the folder above, `group:NAME` another group.

    Raises:
        JobError: The variable is wrong.
        OSError: The folder cannot be created.
    """
    access, _, group = (os.environ.get(ACCESS_VARIABLE) or "private").partition(":")
    if access not in ("private", "group") or (group and access == "private"):
        raise JobError("is not private, group or group:NAME", field=ACCESS_VARIABLE)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=_PRIVATE)
    except FileExistsError:
        if not folder.is_dir():
            raise
        return
    if access == "group":
        _open_to(folder, group)


def _open_to(folder: Path, group: str) -> None:
    try:
        shutil.chown(folder, group=group or folder.parent.stat().st_gid)
        folder.chmod(_GROUP)
    except (LookupError, PermissionError) as error:
        folder.rmdir()
        raise JobError(f"{folder} cannot be given to group {group}: {error}", field=ACCESS_VARIABLE) from error
