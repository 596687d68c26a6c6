"""Environment variables of ranks, and variables that are set for a while."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from distrib.runs.layout import RunLayout
from distrib.train.context import RankInfo

_STALE = (
    *("MASTER_ADDR", "MASTER_PORT", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "NODE_RANK"),
    *("ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME"),
    *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_USE_AGENT_STORE"),
)
"""Variables of another launch, which would contradict those of this rank."""

_TRACE_FILES = ("TORCH_NCCL_DEBUG_INFO_TEMP_FILE", "TORCH_FR_DUMP_TEMP_FILE")
"""What torch reads the beginning of the trace's name from; the second is the newer name of the same."""


def set_rank_variables(info: RankInfo, layout: RunLayout) -> None:
    """Sets RANK, WORLD_SIZE and LOCAL_RANK as torchrun does, for user code that reads them, and removes stale ones.

    If a collective of NCCL times out, torch writes the last collectives of each rank, the flight recorder's trace, to a
    file: it goes to the run's logs unless the user has chosen another place.

    Args:
        info: The rank's numbers.
        layout: The run's files.
    """
    for name in _STALE:
        os.environ.pop(name, None)
    numbers = {"RANK": info.rank, "WORLD_SIZE": info.world_size, "LOCAL_RANK": info.local_rank}
    os.environ.update({name: str(number) for name, number in numbers.items()})
    if not any(name in os.environ for name in _TRACE_FILES):
        os.environ[_TRACE_FILES[0]] = str(layout.nccl_trace_prefix.absolute())


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
