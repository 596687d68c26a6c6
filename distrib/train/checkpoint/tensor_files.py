"""Writes the tensors of a checkpoint: a file of each rank, and the metadata that rank 0 writes for all of them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, cast

import torch.distributed as dist

from distrib.compat.messages import is_failed_file
from distrib.compat.pytorch.checkpoint import METADATA, WrittenTensor, dump_metadata, tensor_file, write_tensors
from distrib.runs.files.atomic import atomic_write
from distrib.runs.files.hashed_file import HashedFile
from distrib.train.checkpoint.tensors import Tensors
from distrib.train.failure import PeerFailedError
from distrib.train.process.rank_tree import RankTree

_PROBE_BYTES = 2**20


def write_tensor_files(folder: Path, tensors: Tensors, group: dist.ProcessGroup) -> dict[str, dict[str, Any]]:
    """Writes this rank's tensors; called on all ranks of the group, which may have none.

    Returns:
        Size and SHA-256 of the file that was written while it could be hashed, by its name.

    Raises:
        Exception: Why this rank could not write them.
        PeerFailedError: Another rank could not write its own.
    """
    rank = dist.get_rank(group)
    files: dict[str, dict[str, Any]] = {}
    written: list[WrittenTensor] = []
    failure: BaseException | None = None
    try:
        if tensors:
            path = folder / tensor_file(rank)
            with HashedFile(path) as file:
                written = write_tensors(cast(Any, file), path.name, tensors)
            files[path.name] = file.description
    except Exception as error:
        failure = _cause(error, folder)
    tree = RankTree(group)
    results = tree.gather_objects(written if failure is None else _sendable(failure))
    problem = tree.broadcast_object(None if results is None else _first_problem(results))
    if failure is not None:
        raise failure
    if problem is not None:
        peer, cause = problem
        raise PeerFailedError(f"rank {peer} could not save: {cause}") from cause
    if results is not None:
        atomic_write(folder / METADATA, dump_metadata(tensor for result in results for tensor in result))
    return files


def _first_problem(results: list[Any]) -> tuple[int, Exception] | None:
    """The first rank that could not write, and why."""
    return next(((rank, result) for rank, result in enumerate(results) if isinstance(result, Exception)), None)


def _sendable(error: BaseException) -> Exception:
    """What the other ranks receive: errors of the operating system as they are, of others the text."""
    return error if isinstance(error, OSError) else RuntimeError(f"{type(error).__name__}: {error}")


def _cause(error: BaseException, folder: Path) -> BaseException:
    """Why a file could not be written to `folder`: torch's writer hides the operating system's error."""
    if not is_failed_file(str(error)):
        return error
    try:
        atomic_write(folder / "probe", " " * _PROBE_BYTES)
    except OSError as cause:
        return cause
    return OSError(errno.EIO, os.strerror(errno.EIO))
