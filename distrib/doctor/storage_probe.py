"""What runs on the hosts to test that they share the storage of runs."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from distrib.runs.storage.local import LocalStorage, Storage
from distrib.runs.storage.location import as_folder, is_url

_VISIBLE_SECONDS = 5.0
"""How late a network file system may show another host's new file."""


def probe_name() -> str:
    """A name that no run has."""
    return f".doctor-{secrets.token_hex(6)}"


def write_probe(location: str, name: str, data: bytes) -> None:
    """Writes an object below `location`, creating its folder if needed."""
    _storage(location).put(name, data)


def read_probe(location: str, name: str) -> bytes | None:
    """The content of an object that another host has written, or None if it does not appear within 5 seconds."""
    deadline = time.monotonic() + _VISIBLE_SECONDS
    while True:
        try:
            return _storage(location).get(name)
        except FileNotFoundError:
            if time.monotonic() > deadline:
                return None
            time.sleep(0.2)


def remove_probe(location: str, name: str) -> None:
    """Removes an object, if it exists."""
    _storage(location).delete(name)


def _storage(location: str) -> Storage:
    if is_url(location):
        from distrib.runs.storage.object_store import ObjectStorage

        return ObjectStorage(location)
    return LocalStorage(Path(as_folder(location)).absolute())
