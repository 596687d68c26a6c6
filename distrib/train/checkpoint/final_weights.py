"""The final weights of a run."""

from __future__ import annotations

from pathlib import Path

import torch.distributed as dist
from torch import nn

from distrib.runs.storage.errors import StorageError
from distrib.train.callbacks import AveragesWeights
from distrib.train.checkpoint.extra_state import extra_states
from distrib.train.checkpoint.weights import write_weights
from distrib.train.rank import Rank, not_kept
from distrib.train.state import TrainingState


def save_final_weights(
    rank: Rank, state: TrainingState, model: nn.Module, averages: AveragesWeights | None = None
) -> None:
    """Writes the final weights of `model` on rank 0, and its averages if there are any, on all ranks together.

    Raises:
        NotKeptError: They could not be written.
        LostRunError: Another launcher has taken over the run.
    """
    state.sync_buffers()
    _save(rank, state, model, rank.layout.weights_file)
    if averages is not None:
        with averages.applied():
            _save(rank, state, model, rank.layout.ema_file)
    dist.barrier(group=rank.control_group)  # so that this error is reported before those of less important files


def _save(rank: Rank, state: TrainingState, model: nn.Module, path: Path) -> None:
    weights = state.strategy.full_weights(model)
    if weights is not None:
        try:
            rank.storage.check_held()
            write_weights(weights, path, extra_states(model))
            rank.storage.publish(path)
        except (OSError, StorageError) as error:
            raise not_kept("the final weights were not kept", error, path) from error
