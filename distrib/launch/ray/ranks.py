"""The ranks of one attempt on Ray, as their launcher reaches them: which have begun or failed, and how they end."""

from __future__ import annotations

import time
from collections.abc import Callable

from distrib.launch.ray.control_store import RayControlStore
from distrib.launch.ray.rank_process import RankProcess, kill_everywhere
from distrib.train.failure import Failure

_POLL_SECONDS = 0.1


class RayRanks:
    """Reads what the ranks of an attempt report, and ends them.

    Args:
        control: Where they report.
        attempt: The attempt.
        world_size: The number of ranks.
    """

    def __init__(self, control: RayControlStore, attempt: int, world_size: int) -> None:
        self._control = control
        self._attempt = attempt
        self._world_size = world_size

    def hosts(self) -> dict[int, str]:
        """The names of the hosts of those ranks that have begun."""
        names = {rank: self.host(rank) for rank in range(self._world_size)}
        return {rank: name for rank, name in names.items() if name is not None}

    def host(self, rank: int) -> str | None:
        """The name of a rank's host; None if it has not begun."""
        entry = self._control.read(f"rank/{self._attempt}/{rank}")
        return None if entry is None else str(entry["name"])

    @property
    def result(self) -> str | None:
        """How they have come to their end, `finished` or `stopped`; None before."""
        result: str | None = self._control.read(f"result/{self._attempt}")
        return result

    def request_stop(self) -> None:
        """Requests them to stop at the next step that they agree on."""
        self._control.send_command(self._attempt, "stop")

    def request_end(self) -> None:
        """Has them end now; a rank in native code that holds Python's lock cannot, see `end`."""
        self._control.send_command(self._attempt, "end")

    def end(self, have_ended: Callable[[], bool], timeout_seconds: float) -> None:
        """Ends them, and kills the processes of all if that takes too long.

        Args:
            have_ended: Whether Ray has noticed that they have ended.
            timeout_seconds: How long that may take, once before they are killed and once afterwards.
        """
        self.request_end()
        if not wait_for(have_ended, timeout_seconds):
            entries = [self._control.read(f"rank/{self._attempt}/{rank}") for rank in range(self._world_size)]
            kill_everywhere([RankProcess.of_entry(entry) for entry in entries if entry is not None])
            wait_for(have_ended, timeout_seconds)

    def failures(self, timeout_seconds: float) -> dict[int, Failure]:
        """The failures that ranks have reported; waits a moment for all of them, if none is the user's own.

        Args:
            timeout_seconds: How long to wait.
        """
        found: dict[int, Failure] = {}

        def are_known() -> bool:
            found.update(self._control.failures(self._attempt, self._world_size))
            return len(found) == self._world_size or any(failure.kind == "user" for failure in found.values())

        wait_for(are_known, timeout_seconds)
        return found


def wait_for(condition: Callable[[], bool], timeout_seconds: float) -> bool:
    """Waits until the condition is true, at most this long; returns whether it is."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
