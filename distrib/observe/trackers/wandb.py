"""Weights & Biases, online or offline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distrib.observe.trackers.tracker import TrackedRun, metrics_of


class WandbTracker:
    """Logs metrics against the step, and the job's fields as the config.

    A step is an own axis, not W&B's counter: after a restart steps are trained again, and W&B drops values whose
    counter goes back.

    Args:
        project: The project; by default the job's name.
        entity: The user or team; by default that of the login.
        mode: `online`, `offline` or `disabled`; by default W&B's own setting, `WANDB_MODE`.
        folder: Where W&B keeps its files; by default the run's folder.
        weights: Whether to keep the best weights, or else the final ones, as an artifact.
    """

    def __init__(
        self,
        project: str | None = None,
        entity: str | None = None,
        mode: str | None = None,
        folder: str | None = None,
        weights: bool = False,
    ) -> None:
        self._options: dict[str, Any] = {"project": project, "entity": entity, "mode": mode, "dir": folder}
        self._keeps_weights = weights
        self._tracked: TrackedRun | None = None
        self._run: Any = None

    def start(self, run: TrackedRun) -> None:
        """Begins the run, or continues the one with this run's key."""
        import wandb

        self._tracked = run
        options: dict[str, Any] = {**self._options, "project": self._options["project"] or run.job}
        options["dir"] = options["dir"] or str(run.folder)
        self._run = wandb.init(
            **options,
            id=run.key,
            name=run.id,
            resume="allow",
            config=dict(run.parameters),
            settings=wandb.Settings(console="off", x_disable_stats=True),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, event: Mapping[str, Any]) -> None:
        """Logs the values of an event as one row."""
        metrics = metrics_of(event)
        if metrics:
            self._run.log({"step": event["step"], "time": event["time"], **metrics})

    def finish(self, status: str) -> None:
        """Keeps the weights if asked to, and ends the run."""
        import wandb

        assert self._tracked is not None
        weights = self._tracked.weights() if self._keeps_weights else None
        if weights is not None:
            artifact = wandb.Artifact(f"{self._tracked.key}-weights", "model")
            artifact.add_file(str(weights))
            self._run.log_artifact(artifact)
        self._run.finish(exit_code=0 if status == "finished" else 1)
