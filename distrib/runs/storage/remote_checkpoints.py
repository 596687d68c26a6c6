"""Checkpoints on an object store: published file by file, COMMITTED last, and fetched where they are missing."""

from __future__ import annotations

import contextlib
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distrib.runs.checkpoints import COMMITTED, MANIFEST, CheckpointFolder, DamagedError, describe_file, parse_name
from distrib.runs.lease import locked_folder
from distrib.runs.storage.object_store import ObjectStorage

DAMAGED = "DAMAGED"
"""Takes the place of COMMITTED in a checkpoint that was found to be damaged, and says how."""


class RemoteCheckpoints:
    """The checkpoints of a run on an object store.

    Args:
        storage: The run's objects.
        prefix: What the names of all checkpoints start with.
        local: The folder of checkpoints in the run's mirror.
    """

    def __init__(self, storage: ObjectStorage, prefix: str, local: Path) -> None:
        self._storage = storage
        self._prefix = prefix
        self._local = local

    def list(self) -> list[CheckpointFolder]:
        """The checkpoints that claim to be committed, newest first; their folders need not be on this host."""
        return sorted((folder for folder, files in self._all().items() if COMMITTED in files), reverse=True)

    def _all(self) -> dict[CheckpointFolder, set[str]]:
        """Every checkpoint with the names of its files."""
        found: dict[CheckpointFolder, set[str]] = defaultdict(set)
        for name in self._storage.list(self._prefix):
            _, folder_name, file_name = name.split("/", 2)
            folder = parse_name(self._local / folder_name)
            if folder is not None:
                found[folder].add(file_name)
        return dict(found)

    def fetch(self, folder: CheckpointFolder, rank: int) -> None:
        """Makes the checkpoint's folder on this host whole; the ranks of a host share the work.

        Raises:
            DamagedError: The checkpoint is not whole on the store, or a file's content is not what was written.
        """
        try:
            for name in (COMMITTED, MANIFEST):
                self._storage.get_file(self._name(folder, name), folder.path / name)
        except FileNotFoundError as error:
            raise DamagedError(f"{folder.name}: {Path(str(error)).name} is missing") from None
        files = folder.files()
        names = sorted(files)
        start = rank % len(names)
        for name in names[start:] + names[:start]:
            self._fetch_file(folder, name, files[name])

    def _fetch_file(self, folder: CheckpointFolder, name: str, expected: Mapping[str, Any]) -> None:
        lock = folder.path / f".lock-{name}"
        lock.mkdir(exist_ok=True)
        with locked_folder(lock):
            if _matches(folder.path / name, expected):
                return
            try:
                self._storage.get_file(self._name(folder, name), folder.path / name)
            except FileNotFoundError:
                raise DamagedError(f"{folder.name}/{name} is missing") from None
            if not _matches(folder.path / name, expected):
                raise DamagedError(f"{folder.name}/{name}: its content is not what the manifest says")

    def publish_part(self, folder: CheckpointFolder, rank: int, names: Iterable[str]) -> None:
        """Uploads a rank's files, and last its list of them."""
        for name in (*names, folder.part_file(rank).name):
            self._storage.put_file(self._name(folder, name), folder.path / name)

    def commit(self, folder: CheckpointFolder, num_parts: int) -> None:
        """Commits a checkpoint whose parts are all on the store."""
        parts = [folder.part_file(rank) for rank in range(num_parts)]
        for part in parts:
            if not part.exists():
                self._storage.get_file(self._name(folder, part.name), part)
        folder.commit(num_parts)
        self._storage.put_file(self._name(folder, MANIFEST), folder.path / MANIFEST)
        self._storage.put_file(self._name(folder, COMMITTED), folder.path / COMMITTED)

    def tidy(self, keep: int) -> None:
        """Deletes all but the newest `keep` committed checkpoints, while no save is in flight.

        What was begun and not committed goes too. Of the committed ones COMMITTED goes first, so that no half can be
        taken for a whole. Those marked as damaged stay for whoever wants to look at them.
        """
        found = self._all()
        committed = sorted((folder for folder, files in found.items() if COMMITTED in files), reverse=True)
        for folder, files in found.items():
            if DAMAGED not in files and folder not in committed[: max(1, keep)]:
                if COMMITTED in files:
                    self._storage.delete(self._name(folder, COMMITTED))
                self._storage.delete(f"{self._prefix}/{folder.name}")

    def remove_uncommitted(self) -> None:
        """Deletes what earlier attempts began and did not commit; to be called while no rank runs."""
        self.tidy(keep=sys.maxsize)

    def set_aside(self, folder: CheckpointFolder, problem: str) -> None:
        """Marks a damaged checkpoint, which then is none any more."""
        self._storage.put(self._name(folder, DAMAGED), problem.encode())
        with contextlib.suppress(FileNotFoundError):
            self._storage.delete(self._name(folder, COMMITTED))

    def _name(self, folder: CheckpointFolder, name: str) -> str:
        return f"{self._prefix}/{folder.name}/{name}"


def _matches(path: Path, expected: Mapping[str, Any]) -> bool:
    try:
        return path.stat().st_size == expected["bytes"] and describe_file(path) == dict(expected)
    except (FileNotFoundError, KeyError, TypeError):
        return False
