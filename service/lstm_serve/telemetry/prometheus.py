"""GET /metrics: what was counted, in Prometheus' text format.

Imported when it is first asked for: prometheus_client takes a fortieth of the start to come in.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from lstm_serve.telemetry.metrics import Metrics

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Ours(Collector):
    """The service's metrics, for a registry."""

    def __init__(self, metrics: Metrics) -> None:
        """Of these metrics."""
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Each metric, as it is now."""
        for histogram in self._metrics.histograms:
            family = HistogramMetricFamily(histogram.name, histogram.text, labels=histogram.labels)
            for labels, buckets in list(histogram.by_labels.items()):
                bounds = (*map(str, map(float, buckets.bounds)), "+Inf")
                cumulated = list(zip(bounds, accumulate(buckets.counts), strict=True))
                family.add_metric([str(label) for label in labels], cumulated, buckets.total)
            yield family
        for tally in self._metrics.tallies:
            counter = CounterMetricFamily(tally.name, tally.text, labels=tally.labels)
            for values, count in list(tally.counts.items()):
                counter.add_metric([str(value) for value in values], count)
            yield counter
        for gauge in self._metrics.gauges:
            value = GaugeMetricFamily(gauge.name, gauge.text, labels=gauge.labels)
            for of_model in list(gauge.values.values()):
                for of_labels, number in of_model.items():
                    value.add_metric(of_labels, number())
            yield value


def text(metrics: Metrics) -> bytes:
    """Everything that Prometheus scrapes: the service's metrics and the process'."""
    return generate_latest(_registry(metrics))


@lru_cache(maxsize=1)
def _registry(metrics: Metrics) -> CollectorRegistry:
    """Made once: it reads when the machine was started, and which Python this is."""
    registry = CollectorRegistry()
    registry.register(Ours(metrics))
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry
