"""Files of lines that grow, kept on an object store, where nothing can be appended to, as numbered segments."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from distrib.runs.storage.object_store import ObjectStorage

SEGMENT_BYTES = 2**18
"""A segment is written anew whenever its file has grown, until it has this size; then the next one begins."""


class SegmentWriter:
    """Publishes a local file of lines, whole lines only, as objects `PREFIX/NUMBER-aATTEMPT.jsonl`.

    The attempt in the names keeps a writer that outlived its attempt from touching a later one's segments.

    Args:
        storage: The run's objects.
        prefix: Where the segments go, such as `metrics`.
        file: The file, which need not exist yet; what it holds now counts as published as far as `restore` or an
            earlier writer on this host has said so, or else as a whole.
        attempt: The attempt.
    """

    def __init__(self, storage: ObjectStorage, prefix: str, file: Path, attempt: int) -> None:
        self._storage = storage
        self._prefix = prefix
        self._file = file
        self._attempt = attempt
        self._number: int | None = None
        self._start = _read_mark(file)
        self._end = self._start
        self._lock = threading.Lock()

    def push(self) -> None:
        """Publishes what the file has gained.

        Raises:
            StorageError: It cannot be published now; the next call tries again.
        """
        with self._lock:
            while (data := self._unpublished()) is not None:
                if self._number is None:
                    self._number = _next_number(self._storage.list(self._prefix))
                self._storage.put(f"{self._prefix}/{self._number:08d}-a{self._attempt}.jsonl", data)
                self._end = self._start + len(data)
                _write_mark(self._file, self._end)
                if len(data) >= SEGMENT_BYTES:
                    self._start, self._number = self._end, self._number + 1

    def _unpublished(self) -> bytes | None:
        """The content of the current segment, where it has grown since it was put."""
        try:
            with self._file.open("rb") as file:
                file.seek(self._start)
                current = file.read(self._end - self._start)
                new = _some_whole_lines(file.read())
        except FileNotFoundError:
            return None
        return current + new if new else None


def _some_whole_lines(data: bytes) -> bytes:
    """About a segment of `data`, up to the end of a line; nothing where no line has ended."""
    end = data.rfind(b"\n", 0, SEGMENT_BYTES) + 1 or data.find(b"\n") + 1
    return data[:end]


def restore(storage: ObjectStorage, prefix: str, file: Path) -> None:
    """Makes `file` what all segments hold together; where there is none, there is no file."""
    names = storage.list(prefix)
    if not names:
        file.unlink(missing_ok=True)
        return
    content = b"".join(map(storage.get, names))
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(file)
    _write_mark(file, len(content))


class SegmentFollower:
    """Appends to a local file what a writer on another host publishes from now on.

    Args:
        storage: The run's objects.
        prefix: Where the segments are.
        file: The local file.
    """

    def __init__(self, storage: ObjectStorage, prefix: str, file: Path) -> None:
        self._storage = storage
        self._prefix = prefix
        self._file = file
        self._seen = storage.sizes(prefix)

    def poll(self) -> None:
        """Fetches what is new.

        Raises:
            StorageError: The store cannot be read now.
        """
        for name, size in sorted(self._storage.sizes(self._prefix).items()):
            seen = self._seen.get(name, 0)
            if size <= seen:
                continue
            data = self._storage.get(name)
            with self._file.open("ab") as target:
                target.write(data[seen:])
                _write_mark(self._file, target.tell())
            self._seen[name] = len(data)


def _next_number(names: list[str]) -> int:
    numbers = [int(name.rpartition("/")[2].partition("-")[0]) for name in names]
    return max(numbers, default=-1) + 1


def _mark_file(file: Path) -> Path:
    return file.with_name(f".{file.name}.published")


def _read_mark(file: Path) -> int:
    """How much of `file` is published; all of it, where nobody has said so."""
    size = file.stat().st_size if file.exists() else 0
    try:
        return min(size, int(_mark_file(file).read_text()))
    except (OSError, ValueError):
        return size


def _write_mark(file: Path, end: int) -> None:
    temporary = file.with_name(f".{file.name}.published.{os.getpid()}")
    temporary.write_text(str(end))
    temporary.replace(_mark_file(file))
