"""What Prometheus reads is what happened."""

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from echo import Echo, model_of
from native_requests import GOOD, many, one
from pydantic import ValidationError
from scraping import one_of, parsed, scraped
from serving import ASKER, PATIENCE, Golden, call, in_loop, started

from lstm_serve.settings import Settings
from lstm_serve.telemetry import prometheus, reports
from lstm_serve.telemetry.metrics import ROWS, Gauge, Histogram, Metrics, ModelMetrics, Tally
from lstm_serve.web.app import create_app

MODEL = "k215_model"


@in_loop
async def test_counts_agree_with_what_was_sent(golden: Golden) -> None:
    app = create_app(Settings(model=ASKER / "k215_model.h5", max_batch_rows=4))
    x, y = golden
    begin = time.perf_counter()
    async with started(app):
        for row in x[:5]:
            assert (await call(app, "/predict", one(row.tolist()))).status == 200
        assert (await call(app, "/predict/batch", many(x[:11].tolist()))).status == 200
        bad = {b"": 400, b"[]": 422, b"{}": 422, b" " * (3 << 20): 413}
        for body, status in bad.items():
            assert (await call(app, "/predict", body)).status == status
        assert (await call(app, "/predict", GOOD, headers={"x-request-timeout-ms": "0"})).status == 504
        assert (await call(app, "/predict")).status == 405
        assert (await call(app, "/nowhere/1")).status == (await call(app, "/nowhere/2")).status == 404
        await asyncio.gather(*(call(app, "/livez") for _ in range(3)))
        assert (await call(app, "/openapi.json")).status == 200
        samples = await scraped(app)
        again = await scraped(app)
    elapsed = time.perf_counter() - begin

    def count(route: str, status: int) -> float:
        labels = {"route": route, "status": str(status), "model": MODEL if route.startswith("/predict") else ""}
        if status == 405:
            labels["model"] = ""
        return one_of(samples, "request_duration_seconds_count", **labels)

    sent = {
        ("/openapi.json", 200): 1,
        ("/predict", 200): 5,
        ("/predict/batch", 200): 1,
        ("/predict", 400): 1,
        ("/predict", 422): 2,
        ("/predict", 413): 1,
        ("/predict", 504): 1,
        ("/predict", 405): 1,
        ("unmatched", 404): 2,
        ("/livez", 200): 3,
    }
    assert {key: count(*key) for key in sent} == sent
    counted = {key for key in samples if key[0] == "request_duration_seconds_count"}
    assert len(counted) == len(sent)
    assert one_of(again, "request_duration_seconds_count", route="/metrics", status="200", model="") == 1
    assert 0 < one_of(samples, "request_duration_seconds_sum", route="/predict", status="200", model=MODEL) < elapsed

    assert one_of(samples, "rows_total", model=MODEL) == 5 + 11
    classes = [*y[:5].argmax(axis=1), *y[:11].argmax(axis=1)]
    for k in range(5):
        assert one_of(samples, "predictions_total", model=MODEL, predicted_class=str(k)) == classes.count(k)
    assert one_of(samples, "queue_duration_seconds_count", model=MODEL) == 6
    assert one_of(samples, "batch_rows_count", model=MODEL) == 5 + 3
    assert one_of(samples, "compute_duration_seconds_count", model=MODEL) == 5 + 3
    assert one_of(samples, "batch_rows_sum", model=MODEL) == 16
    assert one_of(samples, "batch_rows_bucket", model=MODEL, le="1.0") == 5
    assert one_of(samples, "queue_rows", model=MODEL) == 0
    reasons = {"malformed": 1, "invalid-input": 2, "too-large": 1, "deadline-passed": 1, "queue-full": 0}
    assert {reason: one_of(samples, "rejected_total", reason=reason) for reason in reasons} == reasons
    assert 0 < one_of(samples, "model_load_seconds", model=MODEL) < 60
    model = app.state.registry.get().current.model
    hashes = {"sha256": model.origin.sha256, "digest": model.origin.digest}
    info = {"model": MODEL, "version": "1", **hashes, "keras": "2.1.5", "verified": "false"}
    assert one_of(samples, "model_info", **info) == 1


@in_loop
async def test_the_queue_length_is_that_of_the_moment() -> None:
    app = create_app(Settings(model=ASKER / "k215_model.h5"))
    serving, deployment = app.state.serving, app.state.registry.get()
    async with started(app):
        model, until = deployment.current.model, time.monotonic() + PATIENCE
        job = deployment.queue.submit(model, np.zeros((7, 20, 15), np.float32), until)
        assert one_of(parsed(prometheus.text(serving.metrics).decode()), "queue_rows", model=MODEL) == 7
        await job.future
        assert one_of(parsed(prometheus.text(serving.metrics).decode()), "queue_rows", model=MODEL) == 0


def test_the_largest_batch_that_may_be_is_the_last_bound_of_its_histogram() -> None:
    assert Settings(model=ASKER, max_batch_rows=ROWS[-1]).max_batch_rows == ROWS[-1]
    with pytest.raises(ValidationError, match="max_batch_rows"):
        Settings(model=ASKER, max_batch_rows=ROWS[-1] + 1)


def test_names_and_types() -> None:
    metrics = Metrics()
    ModelMetrics(metrics, MODEL).loaded(model_of(Echo()), 1.0)
    text = prometheus.text(metrics).decode()
    assert set(re.findall(r"^# TYPE lstmserve_(\w+ \w+)$", text, re.MULTILINE)) == {
        "request_duration_seconds histogram",
        "batch_rows histogram",
        "queue_duration_seconds histogram",
        "compute_duration_seconds histogram",
        "rows_total counter",
        "connections_ended_total counter",
        "rejected_total counter",
        "predictions_total counter",
        "model_reloads_total counter",
        "log_lines_dropped_total counter",
        "worker_restarts_total counter",
        "series_rows_total counter",
        "series_duplicates_total counter",
        "series_refused_total counter",
        "series_expired_total counter",
        "series_steps_total counter",
        "input_bin_total counter",
        "input_bin_expected gauge",
        "input_out_of_range_ratio gauge",
        "drift_psi gauge",
        "drift_state gauge",
        "series gauge",
        "series_listeners gauge",
        "queue_rows gauge",
        "model_info gauge",
        "model_load_seconds gauge",
        "model_reload_successful gauge",
    }


def test_every_metric_is_told() -> None:
    """What is in no tuple is in no answer, and is not added up over workers."""
    metrics = Metrics()
    made = {id(one) for one in vars(metrics).values() if isinstance(one, Tally | Gauge | Histogram)}
    assert made == {id(one) for one in (*metrics.tallies, *metrics.gauges, *metrics.histograms)}


def test_gauges_of_several_workers_are_joined() -> None:
    joined = {
        "queue_rows": 7,
        "model_info": 4,
        "model_load_seconds": 4,
        "model_reload_successful": 3,
        "series": 7,
        "series_listeners": 7,
        "input_bin_expected": 4,
        "drift_psi": 4,
        "drift_state": 4,
        "input_out_of_range_ratio": 4,
    }
    for order in ((3, 4), (4, 3)):
        together = Metrics()
        for number in order:
            one = Metrics()
            for gauge in one.gauges:
                gauge.set(number, MODEL, *gauge.labels[1:])
                gauge.set(number, f"of worker {number}", *gauge.labels[1:])
            reports.add_present(together, reports.report(one))
        for gauge in together.gauges:
            name = gauge.name.removeprefix("lstmserve_")
            told = {model: number() for (model, *_), number in gauge_numbers(gauge)}
            assert told == {MODEL: joined[name], "of worker 3": 3, "of worker 4": 4}, name
        assert len(together.gauges) == len(joined)


def gauge_numbers(gauge: Gauge) -> list[tuple[tuple[str, ...], Callable[[], float]]]:
    """The numbers of all models, by their labels."""
    return [labelled for of_model in gauge.values.values() for labelled in of_model.items()]


def test_what_several_workers_have_counted_is_added_up() -> None:
    together = Metrics()
    for seconds in (0.25, 0.5):
        one = Metrics()
        ModelMetrics(one, MODEL).batch(3, seconds)
        one.dropped_lines.add(more=2)
        reports.add_counted(together, reports.report(one))
    histograms = {each.name: each.total(lambda *_: True) for each in together.histograms}
    assert [found for found in histograms.values() if found[0]] == [(2, 6), (2, 0.75)]
    assert together.dropped_lines.counts[()] == 4


def test_what_only_the_metrics_need_does_not_come_in_at_the_start() -> None:
    code = (
        "import os, sys; from lstm_serve.cli import main; main._prepare([]);"
        "from lstm_serve.web.app import create_app; from lstm_serve.settings import Settings;"
        "create_app(Settings(model=sys.argv[1]));"
        "print('prometheus_client' in sys.modules, os.environ['PYDANTIC_DISABLE_PLUGINS'])"
    )
    command = [sys.executable, "-c", code, str(ASKER / "k215_model.h5")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "False __all__\n"


def test_two_services_do_not_mix_and_everything_is_there_at_zero() -> None:
    one_service, other = Metrics(), Metrics()
    of_model = ModelMetrics(one_service, MODEL)
    of_model.answered([], 0.0, 3)
    of_model.loaded(model_of(Echo()), 1.0)
    of_model.loaded(model_of(Echo()), 2.0)
    ModelMetrics(other, MODEL)
    assert one_of(parsed(prometheus.text(one_service).decode()), "rows_total", model=MODEL) == 3
    samples: Any = parsed(prometheus.text(other).decode())
    assert one_of(samples, "rows_total", model=MODEL) == 0
    for name in ("rows_total", "batch_rows_count", "compute_duration_seconds_count", "series_rows_total"):
        assert (name, frozenset({("model", MODEL)})) in samples


def test_process_metrics_over_http(client: httpx.Client) -> None:
    samples = parsed(client.get("/metrics").text)
    assert one_of(samples, "process_resident_memory_bytes") > 1 << 20
    assert any(name == "python_info" for name, _ in samples)
