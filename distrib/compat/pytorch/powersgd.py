"""What PowerSGD remembers from step to step, which torch keeps in fields that it does not document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distrib.compat.symbols import TORCH_VERSIONS, PrivateSymbol
from distrib.errors import TrainingFailedError

if TYPE_CHECKING:
    import torch
    from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState

SYMBOLS = (
    PrivateSymbol(
        "PowerSGDState.error_dict, p_memory_dict, q_memory_dict, iter",
        "a checkpoint holds errors, factors and the iteration, and torch pickles only the whole state",
        TORCH_VERSIONS,
        "the run is refused",
    ),
)
_FIELDS = ("error_dict", "p_memory_dict", "q_memory_dict", "iter")


class PowerSgdMemory:
    """The fields of a `PowerSGDState`.

    Raises:
        TrainingFailedError: This version of torch has not all of them.
    """

    def __init__(self, state: PowerSGDState) -> None:
        missing = [name for name in _FIELDS if not hasattr(state, name)]
        if missing:
            raise TrainingFailedError(
                f"ddp.compress: powersgd cannot be saved with this version of torch, whose state lacks "
                f"{', '.join(missing)}; take another compression, or a version of torch that distrib names"
            )
        self._state = state

    @property
    def errors(self) -> dict[int, torch.Tensor]:
        """What this rank's gradients have lost so far, by bucket: [elements of the bucket]."""
        return self._state.error_dict

    @property
    def left_factors(self) -> dict[int, torch.Tensor]:
        """The left factors of all matrices of a bucket, by bucket."""
        return self._state.p_memory_dict

    @property
    def right_factors(self) -> dict[int, torch.Tensor]:
        """The right factors of all matrices of a bucket, by bucket."""
        return self._state.q_memory_dict

    @property
    def iteration(self) -> int:
        """The number of iterations that the hook has seen."""
        return int(self._state.iter)

    @iteration.setter
    def iteration(self, number: int) -> None:
        self._state.iter = number
