"""Restoring: the newest checkpoint that is committed and verifies, at any number of ranks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn

from distrib.compat.messages import without_disabled_warning
from distrib.compat.torch_checkpoint import METADATA
from distrib.compat.torch_checkpoint_reader import SafeReader
from distrib.runs.checkpoints import CheckpointFolder, DamagedError
from distrib.runs.storage.protocols import CheckpointStorage
from distrib.train.checkpoint.plain_state import load_state
from distrib.train.checkpoint.tensors import join_optimizer, model_tensors

if TYPE_CHECKING:
    from distrib.train.strategy.compression import PowerSgd


class Restorer:
    """Takes up the newest checkpoint that is committed and verifies; all ranks use it together.

    Damaged ones are set aside, lest they be counted among those to keep.

    Args:
        checkpoints: The run's checkpoints.
        group: A gloo group of all ranks.
    """

    def __init__(self, checkpoints: CheckpointStorage, group: dist.ProcessGroup) -> None:
        self._checkpoints = checkpoints
        self._group = group
        self.problems: list[str] = []

    def find(self) -> CheckpointFolder | None:
        """The checkpoint that all ranks agree on; `problems` says which newer ones are damaged, and how.

        Rank 0 decides which are looked at; each rank reads its part of the files.
        """
        found = self._agree([(folder.step, folder.attempt) for folder in self._list()])
        for step, attempt in found:
            folder = self._checkpoints.at(step, attempt)
            problem = self._agree_on_problem(folder)
            if problem is None:
                return folder
            self.problems.append(problem)
            if dist.get_rank(self._group) == 0:
                self._checkpoints.set_aside(folder, problem)
        return None

    def _list(self) -> list[CheckpointFolder]:
        return self._checkpoints.list() if dist.get_rank(self._group) == 0 else []

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
        with torch.no_grad(), without_disabled_warning():
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
            self._checkpoints.fetch(folder, rank)
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
    with torch.no_grad(), without_disabled_warning():
        dcp.load(own, storage_reader=reader, no_dist=True)
