"""The metrics of a run as Ray's own, which Prometheus reads from every host of a cluster."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from distrib.observe.metrics.definitions import RUN_LABELS, Metric, Sample
from distrib.observe.metrics.observer import MetricsObserver

if TYPE_CHECKING:
    from ray.util.metrics import Gauge

_REFRESH_SECONDS = 5.0
"""Ray exports a gauge only if it was set since the last export, 10 seconds ago by default."""


class RayMetricSink:
    """Gauges of this process, which must be connected to a cluster; Ray adds `ray_` to their names."""

    def __init__(self) -> None:
        self._gauges: dict[str, Gauge] = {}
        self._values: dict[tuple[Metric, tuple[str, ...]], float] = {}

    def set(self, samples: Iterable[Sample], run: Mapping[str, str]) -> None:
        """Sets gauges."""
        for sample in samples:
            labels = (*run.values(), sample.label) if sample.metric.label else tuple(run.values())
            self._values[sample.metric, labels] = sample.value
            self._export(sample.metric, labels, sample.value)

    def refresh(self) -> None:
        """Sets all gauges to the values that they have."""
        for (metric, labels), value in self._values.items():
            self._export(metric, labels, value)

    def _export(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        from ray.util.metrics import Gauge

        keys = (*RUN_LABELS, metric.label) if metric.label else RUN_LABELS
        if metric.name not in self._gauges:
            self._gauges[metric.name] = Gauge(metric.name, metric.help, tag_keys=keys)
        self._gauges[metric.name].set(value, tags=dict(zip(keys, labels, strict=True)))


class RayMetrics(MetricsObserver):
    """Keeps a run's metrics among those of its cluster."""

    def __init__(self) -> None:
        self._gauges = RayMetricSink()
        self._refreshed = 0.0
        super().__init__(self._gauges)

    def idle(self) -> None:
        """Keeps gauges that do not change from being dropped."""
        if time.monotonic() - self._refreshed > _REFRESH_SECONDS:
            self._refreshed = time.monotonic()
            self._gauges.refresh()
