"""Growing files of lines as numbered segments, since nothing can be appended to an object."""

from __future__ import annotations

import threading
from pathlib import Path

from distrib.runs.files.atomic import atomic_write
from distrib.runs.storage.object_store import ObjectStorage

METRICS = "metrics"
"""The prefix of the segments of metrics.jsonl."""
SAMPLES = "samples"
"""The prefix of the segments of all sample records."""
SEGMENT_BYTES = 2**18
"""A segment is uploaded again whenever its file has grown, until it has this size; then the next one begins."""


def samples_prefix(rank: int) -> str:
    """The prefix of the segments of a rank's sample records."""
    return f"{SAMPLES}/rank-{rank}"


class SegmentWriter:
    """Uploads a local file of lines, complete lines only, as objects `PREFIX/NUMBER-aATTEMPT.jsonl`.

    The attempt in the names prevents a process that outlived its attempt from overwriting segments of a later one.

    Args:
        storage: The run's objects.
        prefix: Where the segments go, such as `metrics`.
        file: The file, which need not exist yet. Its present content counts as uploaded as far as `restore`, a follower
            or an earlier writer on this host has marked it so.
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
        """Uploads the lines that the file has gained.

        Raises:
            StorageError: They cannot be uploaded now; the next call tries again.
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
        """The content of the current segment, if it has grown since it was uploaded."""
        try:
            with self._file.open("rb") as file:
                file.seek(self._start)
                current = file.read(self._end - self._start)
                new = _complete_lines(file.read())
        except FileNotFoundError:
            return None
        return current + new if new else None


def _complete_lines(data: bytes) -> bytes:
    """About a segment of `data`, up to the end of a line; empty if no line is complete."""
    end = data.rfind(b"\n", 0, SEGMENT_BYTES) + 1 or data.find(b"\n") + 1
    return data[:end]


def restore(storage: ObjectStorage, prefix: str, file: Path) -> None:
    """Replaces `file` by the content of all segments; removes it if there are none."""
    names = storage.list(prefix)
    if not names:
        file.unlink(missing_ok=True)
        _mark_file(file).unlink(missing_ok=True)
        return
    content = b"".join(map(storage.get, names))
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, content, is_durable=False)
    _write_mark(file, len(content))


class SegmentFollower:
    """Appends to a local file what a writer on another host uploads from now on.

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
        """Downloads what is new.

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
    """How many bytes of `file` are uploaded."""
    try:
        return min(file.stat().st_size, int(_mark_file(file).read_text()))
    except (OSError, ValueError):
        return 0


def _write_mark(file: Path, end: int) -> None:
    atomic_write(_mark_file(file), str(end), is_durable=False)
