"""Metrics for Prometheus, served by the launcher's own process."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from distrib.errors import JobError
from distrib.observe.metrics.definitions import METRICS, RUN_LABELS, Sample
from distrib.observe.metrics.observer import MetricsObserver

if TYPE_CHECKING:
    from prometheus_client import Metric as PrometheusMetric

HOST_VARIABLE = "DISTRIB_METRICS_HOST"
_LOOPBACK = "127.0.0.1"
_FIELD = "--metrics-port"


class PrometheusSink:
    """The newest values, which a scrape reads all at once: those of one event are never mixed with another's."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry

        self._values: dict[str, dict[tuple[str, ...], float]] = {}
        self._lock = threading.Lock()
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def set(self, samples: Iterable[Sample], run: Mapping[str, str]) -> None:
        """Sets gauges."""
        with self._lock:
            for sample in samples:
                labels = tuple(run.values()) + ((sample.label,) if sample.metric.label else ())
                self._values.setdefault(sample.metric.name, {})[labels] = sample.value

    def collect(self) -> Iterator[PrometheusMetric]:
        """What a scrape reads: metrics that have values."""
        from prometheus_client.core import GaugeMetricFamily

        with self._lock:
            values = {name: dict(rows) for name, rows in self._values.items()}
        for metric in METRICS:
            names = (*RUN_LABELS, metric.label) if metric.label else RUN_LABELS
            family = GaugeMetricFamily(metric.name, metric.help, labels=names)
            for labels, value in values.get(metric.name, {}).items():
                family.add_metric(labels, value)
            if family.samples:
                yield family


class PrometheusServer(MetricsObserver):
    """Serves a run's metrics at `http://127.0.0.1:PORT/metrics` while the launcher lives.

    The address to listen at can be set by DISTRIB_METRICS_HOST; the metrics are not protected.

    Args:
        port: The port; 0 chooses a free one.

    Raises:
        JobError: The port cannot be used, or prometheus-client is not installed.
    """

    def __init__(self, port: int) -> None:
        host = os.environ.get(HOST_VARIABLE) or _LOOPBACK
        try:
            from prometheus_client import start_http_server

            sink = PrometheusSink()
        except ImportError:
            raise JobError("needs prometheus-client: pip install 'distrib[metrics]'", field=_FIELD) from None
        super().__init__(sink)
        try:
            self._server, self._thread = start_http_server(port, addr=host, registry=sink.registry)
        except (OSError, OverflowError) as error:
            is_taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            reason = "is in use; choose another, or 0 for any that is free" if is_taken else f"cannot be used: {error}"
            raise JobError(f"port {port} of {host} {reason}", field=_FIELD) from None
        self.port = int(self._server.server_port)
        self.url = f"http://{host}:{self.port}/metrics"

    def close(self) -> None:
        """Stops serving."""
        with suppress(OSError):
            self._server.shutdown()
            self._server.server_close()
        self._thread.join()
