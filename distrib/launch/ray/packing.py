"""The working directory as Ray ships it to a cluster: what is left out, and whether the rest is small enough."""

from __future__ import annotations

import os

from distrib.compat.ray_packaging import max_package_bytes, shipped_sizes
from distrib.errors import JobError
from distrib.job.reader import Job

EXCLUDED = ("/.git", "/runs", "/.venv", "/venv", "__pycache__", "*.pyc", ".mypy_cache", ".ruff_cache", ".pytest_cache")
"""What is never shipped, in the syntax of .gitignore, besides what .gitignore and .rayignore files name."""

_NUM_SHOWN = 5
_MIB = 2**20


def check_storage(job: Job) -> None:
    """Refuses a job whose runs would lie in another folder on each host.

    Raises:
        JobError: Its storage is a relative path.
    """
    storage = job.spec.storage
    if "://" not in storage and not os.path.isabs(os.path.expanduser(storage)):
        raise job.error(
            "storage",
            f"{storage!r} is relative, and means another folder on each host of a cluster; name a shared folder by its "
            "full path, or an object store: --runs-dir or DISTRIB_RUNS_DIR",
        )


def path_in(folder: str, job: Job) -> str:
    """Where the job's file lies in `folder`, the working directory, which is what the hosts of a cluster get.

    Raises:
        JobError: It lies elsewhere.
    """
    if not job.path.is_relative_to(folder):
        raise job.error("", f"lies outside of the working directory {folder}, which is what hosts get; change there")
    return job.path.relative_to(folder).as_posix()


def check_size(folder: str) -> None:
    """Refuses a working directory that Ray would not take.

    Raises:
        JobError: It holds more than Ray's limit; the biggest files are named.
    """
    limit, sizes = max_package_bytes(), shipped_sizes(folder, EXCLUDED)
    total = sum(sizes.values())
    if limit is None or total < limit:
        return
    biggest = sorted(sizes, key=lambda path: sizes[path], reverse=True)[:_NUM_SHOWN]
    listed = "\n".join(f"  {sizes[path] / _MIB:,.0f} MiB  {path}" for path in biggest)
    raise JobError(
        f"the working directory {folder} holds {total / _MIB:,.0f} MiB, and Ray ships at most "
        f"{limit / _MIB:,.0f} MiB to a cluster; name what the job does not need in .rayignore, "
        f"or keep data on storage that all hosts share. The biggest files:\n{listed}"
    )
