"""Environment variables of ranks, and variables that are set for a while."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from distrib.train.context import RankInfo


def set_rank_variables(info: RankInfo) -> None:
    """Sets the variables that torchrun sets, for user code that reads them."""
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
