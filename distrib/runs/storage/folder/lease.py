"""The lease of a run in a local folder, where a file lock makes each write conditional."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from distrib.runs.files.atomic import atomic_write
from distrib.runs.files.locks import locked_folder
from distrib.runs.lease import LEASE, ConflictError, LeaseStorage, Versioned, is_token_of


class FolderLease:
    """Stores the lease as a file in the run's folder, which must exist.

    Processes of this machine exclude each other with a lock on the folder. On a shared file system whose locks reach
    only one machine, launchers on different machines detect each other by the content of the file.
    """

    notice: str | None = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / LEASE
        self.run_id = folder.name

    def read(self) -> Versioned | None:
        """Reads the file; one that cannot be read counts as missing."""
        try:
            return Versioned(self._file.read_bytes())
        except OSError:
            return None

    def write(self, content: bytes, replaced: Versioned | None) -> Versioned:
        """Replaces the file while the folder is locked."""
        with locked_folder(self._folder):
            if self.read() != replaced:
                raise ConflictError
            atomic_write(self._file, content)
        return Versioned(content)

    def clear(self, replaced: Versioned) -> None:
        """Deletes the file while the folder is locked."""
        with locked_folder(self._folder):
            if self.read() != replaced:
                raise ConflictError
            self._file.unlink()

    def is_token(self, token: str) -> bool:
        """Whether the lease with this token holds the run."""
        stored = self.read()
        return stored is not None and is_token_of(stored.content, token)


if TYPE_CHECKING:
    _: LeaseStorage = FolderLease(Path())
