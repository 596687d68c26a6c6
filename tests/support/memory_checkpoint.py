"""Checkpoints in memory, for tests of what goes into one and comes out of it."""

import copy

import torch

from distrib.train.checkpoint.plain_state import dump_state, load_state


class MemoryCheckpoint:
    """What `StoredState` is, made of the snapshots that all ranks have taken.

    Args:
        snapshots: By rank.
    """

    def __init__(self, snapshots):
        values = load_state(dump_state(snapshots[0].values))
        assert all(dump_state(snapshot.values) == dump_state(snapshots[0].values) for snapshot in snapshots)
        self.completed_steps, self._values = values["completed_steps"], values["parts"]
        names = [name for snapshot in snapshots for name in snapshot.tensors]
        assert len(names) == len(set(names)), "two ranks have saved the same tensor"
        self.stored = {name: tensor.clone() for each in snapshots for name, tensor in each.tensors.items()}

    def values(self, name):
        return copy.deepcopy(self._values.get(name))

    def num_ranks(self, name):
        return len({key.split("/")[1] for key in self.stored if key.startswith(f"{name}/")})

    def tensors(self, prefix):
        found = {name: tensor for name, tensor in self.stored.items() if name.startswith(prefix)}
        return {name.removeprefix(prefix): (tensor.shape, tensor.dtype) for name, tensor in found.items()}

    def read(self, targets):
        with torch.no_grad():
            for name, tensor in targets.items():
                tensor.copy_(self.stored[name])
