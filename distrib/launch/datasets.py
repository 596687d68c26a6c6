"""Building a job's datasets in the launcher, and whether forked ranks may inherit them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

from distrib.train.randomness import derive_seed, reseed
from distrib.train.resolved_job import Datasets, ResolvedJob

Built = TypeVar("Built")


def build_datasets(blueprint: ResolvedJob) -> tuple[Datasets, bool]:
    """Builds the datasets; returns them and whether a forked process may use them as they are."""
    return build_to_inherit(blueprint.build_datasets, blueprint.job.spec.train.seed)


def build_to_inherit(build: Callable[[], Built], seed: int) -> tuple[Built, bool]:
    """Builds something; returns it and whether a forked process may use it as it is.

    A file that a dataset holds open has one position, which forked processes would share and so read wrongly; a thread
    does not survive a fork. Where building left either behind, each process builds its own.
    """
    files, threads = _open_files(), threading.active_count()
    reseed(derive_seed("data", seed))
    built = build()
    return built, _open_files() <= files and threading.active_count() == threads


def _open_files() -> set[tuple[str, str]]:
    """The open descriptors of this process and what they are open on."""
    found: set[tuple[str, str]] = set()
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return found
    for name in names:
        try:
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
        except OSError:  # the descriptor of the listing itself
            continue
    return found
