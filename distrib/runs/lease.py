"""The lease that makes one launcher the owner of a run: acquired, renewed while the run lasts, and released."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from distrib.errors import LaunchError
from distrib.runs.owner import is_dead, is_of_this_machine, this_process
from distrib.runs.storage.errors import StorageError

LEASE = "lease.json"
"""The name of the file or object."""

_EXPIRY_SECONDS = 15.0
_RENEWAL_SECONDS = 3.0
_POLL_SECONDS = 0.25


class LostRunError(LaunchError):
    """Another launcher has acquired the run."""


class ConflictError(Exception):
    """Another process wrote the lease first."""


@dataclass(frozen=True)
class Versioned:
    """A content and the version that the storage gave it; a conditional write replaces exactly this version."""

    content: bytes
    version: Any = None


class LeaseStorage(Protocol):
    """Where the lease of one run is stored, with conditional writes."""

    @property
    def run_id(self) -> str:
        """The run's id."""

    @property
    def notice(self) -> str | None:
        """What the user should know about this storage, if anything."""

    def read(self) -> Versioned | None:
        """What is stored; None if nothing is."""

    def write(self, content: bytes, replaced: Versioned | None) -> Versioned:
        """Stores the content if `replaced` is what is stored now; ConflictError if not."""

    def clear(self, replaced: Versioned) -> None:
        """Makes the run free if `replaced` is what is stored now; ConflictError if not."""


class Lease:
    """The right of one launcher to train a run; create it with `acquire`.

    Attributes:
        token: Distinguishes this lease from every other lease of the run.
    """

    def __init__(self, storage: LeaseStorage, token: str, stored: Versioned) -> None:
        self.token = token
        self._storage = storage
        self._stored = stored
        self._renewed = time.monotonic()

    @classmethod
    def acquire(cls, storage: LeaseStorage) -> Lease:
        """Acquires the run, at once if it has no owner or its owner was a process of this machine that has died.

        An owner on another machine cannot be observed, so its lease must expire first: 15 s after the last renewal.

        Raises:
            LaunchError: Another process holds the run.
            OSError: The lease cannot be written.
            StorageError: The object store cannot be used.
        """
        token = secrets.token_hex(8)
        deadline = time.monotonic() + _EXPIRY_SECONDS
        first: Mapping[str, Any] | None = None
        while True:
            stored = storage.read()
            held = None if stored is None else _parse(stored.content)
            if stored is not None and held is not None and held["token"] == token:
                return cls(storage, token, stored)  # the answer to the write was lost
            if held is None or is_dead(held["owner"]) or (held == first and time.monotonic() > deadline):
                with contextlib.suppress(ConflictError):
                    return cls(storage, token, storage.write(_record(token), stored))
                continue
            if is_of_this_machine(held["owner"]) or (first is not None and held != first):
                raise _held(storage.run_id, held)
            first = held
            time.sleep(_POLL_SECONDS)

    @property
    def notice(self) -> str | None:
        """What the user should know about how this lease is stored, if anything."""
        return self._storage.notice

    def renew(self) -> None:
        """Renews the lease; does so every few seconds, however often it is called.

        Raises:
            LostRunError: Another launcher holds the run.
        """
        if time.monotonic() - self._renewed < _RENEWAL_SECONDS:
            return
        self._renewed = time.monotonic()
        try:
            self._stored = self._storage.write(_record(self.token), self._stored)
        except ConflictError:
            self.check()
        except (OSError, StorageError):
            self.check()  # a full disk, or a store out of reach: there nobody else can acquire the run either

    @property
    def is_held(self) -> bool:
        """Whether the run still belongs to this lease; also True while an object store cannot be reached."""
        try:
            stored = self._storage.read()
        except StorageError:
            return True
        if stored is None or not is_token_of(stored.content, self.token):
            return False
        self._stored = stored
        return True

    def check(self) -> None:
        """Raises LostRunError if another launcher holds the run."""
        if not self.is_held:
            raise LostRunError(f"run {self._storage.run_id} was taken over by another launcher; this one ends")

    def release(self) -> None:
        """Releases the run; a lease that cannot be released is that of a dead process soon, or expires."""
        with contextlib.suppress(ConflictError, StorageError):
            if self.is_held:
                self._storage.clear(self._stored)


def is_token_of(content: bytes, token: str) -> bool:
    """Whether the content of a lease belongs to the lease with this token."""
    return token_of(content) == token


def token_of(content: bytes) -> str | None:
    """The token in the content of a lease; None if the run is free."""
    held = _parse(content)
    return None if held is None else str(held["token"])


def _record(token: str) -> bytes:
    return json.dumps({"token": token, "owner": this_process(), "time": time.time()}).encode()


def _parse(content: bytes) -> Mapping[str, Any] | None:
    """What a lease says; None if it says nothing, as after a release."""
    try:
        record = json.loads(content)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("owner"), dict) and "token" in record else None


def _held(run_id: str, held: Mapping[str, Any]) -> LaunchError:
    owner = held["owner"]
    return LaunchError(
        f"run {run_id} is held by process {owner.get('pid')} on {owner.get('host')}; "
        "stop that one first, or use another --run-id"
    )
