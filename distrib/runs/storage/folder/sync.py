"""What a launcher does while it trains a run in a local folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distrib.runs.lease import Lease

if TYPE_CHECKING:
    from distrib.runs.storage.protocols import RunSync


class FolderSync:
    """Renews the lease; everything else is already where it belongs."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    def follow(self, attempt: int) -> None:
        """Does nothing: the launcher reads the file that rank 0 writes."""

    def record_changed(self) -> None:
        """Does nothing: run.json is in its place."""

    def poll(self) -> None:
        """Renews the lease; LostRunError if another launcher holds the run."""
        self._lease.renew()

    def join(self) -> None:
        """Does nothing: there is no thread."""

    def finish(self) -> None:
        """Does nothing: there is nothing to fetch."""


if TYPE_CHECKING:

    def _is_run_sync(sync: FolderSync) -> RunSync:
        return sync
