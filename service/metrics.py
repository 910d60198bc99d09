"""What Prometheus is told, at /metrics."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from service.engine.model import Model

LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = tuple(1 << power for power in range(15))  # to the largest that max_batch_rows may be


class Series:
    """The counts of one histogram: prometheus_client's own take locks, which costs 3 us an observation, this 0.4."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are the upper ones, ascending; what is beyond counts last."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def observe(self, value: float) -> None:
        """Count one value. To be called in the event loop's thread alone."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Histogram(Collector):
    """A histogram with labels, for a registry."""

    def __init__(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        """A series without labels is there, at zero, from the start."""
        self._name, self._text, self._labels, self._bounds = name, text, labels, bounds
        self._series: dict[tuple[str | int, ...], Series] = {} if labels else {(): Series(bounds)}

    def series(self, *labels: str | int) -> Series:
        """The series of these label values, made where it is new."""
        found = self._series.get(labels)
        if found is None:
            found = self._series[labels] = Series(self._bounds)
        return found

    def total(self, counts: Callable[..., bool]) -> tuple[int, float]:
        """How many values there were, and their sum, in the series whose labels count."""
        chosen = [series for labels, series in self._series.items() if counts(*labels)]
        return sum(series.count for series in chosen), sum(series.total for series in chosen)

    def collect(self) -> Iterator[Metric]:
        """For Prometheus: cumulative counts."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for labels, series in list(self._series.items()):
            sums, cumulated = 0, []
            for bound, count in zip((*map(str, map(float, series.bounds)), "+Inf"), series.counts, strict=True):
                sums += count
                cumulated.append((bound, sums))
            family.add_metric([str(label) for label in labels], cumulated, series.total)
        yield family


class Tally(Collector):
    """A counter with at most one label, for a registry; like `Series` without locks."""

    def __init__(self, name: str, text: str, label: str | None = None) -> None:
        """A count without a label is there, at zero, from the start."""
        self._name, self._text, self._labels = name, text, [] if label is None else [label]
        self._counts: dict[str | int | None, int] = {} if self._labels else {None: 0}

    def add(self, of: str | int | None = None, more: int = 1) -> None:
        """Count `more`, of this value of the label. To be called in the event loop's thread alone."""
        self._counts[of] = self._counts.get(of, 0) + more

    def collect(self) -> Iterator[Metric]:
        """For Prometheus."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for of, count in list(self._counts.items()):
            family.add_metric([str(of)] if self._labels else [], count)
        yield family


class Metrics:
    """The metrics of one service, in a registry of their own so that two services in a process do not mix."""

    def __init__(self) -> None:
        """Register everything, so that each metric is there before the first request."""
        self.registry = CollectorRegistry()
        own = self.registry
        self.requests = self._histogram(
            "lstmserve_request_duration_seconds",
            "Time from a request's headers to the end of its answer",
            LATENCY,
            ["route", "status"],
        )
        self.batch_rows = self._histogram("lstmserve_batch_rows", "Sequences in one forward pass", ROWS).series()
        self.queue = self._histogram(
            "lstmserve_queue_duration_seconds", "Time a request waited for its batch", LATENCY
        ).series()
        self.compute = self._histogram(
            "lstmserve_compute_duration_seconds", "Time of one forward pass", LATENCY
        ).series()
        self.rows = self._tally("lstmserve_rows", "Sequences answered")
        self.queued_rows = Gauge("lstmserve_queue_rows", "Sequences waiting now", registry=own)
        self.rejected = self._tally("lstmserve_rejected", "Requests that were refused, by reason", "reason")
        self.predicted = self._tally(
            "lstmserve_predictions", "Answers by predicted class: drift at a glance", "predicted_class"
        )
        self.model = Gauge(
            "lstmserve_model_info",
            "The model being served",
            ["name", "version", "sha256", "keras", "verified"],
            registry=own,
        )
        self.load = Gauge("lstmserve_model_load_seconds", "Time to load, check and warm up the model", registry=own)
        self.reloads = self._tally(
            "lstmserve_model_reloads", "Times that the model's files were read, by outcome", "outcome"
        )
        self.reload_good = Gauge(
            "lstmserve_model_reload_successful", "1, or 0 while the model's files are not what is served", registry=own
        )
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def _histogram(self, name: str, text: str, bounds: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
        histogram = Histogram(name, text, labels, bounds)
        self.registry.register(histogram)
        return histogram

    def _tally(self, name: str, text: str, label: str | None = None) -> Tally:
        tally = Tally(name, text, label)
        self.registry.register(tally)
        return tally

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count one request; `route` is a path template, so that there are few of them."""
        self.requests.series(route, status).observe(seconds)

    def answered(self, classes: Iterable[Sequence[int]], queue_seconds: float, rows: int) -> None:
        """Count the answers of one request; `classes` are the predicted ones, none for plain values."""
        self.rows.add(more=rows)
        self.queue.observe(queue_seconds)
        for predicted in chain.from_iterable(classes):
            self.predicted.add(predicted)

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
        self.reloads.add("served")
        self.reload_good.set(1)

    def refused(self) -> None:
        """Say that the model's files, as they are now, are not served."""
        self.reloads.add("refused")
        self.reload_good.set(0)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)
