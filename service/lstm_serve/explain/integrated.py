"""By integrated gradients: how much each cell adds to what an answer's score is over that of the baseline.

The gradient of the score by each cell, averaged along the straight line from the baseline to the sequence, times how
far the cell goes on it. What all cells add is the whole difference, as far as the average is exact. A step that the
model masks stays masked along the way, and adds nothing. Source: Sundararajan, Taly and Yan, Axiomatic Attribution for
Deep Networks (2017); the average is taken by Fejer's second rule, whose next round uses the last one's points again.
"""

from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np

from lstm_serve.engine.operations.wiring import FLOATS_AT_ONCE
from lstm_serve.engine.types import AnyArray, Array, Floats, Mask
from lstm_serve.errors import InvalidInput
from lstm_serve.explain.asked import Explained, has_cells, last_of, place_of, score_of
from lstm_serve.explain.gradients import path

# Intervals on the line, at first and at most, with a point between each two: twice as many are taken where what the
# cells add misses the difference by more than is allowed, and by more than that part of it.
INTERVALS, MOST_INTERVALS, ALLOWED = 10, 320, 1e-3
POINTS = INTERVALS - 1
AT_ONCE = 16  # points that one pass takes: of many more what it keeps is in no cache, and each takes twice as long


class IntegratedGradients:
    """The points on the line of one sequence, in rounds, and the average at those of the last."""

    # What a slice should take, in seconds. Points that are computed together are cheaper, of the default model nine by
    # two thirds; a prediction does not wait for them, since they are computed in pieces.
    seconds: ClassVar[float] = 0.0025

    def __init__(self, what: Explained) -> None:
        """Nothing is computed yet."""
        self.what = what
        self._cells: Floats = np.zeros(what.x.shape)  # what each adds,
        self._error = np.inf  # and by how much all miss
        self._difference = np.nan  # what they should add up to: the score less that of the baseline
        self.count, self._begun = POINTS, 0
        self._by_x = np.empty((POINTS, *what.x.shape), what.x.dtype)
        self._new, self._places = self._by_x, _points(POINTS)[0]  # of this round

    def compute(self, start: int, stop: int) -> Iterator[Array | None]:
        """Add what is at the points number `start` to `stop`, the last left out; they are asked for in their order.

        Where a round is over and misses, `count` is more after it. Gives for each point a number that says nothing, and
        None where it may stop.
        """
        model, index = self.what.model, self.what.index
        if start == 0:
            y, _ = yield from path.recorded(model, self._at(np.zeros(1)), self._masks)
            self._difference = self.what.score - float(score_of(model, y, index)[0])
            yield None
        for first in range(start, stop, self._at_once):
            at = slice(first - self._begun, min(first + self._at_once, stop) - self._begun)
            y, tape = yield from path.recorded(model, self._at(self._places[at]), self._masks)
            self._new[at] = yield from path.back(model, tape, _by_score(y, *place_of(model, index)))
            yield None
            if self._begun + at.stop == self.count:
                self._end_round()
            yield np.zeros(at.stop - at.start, np.float32)

    def _end_round(self) -> None:
        """Take the average, and where it misses have another round."""
        average: Floats = np.tensordot(_points(len(self._by_x))[1], self._by_x, 1)
        self._cells = average * self._way
        self._error = abs(float(self._cells.sum()) - self._difference)
        if self._error > ALLOWED * max(1, abs(self._difference)):
            self._refine()

    def _refine(self) -> None:
        """Have a point more between each two and at the ends, as long as memory stays bounded."""
        points = 2 * len(self._by_x) + 1
        if points < MOST_INTERVALS and points * self.what.x.size <= path.MOST_FLOATS:
            by_x = np.empty((points, *self.what.x.shape), self.what.x.dtype)
            by_x[1::2] = self._by_x
            self._by_x, self._new, self._places = by_x, by_x[::2], _points(points)[0][::2]
            self._begun, self.count = self.count, self.count + len(self._new)

    def found(self, _: AnyArray) -> dict[str, Any]:
        """The explanation. Raises InvalidInput where a gradient was infinite or none, or `not_finite`."""
        cells, error, model = self._cells, self._error, self.what.model
        if not np.isfinite(self._difference):
            raise self.what.not_finite()
        if not np.isfinite(error):
            raise InvalidInput.at('the gradients are not finite along the way: ask with "occlusion"', "method")
        by_step = cells.reshape(len(cells), -1).sum(axis=1) if model.has_time_axis else None
        return self.what.told(
            "integrated-gradients",
            "cell",
            attribution=cells if has_cells(model) else None,
            by_step=by_step,
            by_feature=cells.reshape(-1, cells.shape[-1]).sum(axis=0),
            completeness_error=error,
        )

    def _at(self, places: Floats) -> Array:
        """The points at these shares of the way, (n, *input_shape)."""
        x, base = self.what.x, self.what.baseline.values
        shares = places.reshape(-1, *(1,) * x.ndim)
        return (base + shares * self._way).astype(x.dtype)

    @cached_property
    def _at_once(self) -> int:
        """At how many points gradients are computed in one pass, so that memory stays bounded."""
        return max(1, min(AT_ONCE, FLOATS_AT_ONCE // path.kept_floats(self.what.model, self.what.x.shape)))

    @cached_property
    def _way(self) -> Floats:
        """How far each cell goes from the baseline, (*input_shape)."""
        return self.what.x.astype(np.float64) - self.what.baseline.values

    @cached_property
    def _masks(self) -> dict[int, Mask]:
        return path.masks_of(self.what.model, self.what.x[np.newaxis])


def _by_score(y: Array, column: int, sign: int) -> Array:
    """The gradient of `score_of` by answers y (n, *output_shape)."""
    found = np.zeros(y.shape, y.dtype)
    last_of(found)[:, column] = sign
    return found


@lru_cache
def _points(count: int) -> tuple[Floats, Floats]:
    """An odd number of points between 0 and 1, and their weights, which add up to 1."""
    angles = np.arange(1, count + 1) * np.pi / (count + 1)
    odd = np.arange(1, count + 1, 2)
    weights = np.sin(angles) * (np.sin(np.outer(angles, odd)) / odd).sum(axis=1) * 2 / (count + 1)
    return (1 - np.cos(angles)) / 2, weights
