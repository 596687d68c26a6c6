"""Where runs are kept: a few operations on named objects, and the folder that offers them."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from pathlib import Path, PurePosixPath
from typing import Protocol

from distrib.errors import JobError


class Storage(Protocol):
    """Named objects of bytes; names are relative paths such as `digits-1/run.json`.

    The contract is what a folder and an object store can both keep: there are no folders, no renames and no locks.
    A `prefix` names an object or everything below it: `a/b` covers `a/b` and `a/b/c`, never `a/bc`.
    """

    def put(self, name: str, data: bytes) -> None:
        """Makes `data` the whole content of `name`, durably; a reader sees the old or the new content, never a part."""

    def get(self, name: str) -> bytes:
        """The content of `name`; FileNotFoundError where there is none."""

    def exists(self, name: str) -> bool:
        """Whether there is an object `name`."""

    def list(self, prefix: str = "") -> list[str]:
        """The names that `prefix` covers, sorted; all of them by default."""

    def delete(self, prefix: str) -> None:
        """Removes what `prefix` covers; that there is nothing is no error."""

    def put_file(self, name: str, path: Path) -> None:
        """As `put`, with the content of a local file, of any size."""

    def get_file(self, name: str, path: Path) -> None:
        """As `get`, into a local file, which appears whole; its folder is created where needed."""

    def check_writable(self) -> None:
        """Raises JobError, and leaves nothing behind, where objects cannot be written."""


class LocalStorage:
    """Objects as files below a folder, which is created when it is first needed."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def put(self, name: str, data: bytes) -> None:
        """Writes a file beside the old one and renames it over the old one, both flushed to disk."""
        path = self._path(name)
        _make_folder(path.parent)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            _write_new_file(temporary, data)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)

    def get(self, name: str) -> bytes:
        """Reads a file."""
        return self._path(name).read_bytes()

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return self._path(name).is_file()

    def list(self, prefix: str = "") -> list[str]:
        """Walks the folder, leaving out files that `put` has not finished."""
        start = self._path(prefix)
        files = [start] if start.is_file() else start.rglob("*")
        return sorted(
            path.relative_to(self.root).as_posix() for path in files if path.is_file() and not _is_temporary(path)
        )

    def delete(self, prefix: str) -> None:
        """Removes a file, or a folder with all that it holds."""
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
        """Copies a file, as `put` writes one."""
        target = self._path(name)
        _make_folder(target.parent)
        _copy_whole(path, target)
        _flush_folder(target.parent)

    def get_file(self, name: str, path: Path) -> None:
        """Copies a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        _copy_whole(self._path(name), path)

    def check_writable(self) -> None:
        """Creates the folder and a file in it, and removes the file again."""
        created: list[Path] = []
        try:
            created = _make_folder(self.root)
            probe = self.root / f".probe.{secrets.token_hex(4)}.tmp"
            try:
                _write_new_file(probe, b"\0")
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            _remove_empty(created)
            reason = error.strerror or str(error)
            raise JobError(
                f"cannot write to {self.root}: {reason}; choose another folder with --runs-dir", field="storage"
            ) from None

    def _path(self, name: str) -> Path:
        """The file of an object; a name that leads out of the root is a bug of the caller."""
        return self.root / check_name(name)


def check_name(name: str) -> str:
    """`name` itself; ValueError where it would lead out of the storage that it is used in."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"not a name of an object: {name!r}")
    return name


def _is_temporary(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".tmp")


def _write_new_file(path: Path, data: bytes) -> None:
    """Writes a file that must not exist yet, flushed to disk, readable as the user's umask says."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _copy_whole(source: Path, target: Path) -> None:
    """Copies a file beside `target`, flushed to disk, and renames it to that."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        shutil.copyfile(source, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


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
            _flush_folder(path.parent)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    except OSError:
        _remove_empty(created)
        raise
    return created


def _remove_empty(folders: list[Path]) -> None:
    """Takes back folders that were just created, outermost first, unless someone else uses them by now."""
    with contextlib.suppress(OSError):
        for folder in reversed(folders):
            folder.rmdir()


def _flush_folder(folder: Path) -> None:
    """Makes new names in `folder` survive a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
