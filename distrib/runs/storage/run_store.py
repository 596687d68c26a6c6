"""A run on an object store: where its objects are, and how they and the files of its mirror become the same."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from distrib.runs.layout import RunLayout
from distrib.runs.storage.local import LocalStorage
from distrib.runs.storage.mirror import mirror_folder
from distrib.runs.storage.object_store import ObjectStorage
from distrib.runs.storage.remote_checkpoints import RemoteCheckpoints
from distrib.runs.storage.segments import SegmentFollower, SegmentWriter, restore

_LAUNCHER, _WRITER = ".launcher", ".writer"
"""In a mirror: whose launcher works in it, by its lease, and which attempt's rank 0."""
METRICS = "metrics"
"""Holds metrics.jsonl as segments."""
_SAMPLES = "samples"


class RunStore:
    """One run on an object store.

    The run is worked on in a mirror, a local folder with the layout of any run, and published from there. What is on
    the store counts: whoever goes on with the run begins with `pull`.

    Args:
        storage: The run's objects.
        folder: The run's mirror on this host.
    """

    def __init__(self, storage: ObjectStorage, folder: Path) -> None:
        self.storage = storage
        self.layout = RunLayout(folder)
        self.checkpoints = RemoteCheckpoints(storage, self.layout.checkpoints.name, self.layout.checkpoints)

    @classmethod
    def at(cls, url: str) -> RunStore:
        """The run at `url`, worked on in this host's mirror."""
        return cls(ObjectStorage(url), mirror_folder(url, "work"))

    @property
    def url(self) -> str:
        """Where the run is kept."""
        return self.storage.url

    @property
    def folder(self) -> Path:
        """The mirror."""
        return self.layout.folder

    def exists(self) -> bool:
        """Whether there is a run."""
        return self.storage.exists(self.layout.record_file.name)

    def pull(self) -> None:
        """Makes the mirror what the store has, but for checkpoints and weights, which are fetched when needed.

        To be called by whoever holds the run, while no rank runs.
        """
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        for file in (self.layout.job_file, self.layout.record_file):
            with contextlib.suppress(FileNotFoundError):
                self.storage.get_file(file.name, file)
        restore(self.storage, METRICS, self.layout.metrics_file)
        for rank in self._ranks_with_samples():
            restore(self.storage, f"{_SAMPLES}/rank-{rank}", self.layout.samples_file(rank))

    def view(self, record: bytes) -> None:
        """Makes a mirror that is only looked at what the store has, `record` being run.json; see `pull`.

        Weights that were fetched before are forgotten unless the run had ended by then, and has not changed since.
        """
        file = self.layout.record_file
        if not file.exists() or file.read_bytes() != record or b'"status": "running"' in record:
            for weights in (self.layout.weights_file, self.layout.best_file):
                weights.unlink(missing_ok=True)
        LocalStorage(self.folder).put(file.name, record)
        restore(self.storage, METRICS, self.layout.metrics_file)
        with contextlib.suppress(FileNotFoundError):
            self.fetch(self.layout.job_file)

    def fetch_logs(self) -> None:
        """Gets what the ranks have printed; it is on the store once their attempt has ended."""
        for name in self.storage.list(self.layout.rank_log(0).parent.name):
            self.storage.get_file(name, self.folder / name)

    def _ranks_with_samples(self) -> set[int]:
        names = self.storage.list(_SAMPLES)
        return {int(name.split("/")[1].removeprefix("rank-")) for name in names}

    def mark_launcher(self, lease: str) -> None:
        """Notes that the launcher with this lease works in this mirror."""
        (self.folder / _LAUNCHER).write_text(lease)

    def has_launcher(self, lease: str) -> bool:
        """Whether the launcher with this lease works in this mirror, and so sees what a rank writes here."""
        return _reads(self.folder / _LAUNCHER, lease)

    def mark_writer(self, attempt: int) -> None:
        """Notes that rank 0 of this attempt writes its events into this mirror."""
        (self.folder / _WRITER).write_text(str(attempt))

    def has_writer(self, attempt: int) -> bool:
        """Whether rank 0 of this attempt writes its events into this mirror."""
        return _reads(self.folder / _WRITER, str(attempt))

    def publish(self, file: Path) -> None:
        """Puts a file of the mirror on the store, if it is there."""
        if file.exists():
            self.storage.put_file(file.relative_to(self.folder).as_posix(), file)

    def fetch(self, file: Path) -> None:
        """Gets a file of the run into the mirror; FileNotFoundError where the store has none."""
        self.storage.get_file(file.relative_to(self.folder).as_posix(), file)

    def publish_output(self, rank: int) -> None:
        """Puts what a rank has printed on the store."""
        self.publish(self.layout.rank_log(rank))

    def publish_leftovers(self, attempt: int) -> None:
        """Publishes what ranks of this host that were killed could not; to be called while no rank runs."""
        self.metrics_writer(attempt).push()
        for file in sorted(self.layout.rank_log(0).parent.glob("rank-*.log")):
            self.publish(file)
        for file in self.layout.samples_file(0).parent.glob("rank-*.jsonl"):
            self.samples_writer(int(file.stem.removeprefix("rank-")), attempt).push()

    def metrics_writer(self, attempt: int) -> SegmentWriter:
        """Publishes the mirror's events."""
        return SegmentWriter(self.storage, METRICS, self.layout.metrics_file, attempt)

    def samples_writer(self, rank: int, attempt: int) -> SegmentWriter:
        """Publishes the mirror's record of a rank's samples."""
        return SegmentWriter(self.storage, f"{_SAMPLES}/rank-{rank}", self.layout.samples_file(rank), attempt)

    def metrics_follower(self) -> SegmentFollower:
        """Brings into the mirror what a rank 0 on another host publishes from now on."""
        return SegmentFollower(self.storage, METRICS, self.layout.metrics_file)

    def clear_mirror(self) -> None:
        """Removes the mirror's copies of checkpoints, which the store has."""
        shutil.rmtree(self.layout.checkpoints, ignore_errors=True)


def _reads(file: Path, text: str) -> bool:
    try:
        return file.read_text() == text
    except OSError:
        return False
