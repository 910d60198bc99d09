"""Triton's sequences: the rows of a series, one request after the other, by `sequence_id`.

Protocol: extension_sequence.md of triton-inference-server/server. The series is that of /series/{id}, without numbers.
"""

from collections.abc import Callable

from lstm_serve.errors import ComputeFailed, InvalidInput, UnknownSeries
from lstm_serve.serving.series.store import Sent, SeriesKey
from lstm_serve.serving.state import ServingState
from lstm_serve.web.dialects.series.appending import Appending, owner_of, refusals_counted, store_of
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
    deployment, key = request.deployment, SeriesKey(owner_of(request), sequence.series)
    store = store_of(deployment, request.served)
    deadline = deadline_of(request, serving.settings.deadline_seconds, asked.head.timeout)
    expect_few(asked.size, serving.settings.max_rows, "rows")
    ((rows,),) = await converted(asked, request)
    asked.let_go()
    with refusals_counted(request):
        async with deployment.locks.hold((key,), deadline):
            if sequence.start:
                await deployment.forget(store, key)
            else:
                try:
                    await store.look(key)
                except UnknownSeries:
                    raise InvalidInput.at(
                        "expected sequence_start: this sequence has not begun, has ended, or was idle for too long",
                        "parameters",
                    ) from None
            try:
                part, after = await Appending(serving, request, store, deadline).outputs(key, Sent(rows, None))
            except ComputeFailed:
                if sequence.end:  # sent again the rows would fail again
                    await deployment.forget(store, key)
                raise
            if sequence.end:
                await deployment.forget(store, key)
    return part, after
