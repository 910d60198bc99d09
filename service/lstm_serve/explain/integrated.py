"""By integrated gradients: how much each cell adds to what an answer's score is over that of the baseline.

The gradient of the score by each cell, averaged along the straight line from the baseline to the sequence, times how
far the cell goes on it. What all cells add is the whole difference, as far as the average is exact. A step that the
model masks stays masked along the way, and adds nothing. Source: Sundararajan, Taly and Yan, Axiomatic Attribution for
Deep Networks (2017); the average is taken at the points of Gauss and Legendre.
"""

from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np

from lstm_serve.engine.operations.wiring import FLOATS_AT_ONCE
from lstm_serve.engine.types import AnyArray, Array, Floats, Mask
from lstm_serve.errors import InvalidInput
from lstm_serve.explain.asked import Explained, has_cells, last_of, score_of
from lstm_serve.explain.gradients import path

# Points on the line, at first and at most: twice as many are taken where what the cells add misses the difference by
# more than is allowed, and by more than that part of it.
POINTS, MOST_POINTS, ALLOWED = 16, 256, 1e-3


class IntegratedGradients:
    """The points on the line of one sequence, in rounds, and the average at those of the last."""

    # What a slice should take, in seconds; on a machine that has become busy it may be twice that. Of the default model
    # that is half of the first round, which in two halves costs as much; in four it would cost half as much again.
    seconds: ClassVar[float] = 0.0025

    def __init__(self, what: Explained) -> None:
        """Nothing is computed yet."""
        self.what = what
        self.count = POINTS
        self._points, self._begun = POINTS, 0
        self._average = np.zeros(what.x.shape)

    def compute(self, start: int, stop: int) -> Array:
        """Add what is at the points number `start` to `stop`, the last left out; they are asked for in their order.

        Where a round is over and misses, `count` is more after it. Gives (n,) numbers that say nothing.
        """
        model, index = self.what.model, self.what.index
        places, weights = _points(self._points)
        for first in range(start, stop, self._at_once):
            at = slice(first - self._begun, min(first + self._at_once, stop) - self._begun)
            y, tape = path.recorded(model, self._at(places[at]), self._masks)
            by_x = path.back(model, tape, _by_score(y, index, model.kind == "binary"))
            with np.errstate(all="ignore"):
                self._average += np.tensordot(weights[at], by_x, 1)
        if stop == self.count and self._points < MOST_POINTS and self._error > ALLOWED * max(1, abs(self._difference)):
            self._points, self._begun = 2 * self._points, self.count
            self.count += self._points
            self._average[:] = 0
        return np.zeros(stop - start, np.float32)

    def found(self, _: AnyArray) -> dict[str, Any]:
        """The explanation. Raises InvalidInput where a gradient was infinite or none."""
        error = self._error
        if not np.isfinite(error):
            raise InvalidInput.at('the gradients are not finite along the way: ask with "occlusion"', "method")
        cells, model = self._average * self._way, self.what.model
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
        return max(1, FLOATS_AT_ONCE // path.kept_floats(self.what.model, self.what.x.shape))

    @cached_property
    def _way(self) -> Floats:
        """How far each cell goes from the baseline, (*input_shape)."""
        return self.what.x.astype(np.float64) - self.what.baseline.values

    @cached_property
    def _masks(self) -> dict[int, Mask]:
        return path.masks_of(self.what.model, self.what.x[np.newaxis])

    @cached_property
    def _difference(self) -> float:
        """The score less that of the baseline."""
        x = self._at(np.zeros(1))
        y = path.recorded(self.what.model, x, self._masks)[0] if self._masks else self.what.model.forward(x)
        return self.what.score - float(score_of(self.what.model, y, self.what.index)[0])

    @property
    def _error(self) -> float:
        """By how much what all cells add misses the difference."""
        with np.errstate(all="ignore"):
            return abs(float((self._average * self._way).sum()) - self._difference)


def _by_score(y: Array, index: int, binary: bool) -> Array:  # noqa: FBT001 - a kind
    """The gradient of `score_of` by answers y (n, *output_shape)."""
    found = np.zeros(y.shape, y.dtype)
    last = last_of(found)
    if binary:
        last[:, 0] = 1 if index else -1
    else:
        last[:, index] = 1
    return found


@lru_cache
def _points(count: int) -> tuple[Floats, Floats]:
    """Points from 0 to 1, and their weights, which add up to 1."""
    places, weights = np.polynomial.legendre.leggauss(count)
    return (places + 1) / 2, weights / 2
