"""What is counted: plain numbers, which `lstm_serve.telemetry.prometheus` says in Prometheus' words at /metrics.

prometheus_client's own counters take locks: 3 us an observation where these take 0.4.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lstm_serve.model.model import Model

LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = tuple(1 << power for power in range(15))  # to the largest that max_batch_rows may be


Together = Callable[[tuple[float, float]], float]


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
    """A counter with labels."""

    def __init__(self, name: str, text: str, *labels: str) -> None:
        """The one without labels is there, at zero, from the start."""
        self.name, self.text, self.labels = name, text, labels
        self.counts: dict[tuple[str | int, ...], int] = {} if labels else {(): 0}

    def add(self, *labels: str | int, more: int = 1) -> None:
        """Count `more`, of these label values. To be called in the event loop's thread alone."""
        self.counts[labels] = self.counts.get(labels, 0) + more


class Gauge:
    """A number for each model, or what a function gives when it is asked for; more labels say more of the model."""

    def __init__(self, name: str, text: str, *labels: str, together: Together) -> None:
        """Nothing is there until it is set. `together` makes one number of those of two processes."""
        self.name, self.text, self.labels, self.together = name, text, ("model", *labels), together
        self.values: dict[str, dict[tuple[str, ...], Callable[[], float]]] = {}

    def set(self, value: float | Callable[[], float], model: str, *labels: str) -> None:
        """Set it for a model, in place of what it was for that."""
        self.values[model] = {(model, *labels): value if callable(value) else lambda: value}

    def set_each(self, model: str, values: Mapping[tuple[str, ...], float]) -> None:
        """Set all numbers of a model, by their labels, that of the model first."""
        self.values[model] = {labels: partial(float, value) for labels, value in values.items()}


class Metrics:
    """The metrics of one service; those of a model have it as their first label, but for the requests."""

    def __init__(self) -> None:
        """What is no model's is there before the first request."""
        self.requests = Histogram(
            "lstmserve_request_duration_seconds",
            "Time from a request's headers to the end of its answer",
            LATENCY,
            ["route", "status", "model"],
        )
        self.batch_rows = Histogram("lstmserve_batch_rows", "Sequences in one forward pass", ROWS, ["model"])
        self.queue = Histogram(
            "lstmserve_queue_duration_seconds", "Time a request waited for its batch", LATENCY, ["model"]
        )
        self.compute = Histogram("lstmserve_compute_duration_seconds", "Time of one forward pass", LATENCY, ["model"])
        self.rows = Tally("lstmserve_rows", "Sequences answered", "model")
        self.series_rows = Tally("lstmserve_series_rows", "Rows appended to series", "model")
        self.series_duplicates = Tally(
            "lstmserve_series_duplicates", "Rows that came again and were there already", "model"
        )
        self.series_expired = Tally("lstmserve_series_expired", "Series that were idle for too long", "model")
        self.queued_rows = Gauge("lstmserve_queue_rows", "Sequences waiting now", together=sum)
        self.rejected = Tally("lstmserve_rejected", "Requests that were refused, by reason", "reason")
        self.ended = Tally(
            "lstmserve_connections_ended",
            "Connections that were ended, to make room or since it took too long, by what they waited for",
            "state",
        )
        self.predicted = Tally(
            "lstmserve_predictions", "Answers by predicted class: drift at a glance", "model", "predicted_class"
        )
        self.model = Gauge(
            "lstmserve_model_info",
            "The model being served",
            "version",
            "sha256",
            "digest",
            "keras",
            "verified",
            together=max,
        )
        self.load = Gauge("lstmserve_model_load_seconds", "Time to load, check and warm up the model", together=max)
        self.reloads = Tally(
            "lstmserve_model_reloads", "Times that the model's files were read, by outcome", "model", "outcome"
        )
        self.reload_good = Gauge(
            "lstmserve_model_reload_successful",
            "1, or 0 while the model's files are not what is served",
            together=min,
        )
        self.dropped_lines = Tally("lstmserve_log_lines_dropped", "Lines of the log that nobody took in time")
        self.worker_restarts = Tally("lstmserve_worker_restarts", "Workers that have ended and were replaced")
        self.series = Gauge("lstmserve_series", "Series of rows that are kept now", together=sum)
        self.series_listeners = Gauge("lstmserve_series_listeners", "Clients that listen to series now", together=sum)
        self.series_refused = Tally(
            "lstmserve_series_refused", "Requests to a series that were refused, by reason", "model", "reason"
        )
        self.series_steps = Tally(
            "lstmserve_series_steps",
            "Answers to rows of series, by the way: of the row alone, or of its window",
            "model",
            "way",
        )
        self.bins = Tally(
            "lstmserve_input_bin", "Rows counted, by feature and bin of its training data", "model", "feature", "bin"
        )
        self.bin_expected = Gauge(
            "lstmserve_input_bin_expected", "The bin's share of the training", "feature", "bin", together=max
        )
        self.drift_psi = Gauge(
            "lstmserve_drift_psi", "How far the last full window is from the training", "feature", together=max
        )
        self.drift_state = Gauge("lstmserve_drift_state", "0 is ok, 1 watch, 2 drifted", "feature", together=max)
        self.out_of_range = Gauge(
            "lstmserve_input_out_of_range_ratio",
            "Of the last full window, what the training never reached",
            "feature",
            together=max,
        )
        made = [*vars(self).values()]
        self.histograms = tuple(one for one in made if isinstance(one, Histogram))
        self.tallies = tuple(one for one in made if isinstance(one, Tally))
        self.gauges = tuple(one for one in made if isinstance(one, Gauge))

    def request(self, route: str, status: int, model: str, seconds: float) -> None:
        """Count one request; `route` is a path template, and `model` one that is served, so that there are few."""
        self.requests.buckets(route, status, model).observe(seconds)

    def refused(self, model: str) -> None:
        """Say that a model's files, as they are now, are not served."""
        self.reloads.add(model, "refused")
        self.reload_good.set(0, model)

    @property
    def watched(self) -> int:
        """Of how many models the input is watched."""
        return len(self.bin_expected.values)

    def forget_features(self, model: str) -> None:
        """Say nothing more of how a model's features are."""
        for gauge in self.gauges:
            if "feature" in gauge.labels:
                gauge.values.pop(model, None)

    def keep_bins(self, model: str, bins: Sequence[tuple[str, str, str]]) -> None:
        """Go on counting in these bins of a model's features, and in no others of it."""
        kept: dict[tuple[str | int, ...], int] = {one: self.bins.counts[one] for one in bins if one in self.bins.counts}
        _forget(self.bins.counts, self.bins.labels, model)
        self.bins.counts.update(kept)

    def forget(self, model: str) -> None:
        """Say nothing more of a model that is gone."""
        for gauge in self.gauges:
            gauge.values.pop(model, None)
        for histogram in self.histograms:
            _forget(histogram.by_labels, histogram.labels, model)
        for tally in self.tallies:
            _forget(tally.counts, tally.labels, model)


def _forget(counted: dict[tuple[str | int, ...], Any], names: Sequence[str], model: str) -> None:
    if "model" in names:
        at = names.index("model")
        for labels in [labels for labels in counted if labels[at] == model]:
            del counted[labels]


class ModelMetrics:
    """What is counted of one model."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        """Each is there, at zero, from now on."""
        self._metrics, self._model = metrics, model
        self.batch_rows, self.queue, self.compute = (
            histogram.buckets(model) for histogram in (metrics.batch_rows, metrics.queue, metrics.compute)
        )
        for tally in metrics.tallies:
            if tally.labels == ("model",):
                tally.add(model, more=0)

    def answered(self, classes: Iterable[Iterable[int]], queue_seconds: float, rows: int) -> None:
        """Count the answers of one request; `classes` are the predicted ones, none for plain values."""
        self._metrics.rows.add(self._model, more=rows)
        self.queue.observe(queue_seconds)
        for predicted in chain.from_iterable(classes):
            self._metrics.predicted.add(self._model, predicted)

    def batch(self, rows: int, seconds: float) -> None:
        """Count one forward pass."""
        self.batch_rows.observe(rows)
        self.compute.observe(seconds)

    def appended(self, rows: int, repeats: int) -> None:
        """Count rows of a series: those that were not there yet, and those that were."""
        self._metrics.series_rows.add(self._model, more=rows)
        self._metrics.series_duplicates.add(self._model, more=repeats)

    def series_answered(self, rows: int, way: str) -> None:
        """Count answers to rows of series."""
        self._metrics.series_steps.add(self._model, way, more=rows)

    def series_refused(self, reason: str) -> None:
        """Count what a series did not take."""
        self._metrics.series_refused.add(self._model, reason)

    def expired(self) -> None:
        """Count a series that was idle for too long."""
        self._metrics.series_expired.add(self._model)

    def loaded(self, model: "Model", seconds: float) -> None:
        """Say which model is served."""
        origin, verified = model.origin, str(model.origin.verified).lower()
        self._metrics.model.set(
            1, self._model, model.about.version, origin.sha256, origin.digest, origin.keras or "", verified
        )
        self._metrics.load.set(seconds, self._model)
        self._metrics.reloads.add(self._model, "served")
        self._metrics.reload_good.set(1, self._model)
