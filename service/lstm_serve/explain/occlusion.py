"""Why an answer is what it is, by occlusion: how far its score drops where a part of the sequence says nothing.

Each step, each feature, or each cell takes the values of a baseline, one part at a time, and the model answers each
such sequence. It works for every model, since it needs nothing but answers. Source: Zeiler and Fergus, Visualizing and
Understanding Convolutional Networks (2014), 4.2.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.operations.pointwise import BatchNormalization, Normalization, Scaling
from lstm_serve.engine.operations.temporal import Embedding
from lstm_serve.engine.types import FLOAT32_MAX, Array
from lstm_serve.errors import InvalidInput
from lstm_serve.model.answers import answers
from lstm_serve.model.graph import INPUT, Source
from lstm_serve.model.model import Model

Grain = Literal["step", "cell"]
METHOD = "occlusion"


class Baseline(NamedTuple):
    """What says nothing: a value for each feature (F,), or one id (), and where it comes from."""

    values: npt.NDArray[np.float64]
    origin: str


class Asked(NamedTuple):
    """What is to be explained: the score of a class, None being the one that is answered; against which baseline."""

    explained: int | None = None
    grain: Grain = "step"
    baseline: float | list[float] | None = None


def baseline_of(model: Model, given: float | list[float] | None = None) -> Baseline:
    """The given one, else the training mean where the model has it, else what its first layer takes as zeros.

    Raises InvalidInput where the given one does not fit.
    """
    if model.id_limit is not None:
        masks = any(isinstance(op, Embedding) and op.mask_zero for op, _ in model.nodes)
        if given is None:
            return Baseline(np.zeros(()), "the id 0, the padding that the model masks" if masks else "the id 0")
        if isinstance(given, list) or not (0 <= given < model.id_limit and given == int(given)):
            raise InvalidInput.at(f"expected an id, an integer from 0 to {model.id_limit - 1}", "baseline")
        return Baseline(np.array(given, np.float64), "given")
    features = model.input_shape[-1] or 1
    if given is not None:
        values = np.asarray(given, np.float64)
        if values.shape not in {(), (features,)} or not (np.abs(values) <= FLOAT32_MAX).all():
            raise InvalidInput.at(
                f"expected a finite number, or a list of {features}, one for each feature", "baseline"
            )
        return Baseline(np.broadcast_to(values, (features,)), "given")
    first = _reading(model, Source(INPUT))
    offset, scale, origin = np.zeros(features), np.ones(features), "zeros"
    if isinstance(first, Scaling):
        offset, scale = (np.broadcast_to(array, (features,)) for array in (first.offset, first.scale))
        origin = "what the card's scaling makes 0"
        first = _reading(model, Source(0))
    if isinstance(first, Normalization | BatchNormalization) and first.mean.size in {1, features}:
        mean = np.broadcast_to(first.mean.reshape(-1), (features,))
        return Baseline(offset + mean * scale, f"the training mean, from the layer {first.name}")
    return Baseline(offset, origin)


def _reading(model: Model, source: Source) -> Any:  # noqa: ANN401 - an operation, or nothing
    """The one operation that reads a value, or None where several do."""
    readers = [op for op, inputs in model.nodes if source in inputs]
    return readers[0] if len(readers) == 1 else None


@dataclass(frozen=True, eq=False)
class Occlusion:
    """One sequence x (*input_shape), and what it becomes with each of its parts replaced, made when it is computed."""

    model: Model
    x: Array
    baseline: Baseline
    grain: Grain

    @cached_property
    def steps(self) -> int:
        """How many steps are replaced one by one; none where the model has no time axis."""
        return len(self.x) if self.model.has_time_axis else 0

    @cached_property
    def features(self) -> int:
        """How many features are; none where a step is an id."""
        return self.x.shape[-1] if self.model.id_limit is None else 0

    @property
    def cells(self) -> int:
        """How many cells are."""
        return self.steps * self.features if self.grain == "cell" else 0

    def __len__(self) -> int:
        """How many sequences there are: each step's, each feature's, each cell's."""
        return self.steps + self.features + self.cells

    def rows(self, start: int, stop: int) -> Array:
        """Sequences number `start` to `stop`, the last left out, (n, *input_shape)."""
        made = np.repeat(self.x[np.newaxis], stop - start, axis=0)
        base = self.baseline.values.astype(made.dtype)
        for row, k in zip(made, range(start, stop), strict=True):
            if k < self.steps:
                row[k] = base
            elif k < self.steps + self.features:
                row[..., k - self.steps] = base[k - self.steps]
            else:
                step, feature = divmod(k - self.steps - self.features, self.features)
                row[step, feature] = base[feature]
        return made

    def attributed(self, y: Array, scores: npt.NDArray[np.float64], index: int) -> dict[str, Any]:
        """The explanation, of the answer y (*output_shape) and the score of each sequence; arrays are NumPy's."""
        score = float(score_of(self.model, y[np.newaxis], index)[0])
        drops = score - scores
        by_step, by_feature, cells = np.split(drops, [self.steps, self.steps + self.features])
        (answer,), names = answers(self.model, y[np.newaxis]), self.model.about.classes
        values = self.baseline.values
        return {
            "answer": answer,
            "class": index,
            "label": names and names[index],
            "score": score,
            "attribution": cells.reshape(self.steps, self.features) if self.cells else None,
            "by_step": by_step if self.steps else None,
            "by_feature": by_feature if self.features else None,
            "method": METHOD,
            "grain": self.grain,
            "baseline": {"from": self.baseline.origin, "values": values.tolist()},
        }


def occlusion(model: Model, x: Array, asked: Asked) -> Occlusion:
    """What is to be computed for one sequence x (*input_shape). Raises InvalidInput where it is asked wrongly."""
    if asked.explained is not None and not 0 <= asked.explained < count_of(model):
        raise InvalidInput.at(f"expected an integer from 0 to {count_of(model) - 1}", "class")
    if asked.grain == "cell" and not has_cells(model):
        raise InvalidInput.at("expected step: the model's input has no cells of one step and one feature", "grain")
    return Occlusion(model, x, baseline_of(model, asked.baseline), asked.grain)


def explained(model: Model, x: npt.ArrayLike, asked: Asked = Asked()) -> dict[str, Any]:  # noqa: B008 - it is immutable
    """Explain the answer to one sequence x (*input_shape), as POST /explain does. Raises InvalidInput."""
    model.expect_one("what is explained")
    (row,) = model.checked(np.asarray(x)[np.newaxis])
    what = occlusion(model, row, asked)
    (y,) = model.predict(row[np.newaxis])
    index = index_of(model, y, asked.explained)
    size = model.rows_at_once(row.shape)
    scores = [
        score_of(model, model.predict(what.rows(start, min(start + size, len(what)))), index)
        for start in range(0, len(what), size)
    ]
    return what.attributed(y, np.concatenate(scores), index)


def index_of(model: Model, y: Array, index: int | None) -> int:
    """Which class of the answer y (*output_shape) is explained: the given one, or that which is answered.

    Of several labels the likeliest, of values the first.
    """
    if index is not None:
        return index
    if model.kind == "values":
        return 0
    last = _last(y[np.newaxis])[0]
    return int(last[0] >= model.about.threshold) if model.kind == "binary" else int(last.argmax())


def score_of(model: Model, y: Array, index: int) -> npt.NDArray[np.float64]:
    """The probability of the class, or the value, in answers y (n, *output_shape) -> (n,); at the last of steps."""
    last = _last(y).astype(np.float64)
    if model.kind == "binary":
        return last[:, 0] if index else 1 - last[:, 0]
    return last[:, index]


def _last(y: Array) -> Array:
    return y.reshape(len(y), -1, y.shape[-1])[:, -1]


def count_of(model: Model) -> int:
    """How many classes, or values, may be explained."""
    return 2 if model.kind == "binary" else model.output_shape[-1] or 1


def has_cells(model: Model) -> bool:
    """Whether an input is steps of features, each of which may be replaced by itself."""
    return model.has_time_axis and len(model.input_shape) == 2
