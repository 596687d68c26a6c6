"""What a launcher does while it trains a run on an object store, in the background so that signals are handled."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from distrib.runs.lease import Lease, LostRunError
from distrib.runs.storage.errors import StorageError
from distrib.runs.storage.object_store import ObjectStorage
from distrib.runs.storage.store.mirror import RunMirror
from distrib.runs.storage.store.segments import METRICS, SegmentFollower

if TYPE_CHECKING:
    from distrib.runs.storage.protocols import RunSync

_PERIOD_SECONDS = 1.0


class StoreSync:
    """Renews the lease, uploads run.json when it has changed, and follows a rank 0 on another host.

    A store that cannot be reached is tried again a second later. There is at most one thread, and none after `join`,
    since this process may have to fork.

    Args:
        storage: The run's objects, without retries.
        mirror: The run's mirror on this host.
        lease: The launcher's lease.
    """

    def __init__(self, storage: ObjectStorage, mirror: RunMirror, lease: Lease) -> None:
        self._storage = storage
        self._mirror = mirror
        self._lease = lease
        self._thread: threading.Thread | None = None
        self._started = time.monotonic()
        self._loss: LostRunError | None = None
        self._has_changed = threading.Event()
        self._follower: _Follower | None = None

    def follow(self, attempt: int) -> None:
        """Follows the events of an attempt whose ranks have not started."""
        self.join()
        self._follower = _Follower(self._storage, self._mirror, attempt)

    def record_changed(self) -> None:
        """Schedules an upload of run.json."""
        self._has_changed.set()

    def poll(self) -> None:
        """Starts a thread for what is due, about once a second however often it is called.

        Raises:
            LostRunError: Another launcher holds the run.
        """
        if self._thread is not None and self._thread.is_alive():
            return
        if self._loss is not None:
            raise self._loss
        if time.monotonic() - self._started < _PERIOD_SECONDS:
            return
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="store-sync", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Waits until the thread has ended."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def finish(self) -> None:
        """Downloads the last events that rank 0 has uploaded, and its output."""
        self.join()
        if self._follower is not None:
            self._follower.finish()
            self._follower = None

    def _work(self) -> None:
        try:
            self._lease.renew()
        except LostRunError as error:
            self._loss = error
            return
        if self._follower is not None:
            self._follower.poll()
        if self._has_changed.is_set():
            self._has_changed.clear()
            record = self._mirror.layout.record_file
            try:
                self._storage.put_file(record.name, record)
            except (OSError, StorageError):
                self._has_changed.set()


class _Follower:
    """Downloads the events of an attempt's rank 0, unless rank 0 works in the same mirror as the launcher."""

    def __init__(self, storage: ObjectStorage, mirror: RunMirror, attempt: int) -> None:
        self._storage = storage
        self._mirror = mirror
        self._attempt = attempt
        self._events = SegmentFollower(storage, METRICS, mirror.layout.metrics_file)

    def poll(self) -> None:
        """Downloads new events, if the store can be reached."""
        if not self._mirror.has_writer(self._attempt):
            with contextlib.suppress(StorageError):
                self._events.poll()

    def finish(self) -> None:
        """Downloads the last events and rank 0's output."""
        if self._mirror.has_writer(self._attempt):
            return
        layout = self._mirror.layout
        with contextlib.suppress(StorageError):
            self._events.poll()
            for file in (layout.rank_log_times(0), layout.rank_log(0)):
                with contextlib.suppress(FileNotFoundError):
                    self._storage.get_file(file.relative_to(self._mirror.folder).as_posix(), file)


if TYPE_CHECKING:

    def _is_run_sync(sync: StoreSync) -> RunSync:
        return sync
