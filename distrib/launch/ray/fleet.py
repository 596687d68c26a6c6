"""The hosts of a Ray cluster as a fleet: one actor on each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Self

from distrib.launch.fleet import Member, NoAnswer
from distrib.launch.process.environment import environment_defaults
from distrib.launch.ray.access.token import token_mode
from distrib.launch.ray.cluster.connection import connect
from distrib.launch.ray.cluster.settings import RAY_SETTINGS

_START_SECONDS = 40.0
"""How long a host may take to start its actor: a worker process imports Ray, and torch with the first function."""


class RayFleet:
    """The hosts of a running cluster; a context manager.

    Actors reserve no resources, so that a cluster that is full can be checked too.

    Args:
        address: `HOST:PORT` of the cluster's head, or `auto`.

    Raises:
        LaunchError: The cluster cannot be reached.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self.members: list[Member] = []
        self.silent: dict[str, str] = {}
        self._actors: dict[str, Any] = {}
        self._settings = ExitStack()

    def __enter__(self) -> Self:
        self._settings.enter_context(environment_defaults(token_mode()))
        try:
            connect(self._address, {"env_vars": {**RAY_SETTINGS, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}})
        except BaseException:
            self._settings.close()
            raise
        self._start_actors()
        return self

    def __exit__(self, *exception: object) -> None:
        import ray

        for actor in self._actors.values():
            ray.kill(actor)
        ray.shutdown()
        self._settings.close()

    def call(
        self, function: Callable[..., Any], arguments: Mapping[str, tuple[Any, ...]], timeout_seconds: float
    ) -> dict[str, Any]:
        """Runs the function on the hosts at the same time; see `Fleet.call`."""
        calls = {name: self._actors[name].call.remote(function, values) for name, values in arguments.items()}
        return self._collect(calls, timeout_seconds)

    def _start_actors(self) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor_class = ray.remote(num_cpus=0, max_restarts=0)(_Caller)
        nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        found: dict[str, Member] = {}
        for node in sorted(nodes, key=lambda node: str(node["NodeManagerAddress"])):
            address = str(node["NodeManagerAddress"])
            member = Member(f"{node['NodeManagerHostname']} ({address})", address)
            pinned = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            self._actors[member.name] = actor_class.options(scheduling_strategy=pinned).remote()
            found[member.name] = member
        started = self._collect({name: actor.ready.remote() for name, actor in self._actors.items()}, _START_SECONDS)
        self.silent = {name: answer.reason for name, answer in started.items() if isinstance(answer, NoAnswer)}
        self.members = [member for name, member in found.items() if name not in self.silent]

    def _collect(self, calls: Mapping[str, Any], timeout_seconds: float) -> dict[str, Any]:
        """The answers that come in time, with a `NoAnswer` for each of the others."""
        import ray

        deadline, results = time.monotonic() + timeout_seconds, {}
        for name, call in calls.items():
            try:
                results[name] = ray.get(call, timeout=max(0.0, deadline - time.monotonic()))
            except ray.exceptions.GetTimeoutError:
                results[name] = NoAnswer(f"no answer within {timeout_seconds:.0f} s")
            except ray.exceptions.RayTaskError as error:
                results[name] = NoAnswer(f"{type(error.cause).__name__}: {error.cause}")
            except ray.exceptions.RayError as error:
                results[name] = NoAnswer(str(error).splitlines()[0])
        return results


class _Caller:
    """Runs functions in a process on one host."""

    def ready(self) -> bool:
        """Whether the process has started."""
        return True

    def call(self, function: Callable[..., Any], values: tuple[Any, ...]) -> Any:
        """Runs one function."""
        return function(*values)
