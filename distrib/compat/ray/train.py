"""What Ray Train starts for a trainer besides its workers."""

from __future__ import annotations

from typing import Any

from distrib.compat.symbols import RAY_VERSIONS, PrivateSymbol

SYMBOLS = (
    PrivateSymbol(
        "ray.train.torch.TorchTrainer._create_default_callbacks",
        "one of them starts a detached actor to remove the workers' placement group, which Ray removes with the "
        "trainer's controller anyway; without a dashboard the actor outlives a killed launcher; it has no switch",
        RAY_VERSIONS,
        "the actor is started",
    ),
)
_CLEANER = "PlacementGroupCleanerCallback"


def leave_out_cleaner(trainer: Any) -> None:
    """Keeps a trainer from starting the actor that removes its placement group."""
    create = getattr(trainer, "_create_default_callbacks", None)
    if create is not None:
        trainer._create_default_callbacks = lambda: [each for each in create() if type(each).__name__ != _CLEANER]
