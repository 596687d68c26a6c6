"""A small key-value store through which the launcher, Ray Train's controller and the ranks of a run communicate."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Literal

from distrib.compat.ray import kv
from distrib.train.failure import Failure

Command = Literal["stop", "stacks", "end"]
"""What the launcher requests of the ranks: to end with a checkpoint, to write their stacks, or to end now."""

SECRETS = "secrets"
"""The entry with the environment variables of the ranks that must not be in a runtime environment."""

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class RayControlStore:
    """JSON values by name, kept by Ray's head: all processes of the cluster see them without a shared disk.

    Attributes:
        key: Prefix that separates the entries of this launch of this run from all others.
        timeout_seconds: How long the head may not answer.

    Raises:
        ClusterLostError: The head does not answer; raised by all methods.
    """

    key: str
    timeout_seconds: float = kv.HEAD_SECONDS

    def write(self, name: str, value: Any) -> None:
        """Writes an entry, replacing an earlier one of that name."""
        kv.put(f"{self.key}/{name}", json.dumps(value), self.timeout_seconds)

    def read(self, name: str) -> Any:
        """The entry of that name, or None."""
        text = kv.get(f"{self.key}/{name}", self.timeout_seconds)
        return None if text is None else json.loads(text)

    def await_(self, name: str) -> Any:
        """Waits for the entry of that name; if its writer dies, Ray ends this process too, so there is no time-out."""
        while (value := self.read(name)) is None:
            time.sleep(_POLL_SECONDS)
        return value

    def count(self, prefix: str) -> int:
        """The number of entries whose names begin with `prefix`."""
        return kv.count(f"{self.key}/{prefix}", self.timeout_seconds)

    def clear(self) -> None:
        """Removes all entries."""
        kv.remove_all(f"{self.key}/", self.timeout_seconds)

    def send_command(self, attempt: int, command: Command) -> None:
        """Sends a command to the ranks of an attempt, in addition to earlier ones; only the launcher sends any."""
        sent = self.commands_for(attempt)
        if command not in sent:
            self.write(f"commands/{attempt}", [*sent, command])

    def commands_for(self, attempt: int) -> list[Command]:
        """The commands that the ranks of an attempt have been sent so far."""
        commands: list[Command] = self.read(f"commands/{attempt}") or []
        return commands

    def report_failure(self, attempt: int, rank: int, failure: Failure) -> None:
        """Reports to the launcher why a rank has failed."""
        self.write(f"failure/{attempt}/{rank}", failure.as_dict())

    def failures(self, attempt: int, world_size: int) -> dict[int, Failure]:
        """The reported failures of an attempt, by rank."""
        found = {rank: self.read(f"failure/{attempt}/{rank}") for rank in range(world_size)}
        return {rank: Failure(**failure) for rank, failure in found.items() if failure is not None}
