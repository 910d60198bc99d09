"""The answers to windows that end with rows: of whole windows, or where one row is due, of a step from those before.

The rows are there by now: who takes a refusal for one of them would send them again. So no answer is refused any more,
and none is given up for being late, as long as its client is there.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from lstm_serve.engine.types import Array
from lstm_serve.errors import ComputeFailed
from lstm_serve.model.answers import answers
from lstm_serve.model.model import Model
from lstm_serve.serving.jobs import Shortcut
from lstm_serve.serving.series.store import Appended, SeriesKey
from lstm_serve.serving.state import ServingState
from lstm_serve.web.predict import Predicted, PredictRequest, computed, noted, submitted


def window_of(done: Appended, end: int | None, model: Model) -> Array | None:
    """The window of a row, (timesteps, *features), where it is there."""
    timesteps = model.input_shape[0] or 0
    return None if end is None or end < timesteps else done.rows[end - timesteps : end]


async def answers_to(serving: ServingState, cut: Sequence[Array | None], request: PredictRequest) -> list[Any]:
    """The answer to each window, None where there is none."""
    ready = [window for window in cut if window is not None]
    found = iter(answers(request.served.model, *await _outputs(serving, ready, request)) if ready else ())
    return [None if window is None else next(found) for window in cut]


async def _outputs(
    serving: ServingState, ready: Sequence[Array], request: PredictRequest, shortcut: Shortcut | None = None
) -> Predicted:
    """The outputs of windows; `shortcut` is that of the one window."""
    x = ready[0][np.newaxis] if len(ready) == 1 else np.stack(ready)
    (job,) = jobs = submitted(serving, [x], request, math.inf, shortcut)
    (part,) = noted(await computed(jobs, request), request, [None])
    request.deployment.metrics.series_answered(len(ready), "step" if job.shortened else "window")
    return part


async def answers_or_errors(serving: ServingState, cut: Sequence[Array | None], request: PredictRequest) -> list[Any]:
    """The answer to each window as `answers_to` has it, or the ComputeFailed of that window alone."""
    try:
        return await answers_to(serving, cut, request)
    except ComputeFailed as error:
        if len(cut) == 1:
            return [error]
    half = len(cut) // 2  # of n windows with a bad one 2n more are computed
    return [
        *await answers_or_errors(serving, cut[:half], request),
        *await answers_or_errors(serving, cut[half:], request),
    ]


async def output_first(
    serving: ServingState, series: SeriesKey, done: Appended, request: PredictRequest
) -> tuple[Predicted | None, Callable[[], None] | None]:
    """The output of the last row's window, if that is there, and what is to be done once it is out, if anything is."""
    steps, queue, model = request.served.steps, request.deployment.queue, request.served.model
    window = window_of(done, done.ends[-1], model)
    if steps is None or not done.fresh:
        return None if window is None else await _outputs(serving, [window], request), None
    due, follow = 1 + queue.queued_rows, steps.follower(series)
    found = None
    if window is not None:
        found = await _outputs(serving, [window], request, steps.shortcut(series, window))
        due = request.scope["state"]["jobs"][-1].due
    if follow is None or not steps.costs.pay(done.fresh + done.filled, due):
        return found, None
    rows = done.rows[-(model.input_shape[0] or 0) :]
    return found, partial(queue.run_after, partial(follow, rows))
