"""How a local Ray cluster starts, and what it prints in the launcher's process."""

from __future__ import annotations

from typing import Any

from distrib.compat.symbols import RAY_VERSIONS, PrivateSymbol

SYMBOLS = (
    PrivateSymbol(
        "ray.init(_temp_dir, _node_ip_address)",
        "a folder of its own, by whose name the processes of a local cluster are found, and loopback as its address",
        RAY_VERSIONS,
        "Ray refuses the argument, and the run ends with Ray's message",
    ),
    PrivateSymbol(
        "raylet: RAY_prestart_worker_first_driver",
        "otherwise ray.init waits, without end and deaf to signals, until as many workers as CPUs have started",
        RAY_VERSIONS,
        "a run whose workers cannot start on this machine waits in ray.init until it is killed",
    ),
    PrivateSymbol(
        "ray._private.worker.print_to_stdstream",
        "Ray prints on the launcher's stdout that a worker died, although logs are not forwarded; it has no switch",
        RAY_VERSIONS,
        "Ray prints it",
    ),
    PrivateSymbol(
        "ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator.get_or_create_autoscaling_coordinator",
        "starts the actor that every Ray Train run needs first while the job's modules are imported",
        RAY_VERSIONS,
        "Ray Train's controller starts it a second later",
    ),
)

LOCAL_SETTINGS = {"RAY_prestart_worker_first_driver": "0"}
"""Environment variables of a local cluster."""


def local_cluster_options(folder: str, address: str) -> dict[str, Any]:
    """Arguments of `ray.init` for a cluster that keeps its files in `folder` and listens on `address`."""
    return {"_temp_dir": folder, "_node_ip_address": address}


def silence_worker_deaths() -> None:
    """Keeps Ray from printing that a worker died; to be called before `ray.init`."""
    try:
        from ray._private import worker
    except ImportError:
        return
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *_, **__: None


def start_autoscaling_coordinator() -> None:
    """Starts the actor that every Ray Train run needs first, in a worker process that Ray has ready."""
    try:
        from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
            get_or_create_autoscaling_coordinator,
        )
    except ImportError:
        return
    get_or_create_autoscaling_coordinator()  # type: ignore[no-untyped-call]
