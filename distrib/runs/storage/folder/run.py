"""A run in a local folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from distrib.errors import JobError
from distrib.runs.access import make_run_folder
from distrib.runs.backwards import lines_backwards
from distrib.runs.layout import RunLayout
from distrib.runs.lease import Lease
from distrib.runs.storage.folder.checkpoints import FolderCheckpoints
from distrib.runs.storage.folder.lease import FolderLease
from distrib.runs.storage.folder.sync import FolderSync

if TYPE_CHECKING:
    from distrib.runs.storage.protocols import RunStorage


class FolderRun:
    """A run whose files are where they are kept, so that nothing is fetched or published.

    Args:
        folder: The run's folder; it need not exist.
    """

    poll_seconds = 0.2

    def __init__(self, folder: Path) -> None:
        self.layout = RunLayout(folder.absolute())
        self.checkpoints = FolderCheckpoints(self.layout.checkpoints)

    @property
    def location(self) -> Path:
        """The folder."""
        return self.layout.folder

    @property
    def runs_location(self) -> Path:
        """The folder that holds the folder."""
        return self.layout.folder.parent

    def location_of(self, file: Path) -> Path:
        """The file."""
        return file

    def refresh(self) -> None:
        """Only checks that the record exists."""
        self.read_record()

    def read_record(self) -> bytes:
        """Reads the file."""
        return self.layout.record_file.read_bytes()

    def has(self, file: Path) -> bool:
        """Whether the file exists."""
        return file.exists()

    def fetch(self, file: Path) -> None:
        """Does nothing."""

    def fetch_logs(self) -> None:
        """Does nothing."""

    def events_backwards(self) -> Iterator[bytes]:
        """Reads the file from its end."""
        return lines_backwards(self.layout.metrics_file)

    def fetch_events(self) -> None:
        """Does nothing."""

    def acquire(self) -> Lease:
        """Creates the folder and acquires the run in it."""
        try:
            make_run_folder(self.layout.folder)
        except FileExistsError:
            raise JobError(
                f"{self.layout.folder} is a file, so it cannot hold a run; remove it or use another --run-id"
            ) from None
        try:
            return Lease.acquire(FolderLease(self.layout.folder))
        except BaseException:
            self.remove_if_empty()
            raise

    def prepare(self, lease: Lease) -> None:
        """Does nothing."""

    def remove_if_empty(self) -> None:
        """Removes the folder unless something is in it."""
        with contextlib.suppress(OSError):
            self.layout.folder.rmdir()

    def publish(self, file: Path) -> None:
        """Does nothing."""

    def publish_events(self, attempt: int) -> None:
        """Does nothing."""

    def publish_leftovers(self, attempt: int) -> None:
        """Does nothing."""

    def sync(self, lease: Lease) -> FolderSync:
        """Renews the lease."""
        return FolderSync(lease)


if TYPE_CHECKING:
    _: RunStorage = FolderRun(Path())
