"""Random numbers of updates: the same on all ranks, unlike those of forward passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from distrib.train.process.randomness import derive_seed, reseed
from distrib.train.state import TrainingState


class UpdateRandomness:
    """Gives all ranks the same random numbers while an optimizer steps, so that one that adds noise keeps them equal.

    Afterwards each rank has its own again. torch's optimizers draw none, so nothing is seeded for them.

    Args:
        state: Knows the step.
        seed: The training's seed.
        rank: This rank.
    """

    def __init__(self, state: TrainingState, seed: int, rank: int) -> None:
        self._state = state
        self._seed = seed
        self._rank = rank
        self._step = self._num_switches = 0
        self._is_shared = False

    @contextmanager
    def shared(self, optimizers: Iterable[torch.optim.Optimizer]) -> Iterator[None]:
        """Around the steps of `optimizers`."""
        if not any(map(_may_draw, optimizers)):
            yield
            return
        self._switch(is_shared=True)
        try:
            yield
        finally:
            self._switch(is_shared=False)

    @contextmanager
    def own(self) -> Iterator[None]:
        """Around forward passes that an optimizer requests within its step."""
        if not self._is_shared:
            yield
            return
        self._switch(is_shared=False)
        try:
            yield
        finally:
            self._switch(is_shared=True)

    def _switch(self, *, is_shared: bool) -> None:
        """Seeds the global generators anew, each time of a step with another seed."""
        step = self._state.completed_steps
        self._num_switches = self._num_switches + 1 if step == self._step else 0
        self._step, self._is_shared = step, is_shared
        whose = "shared" if is_shared else self._rank
        reseed(derive_seed("update", self._seed, step, self._num_switches, whose))


def _may_draw(optimizer: torch.optim.Optimizer) -> bool:
    return not type(optimizer).__module__.startswith("torch.optim.")
