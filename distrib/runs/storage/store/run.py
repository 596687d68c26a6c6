"""A run on an object store, and its mirror on this host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from distrib.runs.backwards import lines_backwards
from distrib.runs.layout import RunLayout
from distrib.runs.lease import Lease
from distrib.runs.storage import object_store
from distrib.runs.storage.location import join, split
from distrib.runs.storage.object_store import ObjectStorage
from distrib.runs.storage.store.checkpoints import StoreCheckpoints
from distrib.runs.storage.store.lease import StoreLease
from distrib.runs.storage.store.mirror import RunMirror, mirror_folder
from distrib.runs.storage.store.segments import METRICS, SAMPLES, SegmentWriter, restore, samples_prefix
from distrib.runs.storage.store.sync import StoreSync

if TYPE_CHECKING:
    from distrib.runs.storage.protocols import RunStorage


class StoreRun:
    """A run whose objects count; the files of the mirror are copies, or wait to be uploaded.

    Args:
        storage: The run's objects.
        folder: The run's mirror on this host.
        is_training: Whether this process trains the run. It then works in the mirror and publishes from there, and
            `prepare` updates it; otherwise it reads the store whenever it needs something.
    """

    poll_seconds = 2.0

    def __init__(self, storage: ObjectStorage, folder: Path, *, is_training: bool) -> None:
        self._storage = storage
        self._mirror = RunMirror(folder)
        self._is_training = is_training
        self._has_record = self._has_events = is_training
        self.layout = RunLayout(folder)
        self.checkpoints = StoreCheckpoints(storage, self.layout.checkpoints)

    @classmethod
    def at(cls, url: str, *, is_training: bool = False) -> StoreRun:
        """The run at `url`."""
        if is_training:
            return cls(ObjectStorage(url), mirror_folder(url, "work"), is_training=True)
        return cls(
            ObjectStorage(url, object_store.START_PATIENCE_SECONDS), mirror_folder(url, "view"), is_training=False
        )

    @property
    def location(self) -> str:
        """The URL."""
        return self._storage.url

    @property
    def runs_location(self) -> str:
        """The URL's parent."""
        return split(self._storage.url)[0]

    def location_of(self, file: Path) -> str:
        """The URL of a file's object."""
        return join(self._storage.url, self._name(file))

    def refresh(self) -> None:
        """Downloads the record; everything else follows when it is needed."""
        self._mirror.replace_record(self._storage.get_json(self.layout.record_file.name))
        self._has_record, self._has_events = True, False

    def read_record(self) -> bytes:
        """Reads the mirror's copy, which is downloaded first if this process has not done so."""
        if not self._has_record:
            self.refresh()
        return self.layout.record_file.read_bytes()

    def has(self, file: Path) -> bool:
        """Whether there is such an object."""
        return self._storage.exists(self._name(file))

    def fetch(self, file: Path) -> None:
        """Downloads an object, unless it is in the mirror."""
        if not file.exists():
            self._get(file)

    def fetch_logs(self) -> None:
        """Downloads the logs; they are on the store once their attempt has ended."""
        for name in self._storage.list(self.layout.rank_log(0).parent.name):
            self._storage.get_file(name, self.layout.folder / name)

    def events_backwards(self) -> Iterator[bytes]:
        """Downloads segments from the last one on, unless the mirror has all of them."""
        if self._has_events:
            yield from lines_backwards(self.layout.metrics_file)
            return
        for name in reversed(self._storage.list(METRICS)):
            yield from reversed(self._storage.get(name).splitlines())

    def fetch_events(self) -> None:
        """Downloads all segments, once after each refresh."""
        if not self._has_events:
            restore(self._storage, METRICS, self.layout.metrics_file)
            self._has_events = True

    def acquire(self) -> Lease:
        """Acquires the run by an object."""
        lease_storage = StoreLease(self._storage, self.layout.folder)
        lease = Lease.acquire(lease_storage)
        lease_storage.patience_seconds = 0.0
        return lease

    def prepare(self, lease: Lease) -> None:
        """Replaces the mirror's content by the store's, without checkpoints and weights."""
        self._mirror.clear()
        for file in (self.layout.job_file, self.layout.record_file):
            self._get(file)
        restore(self._storage, METRICS, self.layout.metrics_file)
        for rank in {int(name.split("/")[1].removeprefix("rank-")) for name in self._storage.list(SAMPLES)}:
            restore(self._storage, samples_prefix(rank), self.layout.samples_file(rank))
        self._mirror.mark_launcher(lease.token)

    def remove_if_empty(self) -> None:
        """Does nothing: a store has no folders."""

    def publish(self, file: Path) -> None:
        """Uploads a file, if it exists."""
        if file.exists():
            self._storage.put_file(self._name(file), file)

    def publish_events(self, attempt: int) -> None:
        """Uploads new events as segments."""
        SegmentWriter(self._storage, METRICS, self.layout.metrics_file, attempt).push()

    def publish_leftovers(self, attempt: int) -> None:
        """Uploads events, logs and sample records that killed ranks of this host could not."""
        self.publish_events(attempt)
        logs = self.layout.rank_log(0).parent
        for file in sorted([*logs.glob("rank-*.log"), *logs.glob("rank-*.times")]):
            self.publish(file)
        for file in self.layout.samples_file(0).parent.glob("rank-*.jsonl"):
            rank = int(file.stem.removeprefix("rank-"))
            SegmentWriter(self._storage, samples_prefix(rank), file, attempt).push()

    def sync(self, lease: Lease) -> StoreSync:
        """Works in a background thread."""
        return StoreSync(self._storage.patient(0), self._mirror, lease)

    def _get(self, file: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._storage.get_file(self._name(file), file)

    def _name(self, file: Path) -> str:
        return file.relative_to(self.layout.folder).as_posix()


if TYPE_CHECKING:
    _: RunStorage = StoreRun.at("")
