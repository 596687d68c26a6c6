"""The hosts that a job could use, as a group on which functions can be run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self


@dataclass(frozen=True)
class Member:
    """One host.

    Attributes:
        name: For people: its host name, and its address if there are several hosts.
        address: Its address in the cluster.
    """

    name: str
    address: str


@dataclass(frozen=True)
class NoAnswer:
    """Why a function gave no result on a host.

    Attributes:
        reason: One line.
    """

    reason: str


class Fleet(Protocol):
    """Runs functions on every host, in one process per host that keeps its state between calls."""

    members: list[Member]
    """The hosts that answer, in a fixed order."""
    silent: dict[str, str]
    """The hosts on which no process could be started, each with the reason."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...

    def call(
        self, function: Callable[..., Any], arguments: Mapping[str, tuple[Any, ...]], timeout_seconds: float
    ) -> dict[str, Any]:
        """Runs `function` on several hosts at the same time.

        Args:
            function: Importable on the hosts.
            arguments: The hosts by name, each with the function's arguments there.
            timeout_seconds: How long to wait.

        Returns:
            By host, the result, or a `NoAnswer` if it raised or did not return in time.
        """
