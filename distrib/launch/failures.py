"""Which of several dead ranks is the cause of a failure."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from distrib.runs.layout import RunLayout
from distrib.train.failure import Failure


def find_cause(run_folder: Path, deaths: Mapping[int, int], world_size: int) -> Failure:
    """The failure that explains an attempt's end.

    A rank that a signal killed outranks all others; otherwise the earliest error that a rank wrote, the user's own
    before the broken connections that follow from it.

    Args:
        run_folder: The run's folder, where ranks write their errors.
        deaths: Exit status by rank of those that ended by themselves, before the launcher killed the rest; negative is
            a signal's number.
        world_size: The number of ranks.
    """
    layout = RunLayout(run_folder)
    killed = [rank for rank, status in deaths.items() if status < 0]
    if killed:
        return _killed(killed[0], deaths[killed[0]])
    written = [failure for rank in range(world_size) if (failure := Failure.read(layout.rank_error(rank)))]
    order = {"user": 0, "hang": 1, "infrastructure": 1}
    if written:
        return min(written, key=lambda failure: (order[failure.kind], failure.time))
    rank, status = next(iter(deaths.items()), (None, 0))
    return Failure(
        rank=rank,
        host=socket.gethostname(),
        type="RankExited",
        message=f"the rank's process ended with exit status {status} and wrote no error; something called exit()",
        traceback=None,
        kind="user",
        time=time.time(),
    )


def _killed(rank: int, status: int) -> Failure:
    name = signal.Signals(-status).name
    hint = "; the kernel kills a process so when memory runs out" if -status == signal.SIGKILL else ""
    return Failure(
        rank=rank,
        host=socket.gethostname(),
        type=name,
        message=f"the rank's process was killed by {name}{hint}",
        traceback=None,
        kind="infrastructure",
        time=time.time(),
    )
