"""The trackers by name, and how one is made from the job's `trackers`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from distrib.job.target import find_callable

if TYPE_CHECKING:
    from distrib.job.reader import Job


@dataclass(frozen=True)
class KnownTracker:
    """A tracker that distrib ships an adapter for.

    Attributes:
        adapter: The adapter's class, as `module:attribute`.
        package: The package that the adapter imports, from the extra of the tracker's name.
    """

    adapter: str
    package: str


KNOWN = {
    "tensorboard": KnownTracker("distrib.observe.trackers.tensorboard:TensorBoardTracker", "tensorboard"),
    "mlflow": KnownTracker("distrib.observe.trackers.mlflow:MlflowTracker", "mlflow"),
    "wandb": KnownTracker("distrib.observe.trackers.wandb:WandbTracker", "wandb"),
    "trackio": KnownTracker("distrib.observe.trackers.trackio:TrackioTracker", "trackio"),
}


def check_trackers(job: Job) -> None:
    """Checks that the job's trackers can be made: that packages are installed and args are accepted.

    Call it once the job's modules can be imported. None of the packages is imported here.

    Raises:
        JobError: One cannot.
    """
    for number, tracker in enumerate(job.spec.trackers):
        field = f"trackers.{number}"
        known = KNOWN.get(tracker.target)
        if known is not None and find_spec(known.package) is None:
            advice = f"pip install 'distrib[{tracker.target}]'"
            raise job.error(field, f"{tracker.target} is not installed: {advice}, or remove it from trackers")
        target = tracker if known is None else tracker.model_copy(update={"target": known.adapter})
        find_callable(job, field, target)


def make_tracker(target: str, args: Mapping[str, Any]) -> Any:
    """Makes a tracker by its name or its target, in the process that will feed it."""
    known = KNOWN.get(target)
    module, _, attribute = (target if known is None else known.adapter).partition(":")
    value: Any = importlib.import_module(module)
    for name in attribute.split("."):
        value = getattr(value, name)
    return value(**args)
