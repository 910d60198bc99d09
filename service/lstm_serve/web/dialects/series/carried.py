"""The answers to rows of series that carry a model's states, one after the other."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from lstm_serve.engine.types import Array
from lstm_serve.errors import (
    ComputeFailed,
    InvalidInput,
    LstmServeError,
    NoCarry,
    SeriesBusy,
    SeriesConflict,
    SeriesFull,
)
from lstm_serve.model.answers import answers, counted, predicted_classes
from lstm_serve.model.carry import Carrying
from lstm_serve.serving.batching import Job
from lstm_serve.serving.deployment import Deployment
from lstm_serve.serving.series.carry import REPEATS, keep, plan
from lstm_serve.serving.series.memory import MemoryStore
from lstm_serve.serving.series.store import Appended, Key, Known, Sent, Store
from lstm_serve.serving.state import ServingState
from lstm_serve.web.errors import TABLE
from lstm_serve.web.predict import Predicted, PredictRequest


async def append_carried(  # noqa: PLR0913, PLR0917 - what an append is of
    serving: ServingState,
    carrying: Carrying,
    store: Store,
    key: Key,
    sent: Sent,
    request: PredictRequest,
    deadline: float,
) -> tuple[Appended, list[Array | None]]:
    """Append rows to a series whose turn it is; the output of each of them, None of those that are not kept any more.

    Raises ComputeFailed for rows on which the model overflows, of which none is kept then.
    """
    deployment, model = request.deployment, request.served.model
    if not isinstance(store, MemoryStore):
        raise NoCarry(TABLE[NoCarry].example)
    request.appended = True
    while True:
        planned = plan(store, key, sent, model.about.series, carrying, serving.settings.max_rows)
        state, parts = planned.state, []
        at_once = model.input_shape[0] or REPEATS  # about what a window takes, which is what a batch is made for
        for start in range(0, len(planned.rows) if planned.done.fresh else 0, at_once):
            rows = planned.rows[np.newaxis, start : start + at_once]
            job = deployment.queue.submit(carrying, carrying.packed(rows, state), deadline)
            request.scope["state"].setdefault("jobs", []).append(job)
            (ys,), state = carrying.unpacked(await _output(job))
            parts.append(ys)
        found = keep(store, key, planned, parts, state, carrying.digest)
        if found is not None:
            deployment.appended(key, sent, planned.done, request.drift)
            return found


async def append_many_carried(  # noqa: PLR0913, PLR0917 - likewise
    serving: ServingState,
    carrying: Carrying,
    store: Store,
    owner: bytes,
    items: Sequence[tuple[str, Sent] | InvalidInput],
    request: PredictRequest,
    deadline: float,
) -> tuple[list[Appended | LstmServeError], list[Any]]:
    """Append a row to each of many series, whose turn it is: of each the series or what is wrong, and the answer.

    The rows of one series are taken in their order, those of different ones together.
    """
    results: list[tuple[Appended, list[Array | None]] | LstmServeError] = [
        item if isinstance(item, InvalidInput) else SeriesBusy("it was not looked at") for item in items
    ]
    of_series: dict[str, list[int]] = {}
    for at, item in enumerate(items):
        if isinstance(item, tuple):
            of_series.setdefault(item[0], []).append(at)

    async def take(name: str) -> None:
        for at in of_series[name]:
            given = cast("tuple[str, Sent]", items[at])[1]
            try:
                results[at] = await append_carried(serving, carrying, store, Key(owner, name), given, request, deadline)
            except (ComputeFailed, SeriesConflict, SeriesFull) as error:
                results[at] = error

    try:
        async with asyncio.TaskGroup() as group:
            for name in of_series:
                group.create_task(take(name))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    done = [each[0] if isinstance(each, tuple) else each for each in results]
    outputs = [each[1][0] if isinstance(each, tuple) else None for each in results]
    return done, told(outputs, request, [isinstance(each, Appended) and each.fresh > 0 for each in done])


async def _output(job: Job) -> Array:
    try:
        return await job.future
    except BaseException:
        job.abandon()
        raise


def told(found: Sequence[Array | None], request: PredictRequest, fresh: Sequence[bool]) -> list[Any]:
    """The answers to rows by their outputs, None where there is none; those that are fresh are counted."""
    some = [y for y in found if y is not None]
    if not some:
        return [None] * len(found)
    new = [y for y, is_new in zip(found, fresh, strict=True) if is_new and y is not None]
    if new:
        count(np.stack(new), request)
    each = iter(answers(request.served.model, np.stack(some)))
    return [None if y is None else next(each) for y in found]


def count(ys: Array, request: PredictRequest) -> Predicted:
    """Count the answers to rows, by their outputs (n, *output)."""
    model, metrics, jobs = request.served.model, request.deployment.metrics, request.scope["state"]["jobs"]
    part = Predicted(ys, predicted_classes(model, ys))
    metrics.answered([counted(model, part.classes)], jobs[0].queue_seconds, len(ys))
    metrics.series_answered(len(ys), "step")
    if request.drift is not None:
        request.drift.see(None, ys)
    return part


def expect_carried(deployment: Deployment, carrying: Carrying | None, why: str | None) -> None:
    """Raise NoCarry where the states of a stateful model cannot be carried."""
    if carrying is None:
        raise NoCarry(f"the model is stateful, and a series cannot carry its states, as {why}")
    if not isinstance(deployment.series, MemoryStore):
        raise NoCarry(TABLE[NoCarry].example)


def last_known(known: Known, carrying: Carrying) -> tuple[int, Any]:
    """Of how many rows a series' state is, and the answer to the last of them, None where another model gave it."""
    carried = known.carried
    if carried is None or carried.digest != carrying.digest:
        return 0, None
    return carried.taken, answers(carrying.model, carried.ys[-1:])[0]
