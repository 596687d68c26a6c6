"""Asks a cluster's autoscaler for hosts with room for workers."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from distrib.job.plan import Request

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup

_QUIET_SECONDS = 10.0
"""How long the room that was found is left to the workers."""


class HostDemand:
    """Placement groups that wait for room, which an autoscaler then brings.

    They reserve the room once it exists, so each is removed as soon as it could be placed: the workers need it. Ray
    removes them together with this process, however that ends, so no host is kept for a run that is gone.

    Args:
        request: What each worker asks for.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._groups: list[PlacementGroup] = []
        self._quiet_until = 0.0

    def ask(self, num_workers: int) -> None:
        """Asks for room for so many workers; to be called again and again while it is needed."""
        if any(group.wait(0) for group in self._groups):
            self.clear()
            self._quiet_until = time.monotonic() + _QUIET_SECONDS
        if self._groups or num_workers <= 0 or time.monotonic() < self._quiet_until:
            return
        from ray.util.placement_group import placement_group

        bundle = {name: amount for name, amount in self._request.resources_per_worker.items() if amount > 0}
        strategy = self._request.placement.upper()
        # Workers that must share a host, or must not, are one group; of others each may come on its own.
        sizes = [num_workers] if strategy.startswith("STRICT") else [1] * num_workers
        labels = dict(self._request.labels)
        for size in sizes:
            self._groups.append(
                placement_group(
                    [bundle] * size, strategy=strategy, bundle_label_selector=[labels] * size if labels else None
                )
            )

    def clear(self) -> None:
        """Asks for nothing more."""
        from ray.util.placement_group import remove_placement_group

        for group in self._groups:
            with suppress(Exception):
                remove_placement_group(group)
        self._groups = []
