"""Restoring: the newest checkpoint that is committed and verifies, at any number of ranks."""

from __future__ import annotations

import contextlib
import io
import pickle
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING, Metadata

from distrib.runs.checkpoints import CheckpointFolder, DamagedError, list_checkpoints, parse_name
from distrib.runs.storage.remote_checkpoints import RemoteCheckpoints
from distrib.train.checkpoint.checkpointer import METADATA
from distrib.train.checkpoint.plain_state import load_state
from distrib.train.checkpoint.tensors import join_optimizer, model_tensors

if TYPE_CHECKING:
    from distrib.train.strategy.compression import PowerSgd


class Restorer:
    """Takes up the newest checkpoint that is committed and verifies; all ranks use it together.

    Damaged ones are set aside, lest they be counted among those to keep.

    Args:
        checkpoints: The run's folder of checkpoints.
        group: A gloo group of all ranks.
        remote: The checkpoints on the object store, where the run is kept on one; then they count.
    """

    def __init__(self, checkpoints: Path, group: dist.ProcessGroup, remote: RemoteCheckpoints | None = None) -> None:
        self._checkpoints = checkpoints
        self._group = group
        self._remote = remote
        self.problems: list[str] = []

    def find(self) -> CheckpointFolder | None:
        """The checkpoint that all ranks agree on; `problems` says which newer ones are damaged, and how.

        Rank 0 decides which are looked at; each rank reads its part of the files.
        """
        names: list[str] = self._agree([folder.name for folder in self._list()])
        for name in names:
            folder = parse_name(self._checkpoints / name)
            assert folder is not None
            problem = self._agree_on_problem(folder)
            if problem is None:
                return folder
            self.problems.append(problem)
            if dist.get_rank(self._group) == 0:
                self._set_aside(folder, problem)
        return None

    def _list(self) -> list[CheckpointFolder]:
        if dist.get_rank(self._group) != 0:
            return []
        return list_checkpoints(self._checkpoints) if self._remote is None else self._remote.list()

    def _set_aside(self, folder: CheckpointFolder, problem: str) -> None:
        if self._remote is None:
            folder.set_aside()
        else:
            self._remote.set_aside(folder, problem)

    def load(
        self,
        folder: CheckpointFolder,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        compression: PowerSgd | None = None,
    ) -> dict[str, Any]:
        """Loads the checkpoint into the model, the optimizer and the compression, and returns what else it holds."""
        plain: dict[str, Any] = load_state(folder.state_file.read_text())
        parameters, buffers = model_tensors(model)
        reader = SafeReader(folder.path)
        stored = reader.read_metadata().state_dict_metadata
        rank, world_size = dist.get_rank(self._group), dist.get_world_size(self._group)

        def empty(names: Iterable[str]) -> dict[str, torch.Tensor]:
            entries: dict[str, Any] = {name: stored[name] for name in names}
            return {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in entries.items()}

        optimizer_tensors = empty(name for name in stored if name.startswith("optimizer/"))
        others = empty([] if compression is None else compression.names_to_load(stored, rank, world_size))
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            dcp.load({**parameters, **buffers, **optimizer_tensors, **others}, storage_reader=reader, no_dist=True)
        join_optimizer(optimizer, optimizer_tensors, plain.pop("optimizer"))
        if compression is not None:
            compression.restore(others, next(model.parameters()).device)
        return plain

    def _agree(self, mine: Any) -> Any:
        shared = [mine]
        dist.broadcast_object_list(shared, src=0, group=self._group)
        return shared[0]

    def _agree_on_problem(self, folder: CheckpointFolder) -> str | None:
        rank, world_size = dist.get_rank(self._group), dist.get_world_size(self._group)
        mine: str | None = None
        try:
            if self._remote is not None:
                self._remote.fetch(folder, rank)
            files = folder.files()
            folder.verify(sorted(files)[rank::world_size], files)
            if rank == 0:
                _check_content(folder)
        except DamagedError as error:
            mine = str(error)
        found: list[str | None] = [None] * world_size
        dist.all_gather_object(found, mine, group=self._group)
        return next((problem for problem in found if problem is not None), None)


def _check_content(folder: CheckpointFolder) -> None:
    """Reads what checksums vouch for but parsing may still refuse.

    Raises:
        DamagedError: A file is not what a checkpoint has.
    """
    name = METADATA
    try:
        SafeReader(folder.path).read_metadata()
        name = folder.state_file.name
        step = load_state(folder.state_file.read_text())["completed_steps"]
    except Exception as error:  # a pickle, above all, can raise anything
        raise DamagedError(f"{folder.name}/{name}: {type(error).__name__}: {error}") from None
    if step != folder.step:
        raise DamagedError(f"{folder.name}/{name}: it is the state after step {step}")


def load_model(folder: CheckpointFolder, model: nn.Module) -> None:
    """Loads the model alone out of a checkpoint, in a process that belongs to no group; changes nothing on disk.

    Raises:
        DamagedError: The checkpoint does not verify, or is not one of this model.
    """
    files = folder.files()
    folder.verify(sorted(files), files)
    _check_content(folder)
    parameters, buffers = model_tensors(model)
    reader = SafeReader(folder.path)
    stored = reader.read_metadata().state_dict_metadata
    own = {**parameters, **buffers}
    for name, tensor in own.items():
        size = getattr(stored.get(name), "size", None)
        if size != tensor.shape:
            kept = "it has none" if size is None else f"its shape is {tuple(size)}"
            raise DamagedError(f"{folder.name}: {name} has shape {tuple(tensor.shape)} in the job's model; here {kept}")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        dcp.load(own, storage_reader=reader, no_dist=True)


class SafeReader(dcp.FileSystemReader):
    """Reads a checkpoint's pickled metadata without running what else a pickle can hold."""

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """The metadata.

        Raises:
            pickle.UnpicklingError: It names anything but the classes that metadata consists of.
        """
        data = (Path(self.path) / METADATA).read_bytes()
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
        if (module, name) == ("builtins", "getattr"):
            return _memory_format
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or (module, name) in self._ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"its metadata names {module}.{name}, which metadata has no use for")


def _memory_format(kind: type, name: str) -> _MEM_FORMAT_ENCODING:
    """A member of the one enum in the metadata, for which some Pythons, such as 3.11.2, pickle a call of getattr."""
    if kind is not _MEM_FORMAT_ENCODING or name not in _MEM_FORMAT_ENCODING.__members__:
        raise pickle.UnpicklingError(f"its metadata asks for {name} of {kind}, which metadata has no use for")
    return _MEM_FORMAT_ENCODING[name]
