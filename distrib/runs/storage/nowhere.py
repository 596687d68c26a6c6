"""A rank whose run is kept nowhere: that of a script which runs outside of distrib."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from distrib.runs.checkpoints import CheckpointFolder
from distrib.runs.layout import RunLayout
from distrib.runs.storage.folder.checkpoints import FolderCheckpoints

if TYPE_CHECKING:
    from distrib.runs.storage.protocols import RankStorage


class NoStorage:
    """Keeps nothing, and has nothing; see `RankStorage`."""

    may_write = False

    def __init__(self) -> None:
        self.layout = RunLayout(Path("/nonexistent"))
        self.checkpoints = FolderCheckpoints(self.layout.checkpoints)

    def start(self) -> None:
        """Does nothing."""

    def take_notices(self) -> list[str]:
        """Nothing."""
        return []

    def check_visible(self) -> None:
        """Does nothing."""

    def check_held(self) -> None:
        """Does nothing: there is no run."""

    def publish_part(self, folder: CheckpointFolder, names: Iterable[str]) -> None:
        """Does nothing."""

    def commit(self, folder: CheckpointFolder, num_parts: int, keep: int) -> None:
        """Does nothing."""

    def discard(self, folder: CheckpointFolder) -> None:
        """Does nothing."""

    def publish(self, file: Path) -> None:
        """Does nothing."""

    def publish_records(self) -> None:
        """Does nothing."""

    def close(self, *, has_failed: bool) -> None:
        """Does nothing."""


if TYPE_CHECKING:
    _: RankStorage = NoStorage()
