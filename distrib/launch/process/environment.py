"""Environment variables of ranks, and variables that are set for a while."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from distrib.train.context import RankInfo

_STALE = (
    *("MASTER_ADDR", "MASTER_PORT", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "NODE_RANK"),
    *("ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME"),
    *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_USE_AGENT_STORE"),
)
"""Variables of another launch, which would contradict those of this rank."""


def set_rank_variables(info: RankInfo) -> None:
    """Sets RANK, WORLD_SIZE and LOCAL_RANK as torchrun does, for user code that reads them, and removes stale ones."""
    for name in _STALE:
        os.environ.pop(name, None)
    numbers = {"RANK": info.rank, "WORLD_SIZE": info.world_size, "LOCAL_RANK": info.local_rank}
    os.environ.update({name: str(number) for name, number in numbers.items()})


@contextmanager
def environment_defaults(values: Mapping[str, str]) -> Iterator[None]:
    """Sets the variables that are not set yet; removes them again at the end."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
