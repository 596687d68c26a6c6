"""MLflow: a run in an experiment named after the job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distrib.observe.trackers.tracker import TrackedRun, metrics_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

_KEY = "distrib.key"
_STATUSES = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_MAX_PARAMETERS = 100  # as many as MLflow takes at a time
_MAX_VALUE = 500


class MlflowTracker:
    """Logs metrics with their steps and times, and the job's fields as parameters.

    Args:
        uri: The tracking server or store; by default MLflow's own setting, `MLFLOW_TRACKING_URI`.
        experiment: The experiment; by default the job's name.
        weights: Whether to keep the best weights, or else the final ones, as an artifact.
    """

    def __init__(self, uri: str | None = None, experiment: str | None = None, weights: bool = False) -> None:
        self._uri = uri
        self._experiment = experiment
        self._keeps_weights = weights
        self._run: TrackedRun | None = None
        self._client: MlflowClient | None = None
        self._id = ""

    def start(self, run: TrackedRun) -> None:
        """Creates the run, or finds the one with this run's key."""
        from mlflow import MlflowClient

        self._run = run
        self._client = client = MlflowClient(self._uri)
        name = self._experiment or run.job
        experiment = client.get_experiment_by_name(name)
        identifier = client.create_experiment(name) if experiment is None else experiment.experiment_id
        found = client.search_runs([identifier], f"tags.`{_KEY}` = '{run.key}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            client.update_run(self._id, status="RUNNING")
            return
        tags = {_KEY: run.key, "distrib.run": run.id, "distrib.location": run.location}
        self._id = client.create_run(identifier, run_name=run.id, tags=tags).info.run_id
        self._log_parameters(run.parameters)

    def log(self, event: Mapping[str, Any]) -> None:
        """Logs the values of an event in one request."""
        from mlflow.entities import Metric

        milliseconds = round(event["time"] * 1000)
        metrics = [Metric(name, value, milliseconds, event["step"]) for name, value in metrics_of(event).items()]
        if metrics and self._client is not None:
            self._client.log_batch(self._id, metrics=metrics)

    def finish(self, status: str) -> None:
        """Keeps the weights if asked to, and ends the run."""
        if self._client is None or self._run is None:
            return
        weights = self._run.weights() if self._keeps_weights else None
        if weights is not None:
            self._client.log_artifact(self._id, str(weights), "weights")
        self._client.set_terminated(self._id, _STATUSES.get(status, "FAILED"))

    def _log_parameters(self, parameters: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        assert self._client is not None
        values = [Param(name, str(value)[:_MAX_VALUE]) for name, value in parameters.items()]
        for start in range(0, len(values), _MAX_PARAMETERS):
            self._client.log_batch(self._id, params=values[start : start + _MAX_PARAMETERS])
