"""Environment variables that are set for a while."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from distrib.train.context import RankInfo


def name_rank(place: RankInfo) -> None:
    """Sets what torchrun would set, for user code that asks."""
    numbers = {"RANK": place.rank, "WORLD_SIZE": place.world_size, "LOCAL_RANK": place.local_rank}
    os.environ.update({name: str(number) for name, number in numbers.items()})


@contextmanager
def environment_defaults(values: Mapping[str, str]) -> Iterator[None]:
    """Sets those of the variables that are not set; removes them again at the end."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
