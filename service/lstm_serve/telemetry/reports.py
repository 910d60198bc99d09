"""What several processes have counted: each tells it in a report, plain enough for JSON, and reports are added up."""

from functools import partial
from typing import Any

from lstm_serve.telemetry.metrics import Metrics

# By the name of each metric, the values of its labels and what was counted for them.
Report = dict[str, list[list[Any]]]


def report(metrics: Metrics) -> Report:
    """Return what was counted by now."""
    told: Report = {}
    for histogram in metrics.histograms:
        told[histogram.name] = [[key, [*some.counts], some.total] for key, some in [*histogram.by_labels.items()]]
    for tally in metrics.tallies:
        told[tally.name] = [[key, count] for key, count in [*tally.counts.items()]]
    for gauge in metrics.gauges:
        of_models = [*gauge.values.values()]
        told[gauge.name] = [[labels, number()] for of_model in of_models for labels, number in of_model.items()]
    return told


def add_counted(to: Metrics, told: Report) -> None:
    """Add what a report says was counted: it stays, whatever becomes of the process."""
    for histogram in to.histograms:
        for labels, counts, total in told[histogram.name]:
            buckets = histogram.buckets(*labels)
            buckets.counts = [a + b for a, b in zip(buckets.counts, counts, strict=True)]
            buckets.total += total
    for tally in to.tallies:
        for labels, count in told[tally.name]:
            tally.add(*labels, more=count)


def add_present(to: Metrics, told: Report) -> None:
    """Add what a report says is so now."""
    for gauge in to.gauges:
        for (model, *more), number in told[gauge.name]:
            values = gauge.values.setdefault(model, {})
            before = values.get((model, *more))
            one = number if before is None else gauge.together((before(), number))
            values[model, *more] = partial(float, one)
