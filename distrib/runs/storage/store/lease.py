"""The lease of a run on an object store, written with conditional puts."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from distrib.runs.files.locks import locked_folder
from distrib.runs.lease import LEASE, ConflictError, LeaseStorage, Versioned, token_of
from distrib.runs.storage.object_store import PATIENCE_SECONDS, ObjectStorage
from distrib.runs.storage.store.conditional import ConditionalObject, UnsupportedError

FREE = b"{}"
"""The content after a release; an object cannot be deleted on condition that nobody has replaced it."""
SETTLE_SECONDS = 0.5
"""On a store without conditional puts: how long a new lease must stand before it counts."""
NOTICE = (
    "there are no conditional writes to this object store from here, so two launchers on different hosts that start "
    "the same run within half a second could both acquire it"
)


class StoreLease:
    """Stores the lease as an object.

    A put on the condition that the object is still the one that was read excludes all other launchers. On a store
    that refuses or ignores such conditions, a lease is written, and read again after half a second; `notice` then
    describes the remaining risk.

    Args:
        storage: The run's objects.
        folder: The run's mirror on this host, which serves as a lock between processes of this machine.

    Attributes:
        patience_seconds: How long a temporary error is retried.
    """

    def __init__(self, storage: ObjectStorage, folder: Path) -> None:
        self._storage = storage
        self._folder = folder
        self._object: ConditionalObject | None = ConditionalObject(storage.url, LEASE)
        self._is_checked = False
        self.patience_seconds = PATIENCE_SECONDS
        self.run_id = folder.name

    @property
    def notice(self) -> str | None:
        """The risk on a store without conditional puts."""
        return NOTICE if self._object is None else None

    def read(self) -> Versioned | None:
        """Gets the object."""
        if self._object is not None:
            try:
                return self._object.read(self.patience_seconds)
            except UnsupportedError:
                self._object = None
        try:
            return Versioned(self._storage.patient(self.patience_seconds).get_json(LEASE))
        except FileNotFoundError:
            return None

    def write(self, content: bytes, replaced: Versioned | None) -> Versioned:
        """Puts the object on the condition that it is still `replaced`."""
        with locked_folder(self._folder):
            if self._object is not None:
                try:
                    return self._put_conditionally(self._object, content, replaced)
                except UnsupportedError:
                    self._object, replaced = None, self.read()
            return self._put_and_settle(content, replaced)

    def clear(self, replaced: Versioned) -> None:
        """Marks the run as free."""
        self.write(FREE, replaced)

    def _put_conditionally(self, target: ConditionalObject, content: bytes, replaced: Versioned | None) -> Versioned:
        written = target.write(content, replaced, self.patience_seconds)
        if not self._is_checked:
            with contextlib.suppress(ConflictError):
                target.write(content, None, self.patience_seconds)
                raise UnsupportedError  # the store has ignored the condition that there is no such object
            self._is_checked = True
        return written

    def _put_and_settle(self, content: bytes, replaced: Versioned | None) -> Versioned:
        storage = self._storage.patient(self.patience_seconds)
        current = self.read()
        if (current and current.content) != (replaced and replaced.content):
            raise ConflictError
        storage.put(LEASE, content)
        if token_of(content) != (replaced and token_of(replaced.content)):
            time.sleep(SETTLE_SECONDS)
            if storage.get_json(LEASE) != content:
                raise ConflictError
        return Versioned(content)


if TYPE_CHECKING:
    _: LeaseStorage = StoreLease(ObjectStorage(""), Path())
