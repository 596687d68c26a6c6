"""Finds the newest checkpoint that is committed and verifies, and reads it at any number of ranks."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from distrib.compat.pytorch.checkpoint import METADATA
from distrib.compat.pytorch.checkpoint_reader import read_metadata, read_tensors
from distrib.runs.checkpoints import CheckpointFolder, DamagedError
from distrib.runs.storage.protocols import CheckpointStorage
from distrib.train.checkpoint.buffers import make_buffer
from distrib.train.checkpoint.extra_state import set_extra_states
from distrib.train.checkpoint.parts import BUFFERS, EXTRA, MODEL, ModelPart
from distrib.train.checkpoint.plain_state import load_state
from distrib.train.checkpoint.tensors import join_tensors
from distrib.train.process.rank_tree import RankTree


class StoredState:
    """A checkpoint that has been verified, to be read by any number of ranks.

    Args:
        folder: The checkpoint, on this host.
    """

    def __init__(self, folder: CheckpointFolder) -> None:
        saved = load_state(folder.state_file.read_text())
        self.completed_steps: int = saved["completed_steps"]
        self.world_size: int = saved["world_size"]
        self._values: dict[str, Any] = saved["parts"]
        self._folder = folder.path
        self._entries = read_metadata(folder.path)

    def values(self, name: str) -> Any | None:
        """What of the part `name` is not a tensor; None if the checkpoint has no such part, or one for each rank."""
        return self._values.get(name)

    def num_ranks(self, name: str) -> int:
        """For how many ranks the checkpoint has a part `name` of their own."""
        return len({key.split("/")[1] for key in self._entries if key.startswith(f"{name}/")})

    def tensors(self, prefix: str) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """Shape and type of each tensor whose name has the prefix, by the rest of its name."""
        entries = {key: entry for key, entry in self._entries.items() if key.startswith(prefix)}
        return {key.removeprefix(prefix): (entry.size, entry.dtype) for key, entry in entries.items()}

    def remember(self, except_names: Container[str]) -> RememberedState | None:
        """What the parts of other names hold, in memory; None if there are none."""
        values = {name: value for name, value in self._values.items() if name not in except_names}
        tensors = {
            key: torch.empty(shape, dtype=dtype)
            for key, (shape, dtype) in self.tensors("").items()
            if key.split("/")[0] not in except_names
        }
        if not values and not tensors:
            return None
        self.read(tensors)
        return RememberedState(self.completed_steps, values, tensors)

    def read(self, targets: dict[str, torch.Tensor]) -> None:
        """Reads tensors by their whole names into `targets`."""
        with torch.no_grad():
            read_tensors(self._folder, self._entries, targets)


@dataclass(frozen=True)
class RememberedState:
    """Parts of a checkpoint in memory; see `StoredState`."""

    completed_steps: int
    part_values: dict[str, Any]
    part_tensors: dict[str, torch.Tensor]

    def values(self, name: str) -> Any | None:
        """What of the part `name` is not a tensor."""
        return self.part_values.get(name)

    def num_ranks(self, name: str) -> int:
        """For how many ranks there is a part `name` of their own."""
        return len({key.split("/")[1] for key in self.part_tensors if key.startswith(f"{name}/")})

    def tensors(self, prefix: str) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """Shape and type of each tensor whose name has the prefix, by the rest of its name."""
        found = {key: tensor for key, tensor in self.part_tensors.items() if key.startswith(prefix)}
        return {key.removeprefix(prefix): (tensor.shape, tensor.dtype) for key, tensor in found.items()}

    def read(self, targets: dict[str, torch.Tensor]) -> None:
        """Copies tensors by their whole names into `targets`."""
        with torch.no_grad():
            for name, tensor in targets.items():
                tensor.copy_(self.part_tensors[name])

    def remember(self, except_names: Container[str]) -> RememberedState:
        """The same."""
        return self


class Restorer:
    """Finds the newest checkpoint that is committed and verifies; all ranks use it together.

    Damaged ones are renamed, so that they are not counted among those to keep.

    Args:
        checkpoints: The run's checkpoints.
        group: A gloo group of all ranks.
    """

    def __init__(self, checkpoints: CheckpointStorage, group: dist.ProcessGroup) -> None:
        self._checkpoints = checkpoints
        self._group = group
        self.problems: list[str] = []

    def find(self) -> StoredState | None:
        """The checkpoint that all ranks agree on; `problems` describes the damage in newer ones.

        Rank 0 decides which are examined; each rank reads its part of the files.
        """
        is_first = dist.get_rank(self._group) == 0
        listed = self._checkpoints.list() if is_first else []
        for step, attempt in self._agree([(folder.step, folder.attempt) for folder in listed]):
            folder = self._checkpoints.at(step, attempt)
            problem = self._agree_on_problem(folder)
            if problem is None:
                return StoredState(folder)
            self.problems.append(problem)
            if is_first:
                self._checkpoints.set_aside(folder, problem)
        return None

    def _agree(self, mine: Any) -> Any:
        shared = [mine]
        dist.broadcast_object_list(shared, src=0, group=self._group)
        return shared[0]

    def _agree_on_problem(self, folder: CheckpointFolder) -> str | None:
        tree = RankTree(self._group)
        rank, world_size = tree.rank, tree.world_size
        mine: str | None = None
        try:
            self._checkpoints.fetch(folder, rank)
            files = folder.files()
            folder.verify(sorted(files)[rank::world_size], files)
            if rank == 0:
                _check_content(folder)
        except DamagedError as error:
            mine = str(error)
        problem: str | None = tree.combine_objects(
            mine, lambda found: next((problem for problem in found if problem is not None), None)
        )
        return problem


def _check_content(folder: CheckpointFolder) -> None:
    """Parses files whose checksums are right.

    Raises:
        DamagedError: A file is not that of a checkpoint.
    """
    name = METADATA
    try:
        read_metadata(folder.path)
        name = folder.state_file.name
        step = StoredState(folder).completed_steps
    except Exception as error:  # a pickle, above all, can raise anything
        raise DamagedError(f"{folder.name}/{name}: {type(error).__name__}: {error}") from None
    if step != folder.step:
        raise DamagedError(f"{folder.name}/{name} is the state after step {step}")


def load_model(folder: CheckpointFolder, model: nn.Module) -> None:
    """Loads only the model from a checkpoint, in a process without process groups; changes nothing on disk.

    Raises:
        DamagedError: The checkpoint does not verify, or does not fit this model.
    """
    files = folder.files()
    folder.verify(sorted(files), files)
    _check_content(folder)
    stored = StoredState(folder)
    sizes = {name: size for name, (size, _) in stored.tensors(f"{MODEL}/").items()}
    own = ModelPart(MODEL, model).tensors()
    buffers = (stored.values(MODEL) or {}).get(BUFFERS, [])
    for name, (size, dtype) in stored.tensors(f"{MODEL}/").items():
        if name in buffers and (name not in own or own[name].shape != size):
            make_buffer(model, name, size, dtype)
    own = ModelPart(MODEL, model).tensors()
    for name, tensor in own.items():
        if sizes.get(name) != tensor.shape:
            kept = "it is missing" if name not in sizes else f"it has shape {tuple(sizes[name])}"
            shape = tuple(tensor.shape)
            raise DamagedError(f"{folder.name}: {MODEL}/{name} has shape {shape} in the job's model; here {kept}")
    extra = {
        name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in stored.tensors(f"{MODEL}/{EXTRA}/").items()
    }
    targets = {**own, **{f"{EXTRA}/{name}": tensor for name, tensor in extra.items()}}
    stored.read({f"{MODEL}/{name}": tensor for name, tensor in targets.items()})
    set_extra_states(model, join_tensors((stored.values(MODEL) or {}).get(EXTRA, {}), targets))
