"""What Prometheus is told, at /metrics."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from service.engine.model import Model

LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The metrics of one service, in a registry of their own so that two services in a process do not mix."""

    def __init__(self) -> None:
        """Register everything, so that each metric is there, at zero, before the first request."""
        self.registry = CollectorRegistry()
        own = self.registry
        self.requests = Histogram(
            "lstmserve_request_duration_seconds",
            "Time from a request's headers to the end of its answer",
            ["route", "status"],
            buckets=LATENCY,
            registry=own,
        )
        self._series: dict[tuple[str, int], Histogram] = {}  # `labels` costs as much as `observe`
        self.rows = Counter("lstmserve_rows_total", "Sequences answered", registry=own)
        self.batch_rows = Histogram("lstmserve_batch_rows", "Sequences in one forward pass", buckets=ROWS, registry=own)
        self.queue = Histogram(
            "lstmserve_queue_duration_seconds", "Time a request waited for its batch", buckets=LATENCY, registry=own
        )
        self.compute = Histogram(
            "lstmserve_compute_duration_seconds", "Time of one forward pass", buckets=LATENCY, registry=own
        )
        self.queued_rows = Gauge("lstmserve_queue_rows", "Sequences waiting now", registry=own)
        self.rejected = Counter(
            "lstmserve_rejected_total", "Requests that got no answer, by reason", ["reason"], registry=own
        )
        self.predicted = Counter(
            "lstmserve_predictions_total",
            "Answers by predicted class: drift at a glance",
            ["predicted_class"],
            registry=own,
        )
        self.model = Gauge(
            "lstmserve_model_info",
            "The model being served",
            ["name", "version", "sha256", "keras", "verified"],
            registry=own,
        )
        self.load = Gauge("lstmserve_model_load_seconds", "Time to load, check and warm up the model", registry=own)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count one request; `route` is a path template, so that there are few of them."""
        series = self._series.get((route, status))
        if series is None:
            series = self._series[route, status] = self.requests.labels(route, status)
        series.observe(seconds)

    def answered(self, classes: Sequence[int], queue_seconds: float, rows: int) -> None:
        """Count the answers of one request; `classes` are the predicted ones, none for plain values."""
        self.rows.inc(rows)
        self.queue.observe(queue_seconds)
        for predicted in classes:
            self.predicted.labels(predicted).inc()

    def batch(self, rows: int, seconds: float) -> None:
        """Count one forward pass."""
        self.batch_rows.observe(rows)
        self.compute.observe(seconds)

    def loaded(self, model: Model, seconds: float) -> None:
        """Say which model is served."""
        self.model.clear()
        self.model.labels(
            model.about.name,
            model.about.version,
            model.origin.sha256,
            model.origin.keras or "",
            str(model.origin.verified).lower(),
        ).set(1)
        self.load.set(seconds)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)
