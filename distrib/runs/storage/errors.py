"""What a store's errors mean to a user: refused, not there, or out of reach for now."""

from __future__ import annotations

import errno
import re
from typing import Literal

from distrib.errors import DistribError

Kind = Literal["refused", "missing", "unreachable"]

_EXIT_CODES = {"refused": 2, "missing": 2, "unreachable": 3}
_SIGNS: dict[Kind, str] = {
    "missing": r"NO_SUCH_BUCKET|RESOURCE_NOT_FOUND|[Bb]ucket.{0,80} (does not exist|not found)",
    "refused": (
        r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|EXPIRED|ExpiredToken|InvalidToken|CLIENT_TOKEN|UNRECOGNIZED_CLIENT"
        r"|AUTHENTICATION|TIME_TOO_SKEWED|VALIDATION|PERMISSION_DENIED|UNAUTHENTICATED|[Pp]ermission denied"
        r"|[Ff]orbidden|HTTP status 40[13]|OAuth2|[Cc]redentials"
    ),
}
_WAYS_OUT: dict[Kind, str] = {
    "missing": "create the bucket, or correct the URL",
    "refused": "check the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or the store's own) and their rights",
    "unreachable": "check the network, and AWS_ENDPOINT_URL where the store is not Amazon's",
}


class StorageError(DistribError):
    """A store did not do what it was asked to, for good or for too long.

    Attributes:
        kind: `refused` (credentials or rights), `missing` (no such bucket), `unreachable` (all that may be temporary).
    """

    def __init__(self, message: str, kind: Kind) -> None:
        super().__init__(message)
        self.kind = kind
        self.exit_code = _EXIT_CODES[kind]

    def __reduce__(self) -> tuple[type[StorageError], tuple[str, Kind]]:
        return type(self), (str(self), self.kind)


class NotKeptError(DistribError):
    """What a run was for could not be written; the message says what, where and the way out."""


def explain(error: OSError, what: str, seconds: float) -> StorageError:
    """A store's error in words.

    Args:
        error: As pyarrow raised it.
        what: What could not be done.
        seconds: For how long that has been tried.
    """
    text = " ".join(str(error).split())
    kind: Kind = next((kind for kind, signs in _SIGNS.items() if re.search(signs, text)), "unreachable")
    tried = f" (tried for {seconds:.0f} s)" if kind == "unreachable" and seconds >= 1 else ""
    return StorageError(f"{what}: {_core(text)}{tried}; {_WAYS_OUT[kind]}", kind)


def _core(text: str) -> str:
    """The part of a pyarrow message that tells something: `ACCESS_DENIED: Access Denied`."""
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
    """Why something could not be kept, where `error` says that: what, where and the way out; else None.

    Args:
        error: What was raised.
        place: What was being written.
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
