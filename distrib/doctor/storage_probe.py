"""What runs on the hosts to test that they share the storage of runs."""

from __future__ import annotations

import contextlib
import secrets
import time

from distrib.runs.storage.open import open_storage

_VISIBLE_SECONDS = 5.0
"""How late a network file system may show another host's new file."""


def probe_name() -> str:
    """A name that no run has."""
    return f".doctor-{secrets.token_hex(6)}"


def write_probe(location: str, name: str, data: bytes) -> None:
    """Writes an object below `location`, creating its folder if needed."""
    open_storage(location).put(name, data)


def read_probes(location: str, names: list[str]) -> dict[str, bytes]:
    """The contents of objects that other hosts have written; those that do not appear within 5 seconds are missing."""
    storage, found = open_storage(location), dict[str, bytes]()
    deadline = time.monotonic() + _VISIBLE_SECONDS
    while True:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found[name] = storage.get(name)
        if len(found) == len(names) or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def remove_probe(location: str, name: str) -> None:
    """Removes an object, if it exists."""
    open_storage(location).delete(name)
