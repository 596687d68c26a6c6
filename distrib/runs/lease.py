"""One owner of a run at a time: the lease that its launcher holds and renews."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from distrib.errors import LaunchError
from distrib.runs.owner import is_dead, is_of_this_machine, this_process
from distrib.runs.storage.local import LocalStorage

LEASE = "lease.json"
"""The name of the file or object."""

_EXPIRY_SECONDS = 15.0
_RENEWAL_SECONDS = 3.0
_POLL_SECONDS = 0.25


class LeasePlace(Protocol):
    """Where the lease of one run is kept."""

    @property
    def run_id(self) -> str:
        """The run's id."""

    def read(self) -> bytes:
        """What is written there; FileNotFoundError where there is nothing."""

    def write(self, data: bytes) -> None:
        """Replaces what is written there."""

    def remove(self) -> None:
        """Removes it, if it is there."""

    def locked(self) -> AbstractContextManager[None]:
        """Keeps others out as far as the place can, from a look at the lease to taking it."""


class FolderPlace:
    """The lease of a run in a folder, where a lock keeps other processes of this machine out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.run_id = folder.name

    def read(self) -> bytes:
        """Reads the file."""
        return (self._folder / LEASE).read_bytes()

    def write(self, data: bytes) -> None:
        """Replaces the file."""
        LocalStorage(self._folder).put(LEASE, data)

    def remove(self) -> None:
        """Removes the file."""
        (self._folder / LEASE).unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder."""
        with locked_folder(self._folder):
            yield


class Lease:
    """A launcher's hold on a run; make one with `acquire`.

    Attributes:
        token: Tells this lease from every other of the run.
    """

    def __init__(self, place: LeasePlace, token: str) -> None:
        self._place = place
        self.token = token
        self._renewed = time.monotonic()

    @classmethod
    def acquire(cls, folder: Path) -> Lease:
        """Takes the run in `folder`; see `acquire_at`."""
        return cls.acquire_at(FolderPlace(folder))

    @classmethod
    def acquire_at(cls, place: LeasePlace) -> Lease:
        """Takes the run, at once where its owner on this machine is dead or it has none.

        An owner elsewhere cannot be seen, so its lease is waited for: it expires 15 s after it was last renewed.

        Raises:
            LaunchError: Another process holds the run.
        """
        deadline = time.monotonic() + _EXPIRY_SECONDS
        first: Any = None
        while True:
            with place.locked():
                held = _read(place)
                if held is None or is_dead(held["owner"]):
                    return cls._take(place)
                first = first or held
                is_renewed = held != first
                if not is_of_this_machine(held["owner"]) and not is_renewed and time.monotonic() > deadline:
                    return cls._take(place)
            if is_of_this_machine(held["owner"]) or is_renewed:
                raise _held(place, held)
            time.sleep(_POLL_SECONDS)

    @classmethod
    def _take(cls, place: LeasePlace) -> Lease:
        lease = cls(place, secrets.token_hex(8))
        lease._write()
        return lease

    def renew(self) -> None:
        """Says that the owner is alive; does so every few seconds however often it is called.

        Raises:
            LaunchError: The run is another's now.
        """
        if time.monotonic() - self._renewed >= _RENEWAL_SECONDS:
            self._renewed = time.monotonic()
            self.check()
            with contextlib.suppress(OSError):  # on a full disk, where nobody else can take the run either
                self._write()

    @property
    def is_held(self) -> bool:
        """Whether the run is still this owner's."""
        return is_held_at(self._place, self.token)

    def check(self) -> None:
        """Raises LaunchError where the run is another's now."""
        if not self.is_held:
            raise LaunchError(f"run {self._place.run_id} was taken over by another launcher; this one ends")

    def release(self) -> None:
        """Gives the run up."""
        with self._place.locked():
            if self.is_held:
                self._place.remove()

    def _write(self) -> None:
        record = {"token": self.token, "owner": this_process(), "time": time.time()}
        self._place.write(json.dumps(record).encode())


def is_held(folder: Path, token: str) -> bool:
    """Whether the lease with `token` is still that of the run in `folder`."""
    return is_held_at(FolderPlace(folder), token)


def is_held_at(place: LeasePlace, token: str) -> bool:
    """Whether the lease with `token` is still the run's."""
    held = _read(place)
    return held is not None and held["token"] == token


def _held(place: LeasePlace, held: Mapping[str, Any]) -> LaunchError:
    owner = held["owner"]
    return LaunchError(
        f"run {place.run_id} is held by process {owner.get('pid')} on {owner.get('host')}; "
        "stop that one first, or use another --run-id"
    )


def _read(place: LeasePlace) -> dict[str, Any] | None:
    try:
        record = json.loads(place.read())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("owner"), dict) and "token" in record else None


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keeps other processes of this machine that ask for the same away."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
