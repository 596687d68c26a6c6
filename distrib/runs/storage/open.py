"""The one place that decides by a location whether runs are in a local folder or on an object store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from distrib.runs.storage.location import as_folder, is_url, split

if TYPE_CHECKING:
    from distrib.runs.storage.protocols import RankStorage, RunStorage
    from distrib.runs.storage.storage import Storage


def open_storage(location: Path | str, *, is_interactive: bool = False) -> Storage:
    """The storage at a folder's path or an object store's URL.

    Args:
        location: The path or URL.
        is_interactive: Whether a user waits for the answer, so that errors of an object store are not retried for long.
    """
    if is_url(str(location)):
        from distrib.runs.storage.object_store import PATIENCE_SECONDS, START_PATIENCE_SECONDS, ObjectStorage

        return ObjectStorage(str(location), START_PATIENCE_SECONDS if is_interactive else PATIENCE_SECONDS)
    from distrib.runs.storage.local import LocalStorage

    return LocalStorage(as_folder(str(location)).absolute())


@contextmanager
def local_copy(location: str, folders: Iterable[Path]) -> Iterator[Path]:
    """Gives a file on this host: the one at a path, or a temporary copy of the object at a URL.

    Args:
        location: The path or URL of the file.
        folders: Where to look for a relative path.

    Raises:
        FileNotFoundError: There is no such file.
        StorageError: The object store refuses or cannot be reached.
    """
    if not is_url(location):
        candidates = [folder / as_folder(location) for folder in folders]
        found = next((candidate for candidate in candidates if candidate.is_file()), None)
        if found is None:
            raise FileNotFoundError(location)
        yield found
        return
    parent, name = split(location)
    with tempfile.TemporaryDirectory(prefix="distrib-copy-") as folder:
        open_storage(parent).get_file(name, Path(folder) / name)
        yield Path(folder) / name


def open_run(location: Path | str, *, is_training: bool = False) -> RunStorage:
    """The run at a folder's path or an object store's URL, which need not exist.

    Args:
        location: The path or URL.
        is_training: Whether this process will train it; others use another mirror.
    """
    if is_url(str(location)):
        from distrib.runs.storage.store.run import StoreRun

        return StoreRun.at(str(location), is_training=is_training)
    from distrib.runs.storage.folder.run import FolderRun

    return FolderRun(as_folder(str(location)))


def open_rank(location: Path | str, rank: int, attempt: int, lease: str) -> RankStorage:
    """A rank's side of the run at a folder's path or an object store's URL.

    Args:
        location: The path or URL.
        rank: The rank.
        attempt: The attempt.
        lease: The token of the launcher's lease.
    """
    if is_url(str(location)):
        from distrib.runs.storage.store.rank import StoreRank

        return StoreRank(str(location), rank, attempt, lease)
    from distrib.runs.storage.folder.rank import FolderRank

    return FolderRank(as_folder(str(location)), rank, lease)


def working_folder(location: Path | str) -> Path:
    """The folder on this host in which the processes that train a run work: the run's folder or its mirror."""
    if is_url(str(location)):
        from distrib.runs.storage.store.mirror import mirror_folder

        return mirror_folder(str(location), "work")
    return as_folder(str(location))
