"""A request in Ray Train's terms."""

from __future__ import annotations

from typing import Any

from distrib.job.plan import Request

NODE_LABEL = "ray.io/node-id"


def scaling_settings(request: Request, node_ids: tuple[str, ...] | None = None) -> dict[str, Any]:
    """The arguments of Ray Train's `ScalingConfig`, apart from the number of workers.

    Args:
        request: What the job asks for.
        node_ids: The only hosts that may be used; None leaves the choice to Ray.
    """
    labels: dict[str, Any] = dict(request.labels)
    if node_ids is not None:
        labels[NODE_LABEL] = f"in({','.join(node_ids)})"
    return {
        "use_gpu": request.device == "cuda",
        "resources_per_worker": request.resources_per_worker,
        "placement_strategy": request.placement.upper(),
        "label_selector": labels or None,
    }
