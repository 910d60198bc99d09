"""The answers to rows of series that carry a model's states, one after the other."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lstm_serve.engine.types import Array
from lstm_serve.errors import (
    ComputeFailed,
    DeadlinePassed,
    InvalidInput,
    LstmServeError,
    SeriesConflict,
    SeriesFull,
    StoreUnavailable,
)
from lstm_serve.model.answers import answers
from lstm_serve.model.carry import Carrying
from lstm_serve.serving.series.carry import REPEATS, Plan, Replacement, plan, replacement
from lstm_serve.serving.series.locks import expect_time
from lstm_serve.serving.series.store import AT_ONCE, Appended, Known, Sent, SeriesKey, Store
from lstm_serve.serving.state import ServingState
from lstm_serve.web.predict import Predicted, PredictRequest, noted

NOT_APPENDED = (DeadlinePassed, StoreUnavailable)  # why nothing was: there was no time, or no store, for it

Done = tuple[Appended, list[Array | None]]  # a series once rows are appended, and the output of each; None: not kept


class CarriedSeries:
    """The series that carry the states of the model which answers a request, whose turn it is."""

    def __init__(
        self, serving: ServingState, carrying: Carrying, store: Store, request: PredictRequest, deadline: float
    ) -> None:
        """`deadline` is in the time of `time.monotonic`."""
        self.carrying = carrying
        self._store, self._most = store, serving.settings.max_rows
        self._request, self._deadline = request, deadline

    async def append(self, key: SeriesKey, sent: Sent) -> Done:
        """Append rows. Raises ComputeFailed for rows on which the model overflows, of which none is kept then."""
        (found,) = await self._append_each([(key, sent)])
        if isinstance(found, LstmServeError):
            raise found
        return found

    async def append_many(
        self, owner: bytes, items: Sequence[tuple[str, Sent] | InvalidInput]
    ) -> tuple[list[Appended | LstmServeError], list[Array | None]]:
        """Append a row to each of many series: of each the series or what is wrong, and the output.

        The rows of one series are taken in their order, those of different ones together.
        """
        found: dict[int, Done | LstmServeError] = {}
        wrong: LstmServeError | None = None
        of_series: dict[str, list[tuple[int, Sent]]] = {}
        for at, item in enumerate(items):
            if isinstance(item, InvalidInput):
                found[at] = item
            else:
                of_series.setdefault(item[0], []).append((at, item[1]))
        for turn in range(max(map(len, of_series.values()), default=0)):
            some = [(name, *rows[turn]) for name, rows in of_series.items() if turn < len(rows)]
            for start in range(0, len(some), AT_ONCE):
                few = some[start : start + AT_ONCE]
                if wrong is None:
                    done = await self._append_each([(SeriesKey(owner, name), sent) for name, _, sent in few])
                    wrong = next((each for each in done if isinstance(each, NOT_APPENDED)), None)
                else:
                    done = [wrong] * len(few)
                found |= {at: each for (_, at, _), each in zip(few, done, strict=True)}
        results = [found[at] for at in range(len(items))]
        done_or_wrong = [each[0] if isinstance(each, tuple) else each for each in results]
        return done_or_wrong, [each[1][0] if isinstance(each, tuple) else None for each in results]

    async def _append_each(self, several: Sequence[tuple[SeriesKey, Sent]]) -> list[Done | LstmServeError]:
        """Append rows to series, each another one: of each what it is then, or what is wrong."""
        found: dict[int, Done | LstmServeError] = {}
        while left := {k: each for k, each in enumerate(several) if k not in found}:
            try:
                expect_time(self._deadline)
                found |= await self._appended(left)
            except NOT_APPENDED as error:
                found |= dict.fromkeys(left, error)
        return [found[k] for k in range(len(several))]

    async def _appended(self, several: Mapping[int, tuple[SeriesKey, Sent]]) -> dict[int, Done | LstmServeError]:
        """Append rows to series; those are left out that have changed meanwhile."""
        request, store, model = self._request, self._store, self._request.served.model
        found: dict[int, Done | LstmServeError] = {}
        plans: dict[int, Plan] = {}
        before_each = await store.find_each([key for key, _ in several.values()])
        for (k, (_, sent)), before in zip(several.items(), before_each, strict=True):
            try:
                if isinstance(before, LstmServeError):
                    raise before
                plans[k] = plan(before, sent, model.about.series, self.carrying, store.keep, self._most)
            except (SeriesConflict, SeriesFull, StoreUnavailable) as error:
                found[k] = error
        computed = await self._all_computed(plans)
        found |= {k: each for k, each in computed.items() if isinstance(each, ComputeFailed)}
        ready = {k: each for k, each in computed.items() if not isinstance(each, ComputeFailed)}
        places = [(several[k][0], plans[k].before, after) for k, (after, *_) in ready.items()]
        for k, replaced in zip(ready, await store.replace_each(places), strict=True):
            if isinstance(replaced, LstmServeError):
                found[k] = replaced
            elif replaced:
                _, done, ys = ready[k]
                request.deployment.appended([(*several[k], done)], request.drift)
                found[k] = done, ys
        return found

    async def _all_computed(self, plans: Mapping[int, Plan]) -> dict[int, Replacement | ComputeFailed]:
        """Of each what takes the place of its series, or why it does not: computed together."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {k: group.create_task(self._computed(each)) for k, each in plans.items()}
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return {k: task.result() for k, task in tasks.items()}

    async def _computed(self, planned: Plan) -> Replacement | ComputeFailed:
        request, carrying = self._request, self.carrying
        state, parts = planned.state, list[Array]()
        at_once = request.served.model.input_shape[0] or REPEATS  # about what a window takes, for which a batch is made
        for start in range(0, len(planned.rows) if planned.done.fresh else 0, at_once):
            rows = planned.rows[np.newaxis, start : start + at_once]
            job = request.deployment.queue.submit(
                carrying, carrying.packed(rows, state), self._deadline, reserved=request.reserved
            )
            request.scope["state"].setdefault("jobs", []).append(job)
            try:
                (ys,), state = carrying.unpacked(await job.future)
            except ComputeFailed as error:
                return error
            parts.append(ys)
        return replacement(planned, parts, state, carrying.digest, self._store.keep)


def answers_of(found: Sequence[Array | None], request: PredictRequest, fresh: Sequence[bool]) -> list[Any]:
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


def kept_answers(known: Known, carrying: Carrying, start: int, stop: int) -> tuple[int, list[Any]]:
    """Of how many rows a series' state is, and the answers to some of those that are kept, as they were given.

    0 and None where another model gave them.
    """
    carried = known.carried
    if carried is None or carried.digest != carrying.digest:
        return 0, [None] * (stop - start)
    return carried.rows_in_state, answers(carrying.model, carried.ys[start:stop])
