"""Atomic writes: a file appears under its name complete and flushed to disk, or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

_SUFFIX = ".tmp"


@contextlib.contextmanager
def atomic_path(path: Path, *, is_durable: bool = True) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to, and renames it to `path` at the end of the block.

    After an exception the temporary file is removed and `path` is unchanged. The file gets the mode that new files get
    by the process's umask, whatever mode the code in the block created it with.

    Args:
        path: The file to write; its folder must exist.
        is_durable: Whether the file and its name also survive a crash of the machine.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_SUFFIX}")
    try:
        with temporary.open("xb") as created:
            mode = stat.S_IMODE(os.fstat(created.fileno()).st_mode)
        yield temporary
        if stat.S_IMODE(temporary.stat().st_mode) != mode:
            temporary.chmod(mode)
        move_into_place(temporary, path, is_durable=is_durable)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def atomic_write(path: Path, data: bytes | str, *, is_durable: bool = True) -> None:
    """Writes a small file; see `atomic_path`."""
    with atomic_path(path, is_durable=is_durable) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def move_into_place(temporary: Path, path: Path, *, is_durable: bool = True) -> None:
    """Renames a complete file to `path` on the same file system.

    Args:
        temporary: The file.
        path: Its name from now on; what had this name before is replaced.
        is_durable: Whether the file and its name also survive a crash of the machine.
    """
    if is_durable:
        flush(temporary)
    temporary.replace(path)
    if is_durable:
        flush(path.parent)


def is_temporary(path: Path) -> bool:
    """Whether `path` is an unfinished file of `atomic_path`."""
    return path.name.startswith(".") and path.name.endswith(_SUFFIX)


def remove_temporary(folder: Path) -> None:
    """Deletes unfinished files that killed processes left in `folder`."""
    for path in folder.glob(f".*{_SUFFIX}"):
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Flushes a file's content, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
