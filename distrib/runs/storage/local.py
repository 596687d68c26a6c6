"""A local folder as a storage of named objects."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from distrib.errors import JobError
from distrib.runs.files.atomic import atomic_path, atomic_write, flush, is_temporary
from distrib.runs.storage.storage import Storage, check_name


class LocalStorage:
    """Objects as files below a folder, which is created when it is first needed."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    @property
    def location(self) -> Path:
        """The folder."""
        return self.root

    @property
    def is_there(self) -> bool:
        """Whether the folder exists."""
        return self.root.is_dir()

    def below(self, name: str) -> LocalStorage:
        """A folder in this folder."""
        return LocalStorage(self._path(name))

    def put(self, name: str, data: bytes) -> None:
        """Writes a file atomically."""
        path = self._path(name)
        _make_folder(path.parent)
        atomic_write(path, data)

    def get(self, name: str) -> bytes:
        """Reads a file."""
        return self._path(name).read_bytes()

    def get_json(self, name: str) -> bytes:
        """Reads a file; files are replaced atomically, so it is always complete."""
        return self.get(name)

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return self._path(name).is_file()

    def folders(self) -> list[str]:
        """The folders in this folder."""
        try:
            return sorted(path.name for path in self.root.iterdir() if path.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def list(self, prefix: str = "") -> list[str]:
        """Walks the folder, leaving out files that are still being written."""
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Walks the folder."""
        start = self._path(prefix)
        found: dict[str, int] = {}
        for path in [start] if start.is_file() else start.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not is_temporary(path):
                    found[path.relative_to(self.root).as_posix()] = path.stat().st_size
        return found

    def delete(self, prefix: str) -> None:
        """Deletes a file, or a folder with everything in it."""
        path = self._path(prefix)
        if path == self.root:
            raise ValueError("an empty prefix would delete everything")
        try:
            path.unlink()
        except FileNotFoundError:
            return
        except OSError:
            if not path.is_dir():
                raise
            shutil.rmtree(path)

    def put_file(self, name: str, path: Path) -> None:
        """Copies a file into the folder."""
        target = self._path(name)
        _make_folder(target.parent)
        _copy(path, target)

    def get_file(self, name: str, path: Path) -> None:
        """Copies a file out of the folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        _copy(self._path(name), path)

    def check_writable(self, *, is_kept: bool = True) -> None:
        """Creates the folder and a file in it, and deletes the file again; also the folder unless it is kept."""
        created: list[Path] = []
        try:
            created = _make_folder(self.root)
            probe = self.root / f".probe.{secrets.token_hex(4)}.tmp"
            try:
                probe.write_bytes(b"\0")
            finally:
                probe.unlink(missing_ok=True)
            if not is_kept:
                _remove_empty(created)
        except OSError as error:
            _remove_empty(created)
            reason = error.strerror or str(error)
            raise JobError(
                f"cannot write to {self.root}: {reason}; choose another folder with --runs-dir", field="storage"
            ) from None

    def _path(self, name: str) -> Path:
        """The file of an object; a name that leads out of the folder is a bug of the caller."""
        return self.root / check_name(name)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb"), atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _make_folder(folder: Path) -> list[Path]:
    """Creates a folder and its parents, flushed to disk; returns those that were missing, outermost first."""
    missing: list[Path] = []
    candidate = folder
    while not candidate.exists() and candidate != candidate.parent:
        missing.insert(0, candidate)
        candidate = candidate.parent
    created: list[Path] = []
    try:
        for path in missing:
            path.mkdir(exist_ok=True)
            created.append(path)
            flush(path.parent)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    except OSError:
        _remove_empty(created)
        raise
    return created


def _remove_empty(folders: list[Path]) -> None:
    """Removes folders that were just created, given outermost first, unless another process uses them by now."""
    with contextlib.suppress(OSError):
        for folder in reversed(folders):
            folder.rmdir()


if TYPE_CHECKING:
    _: Storage = LocalStorage("")
