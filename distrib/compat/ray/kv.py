"""Ray's key-value store, kept by the head of a cluster."""

from __future__ import annotations

from typing import Any

from distrib.compat.symbols import RAY_VERSIONS, PrivateSymbol
from distrib.errors import ClusterLostError, LaunchError

SYMBOLS = (
    *(
        PrivateSymbol(
            f"ray.experimental.internal_kv._internal_kv_{name}",
            "small values for every process of a cluster within milliseconds, with no actor to start and no shared "
            "disk; the public way is a named actor, which takes a second to start and dies with its host",
            RAY_VERSIONS,
            "the run is refused before it starts",
        )
        for name in ("put", "get", "list", "del")
    ),
    PrivateSymbol(
        "ray.experimental.internal_kv.internal_kv_get_gcs_client",
        "its methods have time limits; the functions above wait for a lost head until Ray ends this process",
        RAY_VERSIONS,
        "Ray ends the launcher one minute after the loss of a head, and the run's record stays as it is",
    ),
)
_NAMESPACE = b"distrib"
_CLIENT_METHODS = {"list": "keys"}
_FLAGS = {"put": "overwrite", "del": "del_by_prefix"}
HEAD_SECONDS = 40.0
"""How long a head may not answer, as while it restarts; after 60 seconds Ray ends the processes of its cluster."""


def put(key: str, value: str, timeout_seconds: float = HEAD_SECONDS) -> None:
    """Stores `value`, in place of an earlier one.

    Raises:
        ClusterLostError: The cluster's head does not answer; so do the other functions.
    """
    _call("put", timeout_seconds, key.encode(), value.encode(), True)


def get(key: str, timeout_seconds: float = HEAD_SECONDS) -> bytes | None:
    """The value of `key`, or None."""
    value: bytes | None = _call("get", timeout_seconds, key.encode())
    return value


def count(prefix: str, timeout_seconds: float = HEAD_SECONDS) -> int:
    """The number of keys that begin with `prefix`."""
    return len(_call("list", timeout_seconds, prefix.encode()))


def remove_all(prefix: str, timeout_seconds: float = HEAD_SECONDS) -> None:
    """Removes all keys that begin with `prefix`."""
    _call("del", timeout_seconds, prefix.encode(), True)


def _call(name: str, timeout_seconds: float, *arguments: Any) -> Any:
    """Calls a method of Ray's client, or the function of the same name, which has no time limit."""
    try:
        from ray.experimental import internal_kv

        function = getattr(internal_kv, f"_internal_kv_{name}")
    except (ImportError, AttributeError):
        import ray

        raise LaunchError(
            f"Ray {ray.__version__} has no internal key-value store, which runs on Ray need; install a version of Ray "
            "that distrib's package metadata names"
        ) from None
    client = getattr(internal_kv, "internal_kv_get_gcs_client", lambda: None)()
    if client is None:
        flags = {_FLAGS[name]: arguments[-1]} if name in _FLAGS else {}
        return function(*arguments[: len(arguments) - len(flags)], **flags, namespace=_NAMESPACE)
    from ray.exceptions import RpcError

    method = getattr(client, f"internal_kv_{_CLIENT_METHODS.get(name, name)}")
    try:
        return method(*arguments, _NAMESPACE, timeout_seconds)
    except RpcError as error:
        raise ClusterLostError(f"the cluster's head has not answered for {timeout_seconds:.0f} s") from error
