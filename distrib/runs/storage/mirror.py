"""The local folder in which a run on an object store is worked on, one per host."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Literal

from distrib.errors import JobError
from distrib.runs.storage.location import split

CACHE_VARIABLE = "DISTRIB_CACHE_DIR"


def mirror_folder(url: str, purpose: Literal["work", "view"]) -> Path:
    """The folder of this host for the run at `url`, created where needed; its name is the run's id.

    It lies under DISTRIB_CACHE_DIR, by default in the temporary folder, and is this user's alone. Who trains the run
    works in `work`; who only looks at it has `view`, so that neither gets in the other's way.

    Raises:
        JobError: It cannot be created, or the cache is another user's.
    """
    cache = _cache()
    parent, run_id = split(url)
    folder = cache / purpose / hashlib.sha256(parent.encode()).hexdigest()[:16] / run_id
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error.strerror or str(error)) from None
    return folder


def _cache() -> Path:
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    cache = Path(tempfile.gettempdir()) / f"distrib-{os.getuid()}"
    try:
        cache.mkdir(mode=0o700, exist_ok=True)
        state = cache.lstat()
    except OSError as error:
        raise _unusable(cache, error.strerror or str(error)) from None
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise _unusable(cache, "it is not a folder that this user alone may write to")
    return cache


def _unusable(folder: Path, reason: str) -> JobError:
    return JobError(
        f"runs on an object store are worked on in {folder}, which cannot be used: {reason}; "
        f"choose another place with {CACHE_VARIABLE}",
        field="storage",
    )
