"""By occlusion: how far the score of an answer drops where a part of the sequence says nothing.

Each step, each feature, or each cell takes the values of a baseline, one part at a time, and the model answers each
such sequence. It works for every model, since it needs nothing but answers. Source: Zeiler and Fergus, Visualizing and
Understanding Convolutional Networks (2014), 4.2.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np

from lstm_serve.engine.types import AnyArray, Array, Floats
from lstm_serve.explain.asked import Explained, score_of
from lstm_serve.explain.methods import Grain
from lstm_serve.model.model import Model


class Parts(NamedTuple):
    """How many parts are replaced one by one."""

    steps: int
    features: int
    cells: int


def parts_of(model: Model, x: Array, grain: Grain) -> Parts:
    """The parts of a sequence: no steps where the model has no time axis, no features where a step is an id."""
    steps = len(x) if model.has_time_axis else 0
    features = x.shape[-1] if model.id_limit is None else 0
    return Parts(steps, features, steps * features if grain == "cell" else 0)


@dataclass(frozen=True, eq=False)
class Occlusion:
    """What a sequence becomes with each of its parts replaced, made when it is computed, and the scores of that."""

    what: Explained
    grain: Grain

    # What a slice should take, in seconds: a prediction waits at most for one.
    seconds: ClassVar[float] = 0.0006

    @cached_property
    def parts(self) -> Parts:
        """What is replaced."""
        return parts_of(self.what.model, self.what.x, self.grain)

    @property
    def count(self) -> int:
        """How many sequences there are: each step's, each feature's, each cell's."""
        return sum(self.parts)

    def compute(self, start: int, stop: int) -> Iterator[Floats]:
        """The scores of sequences number `start` to `stop`, the last left out, (n,)."""
        yield score_of(self.what.model, self.what.model.forward(self._rows(start, stop)), self.what.index)

    def found(self, scores: AnyArray) -> dict[str, Any]:
        """The explanation, of the score of each sequence. Raises `not_finite`."""
        if not np.isfinite(scores).all():
            raise self.what.not_finite()
        steps, features, cells = self.parts
        by_step, by_feature, by_cell = np.split(self.what.score - scores, [steps, steps + features])
        return self.what.told(
            "occlusion",
            self.grain,
            attribution=by_cell.reshape(steps, features) if cells else None,
            by_step=by_step if steps else None,
            by_feature=by_feature if features else None,
            completeness_error=None,
        )

    def _rows(self, start: int, stop: int) -> Array:
        """Sequences number `start` to `stop`, (n, *input_shape)."""
        steps, features, _ = self.parts
        made = np.repeat(self.what.x[np.newaxis], stop - start, axis=0)
        base = self.what.baseline.values.astype(made.dtype)
        for row, k in zip(made, range(start, stop), strict=True):
            if k < steps:
                row[k] = base
            elif k < steps + features:
                row[..., k - steps] = base[k - steps]
            else:
                step, feature = divmod(k - steps - features, features)
                row[step, feature] = base[feature]
        return made
