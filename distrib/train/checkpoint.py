"""Checkpoints: saved in the background, committed once every rank's part is on disk, restored only if they verify."""

from __future__ import annotations

import contextlib
import io
import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from distrib.runs.checkpoints import (
    CheckpointFolder,
    DamagedError,
    list_checkpoints,
    remove_old,
)
from distrib.train.plain_state import dump_state, load_state
from distrib.train.saved_state import join_optimizer, model_tensors, share_of, split_optimizer

_METADATA = ".metadata"


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
    """

    def __init__(
        self,
        checkpoints: Path,
        attempt: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        group: dist.ProcessGroup,
        keep: int,
    ) -> None:
        self._checkpoints = checkpoints
        self._attempt = attempt
        self._model = model
        self._optimizer = optimizer
        self._group = group
        self._keep = keep
        self._rank = dist.get_rank(group)
        self._world_size = dist.get_world_size(group)
        has_cuda = torch.cuda.is_available()
        self._stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=has_cuda,
                use_shared_memory=False,
                use_async_staging=False,
                use_non_blocking_copy=has_cuda,
            )
        )
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
        """Allocates the staging buffers, so that the first save waits no longer than the others."""
        self._stager.stage(self._share())

    def save(self, step: int, plain: dict[str, Any]) -> None:
        """Begins to save; returns as soon as training may change the state.

        Args:
            step: Completed optimizer steps.
            plain: What else to keep, the same on every rank.
        """
        assert self._save is None, "a save is in flight"
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
            save.folder.commit(self._world_size)
            remove_old(self._checkpoints, self._keep)
        return save.folder.step, time.perf_counter() - save.started

    def close(self) -> None:
        """Frees the staging buffers."""
        self._stager.close()

    def _share(self) -> dict[str, torch.Tensor]:
        parameters, buffers = model_tensors(self._model)
        optimizer_tensors, _ = split_optimizer(self._optimizer)
        return share_of({**parameters, **optimizer_tensors}, buffers, self._rank, self._world_size)

    def _write(self, folder: CheckpointFolder, staged: Any, state: str) -> None:
        folder.path.mkdir(parents=True, exist_ok=True)
        writer = dcp.FileSystemWriter(folder.path, single_file_per_rank=True, sync_files=True, overwrite=True)
        dcp.save(staged, storage_writer=writer, process_group=self._group)
        names = [path.name for path in folder.path.glob(f"__{self._rank}_*.distcp")]
        if self._rank == 0:
            names.append(_METADATA)
            with folder.state_file.open("w") as file:
                file.write(state)
                file.flush()
        folder.write_part(self._rank, names)


class Restorer:
    """Takes up the newest checkpoint that is committed and verifies; all ranks use it together.

    Args:
        checkpoints: The run's folder of checkpoints.
        group: A gloo group of all ranks.
    """

    def __init__(self, checkpoints: Path, group: dist.ProcessGroup) -> None:
        self._checkpoints = checkpoints
        self._group = group
        self.problems: list[str] = []

    def find(self) -> CheckpointFolder | None:
        """The checkpoint that all ranks agree on; `problems` says which newer ones are damaged, and how.

        Rank 0 decides which are looked at; each rank reads its part of the files.
        """
        for folder in self._agree(list_checkpoints(self._checkpoints)):
            problem = self._agree_on_problem(folder)
            if problem is None:
                return folder
            self.problems.append(problem)
        return None

    def load(
        self, folder: CheckpointFolder, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> dict[str, Any]:
        """Loads the checkpoint into the model and the optimizer, and returns what else it holds."""
        plain: dict[str, Any] = load_state(folder.state_file.read_text())
        parameters, buffers = model_tensors(model)
        reader = SafeReader(folder.path)
        stored = reader.read_metadata().state_dict_metadata
        optimizer_tensors = {
            name: torch.empty(entry.size, dtype=entry.properties.dtype)  # type: ignore[union-attr]
            for name, entry in stored.items()
            if name.startswith("optimizer/")
        }
        with torch.no_grad():
            dcp.load({**parameters, **buffers, **optimizer_tensors}, storage_reader=reader, no_dist=True)
        join_optimizer(optimizer, optimizer_tensors, plain.pop("optimizer"))
        return plain

    def _agree(self, mine: Any) -> Any:
        shared = [mine]
        dist.broadcast_object_list(shared, src=0, group=self._group)
        return shared[0]

    def _agree_on_problem(self, folder: CheckpointFolder) -> str | None:
        rank, world_size = dist.get_rank(self._group), dist.get_world_size(self._group)
        mine: str | None = None
        try:
            files = folder.files()
            folder.verify(sorted(files)[rank::world_size], files)
            if rank == 0:
                SafeReader(folder.path).read_metadata()
                load_state(folder.state_file.read_text())
        except (DamagedError, OSError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
            mine = str(error) if isinstance(error, DamagedError) else f"{folder.name}: {error}"
        found: list[str | None] = [None] * world_size
        dist.all_gather_object(found, mine, group=self._group)
        return next((problem for problem in found if problem is not None), None)


class SafeReader(dcp.FileSystemReader):
    """Reads a checkpoint's pickled metadata without running what else a pickle can hold."""

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """The metadata.

        Raises:
            pickle.UnpicklingError: It names anything but the classes that metadata consists of.
        """
        data = (Path(self.path) / _METADATA).read_bytes()
        metadata: Metadata = _MetadataUnpickler(io.BytesIO(data)).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError("it is not a checkpoint's metadata")
        if getattr(metadata, "storage_meta", None) is None:
            with contextlib.suppress(AttributeError):
                metadata.storage_meta = None
        return metadata


class _MetadataUnpickler(pickle.Unpickler):
    """An unpickler for the few classes that DCP's metadata consists of."""

    _ALLOWED = frozenset(
        {
            ("torch", "Size"),
            ("torch", "device"),
            ("torch.serialization", "_get_layout"),
            ("torch.distributed.checkpoint.metadata", "Metadata"),
            ("torch.distributed.checkpoint.metadata", "MetadataIndex"),
            ("torch.distributed.checkpoint.metadata", "TensorStorageMetadata"),
            ("torch.distributed.checkpoint.metadata", "BytesStorageMetadata"),
            ("torch.distributed.checkpoint.metadata", "ChunkStorageMetadata"),
            ("torch.distributed.checkpoint.metadata", "TensorProperties"),
            ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"),
            ("torch.distributed.checkpoint.metadata", "StorageMeta"),
            ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
            ("pathlib", "PosixPath"),
            ("collections", "OrderedDict"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or (module, name) in self._ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"its metadata names {module}.{name}, which metadata has no use for")
