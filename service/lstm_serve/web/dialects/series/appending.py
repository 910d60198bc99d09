"""Rows are appended to series, and answered: by the windows that they end, or by the states that a model carries.

What is here is what all paths to a series share, those of /series and Triton's sequences; which of the two ways it
goes is decided here alone.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import numpy as np
from starlette.requests import Request

from lstm_serve.errors import (
    InvalidInput,
    LstmServeError,
    NoCarry,
    NoWindow,
    SeriesBusy,
    SeriesConflict,
    SeriesFull,
    SeveralWorkers,
)
from lstm_serve.model.answers import answers
from lstm_serve.model.model import Model
from lstm_serve.serving.deployment import Deployment, Served
from lstm_serve.serving.jobs import Reservation
from lstm_serve.serving.series.locks import expect_time
from lstm_serve.serving.series.store import AT_ONCE, Appended, Sent, SeriesKey, Store
from lstm_serve.serving.state import ServingState
from lstm_serve.web.api_keys import Keys
from lstm_serve.web.dialects.series.carried import NOT_APPENDED, CarriedSeries, answers_of, count
from lstm_serve.web.dialects.series.computed import answers_or_errors, output_first, window_of
from lstm_serve.web.dialects.series.request import expect_id, expect_time_axis
from lstm_serve.web.errors import TABLE, row_of
from lstm_serve.web.predict import Predicted, PredictRequest

REFUSALS = (SeriesConflict, SeriesFull, SeriesBusy, NoWindow, NoCarry, SeveralWorkers)

After = Callable[[], None]


def store_of(deployment: Deployment, served: Served) -> Store:
    """The series of a deployment. Raises NoWindow, NoCarry, SeveralWorkers, and as `expect_time_axis` does."""
    expect_time_axis(served)
    if not deployment.has_all_series:
        raise SeveralWorkers(TABLE[SeveralWorkers].example)
    if served.model.is_stateful and served.carrying is None:
        raise NoCarry(f"the model is stateful, and a series cannot carry its states, as {served.model.not_carried}")
    if deployment.series is None or served.model.series_mode is None:
        raise NoWindow(TABLE[NoWindow].example)
    return deployment.series


def owner_of(request: Request) -> bytes:
    """Whose series a request sees: those that began with its API key."""
    keys: Keys | None = request.app.state.keys
    return b"" if keys is None else keys.owner(request.scope["state"]["headers"].get(b"authorization"))


def key_of(request: Request) -> SeriesKey:
    """What the series of a request's path is known by. Raises InvalidInput."""
    return SeriesKey(owner_of(request), expect_id(request.path_params["series"]))


def known_of(seq: int | None, kept: int, model: Model) -> dict[str, Any]:
    """What is said of a series whose last row has this number, with so many rows that are kept."""
    if model.series_mode == "carry":
        return {"seq": seq, "rows": kept, "ready": True}
    timesteps = model.input_shape[0] or 0
    result = {"seq": seq, "rows": min(kept, timesteps), "ready": kept >= timesteps}
    if kept < timesteps:
        result["missing"] = timesteps - kept
    return result


@contextmanager
def refusals_counted(request: PredictRequest) -> Iterator[None]:
    """Count why a series does not take what came."""
    try:
        yield
    except REFUSALS as error:
        count_refusal(error, request)
        raise


def count_refusal(error: LstmServeError, request: PredictRequest) -> None:
    """Count why a series does not take what came, be it all of it or one of several rows."""
    request.deployment.metrics.series_refused(row_of(error).slug)


class Appending:
    """The appends of one request to series whose turn it is, each of which ends with what is answered."""

    def __init__(self, serving: ServingState, request: PredictRequest, store: Store, deadline: float) -> None:
        """`store` is that of `store_of`; `deadline` is in the time of `time.monotonic`."""
        self._serving, self._request, self._store, self._deadline = serving, request, store, deadline
        carrying = request.served.carrying
        self._carried = None if carrying is None else CarriedSeries(serving, carrying, store, request, deadline)

    async def outputs(self, key: SeriesKey, given: Sent) -> tuple[Predicted | None, After | None]:
        """The output of the window that ends with rows, None before there is one; see `output_first`.

        Of a model that answers each row, and whose states are carried, the output has all that were given.
        """
        if self._carried is None:
            _, part, after = await self._last_window(key, given)
            return part, after
        with self._reserve(1):
            _, found = await self._carried.append(key, given)
        ys = [y for y in found if y is not None]
        y = np.concatenate(ys) if self._carried.carrying.stepper.answers_each_row else ys[-1]
        return count(y[np.newaxis], self._request), None

    async def last(self, key: SeriesKey, given: Sent) -> tuple[Appended, Any, After | None]:
        """The series, the answer to the last row, None where there is none, and what is to be done once it is out."""
        if self._carried is None:
            done, part, after = await self._last_window(key, given)
            return done, None if part is None else answers(self._model, *part)[0], after
        with self._reserve(1):
            done, ys = await self._carried.append(key, given)
        return done, answers_of(ys[-1:], self._request, [done.fresh > 0])[0], None

    async def each(self, key: SeriesKey, given: Sent) -> tuple[Appended, list[Any]]:
        """The series, and the answer to each of several rows: None where there is none, or what is wrong."""
        if self._carried is not None:
            with self._reserve(1):
                done, ys = await self._carried.append(key, given)
            return done, answers_of(ys, self._request, [k >= len(ys) - done.fresh for k in range(len(ys))])
        with self._reserve(len(given.rows)):
            done = await self._append(key, given)
            cut = [window_of(done, end, self._model) for end in done.ends]
            return done, await answers_or_errors(self._serving, cut, self._request)

    async def many(
        self, owner: bytes, items: Sequence[tuple[str, Sent] | InvalidInput]
    ) -> tuple[list[Appended | LstmServeError], list[Any]]:
        """Of a row each of many series: the series or what is wrong, and the answer.

        Raises DeadlinePassed or StoreUnavailable where that is why none of them is appended.
        """
        with self._reserve(len(items)):
            if self._carried is not None:
                done, ys = await self._carried.append_many(owner, items)
                _expect_some(done)
                fresh = [isinstance(each, Appended) and each.fresh > 0 for each in done]
                return done, answers_of(ys, self._request, fresh)
            done = await self._append_each(owner, items)
            _expect_some(done)
            cut = [window_of(each, each.ends[0], self._model) if isinstance(each, Appended) else None for each in done]
            return done, await answers_or_errors(self._serving, cut, self._request)

    @property
    def _model(self) -> Model:
        return self._request.served.model

    async def _last_window(self, key: SeriesKey, given: Sent) -> tuple[Appended, Predicted | None, After | None]:
        """Append rows, and compute the last window, if there is one."""
        with self._reserve(1):
            done = await self._append(key, given)
            return done, *await output_first(self._serving, key, done, self._request)

    async def _append_each(
        self, owner: bytes, items: Sequence[tuple[str, Sent] | InvalidInput]
    ) -> list[Appended | LstmServeError]:
        """Append some at once: a store that is another process is asked for all of these together."""
        request, found, wrong = self._request, list[Appended | LstmServeError](), None
        for start in range(0, len(items), AT_ONCE):
            some = items[start : start + AT_ONCE]
            sent = [(SeriesKey(owner, item[0]), item[1]) for item in some if isinstance(item, tuple)]
            if wrong is None:
                try:
                    expect_time(self._deadline)
                    done = await request.deployment.append_each(self._store, sent, self._model, request.drift)
                except NOT_APPENDED as error:
                    wrong = error
            of_each = iter(done) if wrong is None else repeat(wrong)
            found += [item if isinstance(item, InvalidInput) else next(of_each) for item in some]
        return found

    async def _append(self, key: SeriesKey, given: Sent) -> Appended:
        return await self._request.deployment.append(self._store, key, given, self._model, self._request.drift)

    def _reserve(self, count: int) -> Reservation:
        """Have room for the answers before anything is appended. Raises QueueFull."""
        request = self._request
        request.scope["state"]["held"].become(count * request.served.made(_bytes_of_window))
        request.reserved = request.deployment.queue.reserve(count)
        return request.reserved


def _bytes_of_window(model: Model) -> int:
    return math.prod(size or 1 for size in model.input_shape) * np.dtype(model.input_dtype).itemsize


def _expect_some(done: Sequence[Appended | LstmServeError]) -> None:
    """Raise why nothing was appended where there was no time, or no store, for it; of some rows it is told."""
    late = [each for each in done if isinstance(each, NOT_APPENDED)]
    if late and not any(isinstance(each, Appended) for each in done):
        raise late[0]
