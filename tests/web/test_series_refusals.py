"""Rows that are refused with 429 or 504 are not kept: whoever sends them again without numbers does not double them."""

import contextlib
import itertools
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apps import MODEL, app_of, deployment_of
from fastapi import FastAPI
from redis_process import STORES, RedisProcess
from serving import GOLDEN, PATIENCE, Answered, call, in_loop, started

from lstm_serve.errors import QueueFull, StoreUnavailable

CARRYING = GOLDEN / "stateful" / "k3__last.keras"
Then = Callable[[], None]


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str | None]:
    """The URL of a Redis; None for series in memory."""
    if request.param == "memory":
        yield None
        return
    with RedisProcess(tmp_path_factory.mktemp("redis")) as redis:
        yield redis.url


@contextlib.asynccontextmanager
async def served(store: str | None, name: str, model: Path = MODEL, **settings: Any) -> AsyncIterator[FastAPI]:
    app = app_of(model, series_store=store, name=name, **settings)
    async with started(app):
        yield app


def after_each(app: FastAPI, method: str, then: Then, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let something happen each time the store has taken rows, before who sent them goes on."""
    store = deployment_of(app).series
    taking = getattr(store, method)

    async def taken(*given: Any) -> Any:
        done = await taking(*given)
        then()
        return done

    monkeypatch.setattr(store, method, taken)


def fill(app: FastAPI) -> None:
    """As if others had come meanwhile, as many as may wait."""
    deployment = deployment_of(app)
    model = deployment.current.model
    x = np.zeros((1, *(size or 1 for size in model.input_shape)), np.float32)
    with contextlib.suppress(QueueFull):
        for _ in itertools.count():
            deployment.queue.submit(model, x, math.inf)


def passes(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the clock forward: a deadline that is passed by waiting may be passed too soon on a busy machine."""
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + seconds)


async def idle(app: FastAPI) -> None:
    assert await deployment_of(app).queue.is_idle(time.monotonic() + PATIENCE)


def body(app: FastAPI, count: int) -> bytes:
    return json.dumps({"rows": np.ones((count, *_row(app))).tolist()}).encode()


def each_of(app: FastAPI, count: int) -> bytes:
    row = np.ones(_row(app)).tolist()
    return json.dumps({"rows": [{"series": f"s{k}", "row": row} for k in range(count)]}).encode()


def _row(app: FastAPI) -> list[int]:
    return [size or 1 for size in deployment_of(app).current.model.input_shape[1:]]


async def rows_of(app: FastAPI, series: str = "s") -> int:
    """How many rows it has; 0 where it is not there."""
    await idle(app)
    found = await call(app, f"/series/{series}")
    assert found.status in {200, 404}
    return int(found.json.get("rows", 0))


def wrong(results: Answered) -> list[int | None]:
    return [each.get("status") for each in results.json["results"]]


@in_loop
@pytest.mark.parametrize("query", ["", "?answers=all"])
async def test_rows_that_are_kept_are_answered_though_the_queue_is_full_by_then(
    store: str | None, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(store, f"one{len(query)}", max_queue_rows=20, max_rows=20) as app:
        after_each(app, "append", lambda: fill(app), monkeypatch)
        answer = await call(app, f"/series/s/rows{query}", body(app, 20))
        assert answer.status == 200, answer
        assert answer.json["rows"] == 20
        await idle(app)
        fill(app)
        refused = await call(app, "/series/s/rows", body(app, 1))
        assert (refused.status, refused.json["type"]) == (429, "urn:lstm-serve:queue-full")
        assert await rows_of(app) == 20


@in_loop
@pytest.mark.parametrize(("model", "method"), [(MODEL, "append_each"), (CARRYING, "replace_each")])
async def test_rows_of_many_are_answered_though_the_queue_is_full_by_then(
    store: str | None, model: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(store, method, model, max_queue_rows=200, max_rows=200) as app:
        after_each(app, method, lambda: fill(app), monkeypatch)
        answer = await call(app, "/series/rows", each_of(app, 200))
        assert answer.status == 200
        assert wrong(answer) == [None] * 200


@in_loop
async def test_rows_that_are_kept_are_answered_though_it_is_late(
    store: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(store, "late", deadline_seconds=60) as app:
        after_each(app, "append", lambda: passes(60, monkeypatch), monkeypatch)
        answer = await call(app, "/series/s/rows", body(app, 20))
        assert (answer.status, await rows_of(app)) == (200, 20)


@in_loop
@pytest.mark.parametrize(("model", "method"), [(MODEL, "append_each"), (CARRYING, "replace_each")])
async def test_of_many_those_that_are_late_are_told_by_themselves(
    store: str | None, model: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(store, f"late-{method}", model, deadline_seconds=60) as app:
        after_each(app, method, lambda: passes(60, monkeypatch), monkeypatch)
        answer = await call(app, "/series/rows", each_of(app, 100))
        assert answer.status == 200
        assert wrong(answer) == [None] * 64 + [504] * 36
        assert [await rows_of(app, f"s{k}") for k in (0, 63, 64, 99)] == [1, 1, 0, 0]


@in_loop
@pytest.mark.parametrize(("model", "method"), [(MODEL, "append_each"), (CARRYING, "find_each")])
async def test_a_store_that_is_away_is_asked_once_by_a_request(
    model: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not answer takes seconds each time."""
    asked = list[int]()

    async def away(several: Sequence[object], *_: object) -> None:
        asked.append(len(several))
        raise StoreUnavailable

    async with served(None, "away", model) as app:
        monkeypatch.setattr(deployment_of(app).series, method, away)
        answer = await call(app, "/series/rows", each_of(app, 200))
    assert (answer.status, asked) == (503, [64])


@in_loop
@pytest.mark.parametrize(
    ("model", "method"), [(MODEL, "append_each"), (CARRYING, "find_each"), (CARRYING, "replace_each")]
)
async def test_of_many_what_the_store_does_not_take_is_told_by_itself(
    model: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(None, "partly", model) as app:
        store = deployment_of(app).series
        taking = getattr(store, method)

        async def taken(several: Sequence[object], *rules: object) -> list[object]:
            return [StoreUnavailable(), *await taking(several[1:], *rules)]

        monkeypatch.setattr(store, method, taken)
        answer = await call(app, "/series/rows", each_of(app, 3))
        assert (answer.status, wrong(answer)) == (200, [503, None, None])
        assert [await rows_of(app, f"s{k}") for k in range(3)] == [0, 1, 1]
