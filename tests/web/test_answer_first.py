"""Rows that are answered in a step from those before: each answer is its window's, whatever else happens."""

import asyncio
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from apps import MODEL, app_of, deployment_of, state_of
from fastapi import FastAPI
from numpy.typing import NDArray
from serving import ASKER, PATIENCE, call, in_loop, started

from lstm_serve import load_model
from lstm_serve.engine.types import Array
from lstm_serve.model.model import Model
from lstm_serve.serving.deployment import Served
from lstm_serve.serving.jobs import Shortcut
from lstm_serve.serving.series.steps import BegunWindows, Costs
from lstm_serve.serving.series.store import SeriesKey

MODELS = [load_model(MODEL), load_model(ASKER / "k122_model.h5")]
STEPS, FEATURES = 20, 15
PAYING = Costs(window=1.0, more=0.01, answer=0.1, rest=0.1)  # for four rows that are due together
Rows = NDArray[np.float32]


def served(app: FastAPI, model: Model = MODELS[0]) -> BegunWindows:
    """Let the app answer with a model whose steps pay, on its loop, whatever kept the machine busy at the start."""
    stepper = model.stepper()
    assert stepper is not None
    steps = BegunWindows(stepper, STEPS, 100, PAYING)
    deployment = deployment_of(app)
    deployment.queue.executor = None
    deployment.current = Served.of(model, steps)
    deployment.versions = {model.about.version: deployment.current}
    return steps


def rows_of(count: int, seed: int = 1) -> Rows:
    return np.random.default_rng(seed).normal(size=(count, FEATURES)).astype(np.float32)


async def append(app: FastAPI, series: str, rows: Rows, seq: int) -> Any:
    answer = await call(app, f"/series/{series}/rows", json.dumps({"rows": rows.tolist(), "seq": seq}).encode())
    assert answer.status == 200, answer
    await asyncio.sleep(0)  # as there is between two requests
    return answer.json["answer"]


def same(answers: Sequence[Any], rows: Rows, model: Model = MODELS[0]) -> None:
    """The answers to the last rows of a series are those of their windows."""
    expected = model.predict_series(rows)[-len(answers) :]
    found = [answer["probabilities"] for answer in answers]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def ways(app: FastAPI) -> dict[str | int, int]:
    return {way: count for (_, way), count in state_of(app).metrics.series_steps.counts.items()}


@in_loop
async def test_a_device_sends_a_row_at_a_time() -> None:
    app, rows = app_of(), rows_of(3 * STEPS)
    served(app)
    async with started(app):
        found = [await append(app, "s", rows[k : k + 1], k) for k in range(len(rows))]
        assert found[: STEPS - 1] == [None] * (STEPS - 1)
        same(found[STEPS - 1 :], rows)
        assert ways(app) == {"step": 2 * STEPS + 1}


@in_loop
async def test_the_others_take_their_step_once_the_answer_is_out() -> None:
    app, rows = app_of(), rows_of(STEPS + 1)
    steps = served(app)
    async with started(app):
        for k in range(STEPS - 1):
            await append(app, "s", rows[k : k + 1], k)
        body = json.dumps({"rows": rows[STEPS - 1 : STEPS].tolist(), "seq": STEPS - 1}).encode()
        same([(await call(app, "/series/s/rows", body)).json["answer"]], rows[:STEPS])
        assert steps.shortcut(SeriesKey(b"", "s"), rows[:STEPS]) is not None  # the row is still to come
        await asyncio.sleep(0)
        assert steps.shortcut(SeriesKey(b"", "s"), rows[:STEPS]) is None
        assert steps.shortcut(SeriesKey(b"", "s"), rows[1:]) is not None


@in_loop
async def test_repeats_chunks_and_a_series_that_begins_anew() -> None:
    app, rows = app_of(), rows_of(4 * STEPS)
    served(app)
    async with started(app):
        at = 0
        for count in (1,) * 25 + (2, 1, 3, 1, 1, 5, 1, 1, 1):
            part = rows[at : at + count]
            at += count
            found = [await append(app, "s", part, at - 1) for _ in range(2)]
            if at >= STEPS:
                same(found[:1], rows[:at])
                same(found[1:], rows[:at])
        assert (await call(app, "/series/s", method="DELETE")).status == 204
        found = [await append(app, "s", rows[k : k + 1], k + 1000) for k in range(2 * STEPS)]
        same(found[STEPS - 1 :], rows[: 2 * STEPS])
        assert ways(app)["step"] == 13 + STEPS + 1  # not the chunk of 5, nor the row after it


@in_loop
async def test_several_requests_of_a_series_in_flight() -> None:
    app, rows = app_of(), rows_of(10 * STEPS)
    served(app)
    async with started(app):
        found: list[Any] = []
        for start in range(0, len(rows), 5):
            found += await asyncio.gather(*(append(app, "s", rows[k : k + 1], k) for k in range(start, start + 5)))
        same(found[STEPS - 1 :], rows)
        assert ways(app)["step"] > 0


@in_loop
async def test_where_many_are_due_at_once_windows_are_computed_and_later_steps_again() -> None:
    app, names = app_of(), [f"s{k}" for k in range(16)]
    rows = {name: rows_of(4 * STEPS, k) for k, name in enumerate(names)}
    served(app)
    async with started(app):
        for k in range(2 * STEPS):
            together = k % 5 == 0  # the others come one by one
            asked = [append(app, name, rows[name][k : k + 1], k) for name in names]
            answers = await asyncio.gather(*asked) if together else [await each for each in asked]
            if k >= STEPS - 1:
                for name, answer in zip(names, answers, strict=True):
                    same([answer], rows[name][: k + 1])
        assert min(ways(app).values()) > 16
        assert deployment_of(app).queue.queued_rows == 0


@in_loop
async def test_another_model_in_between_has_steps_of_its_own() -> None:
    app, rows = app_of(), rows_of(6 * STEPS)
    served(app)
    async with started(app):
        for turn in range(3):
            model = MODELS[turn % 2]
            served(app, model)
            start = turn * 2 * STEPS
            for k in range(start, start + 2 * STEPS):
                answer = await append(app, "s", rows[k : k + 1], k)
                if k >= STEPS - 1:
                    same([answer], rows[: k + 1], model)
        assert ways(app)["step"] > 3 * STEPS
        assert ways(app)["window"] >= 2 * STEPS - 2


@in_loop
async def test_where_the_step_raises_the_window_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    app, rows = app_of(), rows_of(STEPS + 2)
    steps = served(app)

    def broken() -> Array:
        raise ValueError

    async with started(app):
        for k in range(STEPS):
            await append(app, "s", rows[k : k + 1], k)
        monkeypatch.setattr(steps, "shortcut", lambda *_: Shortcut(broken, lambda _due: True))
        same([await append(app, "s", rows[STEPS : STEPS + 1], STEPS)], rows[: STEPS + 1])
        monkeypatch.undo()
        same([await append(app, "s", rows[STEPS + 1 :], STEPS + 1)], rows)
        assert ways(app) == {"step": 2, "window": 1}


@in_loop
async def test_in_the_thread_that_computes() -> None:
    app, rows = app_of(), rows_of(3 * STEPS)
    served(app)
    async with started(app):
        executor = deployment_of(app).queue.executor = ThreadPoolExecutor(1)
        for k in range(len(rows)):
            await asyncio.get_running_loop().run_in_executor(executor, int)  # what is before it is done then
            answer = await append(app, "s", rows[k : k + 1], k)
            if k >= STEPS - 1:
                same([answer], rows[: k + 1])
        assert ways(app) == {"step": 2 * STEPS + 1}


@in_loop
async def test_what_is_forgotten_before_the_others_take_their_step_stays_forgotten() -> None:
    app, rows, free = app_of(), rows_of(1), threading.Event()
    steps = served(app)
    async with started(app):
        executor = deployment_of(app).queue.executor = ThreadPoolExecutor(1)
        executor.submit(free.wait, PATIENCE)
        await append(app, "s", rows, 0)
        assert (await call(app, "/series/s", method="DELETE")).status == 204
        free.set()
        await asyncio.get_running_loop().run_in_executor(executor, int)
        assert steps.count() == 0


@in_loop
async def test_what_is_forgotten_or_expired_leaves_nothing_behind() -> None:
    app, rows = app_of(series_ttl_seconds=0.001), rows_of(STEPS)
    steps, deployment = served(app), deployment_of(app)
    assert deployment.series is not None
    async with started(app):
        await append(app, "s", rows[:1], 0)
        await asyncio.sleep(0)
        assert steps.count() == 1
        await call(app, "/series/s", method="DELETE")
        assert steps.count() == 0
        await append(app, "s", rows[:1], 0)
        await asyncio.sleep(0)
        await asyncio.sleep(0.002)
        deployment.series.expire()
        assert deployment.series.count() == 0
        assert steps.count() == 0
