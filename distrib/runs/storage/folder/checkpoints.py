"""The checkpoints in a local folder."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from distrib.runs.checkpoints import CheckpointFolder, parse_name


class FolderCheckpoints:
    """The checkpoints in a local folder, which need not exist.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _all(self) -> list[CheckpointFolder]:
        return [found for path in self._folder.glob("step-*") if (found := parse_name(path)) is not None]

    def at(self, step: int, attempt: int) -> CheckpointFolder:
        """The checkpoint of a step and attempt."""
        return CheckpointFolder.at(self._folder, step, attempt)

    def list(self) -> list[CheckpointFolder]:
        """The checkpoints with a file COMMITTED, newest first."""
        return sorted((found for found in self._all() if found.is_committed()), reverse=True)

    def fetch(self, folder: CheckpointFolder, rank: int = 0) -> None:
        """Does nothing: the files are on this host."""

    def set_aside(self, folder: CheckpointFolder, problem: str) -> None:
        """Renames the checkpoint to damaged-NAME."""
        with contextlib.suppress(OSError):
            folder.path.rename(folder.path.with_name(f"damaged-{folder.name}"))

    def remove_uncommitted(self) -> None:
        """Deletes the folders without a file COMMITTED."""
        for found in self._all():
            if not found.is_committed():
                shutil.rmtree(found.path, ignore_errors=True)

    def keep_newest(self, count: int) -> None:
        """Deletes all but the newest `count` (at least 1) committed checkpoints."""
        for folder in self.list()[max(1, count) :]:
            folder.remove()


if TYPE_CHECKING:
    from distrib.runs.storage.protocols import CheckpointStorage

    _: CheckpointStorage = FolderCheckpoints(Path())
