"""A rank of a run in a local folder that all hosts share."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from distrib.runs.checkpoints import CheckpointFolder
from distrib.runs.layout import RunLayout
from distrib.runs.lease import LostRunError
from distrib.runs.storage.errors import StorageNotSharedError
from distrib.runs.storage.folder.checkpoints import FolderCheckpoints
from distrib.runs.storage.folder.lease import FolderLease

if TYPE_CHECKING:
    from distrib.runs.storage.protocols import RankStorage

_VISIBLE_SECONDS = 5.0
"""How long network file systems may take to show a new file on another host."""
_POLL_SECONDS = 0.1


class FolderRank:
    """What a rank writes is where it is kept; only commits need care.

    Args:
        folder: The run's folder.
        rank: The rank.
        lease: The token of the launcher's lease.
    """

    def __init__(self, folder: Path, rank: int, lease: str) -> None:
        self.layout = RunLayout(folder)
        self.checkpoints = FolderCheckpoints(self.layout.checkpoints)
        self._rank = rank
        self._token = lease
        self._lease = FolderLease(folder)

    def start(self) -> None:
        """Does nothing."""

    def take_notices(self) -> list[str]:
        """Nothing."""
        return []

    def check_visible(self) -> None:
        """Waits a few seconds for the lease that the launcher has written, and checks for write access."""
        deadline = time.monotonic() + _VISIBLE_SECONDS
        while not self.may_write:
            if time.monotonic() > deadline:
                raise _not_shared(f"does not see the run's folder {self.layout.folder}")
            time.sleep(_POLL_SECONDS)
        if not os.access(self.layout.folder, os.W_OK):
            raise _not_shared(f"cannot write to the run's folder {self.layout.folder}")

    def check_held(self) -> None:
        """Reads the lease."""
        if not self.may_write:
            raise LostRunError("another launcher has taken this run over; this one ends")

    @property
    def may_write(self) -> bool:
        """Whether the launcher of this rank still holds the run."""
        return self._lease.is_token(self._token)

    def publish_part(self, folder: CheckpointFolder, names: Iterable[str]) -> None:
        """Does nothing."""

    def commit(self, folder: CheckpointFolder, num_parts: int, keep: int) -> None:
        """Commits on rank 0, and deletes old checkpoints."""
        if self._rank != 0:
            return
        self.check_held()
        try:
            folder.commit(num_parts)
        except OSError:
            self.check_held()  # another launcher would have removed the uncommitted checkpoint itself
            folder.remove()
            raise
        self.checkpoints.keep_newest(keep)

    def discard(self, folder: CheckpointFolder) -> None:
        """Removes the folder."""
        if self._rank == 0:
            self.check_held()
        folder.remove()

    def publish(self, file: Path) -> None:
        """Does nothing."""

    def publish_records(self) -> None:
        """Does nothing."""

    def close(self, *, has_failed: bool) -> None:
        """Does nothing."""


def _not_shared(problem: str) -> StorageNotSharedError:
    return StorageNotSharedError(
        f"{problem}; use a folder that all hosts share, at the same path, or an object store: "
        "--runs-dir or DISTRIB_RUNS_DIR"
    )


if TYPE_CHECKING:
    _: RankStorage = FolderRank(Path(), 0, "")
