"""Checkpoint folders: what makes a checkpoint committed, and how damage is found."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distrib.runs.files.atomic import atomic_write

_NAME = re.compile(r"^step-(\d{8,})-a(\d+)$")
MANIFEST = "manifest.json"
COMMITTED = "COMMITTED"
_STATE = "state.json"
_CHUNK_BYTES = 2**22


@dataclass(frozen=True, order=True)
class CheckpointFolder:
    """One checkpoint, ordered by step and then by the attempt that wrote it.

    It is committed once the file COMMITTED holds the SHA-256 of manifest.json, which holds the size and SHA-256 of
    every other file. COMMITTED is written last.

    Attributes:
        step: Completed optimizer steps.
        attempt: The attempt that wrote it. It is part of the name so that a process that outlived its attempt cannot
            overwrite the files of a later one.
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
        """The state that is not tensors."""
        return self.path / _STATE

    def is_committed(self) -> bool:
        """Whether the file COMMITTED exists; the content is not verified."""
        return (self.path / COMMITTED).exists()

    def part_file(self, rank: int) -> Path:
        """The list of files that a rank wrote, until the commit moves it to the manifest."""
        return self.path / f"part-{rank}.json"

    def write_part(self, rank: int, files: Iterable[str], known: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Writes a rank's list of files with their sizes and checksums, which are computed unless they are `known`."""
        known = known or {}
        described = {name: dict(known[name]) if name in known else describe_file(self.path / name) for name in files}
        atomic_write(self.part_file(rank), json.dumps(described))

    def commit(self, num_parts: int) -> None:
        """Writes the manifest from the lists of all ranks, then COMMITTED."""
        files: dict[str, Any] = {_STATE: describe_file(self.state_file)}
        for rank in range(num_parts):
            files.update(json.loads(self.part_file(rank).read_bytes()))
        manifest = json.dumps({"step": self.step, "attempt": self.attempt, "files": files}, indent=1)
        atomic_write(self.path / MANIFEST, manifest)
        atomic_write(self.path / COMMITTED, hashlib.sha256(manifest.encode()).hexdigest())
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
                raise DamagedError(f"{self.name}/{name}: its {what} differs from the manifest")

    def remove(self) -> None:
        """Deletes the checkpoint, COMMITTED first, so that a partly deleted one never counts as committed."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / COMMITTED).unlink()
        shutil.rmtree(self.path, ignore_errors=True)


class DamagedError(Exception):
    """A checkpoint that cannot be used; the message names the file and the damage."""


def parse_name(path: Path) -> CheckpointFolder | None:
    """The checkpoint whose folder is `path`, by its name alone; None if that is not the name of a checkpoint."""
    match = _NAME.match(path.name)
    return None if match is None else CheckpointFolder(int(match[1]), int(match[2]), path)


def describe_file(path: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{Path(error.filename).name} is missing"
    return str(error)
