"""Saving checkpoints: copied at once, written in the background, committed once every rank's part is on disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from distrib.runs.checkpoints import CheckpointFolder, remove_old, write_durably
from distrib.train.failure import PeerFailedError
from distrib.train.plain_state import dump_state
from distrib.train.saved_state import model_tensors, share_of, split_optimizer

METADATA = ".metadata"
"""The file in which DCP describes the tensors."""


class _Save(threading.Thread):
    """One rank's part of a checkpoint on its way to disk."""

    def __init__(self, folder: CheckpointFolder, write: Callable[[], None]) -> None:
        super().__init__(name=f"save-{folder.name}", daemon=True)
        self.folder = folder
        self.started = time.perf_counter()
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
    have said `is_ready`, all call `commit`.

    Args:
        checkpoints: The run's folder of checkpoints.
        attempt: This attempt.
        model: The unwrapped model.
        optimizer: Its optimizer.
        group: A gloo group for nothing else.
        keep: How many committed checkpoints to keep.
        check_held: Called before each commit, on rank 0; raises where this attempt does not hold the run any more.
    """

    def __init__(
        self,
        checkpoints: Path,
        attempt: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        group: dist.ProcessGroup,
        keep: int,
        check_held: Callable[[], None],
    ) -> None:
        self._checkpoints = checkpoints
        self._attempt = attempt
        self._model = model
        self._optimizer = optimizer
        self._group = group
        self._keep = keep
        self._check_held = check_held
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
    def is_ready(self) -> bool:
        """Whether this rank's part of the save that was begun is on disk.

        Raises:
            Exception: What went wrong in the background.
        """
        if self._save is None or self._save.is_alive():
            return False
        if self._save.error is not None:
            raise self._save.error
        return True

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
        folder = CheckpointFolder.at(self._checkpoints, step, self._attempt)
        _, optimizer_state = split_optimizer(self._optimizer)
        state = dump_state({**plain, "optimizer": optimizer_state}) if self._rank == 0 else ""
        staged = self._stager.stage(self._share())
        self._save = _Save(folder, lambda: self._write(folder, staged, state))
        self._save.start()

    def wait(self) -> None:
        """Waits until this rank's part is on disk."""
        if self._save is not None:
            self._save.join()

    def commit(self) -> tuple[int, float]:
        """Commits the save, whose parts are all on disk; returns its step and the seconds since it began."""
        save, self._save = self._save, None
        assert save is not None
        if self._rank == 0:
            self._check_held()
            save.folder.commit(self._world_size)
            remove_old(self._checkpoints, self._keep)
        return save.folder.step, time.perf_counter() - save.started

    def _use_device(self) -> None:
        """Makes the rank's GPU that of this thread too: a new thread's is the first, where it would take up memory."""
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)

    def _share(self) -> dict[str, torch.Tensor]:
        parameters, buffers = model_tensors(self._model)
        optimizer_tensors, _ = split_optimizer(self._optimizer)
        return share_of({**parameters, **optimizer_tensors}, buffers, self._rank, self._world_size)

    def _write(self, folder: CheckpointFolder, staged: Any, state: str) -> None:
        import torch.distributed.checkpoint as dcp

        self._use_device()
        folder.path.mkdir(parents=True, exist_ok=True)
        writer = dcp.FileSystemWriter(folder.path, single_file_per_rank=True, sync_files=True, overwrite=True)
        try:
            dcp.save(staged, storage_writer=writer, process_group=self._group)
        except dcp.CheckpointException as error:
            rank, (cause, _) = next(iter(error.failures.items()))
            if self._rank in error.failures:
                raise error.failures[self._rank][0] from None
            raise PeerFailedError(f"rank {rank} could not save: {cause}") from None
        names = [path.name for path in folder.path.glob(f"__{self._rank}_*.distcp")]
        if self._rank == 0:
            names.append(METADATA)
            write_durably(folder.state_file, state)
        folder.write_part(self._rank, names)
