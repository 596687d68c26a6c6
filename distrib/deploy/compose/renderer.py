"""`--render compose`: two or more containers of one machine as the hosts of a cluster, for trying a job out."""

from __future__ import annotations

import math
import re

from distrib.deploy.compose.api import (
    Compose,
    Deploy,
    DeployResources,
    Device,
    Mount,
    Reservations,
    SecretFile,
    Service,
)
from distrib.deploy.compose.settings import ComposeSettings
from distrib.deploy.deployment import Deployment
from distrib.deploy.hosts import Hosts, check_labels, make_hosts
from distrib.deploy.renderer import Rendered, Renderer
from distrib.deploy.yaml_text import to_yaml
from distrib.errors import JobError
from distrib.launch.ray.submit.job_environment import HEAD_SETTINGS

_MIN_HOSTS = 2
_HEAD_ADDRESS = "host1:6379"
_SECRET = "ray_token"
_STOP_MARGIN_SECONDS = 30


def compose_hosts(deployment: Deployment, workers_per_host: int | None) -> Hosts:
    """The containers: two that share the workers, or more if the placement needs more.

    Their number is fixed, so an elastic job gets room for the most workers.
    """
    request, workers = deployment.request, deployment.request.max_workers
    even = {"strict_pack": workers, "strict_spread": 1}.get(request.placement, math.ceil(workers / _MIN_HOSTS))
    each = workers_per_host or even
    if request.placement in ("strict_pack", "strict_spread") and each != even:
        raise deployment.job.error(
            "resources.placement", f"{request.placement} means workers_per_host={even}; remove one of them"
        )
    num_hosts = max(_MIN_HOSTS, math.ceil(workers / each))
    return make_hosts(request, each, num_hosts, num_hosts)


def make_compose(deployment: Deployment, settings: ComposeSettings, hosts: Hosts) -> Compose:
    """The Compose file that trains `deployment` on `hosts`; all of them run the same command."""
    names = [f"host{number}" for number in range(1, hosts.max_hosts + 1)]
    return Compose(
        name=re.sub(r"[^a-z0-9_-]+", "-", deployment.run_id.lower()),
        services={name: _service(name, number, deployment, settings, hosts) for number, name in enumerate(names)},
        secrets={_SECRET: SecretFile(file=settings.token_file)},
    )


def _service(name: str, number: int, deployment: Deployment, settings: ComposeSettings, hosts: Hosts) -> Service:
    storage = deployment.storage
    first_gpu = number * hosts.num_gpus
    devices = Device(device_ids=[str(gpu) for gpu in range(first_gpu, first_gpu + hosts.num_gpus)])
    return Service(
        image=settings.image,
        hostname=name,
        user=settings.user,
        working_dir=settings.workdir,
        command=[_literal(argument) for argument in _command(deployment, hosts)],
        environment={
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": f"/run/secrets/{_SECRET}",
            "RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT": "120",
            "RAY_USAGE_STATS_ENABLED": "0",
            **(HEAD_SETTINGS if number == 0 else {}),
            **{name: _literal(value) for name, value in deployment.variables.items()},
        },
        env_file=list(settings.env_file) or None,
        secrets=[_SECRET],
        volumes=None if deployment.is_on_object_store else [Mount(source=storage, target=storage)],
        shm_size=settings.shared_memory,
        stop_grace_period=f"{math.ceil(deployment.request.grace_seconds) + _STOP_MARGIN_SECONDS}s",
        deploy=Deploy(resources=DeployResources(reservations=Reservations(devices=[devices])))
        if hosts.num_gpus
        else None,
    )


def _literal(text: str) -> str:
    """`text` as Compose leaves it alone; it would replace `${NAME}` by variables of the machine."""
    return text.replace("$", "$$")


def _command(deployment: Deployment, hosts: Hosts) -> list[str]:
    resources = hosts.ray_options
    if deployment.request.labels:
        resources.append("--labels=" + ",".join(f"{name}={value}" for name, value in deployment.request.labels.items()))
    return [
        *("ray", "symmetric-run", "--address", _HEAD_ADDRESS, "--min-nodes", str(hosts.max_hosts), *resources),
        *("--dashboard-host=127.0.0.1", "--disable-usage-stats", "--"),
        *(*deployment.command, "--address", _HEAD_ADDRESS),
    ]


def _check(deployment: Deployment, settings: ComposeSettings) -> None:
    if deployment.packages:
        raise JobError("containers use what their image holds; install it there", field="--pip")
    if deployment.is_on_object_store and not settings.env_file:
        raise JobError(
            f"containers need credentials for {deployment.storage}: --with env_file=FILE names a file with the "
            "environment variables that hold them",
            field="--with",
        )
    check_labels(deployment, "")


def _explanation(deployment: Deployment, settings: ComposeSettings) -> list[str]:
    return [
        f"distrib run {deployment.run_id} on containers of one machine, to try it out.",
        f"  token   (umask 077; python3 -c 'import secrets; print(secrets.token_hex(32))' > {settings.token_file})",
        "  start   docker compose -f FILE up --abort-on-container-exit --exit-code-from host1",
        "  stop    docker compose -f FILE down",
        f"The run is kept in {deployment.storage}.",
    ]


def _write(deployment: Deployment, settings: ComposeSettings, hosts: Hosts) -> Rendered:
    return Rendered(_explanation(deployment, settings), to_yaml(make_compose(deployment, settings, hosts)))


COMPOSE = Renderer("compose", ComposeSettings, _check, compose_hosts, _write)
"""Renders a Compose file."""
