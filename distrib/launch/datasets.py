"""Building a job's datasets in the launcher, and whether forked ranks may inherit them."""

from __future__ import annotations

import os
import threading

from distrib.train.blueprint import Blueprint, Datasets
from distrib.train.randomness import derive_seed, reseed


def build_datasets(blueprint: Blueprint) -> tuple[Datasets, bool]:
    """Builds the datasets; returns them and whether a forked process may use them as they are.

    A file that a dataset holds open has one position, which forked processes would share and so read wrongly; a thread
    does not survive a fork. Where building left either behind, each rank builds its own.
    """
    files, threads = _open_files(), threading.active_count()
    reseed(derive_seed("data", blueprint.job.spec.train.seed))
    datasets = blueprint.build_datasets()
    return datasets, _open_files() <= files and threading.active_count() == threads


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
