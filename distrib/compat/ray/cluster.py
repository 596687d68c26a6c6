"""What Ray's head knows of its nodes beyond `ray.nodes()`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distrib.compat.symbols import RAY_VERSIONS, PrivateSymbol

SYMBOLS = (
    PrivateSymbol(
        "ray.autoscaler.v2.utils.is_autoscaler_v2",
        "whether the autoscaler of ray up and of KubeRay runs; nothing in open-source Ray reports its configuration",
        RAY_VERSIONS,
        "a request that needs more hosts is refused instead of waiting for them",
    ),
    PrivateSymbol(
        "ray._private.state.available_resources_per_node",
        "where workers fit now; the public ray.available_resources() is a total over nodes",
        RAY_VERSIONS,
        "all resources of a node count as free, and Ray waits where they are not",
    ),
    PrivateSymbol(
        "ray._private.state.state.get_draining_nodes",
        "nodes that are about to leave; no public API lists them without a dashboard",
        RAY_VERSIONS,
        "no node counts as leaving; a run there ends like that of a lost node",
    ),
    PrivateSymbol(
        "ray._private.state.state.get_max_resources_from_cluster_config",
        "whether an autoscaler may add nodes, so that a request that is too large now is waited for",
        RAY_VERSIONS,
        "a request that is too large now is refused",
    ),
)


def free_resources() -> Mapping[str, Mapping[str, float]] | None:
    """The resources that are free on each node, by node id; None if this Ray does not say."""
    try:
        from ray._private.state import available_resources_per_node
    except ImportError:
        return None
    found: Mapping[str, Mapping[str, float]] = available_resources_per_node()  # type: ignore[no-untyped-call]
    return found


def draining_nodes() -> frozenset[str]:
    """Ids of the nodes that are being drained."""
    query = _state_query("get_draining_nodes")
    return frozenset() if query is None else frozenset(query())


def has_autoscaler() -> bool:
    """Whether an autoscaler may add nodes."""
    query = _state_query("get_max_resources_from_cluster_config")
    return (query is not None and bool(query())) or _has_autoscaler_v2()


def _has_autoscaler_v2() -> bool:
    try:
        from ray.autoscaler.v2.utils import is_autoscaler_v2

        return bool(is_autoscaler_v2(fetch_from_server=True))
    except (ImportError, AssertionError):  # the latter without a connection
        return False


def _state_query(name: str) -> Any:
    try:
        from ray._private import state
    except ImportError:
        return None
    return getattr(getattr(state, "state", None), name, None)
