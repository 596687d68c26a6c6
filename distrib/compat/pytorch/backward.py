"""The end of a backward pass, seen from Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


def call_after_gradients(function: Callable[[], object]) -> None:
    """In a hook of a backward pass, has `function` called once the gradients are computed, before DDP waits for others.

    Functions are called in the order in which they were queued, and DDP queues its own with the last gradient.
    """
    engine: Any = getattr(torch.autograd.Variable, "_execution_engine", None)
    if hasattr(engine, "queue_callback"):
        engine.queue_callback(function)
