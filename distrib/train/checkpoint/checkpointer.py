"""Saving checkpoints: copied at once, written in the background, committed once every rank's part is on disk."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from distrib.compat.messages import is_failed_file
from distrib.compat.torch_checkpoint import METADATA, open_tensor_files_with, tensor_files
from distrib.runs.atomic import atomic_write
from distrib.runs.checkpoints import CheckpointFolder
from distrib.runs.hashed_file import HashedFile
from distrib.runs.storage.errors import storage_problem
from distrib.runs.storage.protocols import RankStorage
from distrib.train.checkpoint.plain_state import dump_state
from distrib.train.checkpoint.tensors import model_tensors, share_of, split_optimizer
from distrib.train.control import SaveStatus
from distrib.train.failure import PeerFailedError

if TYPE_CHECKING:
    from distrib.train.strategy.compression import PowerSgd

_PROBE_BYTES = 2**20


class _Save(threading.Thread):
    """One rank's part of a checkpoint on its way to disk, or its commit on its way to a store."""

    def __init__(self, folder: CheckpointFolder, started: float, write: Callable[[], None]) -> None:
        super().__init__(name=f"save-{folder.name}", daemon=True)
        self.folder = folder
        self.started = started
        self.is_commit = False
        self.error: BaseException | None = None
        self._write = write

    def run(self) -> None:
        try:
            self._write()
        except BaseException as error:
            self.error = error


class Checkpointer:
    """Saves and restores the training of one rank.

    A save copies this rank's share of the tensors into buffers that were allocated once, which is all that training
    waits for; writing, hashing and syncing go on in the background. All ranks call `save` at the same step; when all
    are done, all call `commit`, or `give_up` where one has failed.

    Args:
        storage: Where the run is kept.
        attempt: This attempt.
        model: The unwrapped model.
        optimizer: Its optimizer.
        group: A gloo group for nothing else.
        keep: How many committed checkpoints to keep.
        flush: Called in the background of each save: writes what tells of the steps before it.
        compression: Of gradients, where it has a state.
    """

    def __init__(
        self,
        storage: RankStorage,
        attempt: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        group: dist.ProcessGroup,
        keep: int,
        flush: Callable[[], None],
        compression: PowerSgd | None = None,
    ) -> None:
        self._storage = storage
        self._attempt = attempt
        self._model = model
        self._optimizer = optimizer
        self._group = group
        self._keep = keep
        self._flush = flush
        self._compression = compression
        self._rank = dist.get_rank(group)
        self._world_size = dist.get_world_size(group)
        self._device = next(model.parameters()).device
        self._stager: Any = None
        self._preparation: threading.Thread | None = None
        self._save: _Save | None = None

    @property
    def is_saving(self) -> bool:
        """Whether a save has begun and is not committed."""
        return self._save is not None

    @property
    def status(self) -> SaveStatus:
        """How far this rank is with the save that was begun.

        Raises:
            Exception: What went wrong in the background, other than that something could not be kept.
        """
        if self._save is None or self._save.is_alive():
            return SaveStatus.PENDING
        if self._save.error is None:
            return SaveStatus.DONE
        if storage_problem(self._save.error, self._save.folder.name) is None:
            raise self._save.error
        return SaveStatus.FAILED

    def prepare(self) -> None:
        """Loads what saving needs and allocates the staging buffers, beside training; best after the first step.

        So the first save waits no longer than the others. What is staged meanwhile is thrown away.
        """
        self._preparation = threading.Thread(target=self._prepare, name="prepare-saving", daemon=True)
        self._preparation.start()

    def _prepare(self) -> None:
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

        has_cuda = self._device.type == "cuda"
        self._use_device()
        self._stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=has_cuda,
                use_shared_memory=False,
                use_async_staging=False,
                use_non_blocking_copy=has_cuda,
            )
        )
        self._stager.stage(self._share())

    def save(self, step: int, plain: dict[str, Any]) -> None:
        """Begins to save; returns as soon as training may change the state.

        Args:
            step: Completed optimizer steps.
            plain: What else to keep, the same on every rank.
        """
        assert self._save is None, "a save is in flight"
        if self._preparation is None:
            self.prepare()
        assert self._preparation is not None
        self._preparation.join()
        folder = CheckpointFolder.at(self._storage.layout.checkpoints, step, self._attempt)
        _, optimizer_state = split_optimizer(self._optimizer)
        state = dump_state({**plain, "optimizer": optimizer_state}) if self._rank == 0 else ""
        staged = self._stager.stage(self._share())
        self._save = _Save(folder, time.perf_counter(), lambda: self._write(folder, staged, state))
        self._save.start()

    def wait(self) -> None:
        """Waits until this rank's part is on disk."""
        if self._save is not None:
            self._save.join()

    def commit(self) -> tuple[int, float] | None:
        """Advances a save that every rank has finished writing; called on all ranks.

        Returns:
            Its step and the seconds since it began, once it is committed. None if the commit takes longer: it then
            continues in the background, and once all ranks are done again a second call ends it.

        Raises:
            OSError: It could not be committed, and was removed.
            LostRunError: Another launcher holds the run.
        """
        save, self._save = self._save, None
        assert save is not None
        if not save.is_commit:
            rest = self._storage.commit(save.folder, self._world_size, self._keep)
            if rest is not None:
                self._save = _Save(save.folder, save.started, rest)
                self._save.is_commit = True
                self._save.start()
                return None
        return save.folder.step, time.perf_counter() - save.started

    def give_up(self) -> tuple[int, str | None]:
        """Drops the save, with which all ranks are done and one has failed; returns its step and this rank's reason."""
        save, self._save = self._save, None
        assert save is not None
        self._storage.discard(save.folder)
        if save.error is None or isinstance(save.error, PeerFailedError):
            return save.folder.step, None
        return save.folder.step, storage_problem(save.error, str(save.folder.path))

    def _use_device(self) -> None:
        """Makes the rank's GPU that of this thread too: a new thread's is the first, where it would take up memory."""
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)

    def _share(self) -> dict[str, torch.Tensor]:
        parameters, buffers = model_tensors(self._model)
        optimizer_tensors, _ = split_optimizer(self._optimizer)
        share = share_of({**parameters, **optimizer_tensors}, buffers, self._rank, self._world_size)
        return share if self._compression is None else share | self._compression.tensors(self._rank)

    def _write(self, folder: CheckpointFolder, staged: Any, state: str) -> None:
        import torch.distributed.checkpoint as dcp

        self._use_device()
        folder.path.mkdir(parents=True, exist_ok=True)
        writer = dcp.FileSystemWriter(folder.path, single_file_per_rank=True, sync_files=True, overwrite=True)
        files: dict[str, HashedFile] = {}

        def open_hashed(path: Path) -> HashedFile:
            files[path.name] = HashedFile(path)
            return files[path.name]

        open_tensor_files_with(writer, open_hashed)
        try:
            dcp.save(staged, storage_writer=writer, process_group=self._group)
        except dcp.CheckpointException as error:
            failures = {rank: _write_error(cause, folder.path) for rank, (cause, _) in error.failures.items()}
            if self._rank in failures:
                raise failures[self._rank] from None
            rank, cause = next(iter(failures.items()))
            raise PeerFailedError(f"rank {rank} could not save: {cause}") from cause
        names = tensor_files(folder.path, self._rank)
        if self._rank == 0:
            names.append(METADATA)
            atomic_write(folder.state_file, state)
        folder.write_part(self._rank, names, {name: file.description for name, file in files.items()})
        self._flush()
        self._storage.publish_part(folder, [*names, *([folder.state_file.name] if self._rank == 0 else [])])


def _write_error(error: BaseException, folder: Path) -> BaseException:
    """What kept a file from being written to `folder`: torch's writer hides the error of the operating system."""
    if not is_failed_file(str(error)):
        return error
    try:
        atomic_write(folder / "probe", " " * _PROBE_BYTES)
    except OSError as cause:
        return cause
    return OSError(errno.EIO, os.strerror(errno.EIO))
