"""One object with conditional writes, by obstore.

Everything else on object stores goes through pyarrow: obstore's threads do not survive a fork, and the ranks on this
machine are forked from the launcher, whose process is the only one that writes a lease.
"""

from __future__ import annotations

import configparser
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distrib.runs.lease import ConflictError, Versioned
from distrib.runs.storage.connection import (
    CONNECT_TIMEOUT_SECONDS,
    REQUEST_TIMEOUT_SECONDS,
    endpoint_of_s3,
    region_of_s3,
)
from distrib.runs.storage.errors import explain
from distrib.runs.storage.retry import attempts

if TYPE_CHECKING:
    from obstore.store import GCSStore, S3Store

_NOT_SUPPORTED = ("NotImplemented", "501 ", "not supported")
_NO_CREDENTIALS = ("PermissionDenied", "Unauthenticated", "169.254.", "metadata", "redential")
"""In errors of a client that has found no credentials; those of machines come from an address in 169.254."""
_owner_pid: int | None = None
"""The process that has used obstore; a process forked from it cannot."""


class UnsupportedError(Exception):
    """The store, or this process, cannot write on a condition."""


class ConditionalObject:
    """An object of a store that is only replaced if it is what was read.

    Args:
        url: The URL of the prefix.
        name: The object's name below it.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._store: S3Store | GCSStore | None = None
        self._is_proven = False

    def read(self, patience_seconds: float) -> Versioned | None:
        """The object and its version; None if it does not exist."""

        def get(store: Any) -> Versioned:
            result = store.get(self._name)
            return Versioned(bytes(result.bytes()), _version(result.meta))

        try:
            return self._try("read", get, patience_seconds)
        except FileNotFoundError:
            return None

    def write(self, content: bytes, replaced: Versioned | None, patience_seconds: float) -> Versioned:
        """Creates the object, or replaces exactly the version `replaced`.

        Raises:
            ConflictError: Another process has written it; also when an answer was lost and the write repeated.
            UnsupportedError: The store refuses conditional writes.
            StorageError: The store refuses, or cannot be reached for too long.
        """
        mode: Any = "create" if replaced is None else replaced.version

        def put(store: Any) -> Versioned:
            return Versioned(content, _version(store.put(self._name, content, mode=mode, use_multipart=False)))

        try:
            return self._try("write", put, patience_seconds)
        except FileNotFoundError:
            raise ConflictError from None

    def _try(self, verb: str, action: Any, patience_seconds: float) -> Versioned:
        from obstore import exceptions

        for attempt in attempts(patience_seconds):
            with attempt:
                try:
                    result: Versioned = action(self._connection())
                    self._is_proven = True
                    return result
                except FileNotFoundError:
                    self._is_proven = True
                    raise
                except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
                    raise ConflictError from None
                except exceptions.NotSupportedError:
                    raise UnsupportedError from None
                except exceptions.BaseError as error:
                    if any(sign in str(error) for sign in _NOT_SUPPORTED):
                        raise UnsupportedError from None
                    text = f"{type(error).__name__}: {str(error).partition('Debug source')[0]}"
                    if not self._is_proven and any(sign in text for sign in _NO_CREDENTIALS):
                        raise UnsupportedError from None  # pyarrow finds credentials in more places
                    raise explain(OSError(text), f"cannot {verb} {self._url}/{self._name}", attempt.seconds) from None
        raise AssertionError("unreachable")

    def _connection(self) -> S3Store | GCSStore:
        global _owner_pid  # noqa: PLW0603 - obstore has one set of threads for a whole process
        if _owner_pid not in (None, os.getpid()):
            raise UnsupportedError
        _owner_pid = os.getpid()
        if self._store is None:
            self._store = _connect(self._url)
        return self._store


def _version(meta: Any) -> dict[str, str]:
    """What identifies a version; stores differ in which of the two they have."""
    return {key: meta[key] for key in ("e_tag", "version") if meta.get(key) is not None}


def _connect(url: str) -> S3Store | GCSStore:
    """A client without built-in retries."""
    from obstore.store import GCSStore, S3Store

    scheme, _, path = url.partition("://")
    bucket, _, prefix = path.partition("/")
    client: Any = {
        "connect_timeout": f"{CONNECT_TIMEOUT_SECONDS}s",
        "timeout": f"{REQUEST_TIMEOUT_SECONDS}s",
        "allow_http": True,
    }
    if scheme == "gs":
        return GCSStore(bucket, prefix=prefix or None, client_options=client, retry_config={"max_retries": 0})
    endpoint = endpoint_of_s3()
    options: Any = {} if endpoint is None else {"endpoint": endpoint}
    return S3Store(
        bucket,
        prefix=prefix or None,
        region=region_of_s3(bucket),
        client_options=client,
        retry_config={"max_retries": 0},
        credential_provider=_credentials(),
        **options,
    )


def _credentials() -> Any:
    """For credentials in files, which obstore does not read: botocore's if it is installed, or the static keys."""
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider

        return Boto3CredentialProvider()
    except (ImportError, ValueError):
        keys = _static_keys()
        return None if keys is None else lambda: keys


def _static_keys() -> dict[str, str | None] | None:
    """The keys of the chosen profile in the shared credentials file; None if it has none."""
    path = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()
    parser = configparser.RawConfigParser()
    try:
        parser.read(path)
        profile = parser[os.environ.get("AWS_PROFILE") or "default"]
        return {
            "access_key_id": profile["aws_access_key_id"],
            "secret_access_key": profile["aws_secret_access_key"],
            "token": profile.get("aws_session_token"),
            "expires_at": None,
        }
    except (configparser.Error, KeyError, OSError, UnicodeDecodeError):
        return None
