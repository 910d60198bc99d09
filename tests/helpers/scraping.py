"""The metrics, read as Prometheus reads them."""

from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from serving import call

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Samples:
    return {
        (sample.name.removeprefix("lstmserve_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scraped(app: FastAPI) -> Samples:
    answer = await call(app, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return parsed(answer.body.decode())


def one_of(samples: Samples, name: str, /, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)
