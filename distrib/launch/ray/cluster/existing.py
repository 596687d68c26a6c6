"""A running Ray cluster that a run connects to."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self, TypeVar

from distrib.compat.ray.cluster import has_autoscaler
from distrib.compat.ray.raylet_log import RayletLog
from distrib.errors import JobError, LaunchError
from distrib.job.plan import Request
from distrib.job.script import AnyJob
from distrib.launch.job_server import check_shared_storage
from distrib.launch.process.environment import environment_defaults
from distrib.launch.ray.access.job_secrets import is_received, split_secrets
from distrib.launch.ray.access.token import token_mode
from distrib.launch.ray.cluster.connection import connect, disconnect
from distrib.launch.ray.cluster.demand import HostDemand
from distrib.launch.ray.cluster.packing import EXCLUDED, check_size, path_in
from distrib.launch.ray.cluster.settings import RAY_SETTINGS
from distrib.launch.ray.cluster.worker_deaths import WorkerDeaths

if TYPE_CHECKING:
    from distrib.launch.launcher import Placement
    from distrib.launch.ray.cluster.node_monitor import NodeMonitor

Result = TypeVar("Result")

_WAIT_SECONDS = 0.5
_REMIND_SECONDS = 30.0
_FORWARDED = ("NCCL_", "GLOO_", "TORCH_", "DISTRIB_", "AWS_", "GOOGLE_APPLICATION_CREDENTIALS", "OMP_")
"""Prefixes of the environment variables that the ranks get from the launcher; Ray forwards none automatically."""
_WORKER_DEFAULTS = {"TORCH_CPP_LOG_LEVEL": "ERROR"}
"""At a lower level, torch warns about every peer whose address has no name."""
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"


class ExistingRay:
    """A connection to a running cluster; a context manager.

    Args:
        job: The job; its file must be in the working directory, which is sent to the workers.
        address: `HOST:PORT` of the cluster's head, or `auto`.

    Raises:
        JobError: The job cannot be run on a cluster.
        LaunchError: The cluster cannot be reached.
    """

    def __init__(self, job: AnyJob, address: str) -> None:
        self._address = address
        self._job = job
        self._settings = ExitStack()
        self._connected: Future[None] = Future()
        self.worker_deaths = WorkerDeaths(RayletLog.from_now)
        self._monitor: NodeMonitor | None = None
        self._demand: HostDemand | None = None
        self.folder = ""
        self._submitted = _submitted_environment()
        if "://" in address:
            raise JobError(
                f"{address} is not the address of a cluster's head, which is HOST:PORT as `ray start` prints it; "
                "from outside the cluster, submit the job to its job server, http://HOST:8265 (distrib submit)",
                field="`address`",
            )
        check_shared_storage(job)
        path_in(os.getcwd(), job)

    def __enter__(self) -> Self:
        self.folder = tempfile.mkdtemp(prefix="distrib-ray-")
        self._settings.enter_context(environment_defaults(RAY_SETTINGS | token_mode()))
        return self

    def start_beside(self, work: Callable[[], Result]) -> Result:
        """Connects while a thread does `work`, such as importing the job's modules; returns its result."""
        with ThreadPoolExecutor(1, thread_name_prefix="prepare") as pool:
            future = pool.submit(work)
            try:
                connect(self._address, self._runtime_env())
            except BaseException as error:
                self._connected.set_exception(error)
                raise
            self._connected.set_result(None)
            return future.result()

    def _runtime_env(self) -> dict[str, Any]:
        """What Ray gives to all processes of this run, apart from what the submitted job has given them already."""
        given = set(self._submitted.get("env_vars") or {})
        environment: dict[str, Any] = {"env_vars": {k: v for k, v in RAY_SETTINGS.items() if k not in given}}
        if "working_dir" not in self._submitted:
            check_size(os.getcwd())
            environment |= {"working_dir": os.getcwd(), "excludes": list(EXCLUDED)}
        return environment

    @property
    def worker_environment(self) -> dict[str, str]:
        """Variables of this process that the ranks get too, except for secrets."""
        given = set(self._submitted.get("env_vars") or {})
        own, _ = split_secrets(self._forwarded())
        merged = {**_WORKER_DEFAULTS, **own}
        return {k: v for k, v in merged.items() if k not in given and k not in RAY_SETTINGS}

    @property
    def secret_environment(self) -> dict[str, str]:
        """Secrets of this process that the ranks get too, in no runtime environment."""
        _, hidden = split_secrets(self._forwarded())
        return hidden

    def _forwarded(self) -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if k.startswith(_FORWARDED) or is_received(k)}

    def num_gpus(self) -> int:
        """The GPUs of the cluster; waits until it is connected."""
        import ray

        self._connected.result()
        return int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]

    def node_monitor(self, request: Request) -> NodeMonitor:
        """Watches the hosts from the first call on."""
        from distrib.launch.ray.cluster.node_monitor import NodeMonitor

        if self._monitor is None:
            self._monitor = NodeMonitor(request)
        return self._monitor

    def ask_for_hosts(self, request: Request, num_workers: int) -> None:
        """Asks the autoscaler, if the cluster has one, for hosts with room for more workers; 0 asks for none."""
        if num_workers > 0 and has_autoscaler():
            self._demand = self._demand or HostDemand(request)
            self._demand.ask(num_workers)
        elif self._demand is not None:
            self._demand.clear()

    def find_room(
        self,
        request: Request,
        held: dict[str, int],
        *,
        patience_seconds: float | None,
        notice: Callable[[str], None],
        is_stopping: Callable[[], bool],
    ) -> Placement | None:
        """The placement of the workers; waits until there is room, or until a stop is requested: then None.

        Args:
            request: What is asked for.
            held: Workers of this run by host, which will have ended.
            patience_seconds: How long to wait for missing hosts; None does not wait.
            notice: Called with what is waited for.
            is_stopping: Whether to stop waiting.

        Raises:
            LaunchError: The cluster has no room for the request, even if it were empty.
        """
        from distrib.launch.ray.cluster.placement import place

        monitor, began, reminded = self.node_monitor(request), time.monotonic(), float("-inf")
        while not is_stopping():
            monitor.check()
            hosts = monitor.hosts
            found = place(hosts, request, held)
            if found is not None:
                self.ask_for_hosts(request, 0)
                return found
            self.ask_for_hosts(request, request.min_workers)
            is_possible = place(hosts, request, is_empty=True) is not None
            waited = time.monotonic() - began
            if not is_possible and not has_autoscaler() and waited >= (patience_seconds or 0.0):
                raise LaunchError(describe_shortage(request, hosts))
            if time.monotonic() - reminded > _REMIND_SECONDS:
                reminded = time.monotonic()
                missing = "other users to free" if is_possible else "hosts with"
                notice(f"waiting for {missing} {_requested(request)}; {_existing(hosts, request)}")
            time.sleep(_WAIT_SECONDS)
        return None

    def close(self, *, is_lost: bool) -> None:
        """Disconnects; from a lost cluster without waiting for it."""
        if self._monitor is not None:
            self._monitor.close()
        if self._demand is not None and not is_lost:
            self._demand.clear()
        disconnect(is_lost=is_lost)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._settings.close()


def _submitted_environment() -> dict[str, Any]:
    """The runtime environment of the Ray job whose driver this process is; empty if it is none."""
    try:
        config = json.loads(os.environ.get(_JOB_CONFIG) or "{}")
    except ValueError:
        return {}
    return dict(config.get("runtime_env") or {})


def describe_shortage(request: Request, hosts: list[Any]) -> str:
    """Why a request cannot be satisfied: what is asked for and what exists."""
    return f"the cluster cannot hold {_requested(request)}: {_existing(hosts, request)}; ask for less, or add hosts"


def _requested(request: Request) -> str:
    workers = f"{request.min_workers} worker" + ("s" if request.min_workers != 1 else "")
    each = ", ".join(_amount(name, amount) for name, amount in request.resources_per_worker.items())
    how = {"strict_spread": ", each on a different host", "strict_pack": ", all on one host"}.get(request.placement, "")
    labels = "".join(f", on hosts labeled {name}={value}" for name, value in request.labels.items())
    return f"{workers} with {each} each{how}{labels}"


def _existing(hosts: list[Any], request: Request) -> str:
    names = request.resources_per_worker
    alive = sorted((host for host in hosts if host.is_answering and not host.is_leaving), key=lambda host: host.name)
    if not alive:
        return "no host answers"
    has = "; ".join(
        f"{host.name} has " + ", ".join(_amount(name, host.total.get(name, 0.0)) for name in names) for host in alive
    )
    return f"of {len(alive)} host{'s' if len(alive) != 1 else ''}, {has}"


def _amount(name: str, amount: float) -> str:
    if name == "memory":
        return f"{amount / 2**30:.3g} GiB of memory"
    if name.startswith("accelerator_type:"):
        accelerator = name.partition(":")[2]
        return f"an {accelerator}" if amount else f"no {accelerator}"
    return f"{amount:g} {name}"
