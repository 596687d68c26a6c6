"""The launchers and job servers by name: the only place that knows which ones there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from distrib.job.launcher_names import LauncherName
from distrib.job.script import AnyJob
from distrib.launch.job_server import JobServer
from distrib.launch.launcher import Launcher

MakeLauncher: TypeAlias = Callable[[AnyJob, str | None], Launcher]
"""Makes the launcher of a job; the second argument is the cluster's address, or None for this machine."""


def _local(job: AnyJob, address: str | None) -> Launcher:
    from distrib.launch.local.launcher import LocalLauncher

    return LocalLauncher(job)


def _ray(job: AnyJob, address: str | None) -> Launcher:
    from distrib.launch.ray.launcher import RayLauncher

    return RayLauncher(job, address)


def _ray_job_server(address: str) -> JobServer:
    from distrib.launch.ray.submit.job_server import RayJobServer

    return RayJobServer(address)


LAUNCHERS: dict[LauncherName, MakeLauncher] = {"local": _local, "ray": _ray}

_THIS_MACHINE: LauncherName = "local"
_CLUSTER: LauncherName = "ray"


def default_launcher(address: str | None) -> LauncherName:
    """The launcher if none is named: for the cluster at an address, or for this machine."""
    return _THIS_MACHINE if address is None else _CLUSTER


def make_launcher(job: AnyJob, name: LauncherName, address: str | None = None) -> Launcher:
    """The launcher of that name, not yet entered.

    Raises:
        JobError: The job cannot be trained by it, or the address is wrong.
    """
    return LAUNCHERS[name](job, address)


def connect_job_server(address: str) -> JobServer:
    """The job server at an address.

    Raises:
        JobError: It is not the address of a job server.
        LaunchError: Nothing answers there.
    """
    return _ray_job_server(address)
