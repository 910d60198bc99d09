"""GET /series/{id}/events: the answers to the rows of a series as they come, as server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html

Nothing is queued for a client. It has a position, the row that it was told last, and is told what comes after that
among the rows that are kept: whoever comes back goes on as whoever stayed does, and who is too slow misses rows, and
is told.
Of rows without numbers, which are counted, an id says too of which life of the series: another one counts anew.
"""

import asyncio
import math
import re
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter
from fastapi.responses import Response
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from lstm_serve.engine.types import Array
from lstm_serve.errors import (
    ComputeFailed,
    DeadlinePassed,
    ListenersFull,
    Malformed,
    QueueFull,
    SeriesConflict,
    StoreUnavailable,
    Unavailable,
    UnknownSeries,
)
from lstm_serve.model.answers import answers, predicted_classes
from lstm_serve.model.model import Model
from lstm_serve.serving.deployment import Served
from lstm_serve.serving.jobs import Job
from lstm_serve.serving.registry import Registry
from lstm_serve.serving.series.store import WINDOWS, Known
from lstm_serve.serving.series.watch import LOOK_SECONDS, Watched
from lstm_serve.serving.state import ServingState
from lstm_serve.web.api_keys import may_know
from lstm_serve.web.dialects.model_path import MODEL, Documented, meant, parameters
from lstm_serve.web.dialects.series.appending import key_of, known_of, store_of
from lstm_serve.web.dialects.series.carried import kept_answers
from lstm_serve.web.dialects.series.request import IN_PATH, INPUTS, wants_inputs
from lstm_serve.web.errors import TABLE, problem, row_of
from lstm_serve.web.leaving import client_left
from lstm_serve.web.openapi import problem_response, problem_responses
from lstm_serve.web.query import expect_query

EVENTS = "text/event-stream"
# To a proxy silence is the end, after a minute or half of one. nginx keeps an answer back unless it is told not to.
BEAT_SECONDS = 15.0
HEADERS = [(b"content-type", EVENTS.encode()), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
# Of no type: some read it as that of the text, some as that of each event.
STREAM = {"description": "Server-sent events: a message for each row, `gap` and `end`."}
RETRY_SECONDS = 1.0  # until what was in the way is tried again: too many others, or a store that is away
MOST = 64  # rows told at once, and those whose answers are kept for the others who listen,
BYTES = 1 << 16  # of which these take about so much at most
NUMBER_BYTES = 12  # of a number in JSON
BEGIN = b"retry: %d\n\n" % (1000 * RETRY_SECONDS)
BEAT = b":\n\n"
END = b'event: end\nid\ndata: {"detail":"the series is not kept any more"}\n\n'  # without an id: it has no position
LAST_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "schema": {"type": "string", "pattern": "^([0-9]{1,16}(-[0-9a-f]{8})?)?$"},
    "description": "the id of the last event that came: what comes after it is told",
}


def router(serving: ServingState, registry: Registry, documented: Documented) -> APIRouter:
    """The routes, of models whose rows are of time."""
    routes = APIRouter(tags=["series"])

    async def series_events(request: Request) -> Response:
        """The answers to a series' rows, those that are kept and each as it comes, as server-sent events."""
        return EventStream(serving, registry, request)

    for prefix in ("", MODEL):
        served = documented.of(prefix)
        if served is not None and not served.model.has_time_axis:
            continue
        routes.add_api_route(
            f"{prefix}/series/{{series}}/events",
            series_events,
            response_class=Response,
            responses={
                200: {"content": {EVENTS: {"schema": STREAM}}},
                404: problem_response(TABLE[UnknownSeries]),
                409: problem_response(TABLE[SeriesConflict]),
                **problem_responses(400, 401, 422, 429, 500, 501, 503),
            },
            openapi_extra={"parameters": [*parameters(served, prefix)["parameters"], IN_PATH, LAST_ID, INPUTS]},
        )
    return routes


class EventStream(Response):
    """An answer that ends with its series, with its client, or with the service."""

    def __init__(self, serving: ServingState, registry: Registry, request: Request) -> None:
        """Raises what there is to refuse before the first event, but that a series is not there."""
        super().__init__()
        expect_query(request, INPUTS)
        self._serving, self._registry, self._request = serving, registry, request
        self._deployment, served = meant(registry, request)
        self._store, self._key = store_of(self._deployment, served), key_of(request)
        self._with_row, (self._after, self._mark) = wants_inputs(request), _last_id(request)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events. Raises UnknownSeries, ListenersFull or Unavailable before the first one."""
        life = (await self._store.look(self._key)).life
        if self._serving.draining:
            raise Unavailable("the service is stopping")
        most = self._serving.slots.limit // 2
        if self._serving.listeners >= most:
            raise ListenersFull(f"{most} clients listen to series; at most so many may, half of the connections")
        self._serving.listeners += 1
        leaving = asyncio.ensure_future(client_left(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            if scope["method"] != "HEAD":
                with self._deployment.watch.listening(self._key, life) as watched:
                    async for events in self._events(watched, leaving):
                        await send({"type": "http.response.body", "body": events, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._serving.listeners -= 1
            leaving.cancel()

    async def _events(self, watched: Watched, leaving: asyncio.Future[None]) -> AsyncIterator[bytes]:
        """Events as they come."""
        yield BEGIN
        silent_since = time.monotonic()
        while self._goes_on and not leaving.done():
            waited, pause = {leaving, watched.changed}, LOOK_SECONDS if self._store.shared else BEAT_SECONDS
            try:
                told = END if watched.over else await self._next(watched)
            except UnknownSeries:
                told = END
            except (QueueFull, DeadlinePassed, StoreUnavailable):
                told, waited, pause = b"", {leaving}, RETRY_SECONDS
            except Unavailable:
                return
            if told:
                yield told
                silent_since = time.monotonic()
                if told is END:
                    return
                continue
            done, _ = await asyncio.wait(waited, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            if not done and (now := time.monotonic()) - silent_since > BEAT_SECONDS / 2:
                yield BEAT
                silent_since = now

    @property
    def _goes_on(self) -> bool:
        """Whether the service, the model and the client's key are still there."""
        there = self._registry.deployments.get(self._deployment.name) is self._deployment
        there = there and self._deployment.current.model.series_mode is not None
        return there and not self._serving.draining and may_know(self._request)

    async def _next(self, watched: Watched) -> bytes:
        """The events of the next rows; nothing where there are none."""
        known, served = await watched.look(self._store, self._key), self._deployment.current
        model = served.model
        # Where states are carried each row that is kept has an answer.
        timesteps = (model.input_shape[0] or 0) if served.carrying is None else 1
        count = len(known.rows)
        mark = b"" if known.seq is not None else b"-" + known.life[:4].hex().encode()
        another = self._after is not None and self._mark != mark
        start, missed = position(known.numbers, timesteps, None if another else self._after)
        numbers = math.prod(size or timesteps for size in model.output_shape) + known.rows[0].size
        stop = min(count, start + max(1, min(MOST, BYTES // (NUMBER_BYTES * numbers))))
        if start == stop:
            return b""
        gap = {"after": self._after, "next": known.numbers[start]}
        events = [_event(gap, b"event: gap\n")] if missed or another else []
        if served.carrying is None:
            total, found = count, await self._answers(watched, served, known, start, stop)
        else:
            total, found = kept_answers(known, served.carrying, start, stop)
        for k, answer in enumerate(found, start):
            number = known.numbers[k]
            content = known_of(None if known.seq is None else number, max(0, total - (count - 1 - k)), model)
            content["answer"] = None if isinstance(answer, ComputeFailed) else answer
            if isinstance(answer, ComputeFailed):
                told = problem(row_of(answer), str(answer), answer, self._request.scope["state"]["request_id"])
                content["problem"] = orjson.Fragment(told)
            if self._with_row:
                content["row"] = known.rows[k]
            events.append(_event(content, b"id: %d%s\n" % (number, mark)))
            self._after, self._mark = number, mark
        return b"".join(events)

    async def _answers(self, watched: Watched, served: Served, known: Known, start: int, stop: int) -> list[Any]:
        """The answers to the rows `start` to `stop`, as JSON, or what was wrong; None before there is a window."""
        told, numbers, timesteps = watched.told, known.numbers, served.model.input_shape[0] or 0
        if watched.digest != served.digest or numbers[-1] < watched.last:  # rows may be lost where a store fails over
            told.clear()
        watched.digest, watched.last = served.digest, numbers[-1]
        while due := [k for k in range(max(start, timesteps - 1), stop) if numbers[k] not in told]:
            windows = {numbers[k]: known.rows[np.newaxis, k + 1 - timesteps : k + 1] for k in due}
            await watched.alone(partial(self._compute, served.model, windows, told))
        answered = [told.get(numbers[k]) for k in range(start, stop)]
        while len(told) > MOST:
            told.popitem(last=False)
        return answered

    async def _compute(self, model: Model, windows: Mapping[int, Array], told: dict[int, Any]) -> None:
        """Answer windows (1, timesteps, *features): a job each, so that where the model overflows one alone fails."""
        queue, deadline = self._deployment.queue, time.monotonic() + self._serving.settings.deadline_seconds
        queue.check_room(len(windows))
        jobs = [queue.submit(model, x, deadline) for x in windows.values()]
        try:
            for number, job in zip(windows, jobs, strict=True):
                told[number] = await _answer(model, job)
        except BaseException:
            for job in jobs:
                job.abandon()
            raise


def position(numbers: Sequence[int], timesteps: int, after: int | None) -> tuple[int, bool]:
    """Where, among the rows of these numbers that are kept, those come that are to be told after the one told last.

    And whether some between are not kept any more: of a series that has had more rows than are kept those count that
    have a window still. What has a larger number than all was told of another series, which had the name before.
    """
    first = 0 if len(numbers) < WINDOWS * timesteps else timesteps - 1
    if after is None or after > numbers[-1]:
        return first, after is not None
    start = bisect_right(numbers, after)
    return max(start, first), start < first or (start == 0 and after + 1 != numbers[0])


async def _answer(model: Model, job: Job) -> Any:  # noqa: ANN401 - orjson tells no type of a fragment
    try:
        y = await job.future
    except ComputeFailed as error:
        return error
    (answer,) = answers(model, y, predicted_classes(model, y))
    return orjson.Fragment(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))


def _event(content: dict[str, Any], head: bytes) -> bytes:
    return b"%sdata: %s\n\n" % (head, orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))


def _last_id(request: Request) -> tuple[int | None, bytes]:
    """The row that the client was told last, and what tells its series from others. Raises Malformed."""
    given: bytes = request.scope["state"]["headers"].get(b"last-event-id", b"")
    found = re.fullmatch(rb"([0-9]{1,16})(-[0-9a-f]{8})?|", given.strip())
    if found is None:
        raise Malformed("expected in the header Last-Event-ID the id of the last event that came")
    number, mark = found.groups()
    return None if number is None else int(number), mark or b""
