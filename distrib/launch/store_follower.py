"""Following a run on an object store whose rank 0 trains on another host."""

from __future__ import annotations

import contextlib

from distrib.runs.storage.errors import StorageError
from distrib.runs.storage.run_store import RunStore


class StoreFollower:
    """Brings what an attempt's rank 0 publishes into the launcher's mirror, unless rank 0 works in that mirror itself.

    Args:
        store: The run.
        attempt: The attempt, none of whose ranks has begun.
    """

    def __init__(self, store: RunStore, attempt: int) -> None:
        self._store = store
        self._attempt = attempt
        self._metrics = store.metrics_follower()

    def poll(self) -> None:
        """Fetches what is new; a store out of reach has nothing new."""
        if self._store.has_writer(self._attempt):
            return
        with contextlib.suppress(StorageError):
            self._metrics.poll()

    def finish(self) -> None:
        """Fetches the last events, and rank 0's output, once no rank writes any more."""
        if self._store.has_writer(self._attempt):
            return
        with contextlib.suppress(StorageError):
            self._metrics.poll()
            with contextlib.suppress(FileNotFoundError):
                self._store.fetch(self._store.layout.rank_log(0))
