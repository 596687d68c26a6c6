"""Ray's key-value store, kept by the head of a cluster."""

from __future__ import annotations

from typing import Any

from distrib.compat.symbols import RAY_VERSIONS, PrivateSymbol
from distrib.errors import LaunchError

SYMBOLS = tuple(
    PrivateSymbol(
        f"ray.experimental.internal_kv._internal_kv_{name}",
        "small values for every process of a cluster within milliseconds, with no actor to start and no shared disk; "
        "the public way is a named actor, which takes a second to start and dies with its host",
        RAY_VERSIONS,
        "the run is refused before it starts",
    )
    for name in ("put", "get", "list", "del")
)
_NAMESPACE = b"distrib"


def put(key: str, value: str) -> None:
    """Stores `value`, in place of an earlier one."""
    _call("put")(key, value, overwrite=True, namespace=_NAMESPACE)


def get(key: str) -> bytes | None:
    """The value of `key`, or None."""
    value: bytes | None = _call("get")(key, namespace=_NAMESPACE)
    return value


def count(prefix: str) -> int:
    """The number of keys that begin with `prefix`."""
    return len(_call("list")(prefix, namespace=_NAMESPACE))


def remove_all(prefix: str) -> None:
    """Removes all keys that begin with `prefix`."""
    _call("del")(prefix, del_by_prefix=True, namespace=_NAMESPACE)


def _call(name: str) -> Any:
    try:
        from ray.experimental import internal_kv

        return getattr(internal_kv, f"_internal_kv_{name}")
    except (ImportError, AttributeError):
        import ray

        raise LaunchError(
            f"Ray {ray.__version__} has no internal key-value store, which runs on Ray need; install a version of Ray "
            "that distrib's package metadata names"
        ) from None
