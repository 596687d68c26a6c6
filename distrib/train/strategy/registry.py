"""The strategies by name: a new one is a module of this package and a line here."""

from __future__ import annotations

from collections.abc import Callable

from distrib.train.strategy.base import Strategy, StrategySettings
from distrib.train.strategy.ddp import Ddp
from distrib.train.strategy.single import SingleProcess

STRATEGIES: dict[str, Callable[[StrategySettings], Strategy]] = {
    "single": SingleProcess,
    "ddp": Ddp,
}


def make_strategy(settings: StrategySettings) -> Strategy:
    """The strategy of a job: a single rank has nothing to spread."""
    return STRATEGIES["single" if settings.world_size == 1 else "ddp"](settings)
