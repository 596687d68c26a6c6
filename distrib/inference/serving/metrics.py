"""The Prometheus metrics of the service."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from distrib.inference.serving.batcher import Batcher

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class ServiceMetrics:
    """The counters and histograms of one service, in a separate registry."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "distrib_requests", "Requests to /predict by status.", ["status"], registry=self._registry
        )
        self._seconds = Histogram(
            "distrib_request_seconds", "Time of a successful request, including the queue.", buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._rows = Counter("distrib_rows", "Rows predicted by the model.", registry=self._registry)
        self._batch_rows = Histogram(
            "distrib_batch_rows", "Rows of a forward pass.", buckets=_ROWS, registry=self._registry
        )
        self._model_seconds = Histogram(
            "distrib_model_seconds", "Time of a forward pass.", buckets=_SECONDS, registry=self._registry
        )
        self._queue = Gauge(
            "distrib_queue_requests", "Requests that are waiting or being processed.", registry=self._registry
        )

    def request(self, status: int, seconds: float) -> None:
        """Counts a request to /predict."""
        self._requests.labels(str(status)).inc()
        if status == 200:
            self._seconds.observe(seconds)

    def batch(self, num_rows: int, seconds: float) -> None:
        """Counts a forward pass."""
        self._rows.inc(num_rows)
        self._batch_rows.observe(num_rows)
        self._model_seconds.observe(seconds)

    def watch(self, batcher: Batcher) -> None:
        """Exports the length of its queue."""
        self._queue.set_function(lambda: batcher.num_waiting)

    def text(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self._registry)
