"""One owner of a run at a time: the lease that its launcher holds and renews."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distrib.errors import LaunchError
from distrib.runs.owner import is_dead, is_of_this_machine, this_process
from distrib.runs.storage import LocalStorage

_NAME = "lease.json"
_EXPIRY_SECONDS = 15.0
_RENEWAL_SECONDS = 3.0
_POLL_SECONDS = 0.25


class Lease:
    """A launcher's hold on a run; make one with `acquire`.

    Attributes:
        token: Tells this lease from every other of the run.
    """

    def __init__(self, folder: Path, token: str) -> None:
        self._folder = folder
        self.token = token
        self._renewed = time.monotonic()

    @classmethod
    def acquire(cls, folder: Path) -> Lease:
        """Takes the run, at once where its owner on this machine is dead or it has none.

        An owner elsewhere cannot be seen, so its lease is waited for: it expires 15 s after it was last renewed.

        Raises:
            LaunchError: Another process holds the run.
        """
        deadline = time.monotonic() + _EXPIRY_SECONDS
        first: Any = None
        while True:
            with _locked(folder):
                held = _read(folder)
                if held is None or is_dead(held["owner"]):
                    return cls._take(folder)
                first = first or held
                is_renewed = held != first
                if not is_of_this_machine(held["owner"]) and not is_renewed and time.monotonic() > deadline:
                    return cls._take(folder)
            if is_of_this_machine(held["owner"]) or is_renewed:
                owner = held["owner"]
                raise LaunchError(
                    f"run {folder.name} is held by process {owner.get('pid')} on {owner.get('host')}; "
                    "stop that one first, or use another --run-id"
                )
            time.sleep(_POLL_SECONDS)

    @classmethod
    def _take(cls, folder: Path) -> Lease:
        lease = cls(folder, secrets.token_hex(8))
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
            self._write()

    @property
    def is_held(self) -> bool:
        """Whether the run is still this owner's."""
        return is_held(self._folder, self.token)

    def check(self) -> None:
        """Raises LaunchError where the run is another's now."""
        if not self.is_held:
            raise LaunchError(f"run {self._folder.name} was taken over by another launcher; this one ends")

    def release(self) -> None:
        """Gives the run up."""
        with _locked(self._folder):
            if self.is_held:
                (self._folder / _NAME).unlink(missing_ok=True)

    def _write(self) -> None:
        record = {"token": self.token, "owner": this_process(), "time": time.time()}
        LocalStorage(self._folder).put(_NAME, json.dumps(record).encode())


def is_held(folder: Path, token: str) -> bool:
    """Whether the lease with `token` is still the run's."""
    held = _read(folder)
    return held is not None and held["token"] == token


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((folder / _NAME).read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("owner"), dict) and "token" in record else None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps other processes of this machine from taking the run at the same moment."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
