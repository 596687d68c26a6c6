"""The final weights of a run."""

from __future__ import annotations

import torch.distributed as dist
from torch import nn

from distrib.runs.storage.errors import StorageError
from distrib.train.checkpoint.extra_state import extra_states
from distrib.train.checkpoint.weights import write_weights
from distrib.train.rank import Rank, not_kept
from distrib.train.state import TrainingState


def save_final_weights(rank: Rank, state: TrainingState, model: nn.Module) -> None:
    """Writes the final weights of `model` on rank 0, on all ranks together.

    Raises:
        NotKeptError: They could not be written.
        LostRunError: Another launcher has taken over the run.
    """
    state.sync_buffers()
    weights = state.strategy.full_weights(model)
    path = rank.layout.weights_file
    if weights is not None:
        try:
            rank.storage.check_held()
            write_weights(weights, path, extra_states(model))
            rank.storage.publish(path)
        except (OSError, StorageError) as error:
            raise not_kept("the final weights were not kept", error, path) from error
    dist.barrier(group=rank.control_group)  # so that this error is reported before those of less important files
