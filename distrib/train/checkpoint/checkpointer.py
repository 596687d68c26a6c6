"""Saves checkpoints: copied at once, written in the background, committed once every rank's part is on disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from distrib.compat.pytorch.checkpoint import METADATA
from distrib.runs.checkpoints import CheckpointFolder
from distrib.runs.files.atomic import atomic_write
from distrib.runs.storage.errors import storage_problem
from distrib.train.checkpoint.parts import RestoreError
from distrib.train.checkpoint.plain_state import dump_state
from distrib.train.checkpoint.staging import StagingBuffers
from distrib.train.checkpoint.tensor_files import write_tensor_files
from distrib.train.checkpoint.tensors import Tensors
from distrib.train.control import SaveStatus
from distrib.train.failure import PeerFailedError
from distrib.train.health.replicas import Checksums, ReplicaCheck
from distrib.train.phases import Phase
from distrib.train.process.rank_tree import RankTree
from distrib.train.rank import Rank
from distrib.train.records import Records
from distrib.train.state import Snapshot, TrainingState


class _Save(threading.Thread):
    """One rank's part of a checkpoint that is being written, or its commit that is being uploaded."""

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
    """Saves the training of one rank.

    A save copies this rank's share of the tensors into buffers that were allocated once, which is all that training
    waits for; they are written, hashed and synced in the background. All ranks call `save` at the same step; when all
    parts are written, all ranks call `commit`, or `drop` if one has failed.

    Args:
        rank: This rank.
        state: What is saved.
        group: A gloo group that nothing else uses.
        records: What is recorded of the steps before a save is written before it is committed.
    """

    def __init__(self, rank: Rank, state: TrainingState, group: dist.ProcessGroup, records: Records) -> None:
        self._rank = rank
        self._state = state
        self._group = group
        self._records = records
        self._keep = rank.settings.keep
        self._storage = rank.storage
        self._buffers = StagingBuffers()
        self._replicas = ReplicaCheck(rank, state, group)
        self._preparation: threading.Thread | None = None
        self._save: _Save | None = None

    def take_warnings(self) -> list[str]:
        """What has been found out in the background since the last call."""
        return self._replicas.take_warnings()

    @property
    def is_saving(self) -> bool:
        """Whether a save has begun and is not committed yet."""
        return self._save is not None

    @property
    def status(self) -> SaveStatus:
        """The progress of this rank's part of the save in flight.

        Raises:
            Exception: What went wrong in the background, other than that something could not be written.
        """
        if self._save is None or self._save.is_alive():
            return SaveStatus.PENDING
        if self._save.error is None:
            return SaveStatus.DONE
        if storage_problem(self._save.error, self._save.folder.name) is None:
            raise self._save.error
        return SaveStatus.FAILED

    def prepare(self) -> None:
        """Allocates the staging buffers in the background; best after the first step.

        So the first save takes no longer than the others. What is staged meanwhile is discarded.
        """
        snapshot = self._state.snapshot()
        dump_state(snapshot.values)  # some optimizers have no state before the first step that could be checked
        share = snapshot.tensors
        self._preparation = threading.Thread(target=self._prepare, args=(share,), name="prepare-saving", daemon=True)
        self._preparation.start()

    def _prepare(self, share: Tensors) -> None:
        self._use_device()
        self._buffers.copy(share)

    def save(self) -> None:
        """Begins to save; returns as soon as training may change the state."""
        assert self._save is None, "a save is in flight"
        if self._preparation is None:
            self.prepare()
        assert self._preparation is not None
        self._preparation.join()
        folder = CheckpointFolder.at(
            self._rank.layout.checkpoints, self._state.completed_steps, self._rank.config.attempt
        )
        with self._rank.progress.during(Phase.SNAPSHOT):  # which runs the job's own code and writes nothing
            snapshot = self._state.snapshot()
        self._check_equal(snapshot)
        values = dump_state(snapshot.values) if self._rank.is_first else ""
        sums = self._replicas.checksums()
        staged = self._buffers.copy(snapshot.tensors)
        self._save = _Save(folder, time.perf_counter(), lambda: self._write(folder, staged, values, sums))
        self._save.start()

    def _check_equal(self, snapshot: Snapshot) -> None:
        """Makes sure that what all ranks keep is the same on all of them."""
        if not self._state.has_user_code:
            return
        with self._rank.progress.during(Phase.REDUCE):
            difference = RankTree(self._group).combine_objects(snapshot.digests, _first_difference)
        if difference is not None:
            name, rank = difference
            raise RestoreError(
                f"session.keep: '{name.removeprefix('kept.')}' is not the same on ranks 0 and {rank}; keep "
                "it with per_rank=True, or change it in the same way on all ranks"
            )

    def wait(self) -> None:
        """Waits until this rank's part is on disk."""
        if self._save is not None:
            self._save.join()

    def commit(self) -> tuple[int, float] | None:
        """Advances a save that every rank has finished writing. Called on all ranks.

        Returns:
            Its step and the seconds since it began, once it is committed. None if the commit takes longer: it then
            continues in the background, and a second call, when all ranks have finished again, completes it.

        Raises:
            OSError: It could not be committed and was removed.
            LostRunError: Another launcher holds the run.
        """
        save, self._save = self._save, None
        assert save is not None
        if not save.is_commit:
            rest = self._storage.commit(save.folder, self._rank.info.world_size, self._keep)
            if rest is not None:
                self._save = _Save(save.folder, save.started, rest)
                self._save.is_commit = True
                self._save.start()
                return None
        return save.folder.step, time.perf_counter() - save.started

    def drop(self) -> tuple[int, str | None]:
        """Drops a save that every rank has finished with and some rank failed; returns its step and the reason here."""
        save, self._save = self._save, None
        assert save is not None
        self._storage.discard(save.folder)
        if save.error is None or isinstance(save.error, PeerFailedError):
            return save.folder.step, None
        return save.folder.step, storage_problem(save.error, str(save.folder.path))

    def _use_device(self) -> None:
        """Makes the rank's GPU this thread's too: a new thread uses the first one and would allocate memory there."""
        if self._rank.device.type == "cuda":
            torch.cuda.set_device(self._rank.device)

    def _write(self, folder: CheckpointFolder, staged: Tensors, values: str, sums: Checksums | None) -> None:
        self._use_device()
        self._replicas.compare(sums, folder.step)
        folder.path.mkdir(parents=True, exist_ok=True)
        files = write_tensor_files(folder.path, staged, self._group)
        names = list(files)
        if self._rank.is_first:
            names.append(METADATA)
            atomic_write(folder.state_file, values)
        folder.write_part(self._rank.info.rank, names, files)
        self._records.flush()
        self._storage.publish_part(folder, [*names, *([folder.state_file.name] if self._rank.is_first else [])])


def _first_difference(digests: list[dict[str, Any]]) -> tuple[str, int] | None:
    """The first name whose digest differs from rank 0's, and the rank where it does."""
    for rank, other in enumerate(digests):
        for name in {**digests[0], **other}:
            if digests[0].get(name) != other.get(name):
                return name, rank
    return None
