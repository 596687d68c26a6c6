"""Ray's head, asked before this process is connected to it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from distrib.compat.symbols import RAY_VERSIONS, PrivateSymbol
from distrib.errors import LaunchError

SYMBOLS = (
    PrivateSymbol(
        "ray._raylet.GcsClient",
        "ray.init repeats itself for 20 seconds if the head refuses its token, and reads no values before; secrets are "
        "needed to read the job",
        RAY_VERSIONS,
        "a wrong token is reported as a head that does not answer; a job that was submitted with secrets is refused",
    ),
)
_STDERR = 2


def refuses_token(address: str) -> bool:
    """Whether the head at HOST:PORT answers, but does not accept this process's token, or its lack of one."""
    client = _client_class()
    if client is None:
        return False
    from ray.exceptions import AuthenticationError

    is_refused = False
    with _stderr_in_file() as file:
        try:
            client(address=address)
        except AuthenticationError:
            is_refused = True
        except Exception:
            pass
    if not is_refused:
        file.seek(0)
        sys.stderr.write(file.read().decode(errors="replace"))
    return is_refused


def take(address: str, key: str) -> bytes | None:
    """The value of a key, which is removed; None if there is none.

    Args:
        address: HOST:PORT of the cluster's head.
        key: The key, in no namespace.
    """
    client_class = _client_class()
    if client_class is None:
        raise LaunchError("this version of Ray cannot hand over the secrets of --env; give them to the hosts")
    client = client_class(address=address)
    value: bytes | None = client.internal_kv_get(key.encode(), None)
    if value is not None:
        client.internal_kv_del(key.encode(), False, None)
    return value


def _client_class() -> Any:
    try:
        from ray._raylet import GcsClient  # type: ignore[attr-defined]
    except ImportError:
        return None
    return GcsClient


@contextmanager
def _stderr_in_file() -> Iterator[IO[bytes]]:
    """Keeps what Ray's native code writes to stderr, which no setting prevents, in a file."""
    sys.stderr.flush()
    saved = os.dup(_STDERR)
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller reads it
    os.dup2(file.fileno(), _STDERR)
    try:
        yield file
    finally:
        os.dup2(saved, _STDERR)
        os.close(saved)
