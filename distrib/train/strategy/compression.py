"""PowerSGD: gradients are communicated as matrices of low rank; what each rank leaves out is added to its next step.

Vogels, Karimireddy, Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization", 2019.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from distrib.compat.pytorch.powersgd import PowerSgdMemory
from distrib.errors import TrainingFailedError
from distrib.job.spec.resources import PowerSgdSettings
from distrib.train.process.randomness import derive_seed

_EPSILON = 1e-8
"""Added when columns are normalized: a gradient of zeros has none to normalize."""
_FIRST_ITERATION = 1
"""The hook's iteration of the first step: it refuses to begin with compression before iteration 2."""


class PowerSgd:
    """PowerSGD of one rank, with warm start and error feedback.

    The factors of the warm start are equal on all ranks; `errors` differ.
    """

    def __init__(self, settings: PowerSgdSettings, seed: int, device: torch.device) -> None:
        self._device = device
        self._state = PowerSGDState(
            process_group=None,
            matrix_approximation_rank=settings.rank,
            start_powerSGD_iter=settings.start_step + _FIRST_ITERATION,
            orthogonalization_epsilon=_EPSILON,
            random_seed=derive_seed("powersgd", seed) % 2**32,
        )
        self._memory = PowerSgdMemory(self._state)
        self._memory.iteration = _FIRST_ITERATION
        self.errors = CompressionErrors(self._memory, device)

    def register(self, model: DistributedDataParallel) -> None:
        """Compresses the gradients of `model`."""
        model.register_comm_hook(self, _reduce)

    def state_dict(self) -> dict[str, Any]:
        """The number of the next iteration, and the factors by bucket."""
        memory = self._memory
        factors = {"left": dict(memory.left_factors), "right": dict(memory.right_factors)}
        return {"iteration": memory.iteration, **factors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        memory = self._memory
        memory.iteration = state["iteration"]
        for factors, saved in ((memory.left_factors, state["left"]), (memory.right_factors, state["right"])):
            factors.update({bucket: factor.to(self._device) for bucket, factor in saved.items()})

    def reduce(self, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        """Reduces a bucket of gradients; DDP waits for the future.

        Raises:
            TrainingFailedError: The restored errors belong to other buckets.
        """
        error = self._memory.errors.get(bucket.index())
        if error is not None and error.numel() != bucket.buffer().numel():
            raise TrainingFailedError(
                "the PowerSGD errors belong to other buckets of gradients than this run has; do not change "
                "ddp.bucket_mb, the torch version or which parameters are trained, or start over with --fresh"
            )
        return powerSGD_hook(self._state, bucket)


class CompressionErrors:
    """What one rank's gradients have lost by compression so far, each bucket's as one tensor [elements of the bucket].

    With another number of ranks each takes the mean of all ranks' errors, so that what will be added to the mean
    gradient is what was left out of it.
    """

    def __init__(self, memory: PowerSgdMemory, device: torch.device) -> None:
        self._memory = memory
        self._device = device

    def state_dict(self) -> dict[str, Any]:
        """The errors by bucket."""
        return {"errors": dict(self._memory.errors)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self._memory.errors.update({bucket: error.to(self._device) for bucket, error in state["errors"].items()})

    def merge_ranks(self, states: list[dict[str, Any]], rank: int, world_size: int) -> dict[str, Any]:
        """The mean of the errors of ranks of another number."""
        merged: dict[int, torch.Tensor] = {}
        for state in states:
            for bucket, error in state["errors"].items():
                share = error / len(states)
                merged[bucket] = merged[bucket] + share if bucket in merged else share
        return {"errors": merged}


def _reduce(compression: PowerSgd, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """A hook of DDP, which inspects the annotations: they must not be strings."""
    return compression.reduce(bucket)
