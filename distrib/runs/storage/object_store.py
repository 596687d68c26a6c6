"""Objects in a bucket of S3, of whatever speaks its protocol, or of Google Cloud Storage, by pyarrow."""

from __future__ import annotations

import json
import os
import random
import secrets
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from distrib.errors import JobError, LaunchError
from distrib.runs.storage.errors import StorageError, explain
from distrib.runs.storage.local import check_name
from distrib.runs.storage.location import join, split

PATIENCE_SECONDS = 60.0
"""How long a temporary error is tried again by default."""
START_PATIENCE_SECONDS = 5.0
"""The same before anything has started, while somebody waits for an answer."""

_FIRST_DELAY_SECONDS = 0.1
_LONGEST_DELAY_SECONDS = 5.0
_LONG_SECONDS = 3.0
_JSON_TRIES = 10
_CHUNK_BYTES = 2**22
_FLUSH_BYTES = 2**26
_CONNECT_TIMEOUT_SECONDS = 3.0
_REQUEST_TIMEOUT_SECONDS = 15.0

Result = TypeVar("Result")


class ObjectStorage:
    """Objects below a URL such as `s3://bucket/prefix`; the bucket must exist.

    Credentials are found as the store's own tools find them. The endpoint of an S3 that is not Amazon's is
    AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL. Every operation tries temporary errors again, with growing pauses.

    Can be used from several threads, and in a forked process too, which makes connections of its own.

    Args:
        url: The bucket and the prefix.
        patience_seconds: How long a temporary error is tried again.
        on_delay: Told, once per operation, when that takes long.
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

    def below(self, name: str) -> ObjectStorage:
        """The same with `name` as the prefix of everything."""
        return ObjectStorage(join(self.url, check_name(name)), self._patience_seconds, self._on_delay)

    def patient(self, seconds: float, on_delay: Callable[[str], None] | None = None) -> ObjectStorage:
        """The same with another patience."""
        return ObjectStorage(self.url, seconds, on_delay)

    def put(self, name: str, data: bytes) -> None:
        """Writes an object, which appears whole."""

        def action(files: Any) -> None:
            with files.open_output_stream(self._path(name)) as stream:
                stream.write(data)

        self._try("write", name, action)

    def put_file(self, name: str, path: Path) -> None:
        """Uploads a file, a part of it at a time; its object appears whole."""

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
        """As `get`, for JSON that others replace again and again: what is read is whole, if it ever was."""
        for _ in range(_JSON_TRIES):
            data = self.get(name)
            try:
                json.loads(data)
            except ValueError:
                time.sleep(_FIRST_DELAY_SECONDS * random.random())
            else:
                break
        return data

    def get_file(self, name: str, path: Path) -> None:
        """Downloads an object; the file appears whole."""
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")

        def action(files: Any) -> None:
            with files.open_input_stream(self._path(name)) as stream, temporary.open("wb") as target:
                while chunk := stream.read(_CHUNK_BYTES):
                    target.write(chunk)
                size = target.tell()
            self._check_size(files, name, size)

        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._try("read", name, action)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _check_size(self, files: Any, name: str, num_bytes: int) -> None:
        """Raises OSError, upon which is tried again, where an object was replaced while it was read.

        pyarrow asks for the size first and then for as many bytes. They may be the beginning of a longer successor, or
        those of a shorter one with rubbish behind them.
        """
        size = files.get_file_info(self._path(name)).size
        if size != num_bytes:
            raise OSError(f"{num_bytes} bytes were read of what has {size} now")

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        return bool(self._try("read", name, lambda files: files.get_file_info(self._path(name)).is_file))

    def folders(self) -> list[str]:
        """The first parts, up to the first slash, of the names that have one."""

        def action(files: Any) -> list[str]:
            from pyarrow.fs import FileSelector, FileType

            infos = files.get_file_info(FileSelector(self._path(""), allow_not_found=True))
            return sorted(info.base_name for info in infos if info.type == FileType.Directory)

        return self._try("list", "", action)

    def list(self, prefix: str = "") -> list[str]:
        """Asks the store for all names."""
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """The bytes of each object that `prefix` covers, by name."""
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
        """Deletes an object, or all below a prefix."""
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
        """Writes and removes an object.

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
        """Does `action` with a connection, again and again where an error may be temporary.

        Raises:
            FileNotFoundError: There is no such object.
            StorageError: It was refused, or failed for too long.
            OSError: A local file is at fault.
        """
        started = time.monotonic()
        delay, is_announced = _FIRST_DELAY_SECONDS, False
        while True:
            try:
                return action(self._files())
            except FileNotFoundError:
                raise
            except OSError as error:
                if error.errno is not None and not isinstance(error, ConnectionError | TimeoutError):
                    raise  # a local file's: pyarrow gives no number with those of a store
                seconds = time.monotonic() - started
                problem = explain(error, f"cannot {verb} {join(self.url, name) if name else self.url}", seconds)
                if problem.kind != "unreachable" or seconds >= self._patience_seconds:
                    self._connection = None  # credentials are read anew then
                    raise problem from error
                if self._on_delay is not None and seconds > _LONG_SECONDS and not is_announced:
                    is_announced = True
                    self._on_delay(f"{problem}; trying again for up to {self._patience_seconds:.0f} s")
            time.sleep(min(delay * random.uniform(0.5, 1.0), max(0.0, self._patience_seconds - seconds)))
            delay = min(2 * delay, _LONGEST_DELAY_SECONDS)

    def _files(self) -> Any:
        """The connection of this process."""
        connection = self._connection
        if connection is None or connection[0] != os.getpid():
            self._connection = connection = (os.getpid(), _connect(self.url))
        return connection[1]


def parent_of(url: str) -> tuple[ObjectStorage, str]:
    """The storage that an object's URL lies in, and the object's name there."""
    parent, name = split(url)
    return ObjectStorage(parent), name


def _connect(url: str) -> Any:
    """The pyarrow file system of a URL, without retries of its own."""
    from pyarrow import fs

    scheme, _, path = url.partition("://")
    if scheme == "gs":
        return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=_CONNECT_TIMEOUT_SECONDS))
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None:
        region = "us-east-1" if endpoint else fs.resolve_s3_region(path.partition("/")[0])
    return fs.S3FileSystem(
        endpoint_override=endpoint,
        region=region,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
        connect_timeout=_CONNECT_TIMEOUT_SECONDS,
        request_timeout=_REQUEST_TIMEOUT_SECONDS,
        allow_delayed_open=True,  # a small object takes one request instead of three
    )
