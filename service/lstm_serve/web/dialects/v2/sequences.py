"""Triton's sequences: the rows of a series, one request after the other, by `sequence_id`.

Protocol: extension_sequence.md of triton-inference-server/server. The series is that of /series/{id}, without numbers.
"""

from collections.abc import Callable

import numpy as np

from lstm_serve.engine.types import Array
from lstm_serve.errors import InvalidInput, UnknownSeries
from lstm_serve.serving.series.store import Key, Sent
from lstm_serve.serving.state import ServingState
from lstm_serve.web.dialects.series.carried import append_carried, count
from lstm_serve.web.dialects.series.routes import append_one, owner_of, refusals_counted, store_of
from lstm_serve.web.dialects.v2.codec import Infer
from lstm_serve.web.dialects.v2.request import Sequenced
from lstm_serve.web.nested_lists import expect_few
from lstm_serve.web.predict import Predicted, PredictRequest, converted, deadline_of


async def in_sequence(
    serving: ServingState, asked: Infer, sequence: Sequenced, request: PredictRequest
) -> tuple[Predicted | None, Callable[[], None] | None]:
    """Append a request's rows to its series; the output of the window that ends with them, None before there is one.

    And what is to be done once that is out. Raises InvalidInput for a series that has not begun.
    """
    deployment, key = request.deployment, Key(owner_of(request), sequence.series)
    store = store_of(deployment, request.served)
    deadline = deadline_of(request, serving.settings.deadline_seconds, asked.head.timeout)
    ((rows,),) = await converted(asked, request)
    asked.let_go()
    expect_few(len(rows), serving.settings.max_rows, "rows")
    with refusals_counted(request):
        async with deployment.lines.of((key,), deadline):
            if sequence.start:
                await store.forget(key)
                deployment.forgotten(key)
            else:
                try:
                    await store.look(key)
                except UnknownSeries:
                    raise InvalidInput.at(
                        "expected sequence_start: this sequence has not begun, has ended, or was idle for too long",
                        "parameters",
                    ) from None
            part, after = await _appended(serving, key, rows, request, deadline)
            if sequence.end:
                await store.forget(key)
                deployment.forgotten(key)
    return part, after


async def _appended(
    serving: ServingState, key: Key, rows: Array, request: PredictRequest, deadline: float
) -> tuple[Predicted | None, Callable[[], None] | None]:
    """As above. Of a model that answers each row, and whose states are carried, the output has the request's rows."""
    carrying, sent = request.served.carrying, Sent(rows, None)
    if carrying is None:
        _, part, after = await append_one(serving, key, sent, request, deadline)
        return part, after
    request.deployment.queue.check_room(1)
    store = store_of(request.deployment, request.served)
    _, found = await append_carried(serving, carrying, store, key, sent, request, deadline)
    ys = [y for y in found if y is not None]
    y = np.concatenate(ys) if carrying.stepper.answers_each_row else ys[-1]
    return count(y[np.newaxis], request), None
