"""How the workers of a request are spread over hosts of equal shape: the one place that multiplies resources."""

from __future__ import annotations

import re
from dataclasses import dataclass

from distrib.deploy.deployment import Deployment
from distrib.job.plan import Request

RAY_MEMORY_BYTES = 2 * 2**30
"""What Ray's own processes and object store take on a host, beyond the memory of its workers."""

_ONE_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
"""A label's value, and no expression such as `!a` or `in(a,b)`."""


@dataclass(frozen=True)
class Hosts:
    """Hosts of one shape that hold the workers of a request.

    Attributes:
        min_hosts: With the fewest workers.
        max_hosts: With the most workers.
        workers_per_host: Workers that fit on each.
        num_cpus: CPUs of each.
        num_gpus: GPUs of each.
        memory_bytes: Memory that the workers on each are scheduled with, if the request names any.
    """

    min_hosts: int
    max_hosts: int
    workers_per_host: int
    num_cpus: int
    num_gpus: int
    memory_bytes: int | None

    @property
    def is_elastic(self) -> bool:
        """Whether their number may change."""
        return self.min_hosts != self.max_hosts

    @property
    def ray_resources(self) -> dict[str, str]:
        """What Ray on each of them may use, by the name of the option of `ray start`: what its workers request."""
        resources = {"num-cpus": str(self.num_cpus), "num-gpus": str(self.num_gpus)}
        return resources if self.memory_bytes is None else {**resources, "memory": str(self.memory_bytes)}

    @property
    def ray_options(self) -> list[str]:
        """The same as options."""
        return [f"--{name}={value}" for name, value in self.ray_resources.items()]


def make_hosts(request: Request, workers_per_host: int, min_hosts: int, max_hosts: int) -> Hosts:
    """Hosts that each hold `workers_per_host` workers of `request`."""
    each = request.resources_per_worker
    memory = request.memory_bytes
    return Hosts(
        min_hosts=min_hosts,
        max_hosts=max_hosts,
        workers_per_host=workers_per_host,
        num_cpus=int(each["CPU"]) * workers_per_host,
        num_gpus=int(each.get("GPU", 0)) * workers_per_host,
        memory_bytes=None if memory is None else memory * workers_per_host,
    )


def hosts_of(deployment: Deployment, workers_per_host: int | None) -> Hosts:
    """The hosts of a deployment.

    Args:
        deployment: What to deploy.
        workers_per_host: Workers on each host; by default all of them with `placement: strict_pack`, otherwise one.

    Raises:
        JobError: The request cannot be met by hosts of equal shape.
    """
    request, error = deployment.request, deployment.job.error
    low, high = request.min_workers, request.max_workers
    if request.placement == "strict_pack":
        if low != high:
            raise error(
                "resources.placement",
                "strict_pack keeps all workers on one host, which cannot grow; give resources.workers one number",
            )
        if workers_per_host not in (None, high):
            raise error("resources.placement", f"strict_pack means workers_per_host={high}; remove one of them")
        return make_hosts(request, high, 1, 1)
    each = workers_per_host or 1
    if request.placement == "strict_spread" and each != 1:
        raise error("resources.placement", "strict_spread means workers_per_host=1; remove one of them")
    for workers in (low, high):
        if workers % each != 0:
            raise error(
                "resources.workers",
                f"{workers} workers do not fill hosts of {each}; choose a multiple, or another workers_per_host",
            )
    return make_hosts(request, each, low // each, high // each)


def check_labels(deployment: Deployment, way_out: str) -> None:
    """Refuses labels that the hosts of one shape, which all get the same labels, cannot meet.

    Raises:
        JobError: A label is not one value.
    """
    for name, value in deployment.request.labels.items():
        if not _ONE_VALUE.fullmatch(value):
            raise deployment.job.error(
                f"resources.labels.{name}",
                f"all hosts get the same labels, and {value!r} is not one value; name one{way_out}",
            )
