"""PowerSGD: gradients that travel as matrices of low rank, and what each rank has left out of them so far.

Vogels, Karimireddy, Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization", 2019.
"""

from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from distrib.compat.torch_powersgd import PowerSgdMemory
from distrib.errors import TrainingFailedError
from distrib.job.spec import PowerSgdSettings
from distrib.train.randomness import derive_seed

_PREFIX = "compression"
_EPSILON = 1e-8
"""Added when columns are normalised: a gradient of zeros has none to normalise."""


class PowerSgd:
    """PowerSGD of one rank, with warm start and error feedback, both of which checkpoints hold.

    A rank's error is what its gradients lost by compression, a bucket's as one tensor [elements of the bucket]; it is
    added to the next step's. At another number of ranks each takes the mean of all ranks' errors, so that what will be
    added to the mean gradient is what was left out of it.
    """

    def __init__(self, settings: PowerSgdSettings, seed: int) -> None:
        self._state = PowerSGDState(
            process_group=None,
            matrix_approximation_rank=settings.rank,
            start_powerSGD_iter=settings.start_step + 1,  # the rehearsal is one
            orthogonalization_epsilon=_EPSILON,
            random_seed=derive_seed("powersgd", seed) % 2**32,
        )
        self._memory = PowerSgdMemory(self._state)

    def register(self, model: DistributedDataParallel) -> None:
        """Has `model` reduce its gradients so."""
        model.register_comm_hook(self, _reduce)

    def begin(self, completed_steps: int) -> None:
        """To be called after the rehearsal, whose gradients are not compressed and which is counted as an iteration."""
        self._memory.set_iteration(completed_steps + 1)

    def tensors(self, rank: int) -> dict[str, torch.Tensor]:
        """What this rank has to save: its errors, and on rank 0 the factors, which are the same on all."""
        found = {_name("error", rank, index): error for index, error in self._memory.errors.items()}
        if rank == 0:
            found |= {_name("p", 0, index): factor for index, factor in self._memory.left_factors.items()}
            found |= {_name("q", 0, index): factor for index, factor in self._memory.right_factors.items()}
        return found

    def names_to_load(self, stored: Iterable[str], rank: int, world_size: int) -> list[str]:
        """Of the names in a checkpoint, those that this rank takes up."""
        errors, others = _split(stored)
        is_same_size = len(errors) == world_size
        return [
            *others,
            *(name for owner in sorted(errors) if not is_same_size or owner == rank for name in errors[owner]),
        ]

    def restore(self, tensors: Mapping[str, torch.Tensor], device: torch.device) -> None:
        """Takes up the tensors of `names_to_load`."""
        errors, others = _split(tensors)
        for name in others:
            kind, _, index = _parse(name)
            memory = self._memory.left_factors if kind == "p" else self._memory.right_factors
            memory[index] = tensors[name].to(device)
        for owner in sorted(errors):
            for name in errors[owner]:
                index = _parse(name)[2]
                share = tensors[name].to(device) / len(errors)
                known = self._memory.errors.get(index)
                self._memory.errors[index] = share if known is None else known + share

    def reduce(self, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        """Reduces a bucket of gradients; DDP waits for the future.

        Raises:
            TrainingFailedError: What was taken up is of other buckets.
        """
        error = self._memory.errors.get(bucket.index())
        if error is not None and error.numel() != bucket.buffer().numel():
            raise TrainingFailedError(
                "the checkpoint's PowerSGD errors are of other buckets of gradients than this run has; keep "
                "ddp.bucket_mb and torch as they were, or begin anew with --fresh"
            )
        return powerSGD_hook(self._state, bucket)


def _reduce(compression: PowerSgd, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """A hook of DDP, which looks at the annotations: they must be no strings."""
    return compression.reduce(bucket)


def _name(kind: str, rank: int, index: int) -> str:
    return f"{_PREFIX}/{kind}/{rank}/{index}"


def _parse(name: str) -> tuple[str, int, int]:
    """(kind, rank, bucket) of a tensor's name."""
    _, kind, rank, index = name.split("/")
    return kind, int(rank), int(index)


def _split(names: Iterable[str]) -> tuple[dict[int, list[str]], list[str]]:
    """The names of errors by rank, and of factors; others are left out."""
    errors: dict[int, list[str]] = {}
    factors = []
    for name in sorted(name for name in names if name.startswith(f"{_PREFIX}/")):
        kind, rank, _ = _parse(name)
        if kind == "error":
            errors.setdefault(rank, []).append(name)
        else:
            factors.append(name)
    return errors, factors
