"""The end of a backward pass, seen from Python."""

from __future__ import annotations

from collections.abc import Callable

import torch

from distrib.compat.symbols import TORCH_VERSIONS, PrivateSymbol

SYMBOLS = (
    PrivateSymbol(
        "torch.autograd.Variable._execution_engine.queue_callback",
        "runs a function once the gradients are computed and before DDP waits for the other ranks' gradients, which "
        "tells computing from waiting; torch's own FSDP relies on it, and no public hook runs at that time",
        TORCH_VERSIONS,
        "the wait for the other ranks counts as part of the backward pass",
    ),
)


def call_after_gradients(loss: torch.Tensor, function: Callable[[], None]) -> None:
    """Calls `function` once in the backward pass of `loss`: after its computation, before DDP waits for other ranks."""
    engine = getattr(torch.autograd.Variable, "_execution_engine", None)
    if engine is None or not hasattr(engine, "queue_callback") or not loss.requires_grad:
        return

    def queue(_: torch.Tensor) -> None:
        engine.queue_callback(
            function
        )  # callbacks run in the order in which they were queued; DDP queues its own later

    loss.register_hook(queue)  # type: ignore[no-untyped-call]
