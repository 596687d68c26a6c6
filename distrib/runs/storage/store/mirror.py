"""The mirror of a run on an object store: a local folder with the layout of any run, one per host."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Literal

from distrib.errors import JobError
from distrib.runs.access import make_run_folder
from distrib.runs.files.atomic import atomic_write
from distrib.runs.layout import RunLayout
from distrib.runs.storage.location import split

CACHE_VARIABLE = "DISTRIB_CACHE_DIR"
_LAUNCHER, _WRITER = ".launcher", ".writer"
"""Files in a mirror: the lease of the launcher that works in it, and the attempt whose rank 0 does."""


class RunMirror:
    """The mirror of one run.

    Args:
        folder: As `mirror_folder` returns it.
    """

    def __init__(self, folder: Path) -> None:
        self.layout = RunLayout(folder)
        self.folder = folder

    def clear(self) -> None:
        """Removes everything."""
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def replace_record(self, record: bytes) -> None:
        """Writes run.json; removes other downloaded files unless the run had ended and has not changed since."""
        file = self.layout.record_file
        if not file.exists() or file.read_bytes() != record or b'"status": "running"' in record:
            for stale in (self.layout.job_file, self.layout.weights_file, self.layout.best_file, self.layout.ema_file):
                stale.unlink(missing_ok=True)
        atomic_write(file, record)

    def mark_launcher(self, lease: str) -> None:
        """Records that the launcher with this lease works in this mirror."""
        (self.folder / _LAUNCHER).write_text(lease)

    def has_launcher(self, lease: str) -> bool:
        """Whether the launcher with this lease works in this mirror, and so reads what a rank writes here."""
        return _reads(self.folder / _LAUNCHER, lease)

    def mark_writer(self, attempt: int) -> None:
        """Records that rank 0 of this attempt writes its events into this mirror."""
        (self.folder / _WRITER).write_text(str(attempt))

    def has_writer(self, attempt: int) -> bool:
        """Whether rank 0 of this attempt writes its events into this mirror."""
        return _reads(self.folder / _WRITER, str(attempt))


def _reads(file: Path, text: str) -> bool:
    try:
        return file.read_text() == text
    except OSError:
        return False


def mirror_folder(url: str, purpose: Literal["work", "view"]) -> Path:
    """The folder of this host for the run at `url`, created where needed; its name is the run's id.

    It is below DISTRIB_CACHE_DIR, by default in the temporary folder, and belongs to this user alone. Processes that
    train the run use `work`, others `view`, so that they do not disturb each other.

    Raises:
        JobError: It cannot be created, or the cache belongs to another user.
    """
    cache = _cache()
    parent, run_id = split(url)
    folder = cache / purpose / hashlib.sha256(parent.encode()).hexdigest()[:16] / run_id
    try:
        make_run_folder(folder)
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
