"""GET /metrics: what was counted, in Prometheus' text format.

Imported when it is first asked for: prometheus_client takes a fortieth of the start to come in.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import accumulate

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from lstm_serve.formats.system_limits import seconds_of_children
from lstm_serve.telemetry.metrics import Metrics

CONTENT_TYPE = CONTENT_TYPE_LATEST
# What no sum is made of: the first process' stand for all.
OF_ONE = {"process_start_time_seconds", "process_max_fds"}


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


class Processes(Collector):
    """What the system tells of this process and others together: processor time, memory, open files."""

    def __init__(self, pids: Sequence[int]) -> None:
        """Of the others by their numbers. Processor time of children that have ended stays."""
        self._pids = pids

    def collect(self) -> Iterator[Metric]:
        """Each metric, as it is now."""
        found: dict[str, Metric] = {}
        for pid in ("self", *map(str, self._pids)):
            for family in ProcessCollector(pid=partial(str, pid), registry=None).collect():
                first = found.setdefault(family.name, family)
                if first is not family and family.name not in OF_ONE:
                    first.samples[0] = _more(first.samples[0], family.samples[0].value)
        if (cpu := found.get("process_cpu_seconds")) is not None:
            cpu.samples[0] = _more(cpu.samples[0], seconds_of_children())
        yield from found.values()


def _more(sample: Sample, value: float) -> Sample:
    return sample._replace(value=sample.value + value)


def text(metrics: Metrics, workers: Sequence[int] | None = None) -> bytes:
    """Everything that Prometheus scrapes: the service's metrics and the process', or with workers those of all."""
    if workers is not None:
        registry = CollectorRegistry()
        registry.register(Ours(metrics))
        registry.register(Processes(workers))
        return generate_latest(registry)
    return generate_latest(_registry(metrics))


@lru_cache(maxsize=1)
def _registry(metrics: Metrics) -> CollectorRegistry:
    """Made once: it reads when the machine was started, and which Python this is."""
    registry = CollectorRegistry()
    registry.register(Ours(metrics))
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry
