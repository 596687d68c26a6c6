"""Failures that ranks cannot report themselves: lost hosts and processes, as Ray describes them."""

from __future__ import annotations

import socket
import time

from distrib.compat.messages import ray_worker_exit
from distrib.launch.ray.worker import RankFailedError
from distrib.train.failure import Failure


def is_reported(text: str) -> bool:
    """Whether Ray's description of a worker's end is that of a rank that has reported its failure itself."""
    return RankFailedError.__name__ in text


def host_lost(name: str) -> Failure:
    """The failure of a host that does not answer."""
    return Failure(
        rank=None,
        host=name,
        type="HostLost",
        message="the host was lost: it does not answer any more",
        traceback=None,
        kind="infrastructure",
        time=time.time(),
    )


def ray_failure(rank: int | None, text: str, host: str | None) -> Failure:
    """What Ray reports of a rank, or of the attempt as a whole, if no rank has reported a failure."""
    shown = ray_worker_exit(text)
    lost = "" if rank is None else "the rank's process was lost" + ("; Ray reports: " if shown else "")
    return Failure(
        rank=rank,
        host=host or socket.gethostname(),
        type="RayError" if rank is None else "RankLost",
        message=lost + shown,
        traceback=None,
        kind="infrastructure",
        time=time.time(),
    )
