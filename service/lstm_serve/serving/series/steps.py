"""A row is answered first: of each series the windows that have begun are kept, each of them a row behind the next.

    a row comes -> the oldest window, which it completes, takes one step alone: the answer
                -> once that has gone out, all the others take the step, as one batch, and one more begins

That is as much arithmetic as to compute the window anew, in two calls in place of one for each of its rows. What is
kept is a cache, of one model: each time the rows that the windows have seen are compared with those of the series, and
where they differ, or the windows are too far behind, the window is computed as a whole.
"""

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple
from weakref import WeakValueDictionary

import numpy as np

from lstm_serve.engine.types import Array, State
from lstm_serve.model.model import Model
from lstm_serve.model.stepping import Stepper
from lstm_serve.serving.jobs import Shortcut
from lstm_serve.serving.series.store import SeriesKey

log = logging.getLogger(__name__)

# What the windows of all series may take together: a thousand series of 16 KB each.
MOST_BYTES = 16 << 20
# A series keeps its place for so many seconds after its last row. Were the place of whoever was idle for longest given
# to the next, none would have one for long enough where more series than there are places send in turns.
IDLE_SECONDS = 60.0
# How often each cost is measured, in how many seconds at most; and the rows of a batch.
MEASUREMENTS = 10
MEASURING_SECONDS = 0.05
BATCH = 16
# To find, compare and keep what has begun takes so many seconds besides.
BESIDES = 30e-6
# A window that takes longer is not looked at: measuring would take seconds, and the steps keep others waiting.
LONGEST_WINDOW = 0.05


class Costs(NamedTuple):
    """What computing takes, in seconds: a window alone, one more in its batch; a step to the answer, and the rest."""

    window: float
    more: float
    answer: float
    rest: float

    @property
    def in_ms(self) -> tuple[float, float, float]:
        """In ms, to a row's answer, after it, and of its window: for the log."""
        return self.answer * 1000, self.rest * 1000, self.window * 1000

    def pay(self, rows: int, due: int) -> bool:
        """Whether so many rows by steps take less than a window in a batch of `due` does."""
        return rows * (self.answer + self.rest) < (self.window - self.more) / due + self.more


class Begun(NamedTuple):
    """The windows that began at each of the last rows of a series: those rows, and their states after the last one."""

    rows: bytes
    state: State
    touched: float


class Followed:
    """That rows of a series are being followed: it is not the same one any more once the series was forgotten."""


class BegunWindows:
    """The windows that have begun, of the series of one model, by their keys."""

    def __init__(
        self, stepper: Stepper, timesteps: int, most: int, costs: Costs, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Those of at most `most` series."""
        self.costs = costs
        self._stepper, self._timesteps, self._most, self._clock = stepper, timesteps, most, clock
        self._one = stepper.start(1)
        self._begun: OrderedDict[SeriesKey, Begun] = OrderedDict()  # who was idle for longest comes first
        # There while something follows.
        self._followed: WeakValueDictionary[SeriesKey, Followed] = WeakValueDictionary()
        # So many rows behind are caught up with, in the time of two windows. To begin anew takes more than it gives
        # where now and then rows of other series are due as well.
        self._furthest = max(1, min(timesteps - 1, int(2 * costs.window / costs.rest)))

    def shortcut(self, series: SeriesKey, window: Array) -> Shortcut | None:
        """The way to the answer of a window (timesteps, *features) from what is kept, if there is one."""
        state, new = self._known(series, window)
        if not state or len(state[0]) != self._timesteps - new:
            return None
        oldest = tuple(array[:1] for array in state)
        return Shortcut(partial(_answer, self._stepper, oldest, window[-new:]), lambda due: self.costs.pay(new, due))

    def follower(self, series: SeriesKey) -> Callable[[Array], Callable[[], None]] | None:
        """What lets the windows of a series take the newest rows that are about to be answered; None without a place.

        It is called with the last rows, at most a window of them, in whichever thread computes; what it returns is then
        to be called on the event loop, and changes nothing where the series was forgotten in the meantime.
        """
        if series not in self._begun and self._is_full(self._clock()):
            return None
        return partial(self._follow, series, self._followed.setdefault(series, Followed()))

    def _follow(self, series: SeriesKey, followed: Followed, rows: Array) -> Callable[[], None]:
        try:
            return partial(self._keep, series, followed, *self._taken(series, rows))
        except Exception:
            log.exception("the steps after an answer raised")
            return partial(self.forget, series)

    def _keep(self, series: SeriesKey, followed: Followed, rows: bytes, state: State) -> None:
        now = self._clock()
        if self._followed.get(series) is not followed:
            return
        if series not in self._begun and len(self._begun) >= self._most:
            if self._is_full(now):
                return
            self._begun.popitem(last=False)
        self._begun[series] = Begun(rows, state, now)
        self._begun.move_to_end(series)

    def count(self) -> int:
        """Of how many series some are kept."""
        return len(self._begun)

    def forget(self, series: SeriesKey) -> None:
        """Let go of what is kept of a series, if anything is."""
        self._begun.pop(series, None)
        self._followed.pop(series, None)

    def _is_full(self, now: float) -> bool:
        """Whether all places are taken, and whoever was idle for longest was not for long enough."""
        if len(self._begun) < self._most:
            return False
        return now - next(iter(self._begun.values())).touched < IDLE_SECONDS

    def _known(self, series: SeriesKey, rows: Array) -> tuple[State, int]:
        """The states of the windows that began in `rows`, the oldest first, and how many of the rows are new to them.

        No state where nothing is known.
        """
        begun = self._begun.get(series)  # all that another thread than the loop's does with it
        if begun is None:
            return (), 1
        of_row = rows[:1].nbytes
        given, kept = rows.tobytes(), len(begun.rows) // of_row
        for new in range(1, min(self._furthest, len(rows) - 1) + 1):
            seen = len(rows) - new
            some = min(kept, seen)
            if begun.rows.endswith(given[(seen - some) * of_row : seen * of_row]):
                return tuple(array[kept - some :] for array in begun.state), new
        return (), 1

    def _taken(self, series: SeriesKey, rows: Array) -> tuple[bytes, State]:
        """The windows once they have taken the new rows, those that are complete left out."""
        state, new = self._known(series, rows)
        if state and len(state[0]) == self._timesteps - new:
            state = tuple(array[1:] for array in state)
        state = _rest(self._stepper, self._one, state, rows[-new:])
        return rows[-len(state[0]) :].tobytes(), state


def _answer(stepper: Stepper, state: State, rows: Array) -> Array:
    """The output of the one window of this state, which the rows complete."""
    for k in range(len(rows)):
        y, state = stepper.step(rows[k : k + 1], state)
    return y


def _rest(stepper: Stepper, one: State, state: State, rows: Array) -> State:
    """The state of several windows, or of none, once they have taken the rows, and of one more begun with each.

    `one` is the state of a window that begins.
    """
    for k in range(len(rows)):
        state = tuple(map(np.concatenate, zip(state, one, strict=True))) if state else one
        state = stepper.advance(rows[k : k + 1], state)
    return state


def measured(model: Model, seconds: float, most: int) -> BegunWindows | None:
    """Return the steps of a model's series, of at most `most` of them, or None where they are no gain.

    `seconds` is about what a window takes.
    """
    stepper = model.stepper() if model.series_mode == "window" else None
    timesteps = None if stepper is None else model.input_shape[0]
    if stepper is None or stepper.answers_each_row or timesteps is None or timesteps < 2 or seconds > LONGEST_WINDOW:
        return None
    one, others = stepper.start(1), stepper.start(timesteps - 2)
    places = MOST_BYTES // max(1, (timesteps - 1) * sum(array.nbytes for array in one))
    if not one or not places:
        return None
    windows = np.zeros((BATCH, timesteps, *(size or 1 for size in model.input_shape[1:])), model.input_dtype)
    window = _fastest(lambda: model.forward(windows[:1]))
    costs = Costs(
        window,
        max(0, _fastest(lambda: model.forward(windows)) - window) / (BATCH - 1),
        _fastest(lambda: _answer(stepper, one, windows[0, :1])),
        _fastest(lambda: _rest(stepper, one, others, windows[0, :1])) + BESIDES,
    )
    return BegunWindows(stepper, timesteps, min(most, places), costs) if costs.pay(1, 1) else None


def _fastest(compute: Callable[[], object]) -> float:
    """What it takes in seconds where nothing else comes between."""
    seconds, begun = math.inf, time.perf_counter()
    for _ in range(MEASUREMENTS):
        start = time.perf_counter()
        compute()
        end = time.perf_counter()
        seconds = min(seconds, end - start)
        if end - begun > MEASURING_SECONDS:
            break
    return seconds
