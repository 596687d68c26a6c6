"""The protocol for named objects of bytes, which a local folder and an object store implement."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Protocol, Self


class Storage(Protocol):
    """Named objects of bytes; names are relative paths such as `digits-1/run.json`.

    The contract is what both a folder and an object store can guarantee: there are no folders, no renames, no locks.
    A `prefix` names an object or everything below it: `a/b` covers `a/b` and `a/b/c`, never `a/bc`.
    """

    @property
    def location(self) -> Path | str:
        """The folder, or the URL on an object store."""

    @property
    def is_there(self) -> bool:
        """Whether the folder exists; always true on an object store, where prefixes need not be created."""

    def below(self, name: str) -> Self:
        """The same storage with `name` as the prefix of all names."""

    def put(self, name: str, data: bytes) -> None:
        """Makes `data` the whole content of `name`, durably; a reader sees the old or the new content, never a part."""

    def get(self, name: str) -> bytes:
        """The content of `name`; FileNotFoundError if there is no such object."""

    def get_json(self, name: str) -> bytes:
        """Like `get`, for JSON that other processes replace often: the content is complete if it ever was."""

    def exists(self, name: str) -> bool:
        """Whether there is an object `name`."""

    def folders(self) -> list[str]:
        """The first parts, up to the first slash, of the names that have a slash; sorted."""

    def list(self, prefix: str = "") -> list[str]:
        """The names that `prefix` covers, sorted; by default all names."""

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """The size in bytes of each object that `prefix` covers, by name."""

    def delete(self, prefix: str) -> None:
        """Deletes what `prefix` covers; it is no error if that is nothing."""

    def put_file(self, name: str, path: Path) -> None:
        """Like `put`, with the content of a local file of any size."""

    def get_file(self, name: str, path: Path) -> None:
        """Like `get`, into a local file, which appears complete; its folder is created if needed."""

    def check_writable(self) -> None:
        """Raises JobError, and leaves nothing behind, if objects cannot be written."""


def check_name(name: str) -> str:
    """Returns `name`; ValueError if it would lead out of the storage that it is used in."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"not a name of an object: {name!r}")
    return name
