"""What is counted: plain numbers, which `lstm_serve.telemetry.prometheus` says in Prometheus' words at /metrics.

prometheus_client's own counters take locks: 3 us an observation where these take 0.4.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from lstm_serve.model.model import Model

LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = tuple(1 << power for power in range(15))  # to the largest that max_batch_rows may be


class Buckets:
    """The counts of one histogram, for one set of its labels' values."""

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


class Histogram:
    """A histogram with labels."""

    def __init__(self, name: str, text: str, bounds: Sequence[float], labels: Sequence[str] = ()) -> None:
        """The one without labels is there, at zero, from the start."""
        self.name, self.text, self.labels, self._bounds = name, text, labels, bounds
        self.by_labels: dict[tuple[str | int, ...], Buckets] = {} if labels else {(): Buckets(bounds)}

    def buckets(self, *labels: str | int) -> Buckets:
        """The buckets of these label values, made where it is new."""
        found = self.by_labels.get(labels)
        if found is None:
            found = self.by_labels[labels] = Buckets(self._bounds)
        return found

    def total(self, counts: Callable[..., bool]) -> tuple[int, float]:
        """How many values there were, and their sum, in the buckets whose labels count."""
        chosen = [buckets for labels, buckets in self.by_labels.items() if counts(*labels)]
        return sum(buckets.count for buckets in chosen), sum(buckets.total for buckets in chosen)


class Tally:
    """A counter with at most one label."""

    def __init__(self, name: str, text: str, label: str | None = None) -> None:
        """A count without a label is there, at zero, from the start."""
        self.name, self.text, self.labels = name, text, [] if label is None else [label]
        self.counts: dict[str | int | None, int] = {} if self.labels else {None: 0}

    def add(self, label: str | int | None = None, more: int = 1) -> None:
        """Count `more`, of this value of the label. To be called in the event loop's thread alone."""
        self.counts[label] = self.counts.get(label, 0) + more


class Gauge:
    """A number, or what a function gives when it is asked for; its labels say whose it is."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        """0 until it is set, or with labels not there."""
        self.name, self.text, self.labels = name, text, labels
        self.label_values: Sequence[str] | None = None if labels else ()
        self.value: Callable[[], float] = lambda: 0.0

    def set(self, value: float, *labels: str) -> None:
        """Set it, and whose it is."""
        self.value, self.label_values = lambda: value, labels


class Metrics:
    """The metrics of one service."""

    def __init__(self) -> None:
        """Each is there before the first request."""
        self.requests = Histogram(
            "lstmserve_request_duration_seconds",
            "Time from a request's headers to the end of its answer",
            LATENCY,
            ["route", "status"],
        )
        batch_rows = Histogram("lstmserve_batch_rows", "Sequences in one forward pass", ROWS)
        queue = Histogram("lstmserve_queue_duration_seconds", "Time a request waited for its batch", LATENCY)
        compute = Histogram("lstmserve_compute_duration_seconds", "Time of one forward pass", LATENCY)
        self.batch_rows, self.queue, self.compute = batch_rows.buckets(), queue.buckets(), compute.buckets()
        self.rows = Tally("lstmserve_rows", "Sequences answered")
        self.queued_rows = Gauge("lstmserve_queue_rows", "Sequences waiting now")
        self.rejected = Tally("lstmserve_rejected", "Requests that were refused, by reason", "reason")
        self.ended = Tally(
            "lstmserve_connections_ended",
            "Connections that were ended, to make room or since it took too long, by what they waited for",
            "state",
        )
        self.predicted = Tally(
            "lstmserve_predictions", "Answers by predicted class: drift at a glance", "predicted_class"
        )
        self.model = Gauge(
            "lstmserve_model_info",
            "The model being served",
            ["name", "version", "sha256", "digest", "keras", "verified"],
        )
        self.load = Gauge("lstmserve_model_load_seconds", "Time to load, check and warm up the model")
        self.reloads = Tally("lstmserve_model_reloads", "Times that the model's files were read, by outcome", "outcome")
        self.reload_good = Gauge(
            "lstmserve_model_reload_successful", "1, or 0 while the model's files are not what is served"
        )
        self.dropped_lines = Tally("lstmserve_log_lines_dropped", "Lines of the log that nobody took in time")
        self.series = Gauge("lstmserve_series", "Series of rows that are kept now")
        self.series_rows = Tally("lstmserve_series_rows", "Rows appended to series")
        self.series_duplicates = Tally("lstmserve_series_duplicates", "Rows that came again and were there already")
        self.series_refused = Tally(
            "lstmserve_series_refused", "Requests to a series that were refused, by reason", "reason"
        )
        self.series_expired = Tally("lstmserve_series_expired", "Series that were idle for too long")
        self.histograms = (self.requests, batch_rows, queue, compute)
        of_series = (self.series_rows, self.series_duplicates, self.series_refused, self.series_expired)
        self.tallies = (
            self.rows,
            self.rejected,
            self.ended,
            self.predicted,
            self.reloads,
            self.dropped_lines,
            *of_series,
        )

        self.gauges = (self.queued_rows, self.model, self.load, self.reload_good, self.series)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count one request; `route` is a path template, so that there are few of them."""
        self.requests.buckets(route, status).observe(seconds)

    def answered(self, classes: Iterable[Iterable[int]], queue_seconds: float, rows: int) -> None:
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
        self.model.set(
            1,
            model.about.name,
            model.about.version,
            model.origin.sha256,
            model.origin.digest,
            model.origin.keras or "",
            str(model.origin.verified).lower(),
        )
        self.load.set(seconds)
        self.reloads.add("served")
        self.reload_good.set(1)

    def refused(self) -> None:
        """Say that the model's files, as they are now, are not served."""
        self.reloads.add("refused")
        self.reload_good.set(0)
