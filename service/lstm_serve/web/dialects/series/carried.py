"""The answers to rows of series that carry a model's states, one after the other."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from lstm_serve.engine.types import Array
from lstm_serve.errors import (
    ComputeFailed,
    InvalidInput,
    LstmServeError,
    NoCarry,
    SeriesConflict,
    SeriesFull,
)
from lstm_serve.model.answers import answers
from lstm_serve.model.carry import Carrying
from lstm_serve.serving.batching import Job
from lstm_serve.serving.deployment import Deployment
from lstm_serve.serving.series.carry import REPEATS, keep, plan
from lstm_serve.serving.series.memory import MemoryStore
from lstm_serve.serving.series.store import Appended, Key, Known, Sent, Store
from lstm_serve.serving.state import ServingState
from lstm_serve.web.errors import TABLE
from lstm_serve.web.predict import Predicted, PredictRequest, noted


class CarriedSeries:
    """The series that carry the states of the model which answers a request, whose turn it is."""

    def __init__(
        self, serving: ServingState, carrying: Carrying, store: Store, request: PredictRequest, deadline: float
    ) -> None:
        """`store` is one that `expect_carried` has seen."""
        assert isinstance(store, MemoryStore)  # noqa: S101 - as it says
        self.carrying = carrying
        self._store, self._most = store, serving.settings.max_rows
        self._request, self._deadline = request, deadline

    async def append(self, key: Key, sent: Sent) -> tuple[Appended, list[Array | None]]:
        """Append rows; the output of each of them, None of those that are not kept any more.

        Raises ComputeFailed for rows on which the model overflows, of which none is kept then.
        """
        request, store, carrying = self._request, self._store, self.carrying
        deployment, model = request.deployment, request.served.model
        while True:
            planned = plan(store, key, sent, model.about.series, carrying, self._most)
            state, parts = planned.state, []
            at_once = model.input_shape[0] or REPEATS  # about what a window takes, which is what a batch is made for
            for start in range(0, len(planned.rows) if planned.done.fresh else 0, at_once):
                rows = planned.rows[np.newaxis, start : start + at_once]
                job = deployment.queue.submit(carrying, carrying.packed(rows, state), self._deadline)
                request.scope["state"].setdefault("jobs", []).append(job)
                (ys,), state = carrying.unpacked(await _output(job))
                parts.append(ys)
            found = keep(store, key, planned, parts, state, carrying.digest)
            if found is not None:
                deployment.appended(key, sent, planned.done, request.drift)
                return found

    async def append_many(
        self, owner: bytes, items: Sequence[tuple[str, Sent] | InvalidInput]
    ) -> tuple[list[Appended | LstmServeError], list[Array | None]]:
        """Append a row to each of many series: of each the series or what is wrong, and the output.

        The rows of one series are taken in their order, those of different ones together.
        """
        found: dict[int, tuple[Appended, list[Array | None]] | LstmServeError] = {}
        of_series: dict[str, list[tuple[int, Sent]]] = {}
        for at, item in enumerate(items):
            if isinstance(item, InvalidInput):
                found[at] = item
            else:
                of_series.setdefault(item[0], []).append((at, item[1]))

        async def take(name: str) -> None:
            for at, given in of_series[name]:
                try:
                    found[at] = await self.append(Key(owner, name), given)
                except (ComputeFailed, SeriesConflict, SeriesFull) as error:
                    found[at] = error

        try:
            async with asyncio.TaskGroup() as group:
                for name in of_series:
                    group.create_task(take(name))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        results = [found[at] for at in range(len(items))]
        done = [each[0] if isinstance(each, tuple) else each for each in results]
        return done, [each[1][0] if isinstance(each, tuple) else None for each in results]


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
    (part,) = noted([ys], request, [None])
    request.deployment.metrics.series_answered(len(ys), "step")
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
