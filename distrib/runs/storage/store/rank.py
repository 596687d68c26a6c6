"""A rank of a run on an object store: it writes into the mirror on its host and uploads from there."""

from __future__ import annotations

import functools
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from distrib.runs.checkpoints import CheckpointFolder
from distrib.runs.layout import RunLayout
from distrib.runs.lease import LEASE, LostRunError, is_token_of
from distrib.runs.storage.errors import StorageError
from distrib.runs.storage.folder.checkpoints import FolderCheckpoints
from distrib.runs.storage.object_store import ObjectStorage
from distrib.runs.storage.store.checkpoints import StoreCheckpoints
from distrib.runs.storage.store.mirror import RunMirror, mirror_folder
from distrib.runs.storage.store.segments import METRICS, SegmentWriter, samples_prefix

if TYPE_CHECKING:
    from distrib.runs.storage.protocols import RankStorage

UPLOAD_SECONDS = 1.0
"""How often rank 0 uploads new events."""


class StoreRank:
    """Uploads what a rank has written to its mirror.

    Args:
        url: The run.
        rank: The rank.
        attempt: This attempt.
        lease: The token of the launcher's lease.
    """

    may_write = True

    def __init__(self, url: str, rank: int, attempt: int, lease: str) -> None:
        self._notices: deque[str] = deque()
        self._storage = ObjectStorage(url, on_delay=self._notice)
        self._mirror = RunMirror(mirror_folder(url, "work"))
        self._rank = rank
        self._attempt = attempt
        self._token = lease
        self.layout: RunLayout = self._mirror.layout
        self.checkpoints = StoreCheckpoints(self._storage, self.layout.checkpoints)
        self._samples = SegmentWriter(self._storage, samples_prefix(rank), self.layout.samples_file(rank), attempt)
        self._events: _EventUpload | None = None
        if rank == 0:
            writer = SegmentWriter(self._storage, METRICS, self.layout.metrics_file, attempt)
            self._events = _EventUpload(writer, self._notice)

    def start(self) -> None:
        """Starts to upload events in the background, on rank 0."""
        if self._events is not None:
            self._mirror.mark_writer(self._attempt)
            self._events.start()

    def take_notices(self) -> list[str]:
        """Messages about slow or failed uploads since the last call."""
        taken = []
        while self._notices:
            taken.append(self._notices.popleft())
        return taken

    def check_visible(self) -> None:
        """Does nothing: every host has its own mirror."""

    def check_held(self) -> None:
        """Reads the lease; a store that cannot be reached raises StorageError."""
        try:
            is_held = is_token_of(self._storage.get_json(LEASE), self._token)
        except FileNotFoundError:
            is_held = False
        if not is_held:
            raise LostRunError("another launcher has taken this run over; this one ends")

    def publish_part(self, folder: CheckpointFolder, names: Iterable[str]) -> None:
        """Uploads the record of the samples that led to the checkpoint, then this rank's files of it."""
        self._samples.push()
        self.checkpoints.upload_part(folder, self._rank, names)

    def commit(self, folder: CheckpointFolder, num_parts: int, keep: int) -> Callable[[], None]:
        """Leaves everything to the background, and to rank 0."""
        return functools.partial(self._commit, folder, num_parts, keep)

    def discard(self, folder: CheckpointFolder) -> None:
        """Removes the copy in the mirror; objects without COMMITTED are deleted later."""
        folder.remove()

    def publish(self, file: Path) -> None:
        """Uploads a file."""
        self._storage.put_file(file.relative_to(self.layout.folder).as_posix(), file)

    def publish_records(self) -> None:
        """Uploads the last events and sample records."""
        self._samples.push()
        if self._events is not None:
            self._events.end()

    def close(self, *, has_failed: bool) -> None:
        """Uploads this rank's output, and after a failure its records.

        If the launcher works in the same mirror it does so itself, once the ranks have ended. What cannot be uploaded
        stays in the mirror.
        """
        if self._mirror.has_launcher(self._token):
            return
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            if has_failed:
                self.publish_records()
            for file in (self.layout.rank_log(self._rank), self.layout.rank_log_times(self._rank)):
                if file.exists():
                    self.publish(file)
        except (OSError, StorageError) as error:
            print(f"not all of this rank's records were published: {error}", file=sys.stderr, flush=True)

    def _commit(self, folder: CheckpointFolder, num_parts: int, keep: int) -> None:
        if self._rank != 0 or self._events is None:
            return
        self._events.push()  # so that no event is missing, whichever host resumes from here
        self.check_held()
        self.checkpoints.commit(folder, num_parts)
        try:
            self.checkpoints.keep_newest(keep)
        except StorageError as error:
            self._notice(f"old checkpoints were not deleted: {error}")
        FolderCheckpoints(self.layout.checkpoints).keep_newest(keep)

    def _notice(self, message: str) -> None:
        self._notices.append(message)
        if self._rank != 0:
            print(message, file=sys.stderr, flush=True)


class _EventUpload(threading.Thread):
    """Uploads events about every second."""

    def __init__(self, writer: SegmentWriter, notice: Callable[[str], None]) -> None:
        super().__init__(name="upload-events", daemon=True)
        self._writer = writer
        self._notice = notice
        self._is_over = threading.Event()
        self._is_failing = False

    def run(self) -> None:
        while not self._is_over.wait(UPLOAD_SECONDS):
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


if TYPE_CHECKING:
    _: RankStorage = StoreRank("", 0, 0, "")
