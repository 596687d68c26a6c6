"""Objects in a bucket of S3, of a store with the same protocol, or of Google Cloud Storage, by pyarrow."""

from __future__ import annotations

import json
import os
import random
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from distrib.errors import JobError, LaunchError
from distrib.runs.files.atomic import atomic_path
from distrib.runs.storage.connection import connect
from distrib.runs.storage.errors import StorageError, explain
from distrib.runs.storage.location import join
from distrib.runs.storage.retry import attempts
from distrib.runs.storage.storage import Storage, check_name

PATIENCE_SECONDS = 60.0
"""How long a temporary error is retried by default."""
START_PATIENCE_SECONDS = 5.0
"""The same while a command line waits for an answer."""

_LONG_SECONDS = 3.0
_JSON_TRIES = 10
_JSON_PAUSE_SECONDS = 0.1
_CHUNK_BYTES = 2**22
_FLUSH_BYTES = 2**26

Result = TypeVar("Result")


class ObjectStorage:
    """Objects below a URL such as `s3://bucket/prefix`; the bucket must exist.

    Credentials are found as the store's own tools find them. The endpoint of an S3 that is not Amazon's is
    AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL. Every operation retries temporary errors, with growing pauses.

    Several threads can share it; a forked process opens its own connections.

    Args:
        url: The bucket and the prefix.
        patience_seconds: How long a temporary error is retried.
        on_delay: Called, once per operation, when that takes long.
    """

    def __init__(
        self,
        url: str,
        patience_seconds: float = PATIENCE_SECONDS,
        on_delay: Callable[[str], None] | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._patience_seconds = patience_seconds
        self._on_delay = on_delay
        self._connection: tuple[int, Any] | None = None

    @property
    def location(self) -> str:
        """The URL."""
        return self.url

    @property
    def is_there(self) -> bool:
        """True."""
        return True

    def below(self, name: str) -> ObjectStorage:
        """The same with `name` as the prefix of everything."""
        return ObjectStorage(join(self.url, check_name(name)), self._patience_seconds, self._on_delay)

    def patient(self, seconds: float, on_delay: Callable[[str], None] | None = None) -> ObjectStorage:
        """The same with another patience."""
        return ObjectStorage(self.url, seconds, on_delay)

    def put(self, name: str, data: bytes) -> None:
        """Writes an object, which appears complete."""

        def action(files: Any) -> None:
            with files.open_output_stream(self._path(name)) as stream:
                stream.write(data)

        self._try("write", name, action)

    def put_file(self, name: str, path: Path) -> None:
        """Uploads a file in parts; its object appears complete."""

        def action(files: Any) -> None:
            size = 0  # so far
            with path.open("rb") as source, files.open_output_stream(self._path(name)) as stream:
                while chunk := source.read(_CHUNK_BYTES):
                    stream.write(chunk)
                    size += len(chunk)
                    if size % _FLUSH_BYTES == 0:
                        stream.flush()  # waits for the parts on their way, which are copies in memory

        self._try("write", name, action)

    def get(self, name: str) -> bytes:
        """Reads an object."""

        def action(files: Any) -> bytes:
            with files.open_input_stream(self._path(name)) as stream:
                data: bytes = stream.read()
            self._check_size(files, name, len(data))
            return data

        return self._try("read", name, action)

    def get_json(self, name: str) -> bytes:
        """Reads an object again if it is not valid JSON."""
        for _ in range(_JSON_TRIES):
            data = self.get(name)
            try:
                json.loads(data)
            except ValueError:
                time.sleep(_JSON_PAUSE_SECONDS * random.random())
            else:
                break
        return data

    def get_file(self, name: str, path: Path) -> None:
        """Downloads an object; the file appears complete."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path, is_durable=False) as temporary:

            def action(files: Any) -> None:
                with files.open_input_stream(self._path(name)) as stream, temporary.open("wb") as target:
                    while chunk := stream.read(_CHUNK_BYTES):
                        target.write(chunk)
                    size = target.tell()
                self._check_size(files, name, size)

            self._try("read", name, action)

    def _check_size(self, files: Any, name: str, num_bytes: int) -> None:
        """Raises OSError, which is retried, if an object was replaced while it was read.

        pyarrow queries the size first and then reads as many bytes. These may be the beginning of a longer successor,
        or all of a shorter one followed by garbage.
        """
        size = files.get_file_info(self._path(name)).size
        if size != num_bytes:
            raise OSError(f"{num_bytes} bytes were read of an object that now has {size}")

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        return bool(self._try("read", name, lambda files: files.get_file_info(self._path(name)).is_file))

    def folders(self) -> list[str]:
        """Lists the top level."""

        def action(files: Any) -> list[str]:
            from pyarrow.fs import FileSelector, FileType

            infos = files.get_file_info(FileSelector(self._path(""), allow_not_found=True))
            return sorted(info.base_name for info in infos if info.type == FileType.Directory)

        return self._try("list", "", action)

    def list(self, prefix: str = "") -> list[str]:
        """Lists the names."""
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Lists the names with their sizes."""
        root = self._path("")

        def action(files: Any) -> dict[str, int]:
            from pyarrow.fs import FileSelector

            path = self._path(prefix)
            info = files.get_file_info(path)
            below = FileSelector(path, recursive=True, allow_not_found=True)
            infos = [info] if info.is_file else files.get_file_info(below)
            return {info.path[len(root) + 1 :]: info.size for info in infos if info.is_file}

        return self._try("list", prefix, action)

    def delete(self, prefix: str) -> None:
        """Deletes an object, or all objects below a prefix."""
        if not prefix:
            raise ValueError("an empty prefix would delete everything")

        def action(files: Any) -> None:
            from pyarrow.fs import FileType

            path = self._path(prefix)
            kind = files.get_file_info(path).type
            if kind == FileType.Directory:
                files.delete_dir(path)
            elif kind == FileType.File:
                files.delete_file(path)

        self._try("delete", prefix, action)

    def check_writable(self) -> None:
        """Writes and deletes an object.

        Raises:
            JobError: The bucket does not exist, or the credentials are missing or refused.
            LaunchError: The store cannot be reached.
        """
        probe = f".probe-{secrets.token_hex(4)}"
        impatient = self.patient(min(self._patience_seconds, START_PATIENCE_SECONDS))
        try:
            impatient.put(probe, b"\0")
            impatient.delete(probe)
        except StorageError as error:
            if error.kind == "unreachable":
                raise LaunchError(f"storage: {error}") from None
            raise JobError(str(error), field="storage") from None

    def _path(self, name: str) -> str:
        path = self.url.partition("://")[2]
        return f"{path}/{check_name(name)}" if name else path

    def _try(self, verb: str, name: str, action: Callable[[Any], Result]) -> Result:
        """Calls `action` with a connection, again if an error may be temporary.

        Raises:
            FileNotFoundError: There is no such object.
            StorageError: It was refused, or failed for too long.
            OSError: A local file is at fault.
        """
        problem: StorageError | None = None
        is_announced = False
        for attempt in attempts(self._patience_seconds):
            if problem is not None and attempt.seconds > _LONG_SECONDS and self._on_delay and not is_announced:
                is_announced = True
                self._on_delay(f"{problem}; trying again for up to {self._patience_seconds:.0f} s")
            with attempt:
                try:
                    return action(self._files())
                except FileNotFoundError:
                    raise
                except OSError as error:
                    if error.errno is not None and not isinstance(error, ConnectionError | TimeoutError):
                        raise  # of a local file: pyarrow's errors of a store have no number
                    self._connection = None  # so that credentials are read again
                    what = f"cannot {verb} {join(self.url, name) if name else self.url}"
                    problem = explain(error, what, attempt.seconds)
                    raise problem from error
        raise AssertionError("unreachable")

    def _files(self) -> Any:
        """The connection of this process."""
        connection = self._connection
        if connection is None or connection[0] != os.getpid():
            self._connection = connection = (os.getpid(), connect(self.url))
        return connection[1]


if TYPE_CHECKING:
    _: Storage = ObjectStorage("")
