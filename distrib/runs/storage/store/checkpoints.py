"""Checkpoints on an object store: uploaded file by file, COMMITTED last, and downloaded where they are needed."""

from __future__ import annotations

import contextlib
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distrib.runs.checkpoints import COMMITTED, MANIFEST, CheckpointFolder, DamagedError, describe_file, parse_name
from distrib.runs.files.locks import locked_folder
from distrib.runs.storage.folder.checkpoints import FolderCheckpoints
from distrib.runs.storage.object_store import ObjectStorage

DAMAGED = "DAMAGED"
"""The object that replaces COMMITTED in a damaged checkpoint; it holds a description of the damage."""


class StoreCheckpoints:
    """The checkpoints of a run on an object store.

    Args:
        storage: The run's objects.
        local: The folder of checkpoints in the run's mirror; its name is the prefix of the objects.
    """

    def __init__(self, storage: ObjectStorage, local: Path) -> None:
        self._storage = storage
        self._prefix = local.name
        self._local = local

    def at(self, step: int, attempt: int) -> CheckpointFolder:
        """The checkpoint of a step and attempt."""
        return CheckpointFolder.at(self._local, step, attempt)

    def list(self) -> list[CheckpointFolder]:
        """The checkpoints with an object COMMITTED, newest first; their folders need not be on this host."""
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

    def fetch(self, folder: CheckpointFolder, rank: int = 0) -> None:
        """Downloads the files that are missing on this host; its ranks start at different files and so share the work.

        Raises:
            DamagedError: A file is missing on the store, or its content is not what was written.
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
                raise DamagedError(f"{folder.name}/{name}: its content differs from the manifest")

    def upload_part(self, folder: CheckpointFolder, rank: int, names: Iterable[str]) -> None:
        """Uploads the files of a rank, its list of files last."""
        for name in (*names, folder.part_file(rank).name):
            self._storage.put_file(self._name(folder, name), folder.path / name)

    def commit(self, folder: CheckpointFolder, num_parts: int) -> None:
        """Commits a checkpoint once every rank has uploaded its part."""
        parts = [folder.part_file(rank) for rank in range(num_parts)]
        for part in parts:
            if not part.exists():
                self._storage.get_file(self._name(folder, part.name), part)
        folder.commit(num_parts)
        self._storage.put_file(self._name(folder, MANIFEST), folder.path / MANIFEST)
        self._storage.put_file(self._name(folder, COMMITTED), folder.path / COMMITTED)

    def keep_newest(self, count: int) -> None:
        """Deletes all but the newest `count` committed checkpoints; only call it while no save is in flight.

        Uncommitted ones are deleted too. COMMITTED is deleted first, so that a partly deleted checkpoint never counts
        as committed. Checkpoints that are marked as damaged stay for inspection.
        """
        found = self._all()
        committed = sorted((folder for folder, files in found.items() if COMMITTED in files), reverse=True)
        for folder, files in found.items():
            if DAMAGED not in files and folder not in committed[: max(1, count)]:
                if COMMITTED in files:
                    self._storage.delete(self._name(folder, COMMITTED))
                self._storage.delete(f"{self._prefix}/{folder.name}")

    def remove_uncommitted(self) -> None:
        """Deletes the checkpoints without an object COMMITTED or DAMAGED, in the mirror too."""
        FolderCheckpoints(self._local).remove_uncommitted()
        self.keep_newest(sys.maxsize)

    def set_aside(self, folder: CheckpointFolder, problem: str) -> None:
        """Puts an object DAMAGED and deletes COMMITTED."""
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


if TYPE_CHECKING:
    from distrib.runs.storage.protocols import CheckpointStorage

    _: CheckpointStorage = StoreCheckpoints(ObjectStorage(""), Path())
