"""The metrics of a run as Ray's own, which Prometheus reads from every host of a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from distrib.observe.metrics.definitions import RUN_LABELS, Metric, Sample

if TYPE_CHECKING:
    from ray.util.metrics import Gauge


class RayMetricSink:
    """Gauges of this process, which must be connected to a cluster; Ray adds `ray_` to their names."""

    def __init__(self) -> None:
        self._gauges: dict[str, Gauge] = {}

    def set(self, samples: Iterable[Sample], run: Mapping[str, str]) -> None:
        """Sets gauges."""
        for sample in samples:
            metric = sample.metric
            labels = {**run, metric.label: sample.label} if metric.label else dict(run)
            self._gauge(metric).set(sample.value, tags=labels)

    def _gauge(self, metric: Metric) -> Gauge:
        from ray.util.metrics import Gauge

        if metric.name not in self._gauges:
            keys = (*RUN_LABELS, metric.label) if metric.label else RUN_LABELS
            self._gauges[metric.name] = Gauge(metric.name, metric.help, tag_keys=keys)
        return self._gauges[metric.name]
