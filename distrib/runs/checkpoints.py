"""Checkpoint folders: what makes one committed, how damage is found, and which are kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NAME = re.compile(r"^step-(\d{8,})-a(\d+)$")
MANIFEST = "manifest.json"
COMMITTED = "COMMITTED"
_STATE = "state.json"
_CHUNK_BYTES = 2**22


@dataclass(frozen=True, order=True)
class CheckpointFolder:
    """One checkpoint, ordered by step and then by the attempt that wrote it.

    It is committed once COMMITTED holds the SHA-256 of manifest.json, which holds the size and SHA-256 of every other
    file; COMMITTED is written last of all.

    Attributes:
        step: Completed optimizer steps.
        attempt: The attempt that wrote it, so that a writer that outlived its attempt cannot touch a later one's files.
        path: The folder.
    """

    step: int
    attempt: int
    path: Path

    @classmethod
    def at(cls, checkpoints: Path, step: int, attempt: int) -> CheckpointFolder:
        """The folder of `step` and `attempt` under the run's folder of checkpoints."""
        return cls(step, attempt, checkpoints / f"step-{step:08d}-a{attempt}")

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def state_file(self) -> Path:
        """Everything that is no tensor."""
        return self.path / _STATE

    def is_committed(self) -> bool:
        """Whether COMMITTED is there; says nothing of damage."""
        return (self.path / COMMITTED).exists()

    def part_file(self, rank: int) -> Path:
        """Where a rank lists the files that it wrote, until the manifest takes them over."""
        return self.path / f"part-{rank}.json"

    def write_part(self, rank: int, files: Iterable[str], known: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Lists files of this folder, on disk for good, with their sizes and checksums, where these are not `known`."""
        known = known or {}
        described = {name: dict(known[name]) if name in known else describe_file(self.path / name) for name in files}
        write_durably(self.part_file(rank), json.dumps(described))

    def commit(self, num_parts: int) -> None:
        """Gathers the parts of all ranks into the manifest and commits the checkpoint."""
        files: dict[str, Any] = {_STATE: describe_file(self.state_file)}
        for rank in range(num_parts):
            files.update(json.loads(self.part_file(rank).read_bytes()))
        manifest = json.dumps({"step": self.step, "attempt": self.attempt, "files": files}, indent=1)
        write_durably(self.path / MANIFEST, manifest)
        write_durably(self.path / COMMITTED, hashlib.sha256(manifest.encode()).hexdigest())
        for rank in range(num_parts):
            self.part_file(rank).unlink(missing_ok=True)

    def files(self) -> dict[str, Mapping[str, Any]]:
        """The files of a committed checkpoint with their sizes and checksums.

        Raises:
            DamagedError: The checkpoint is not committed or its manifest is damaged.
        """
        try:
            committed = (self.path / COMMITTED).read_bytes().strip()
            manifest = (self.path / MANIFEST).read_bytes()
        except OSError as error:
            raise DamagedError(f"{self.name}: {_reason(error)}") from None
        if hashlib.sha256(manifest).hexdigest().encode() != committed:
            raise DamagedError(f"{self.name}/{MANIFEST} does not match {COMMITTED}")
        try:
            files: dict[str, Mapping[str, Any]] = dict(json.loads(manifest)["files"])
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"{self.name}/{MANIFEST}: {type(error).__name__}: {error}") from None
        return files

    def verify(self, names: Iterable[str], files: Mapping[str, Mapping[str, Any]]) -> None:
        """Checks the named files against the manifest's `files`.

        Raises:
            DamagedError: One is missing or differs.
        """
        for name in names:
            try:
                found = describe_file(self.path / name)
            except OSError as error:
                raise DamagedError(f"{self.name}/{name}: {_reason(error)}") from None
            expected = files[name]
            if found != expected:
                is_size = isinstance(expected, dict) and found["bytes"] != expected.get("bytes")
                what = "size" if is_size else "checksum"
                raise DamagedError(f"{self.name}/{name}: its {what} is not what the manifest says")

    def set_aside(self) -> None:
        """Renames a damaged checkpoint, which then is none any more, and leaves it for whoever wants to look at it."""
        with contextlib.suppress(OSError):
            self.path.rename(self.path.with_name(f"damaged-{self.name}"))

    def remove(self) -> None:
        """Deletes the checkpoint, COMMITTED first, so that no half of it can be taken for a whole."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / COMMITTED).unlink()
        shutil.rmtree(self.path, ignore_errors=True)


class DamagedError(Exception):
    """A checkpoint that cannot be used; the message names the file and what is wrong with it."""


def parse_name(path: Path) -> CheckpointFolder | None:
    """The checkpoint whose folder is `path`, by its name alone; None where that is no checkpoint's."""
    match = _NAME.match(path.name)
    return None if match is None else CheckpointFolder(int(match[1]), int(match[2]), path)


def list_checkpoints(checkpoints: Path) -> list[CheckpointFolder]:
    """The checkpoints that claim to be committed, newest first."""
    found = [folder for path in checkpoints.glob("step-*") if (folder := parse_name(path)) is not None]
    return sorted((folder for folder in found if folder.is_committed()), reverse=True)


def remove_old(checkpoints: Path, keep: int) -> None:
    """Keeps the newest `keep` committed checkpoints, and deletes the others."""
    for folder in list_checkpoints(checkpoints)[max(1, keep) :]:
        folder.remove()


def remove_uncommitted(checkpoints: Path) -> None:
    """Deletes what earlier attempts began and did not commit; to be called while no rank runs."""
    for path in checkpoints.glob("step-*"):
        if _NAME.match(path.name) and not (path / COMMITTED).exists():
            shutil.rmtree(path, ignore_errors=True)


def describe_file(path: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return {"bytes": size, "sha256": digest.hexdigest()}


def write_durably(path: Path, text: str) -> None:
    """Writes a small file whole and on disk for good before it appears under its name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{Path(error.filename).name} is missing"
    return str(error)
