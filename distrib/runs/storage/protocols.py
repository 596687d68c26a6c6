"""What a run needs of where it is kept: protocols that a local folder and an object store implement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from distrib.runs.checkpoints import CheckpointFolder
from distrib.runs.layout import RunLayout
from distrib.runs.lease import Lease


class CheckpointStorage(Protocol):
    """The checkpoints of one run."""

    def at(self, step: int, attempt: int) -> CheckpointFolder:
        """The checkpoint of a step and attempt, which need not exist."""

    def list(self) -> list[CheckpointFolder]:
        """The checkpoints that are marked as committed, newest first; their folders need not be on this host."""

    def fetch(self, folder: CheckpointFolder, rank: int = 0) -> None:
        """Makes sure that all files of a checkpoint are on this host; the ranks of a host share the work.

        Raises:
            DamagedError: A file is missing in the storage, or its content is not what was written.
        """

    def set_aside(self, folder: CheckpointFolder, problem: str) -> None:
        """Marks a damaged checkpoint as no longer committed and keeps its files for inspection."""

    def remove_uncommitted(self) -> None:
        """Deletes checkpoints that earlier attempts started and did not commit; only call it while no rank runs."""


class RunSync(Protocol):
    """What the launcher's process does for a run's storage while the ranks train."""

    def follow(self, attempt: int) -> None:
        """Follows the events that rank 0 of an attempt will write; call it before any of its ranks starts."""

    def record_changed(self) -> None:
        """Schedules an upload of run.json."""

    def poll(self) -> None:
        """Does what is due; cheap, and never waits for a network.

        Raises:
            LostRunError: Another launcher holds the run.
        """

    def join(self) -> None:
        """Waits until no thread runs in the background, so that this process can be forked."""

    def finish(self) -> None:
        """Fetches the last events once all ranks have stopped writing."""


class RunStorage(Protocol):
    """One run, wherever it is kept, and its files on this host.

    The files on this host have the layout of any run. On an object store they are a mirror, of which files are
    fetched when they are needed.
    """

    @property
    def location(self) -> Path | str:
        """The run's folder, or its URL."""

    @property
    def poll_seconds(self) -> float:
        """How often a follower should look for news."""

    @property
    def runs_location(self) -> Path | str:
        """The folder or the URL that holds this run and others."""

    @property
    def layout(self) -> RunLayout:
        """The files on this host."""

    @property
    def checkpoints(self) -> CheckpointStorage:
        """The run's checkpoints."""

    def location_of(self, file: Path) -> Path | str:
        """Where a file of the layout is kept, for messages."""

    def refresh(self) -> None:
        """Updates the record on this host, and drops copies of other files that may be outdated.

        Raises:
            FileNotFoundError: There is no such run.
        """

    def read_record(self) -> bytes:
        """The content of run.json; FileNotFoundError if there is no such run."""

    def has(self, file: Path) -> bool:
        """Whether a file of the layout exists; nothing is fetched."""

    def fetch(self, file: Path) -> None:
        """Makes sure that a file of the layout is on this host, if it exists at all."""

    def fetch_logs(self) -> None:
        """Updates the logs of the ranks on this host."""

    def events_backwards(self) -> Iterator[bytes]:
        """The lines of metrics.jsonl, last one first; reads no more of it than is consumed."""

    def fetch_events(self) -> None:
        """Makes sure that metrics.jsonl is on this host as a whole."""

    # For the launcher that trains the run:

    def acquire(self) -> Lease:
        """Creates the run's folder if needed and acquires the run; see `Lease.acquire`."""

    def prepare(self, lease: Lease) -> None:
        """Updates the files on this host for training; call it once the lease is held and while no rank runs."""

    def remove_if_empty(self) -> None:
        """Removes the run's folder if there is nothing in it."""

    def publish(self, file: Path) -> None:
        """Uploads a file of the layout, if it exists."""

    def publish_events(self, attempt: int) -> None:
        """Uploads new events that this process has written."""

    def publish_leftovers(self, attempt: int) -> None:
        """Uploads what killed ranks of this host could not; call it while no rank runs."""

    def sync(self, lease: Lease) -> RunSync:
        """What the launcher's process does while the ranks train."""


class RankStorage(Protocol):
    """What a rank needs of where its run is kept.

    A rank writes into the layout on its host; the methods make it visible to others. Methods that upload raise
    StorageError if an object store fails for too long.
    """

    @property
    def layout(self) -> RunLayout:
        """The files on this host."""

    @property
    def checkpoints(self) -> CheckpointStorage:
        """The run's checkpoints."""

    def start(self) -> None:
        """Starts to publish new events regularly, on rank 0."""

    def take_notices(self) -> list[str]:
        """Messages about slow or failed uploads since the last call."""

    def check_visible(self) -> None:
        """Raises StorageNotSharedError if this host does not see the folder that the launcher has created."""

    def check_held(self) -> None:
        """Raises LostRunError if this attempt's launcher no longer holds the run."""

    @property
    def may_write(self) -> bool:
        """Whether this rank may write its error beside its log: not if the folder belongs to another launcher now."""

    def publish_part(self, folder: CheckpointFolder, names: Iterable[str]) -> None:
        """Publishes this rank's files of a checkpoint, in the background of training."""

    def commit(self, folder: CheckpointFolder, num_parts: int, keep: int) -> Callable[[], None] | None:
        """Commits a checkpoint once all ranks have published their parts; called on all ranks.

        Returns:
            None if it is committed. Otherwise the rest of the work, which takes longer and is to be done in the
            background of training; the checkpoint is committed when it has been done on all ranks.

        Raises:
            OSError: It could not be committed, and was removed.
            LostRunError: Another launcher holds the run.
        """

    def discard(self, folder: CheckpointFolder) -> None:
        """Removes a checkpoint that some rank could not save; called on all ranks."""

    def publish(self, file: Path) -> None:
        """Publishes a file of the layout."""

    def publish_records(self) -> None:
        """Publishes the events and sample records that this rank has written."""

    def close(self, *, has_failed: bool) -> None:
        """Publishes this rank's output, and after a failure its records; never raises."""
