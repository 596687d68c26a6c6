"""The lease of a run on an object store: best effort, since no store lets pyarrow write only if nobody else has."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distrib.errors import LaunchError
from distrib.runs.lease import LEASE, Lease, is_held_at, locked_folder
from distrib.runs.storage.errors import StorageError
from distrib.runs.storage.object_store import ObjectStorage

SETTLE_SECONDS = 0.5
"""How long a lease must stand before it counts: longer than another launcher takes from its look to its write."""


class StorePlace:
    """The lease as an object; processes of one machine keep each other out by a lock, other hosts cannot.

    Args:
        storage: The run's objects.
        folder: The run's mirror on this host.
    """

    def __init__(self, storage: ObjectStorage, folder: Path) -> None:
        self._storage = storage
        self._folder = folder
        self.run_id = folder.name

    def read(self) -> bytes:
        """Gets the object."""
        return self._storage.get_json(LEASE)

    def write(self, data: bytes) -> None:
        """Puts the object."""
        self._storage.put(LEASE, data)

    def remove(self) -> None:
        """Deletes the object."""
        self._storage.delete(LEASE)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the mirror."""
        with locked_folder(self._folder):
            yield


class StoreLease(Lease):
    """A hold on a run on an object store.

    It is written, read back after a moment, renewed and watched as one in a folder is, and asked for before every
    commit. What a folder's lock rules out is only unlikely here: two launchers on different hosts whose requests cross
    within that moment can both believe for some seconds that they hold the run, until one finds the other's name.
    """

    @classmethod
    def acquire_in(cls, storage: ObjectStorage, folder: Path) -> Lease:
        """Takes the run; see `acquire_at`.

        Raises:
            LaunchError: Another process holds the run.
            StorageError: The store cannot be used.
        """
        lease = cls.acquire_at(StorePlace(storage, folder))
        time.sleep(SETTLE_SECONDS)
        if not is_held_at(StorePlace(storage, folder), lease.token):
            raise LaunchError(f"run {folder.name} was taken by another launcher at the same moment")
        return cls(StorePlace(storage.patient(0), folder), lease.token)

    @property
    def is_held(self) -> bool:
        """Whether the run is still this owner's, as far as the store tells; one that cannot be reached says nothing."""
        try:
            return is_held_at(self._place, self.token)
        except StorageError:
            return True

    def _write(self) -> None:
        with contextlib.suppress(StorageError):
            super()._write()

    def release(self) -> None:
        """Gives the run up; a lease that cannot be removed is found to be a dead process's, or expires."""
        with contextlib.suppress(StorageError):
            super().release()
