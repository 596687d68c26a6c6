"""Errors of storage for users: refused, missing, or out of reach for now."""

from __future__ import annotations

import errno
import re
from typing import Literal

from distrib.errors import DistribError, LaunchError

Kind = Literal["refused", "missing", "unreachable"]

_EXIT_CODES = {"refused": 2, "missing": 2, "unreachable": 3}
_SIGNS: dict[Kind, str] = {
    "missing": r"NO_SUCH_BUCKET|RESOURCE_NOT_FOUND|[Bb]ucket.{0,80} (does not exist|not found)",
    "refused": (
        r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|EXPIRED|ExpiredToken|InvalidToken|CLIENT_TOKEN|UNRECOGNIZED_CLIENT"
        r"|AUTHENTICATION|TIME_TOO_SKEWED|VALIDATION|PERMISSION_DENIED|UNAUTHENTICATED|[Pp]ermission denied"
        r"|PermissionDeniedError|UnauthenticatedError|AccessDenied|[Ff]orbidden|HTTP status 40[13]|OAuth2"
        r"|[Cc]redentials"
    ),
}
_WAYS_OUT: dict[Kind, str] = {
    "missing": "create the bucket, or correct the URL",
    "refused": "check the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or the store's own) and their rights",
    "unreachable": "check the network, and AWS_ENDPOINT_URL where the store is not Amazon's",
}


class StorageError(DistribError):
    """An operation on an object store failed for good, or for too long.

    Attributes:
        kind: `refused` (credentials or rights), `missing` (no such bucket), `unreachable` (may be temporary).
    """

    def __init__(self, message: str, kind: Kind) -> None:
        super().__init__(message)
        self.kind = kind
        self.exit_code = _EXIT_CODES[kind]

    def __reduce__(self) -> tuple[type[StorageError], tuple[str, Kind]]:
        return type(self), (str(self), self.kind)


class StorageNotSharedError(LaunchError):
    """A host does not see the folder of a run."""


class NotKeptError(DistribError):
    """A result of a run could not be written; the message says what, where and the way out."""


def explain(error: OSError, what: str, seconds: float) -> StorageError:
    """Turns a client library's error into a StorageError.

    Args:
        error: As the client library raised it.
        what: What could not be done.
        seconds: How long it was tried.
    """
    text = " ".join(str(error).split())
    kind: Kind = next((kind for kind, signs in _SIGNS.items() if re.search(signs, text)), "unreachable")
    tried = f" (tried for {seconds:.0f} s)" if kind == "unreachable" and seconds >= 1 else ""
    return StorageError(f"{what}: {_core(text)}{tried}; {_WAYS_OUT[kind]}", kind)


def _core(text: str) -> str:
    """The informative part of a message of pyarrow: `ACCESS_DENIED: Access Denied`."""
    core = text.partition("AWS Error ")[2] or text
    core = re.sub(r" \(Request ID: [^)]*\)| during \w+ operation", "", core)
    return (core.partition("; Details: ")[2] or core).rstrip(". ")


_LOCAL_WAYS_OUT = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some of the quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "make the file system writable again",
    errno.EACCES: "give back the right to write there",
    errno.EPERM: "give back the right to write there",
}


def storage_problem(error: BaseException, place: str) -> str | None:
    """Why something could not be saved, if `error` is of a storage: what, where and the way out; else None.

    Args:
        error: The exception.
        place: The file that was being written.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, StorageError):
            return str(seen)
        if isinstance(seen, OSError) and not isinstance(seen, ConnectionError | TimeoutError):
            way_out = _LOCAL_WAYS_OUT.get(seen.errno or 0, "look at the disk and its rights")
            return f"cannot write {place}: {seen.strerror or seen}; {way_out}"
        seen = seen.__cause__ or seen.__context__
    return None
