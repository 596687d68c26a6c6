"""The working directory as Ray sends it to a cluster: what is left out, and whether the rest is small enough."""

from __future__ import annotations

import os
from pathlib import Path

from distrib.compat.ray.packaging import max_package_bytes, shipped_sizes
from distrib.errors import JobError
from distrib.job.script import AnyJob, ScriptJob
from distrib.job.source_folder import source_folder

EXCLUDED = ("/.git", "/runs", "/.venv", "/venv", "__pycache__", "*.pyc", ".mypy_cache", ".ruff_cache", ".pytest_cache")
"""What is never sent, in the syntax of .gitignore, besides what .gitignore and .rayignore files name."""

_NUM_SHOWN = 5
_MIB = 2**20


def path_in(folder: str, job: AnyJob) -> str:
    """The path of the job's file in `folder`, the working directory, which is what the hosts of a cluster get.

    Raises:
        JobError: It is elsewhere.
    """
    paths = [job.path]
    if isinstance(job, ScriptJob) and job.spec.script.file is not None:
        paths.append(Path(os.path.abspath(job.spec.script.file)))
    if not all(path.is_relative_to(folder) for path in paths):
        raise job.error(
            "",
            f"is outside of the working directory {folder}, which is what is sent to the hosts; change to its folder",
        )
    source = source_folder(job.folder)
    if source is not None and not source.is_relative_to(Path(folder).resolve()):
        raise job.error(
            "",
            f"imports packages of its project from {source}, which is outside of the working directory {folder} and "
            f"therefore not sent to the hosts; change to {source.parent}",
        )
    return job.path.relative_to(folder).as_posix()


def check_size(folder: str) -> None:
    """Refuses a working directory that Ray does not accept.

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
        f"the working directory {folder} holds {total / _MIB:,.0f} MiB, and Ray sends at most "
        f"{limit / _MIB:,.0f} MiB to a cluster; list what the job does not need in .rayignore, "
        f"or keep data on storage that all hosts share. The biggest files:\n{listed}"
    )
