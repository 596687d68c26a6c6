"""Locations of runs as a user writes them: a folder, or the URL of a bucket and a prefix."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

OBJECT_STORES = ("s3", "gs")
"""The schemes of URLs that name object stores."""

_FILE = "file"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]+")


def is_url(location: str) -> bool:
    """Whether `location` names an object store rather than a folder; `file://…` is a folder."""
    return "://" in location and not location.startswith(f"{_FILE}://")


def as_folder(location: str) -> Path:
    """The folder that a path or a `file://…` URL names."""
    if location.startswith(f"{_FILE}://"):
        location = unquote(urlsplit(location).path)
    return Path(location).expanduser()


def absolute(location: str) -> str:
    """The location independent of the working directory."""
    return location if is_url(location) else str(as_folder(location).absolute())


def local_folders(location: str) -> tuple[str, ...]:
    """The folder that a location names; empty for an object store."""
    return () if is_url(location) else (str(as_folder(location)),)


def is_relative(location: str) -> bool:
    """Whether the location is a folder relative to the working directory."""
    return not is_url(location) and not as_folder(location).is_absolute()


def join(location: str, name: str) -> str:
    """The location of `name` in `location`, a folder or a URL."""
    return f"{location.rstrip('/')}/{name}"


def split(location: str) -> tuple[str, str]:
    """(parent, last name) of a location; the inverse of `join`."""
    parent, _, name = location.rstrip("/").rpartition("/")
    return parent or ".", name


def problem_of(location: str) -> str | None:
    """What is wrong with `location`, and the way out; None where it can name a folder or an object store.

    No request is made.
    """
    if "://" not in location:
        return None
    scheme, _, rest = location.partition("://")
    if scheme == _FILE:
        is_whole = rest.startswith("/") and "?" not in rest and "#" not in rest
        return None if is_whole else f"'{location}' is not the URL of a folder; write file:///path, or just the path"
    if scheme not in OBJECT_STORES:
        return f"'{scheme}://' is not supported; use a folder, s3://bucket/prefix or gs://bucket/prefix"
    return _problem_of_object_store(scheme, rest)


def _problem_of_object_store(scheme: str, rest: str) -> str | None:
    bucket, *prefix = rest.rstrip("/").split("/")
    if "@" in bucket or ":" in bucket:
        return "leave credentials and addresses out of the URL; both are taken from the environment (see the README)"
    if "?" in rest or "#" in rest:
        return "leave options out of the URL; they are taken from the environment, the endpoint from AWS_ENDPOINT_URL"
    if not _BUCKET.fullmatch(bucket):
        return f"'{bucket}' cannot be a bucket's name; write {scheme}://bucket/prefix"
    if any(part in ("", ".", "..") for part in prefix):
        return f"'{rest}' has an empty name, a '.' or a '..' between its slashes; remove it"
    return None
