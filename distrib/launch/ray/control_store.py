"""Notes that the launcher, Ray Train's controller and the ranks of one run leave for each other."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Literal

from distrib.compat import ray_kv
from distrib.train.failure import Failure

Wish = Literal["go", "stop", "end"]
"""What the launcher wants of the ranks: to train, to end with a checkpoint, or to end at once."""

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class RayControlStore:
    """Small JSON values by name, kept by Ray's head: there for every process of the cluster, needing no shared disk.

    Attributes:
        key: Tells the notes of this launch of this run from all others.
    """

    key: str

    def write(self, name: str, value: Any) -> None:
        """Leaves a note, in place of an earlier one of that name."""
        ray_kv.put(f"{self.key}/{name}", json.dumps(value))

    def read(self, name: str) -> Any:
        """The note of that name, or None."""
        text = ray_kv.get(f"{self.key}/{name}")
        return None if text is None else json.loads(text)

    def await_(self, name: str) -> Any:
        """The note of that name, once there is one; whoever is to write it ends this process when it ends itself."""
        while (value := self.read(name)) is None:
            time.sleep(_POLL_SECONDS)
        return value

    def count(self, prefix: str) -> int:
        """How many notes there are whose names begin so."""
        return ray_kv.count(f"{self.key}/{prefix}")

    def clear(self) -> None:
        """Removes all notes."""
        ray_kv.remove_all(f"{self.key}/")

    def wish(self, attempt: int, wish: Wish) -> None:
        """Tells the ranks of an attempt what the launcher wants."""
        self.write(f"wish/{attempt}", wish)

    def wish_for(self, attempt: int) -> Wish:
        """What the launcher wants of the ranks of an attempt."""
        wish: Wish = self.read(f"wish/{attempt}") or "go"
        return wish

    def report(self, attempt: int, rank: int, failure: Failure) -> None:
        """Tells the launcher why a rank has failed."""
        self.write(f"failure/{attempt}/{rank}", failure.as_dict())

    def failures(self, attempt: int, world_size: int) -> dict[int, Failure]:
        """The failures of an attempt, by rank."""
        found = {rank: self.read(f"failure/{attempt}/{rank}") for rank in range(world_size)}
        return {rank: Failure(**failure) for rank, failure in found.items() if failure is not None}
