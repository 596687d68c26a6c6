"""What a launcher owes an object store while the ranks train, done in the background so that signals are heard."""

from __future__ import annotations

import threading
import time

from distrib.errors import LaunchError
from distrib.launch.store_follower import StoreFollower
from distrib.runs.lease import Lease
from distrib.runs.storage.errors import StorageError
from distrib.runs.storage.run_store import RunStore

_PERIOD_SECONDS = 1.0


class StoreSync:
    """Renews the lease, publishes run.json where it has changed, and follows a rank 0 on another host.

    A store that cannot be reached now is asked again a second later. There is never more than one thread, and none
    after `settle`, as this process may have to fork.

    Args:
        store: The run.
        lease: The hold on it.
    """

    def __init__(self, store: RunStore, lease: Lease) -> None:
        self._store = RunStore(store.storage.patient(0), store.folder)
        self._lease = lease
        self._thread: threading.Thread | None = None
        self._started = time.monotonic()
        self._loss: LaunchError | None = None
        self._has_changed = threading.Event()
        self._follower: StoreFollower | None = None

    def follow(self, attempt: int) -> None:
        """Follows what rank 0 of an attempt publishes, none of whose ranks has begun."""
        self.settle()
        self._follower = StoreFollower(self._store, attempt)

    def note_change(self) -> None:
        """Has run.json published."""
        self._has_changed.set()

    def keep_up(self) -> None:
        """Does what is due, about once a second however often it is called.

        Raises:
            LaunchError: The run is another's now.
        """
        if self._thread is not None and self._thread.is_alive():
            return
        if self._loss is not None:
            raise self._loss
        if time.monotonic() - self._started < _PERIOD_SECONDS:
            return
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="store-keeper", daemon=True)
        self._thread.start()

    def settle(self) -> None:
        """Waits until nothing goes on in the background."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def finish(self) -> None:
        """Fetches the last of what rank 0 has published, once no rank writes any more."""
        self.settle()
        if self._follower is not None:
            self._follower.finish()
            self._follower = None

    def _work(self) -> None:
        try:
            self._lease.renew()
        except LaunchError as error:
            self._loss = error
            return
        if self._follower is not None:
            self._follower.poll()
        if self._has_changed.is_set():
            self._has_changed.clear()
            try:
                self._store.publish(self._store.layout.record_file)
            except (OSError, StorageError):
                self._has_changed.set()


class NoSync:
    """The same for a run in a folder, where only the lease is renewed, at once."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    def follow(self, attempt: int) -> None:
        """Nothing: the folder is followed anyway."""

    def note_change(self) -> None:
        """Nothing: run.json is where it belongs."""

    def keep_up(self) -> None:
        """Renews the lease; LaunchError where the run is another's now."""
        self._lease.renew()

    def settle(self) -> None:
        """Nothing goes on in the background."""

    def finish(self) -> None:
        """Nothing is left to fetch."""
