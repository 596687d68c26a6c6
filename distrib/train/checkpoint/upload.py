"""A rank's side of a run on an object store: what it publishes, and when."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from distrib.runs.checkpoints import CheckpointFolder
from distrib.runs.lease import is_held_at
from distrib.runs.storage.errors import StorageError
from distrib.runs.storage.mirror import mirror_folder
from distrib.runs.storage.object_store import ObjectStorage
from distrib.runs.storage.run_store import RunStore
from distrib.runs.storage.segments import SegmentWriter
from distrib.runs.storage.store_lease import StorePlace

PUSH_SECONDS = 1.0
"""How often rank 0 publishes new events."""


class RunUploader:
    """Publishes what a rank has written to its mirror.

    Args:
        url: The run.
        rank: The rank.
        attempt: This attempt.
        lease: The token of the launcher's hold on the run.
    """

    def __init__(self, url: str, rank: int, attempt: int, lease: str) -> None:
        self._notices: deque[str] = deque()
        self.store = RunStore(ObjectStorage(url, on_delay=self._notice), mirror_folder(url, "work"))
        self._rank = rank
        self._attempt = attempt
        self._lease = lease
        self._samples = self.store.samples_writer(rank, attempt)
        self._events: _Pushing | None = None
        if rank == 0:
            self._events = _Pushing(self.store.metrics_writer(attempt), self._notice)

    def begin(self) -> None:
        """Begins to publish events in the background, on rank 0."""
        if self._events is not None:
            self.store.mark_writer(self._attempt)
            self._events.start()

    def take_notices(self) -> list[str]:
        """What has taken long or failed for now since the last call."""
        taken = []
        while self._notices:
            taken.append(self._notices.popleft())
        return taken

    def part(self, folder: CheckpointFolder, names: Iterable[str]) -> None:
        """Publishes this rank's part of a checkpoint, and which samples led to it."""
        self._samples.push()
        self.store.checkpoints.publish_part(folder, self._rank, names)

    def commit(self, folder: CheckpointFolder, num_parts: int, keep: int) -> None:
        """Commits a checkpoint whose parts are published, and deletes old ones."""
        self.store.checkpoints.commit(folder, num_parts)
        try:
            self.store.checkpoints.tidy(keep)
        except StorageError as error:
            self._notice(f"old checkpoints were not deleted: {error}")

    def push_events(self) -> None:
        """Publishes the events so far."""
        if self._events is not None:
            self._events.push()

    def is_held(self) -> bool:
        """Whether this attempt still holds the run."""
        return is_held_at(StorePlace(self.store.storage, self.store.folder), self._lease)

    def file(self, path: Path) -> None:
        """Publishes a file."""
        self.store.publish(path)

    def end(self) -> None:
        """Publishes the last of what this rank has written."""
        self._samples.push()
        if self._events is not None:
            self._events.end()

    def end_output(self, *, has_failed: bool) -> None:
        """Publishes what this rank has printed, and after a failure its last records too.

        A launcher that works in the same mirror does so itself, once the ranks have ended, lest anyone wait for it.
        What cannot be published stays in the mirror.
        """
        if self.store.has_launcher(self._lease):
            return
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            if has_failed:
                self.end()
            self.store.publish_output(self._rank)
        except (OSError, StorageError) as error:
            print(f"not all of this rank's records were published: {error}", file=sys.stderr, flush=True)

    def _notice(self, message: str) -> None:
        self._notices.append(message)
        if self._rank != 0:
            print(message, file=sys.stderr, flush=True)


class _Pushing(threading.Thread):
    """Publishes events about every second."""

    def __init__(self, writer: SegmentWriter, notice: Callable[[str], None]) -> None:
        super().__init__(name="publish-events", daemon=True)
        self._writer = writer
        self._notice = notice
        self._is_over = threading.Event()
        self._is_failing = False

    def run(self) -> None:
        while not self._is_over.wait(PUSH_SECONDS):
            try:
                self._writer.push()
            except (StorageError, OSError) as error:
                if not self._is_failing:
                    self._notice(f"events cannot be published for now, and are kept on this host: {error}")
                self._is_failing = True
            else:
                self._is_failing = False

    def push(self) -> None:
        self._writer.push()

    def end(self) -> None:
        self._is_over.set()
        self._writer.push()
