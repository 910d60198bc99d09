"""What is to be explained: the score of a class, or a value, and against which baseline."""

from dataclasses import dataclass
from typing import Any, NamedTuple, assert_never

import numpy as np

from lstm_serve.engine.operations.pointwise import BatchNormalization, Normalization, Scaling
from lstm_serve.engine.operations.temporal import Embedding
from lstm_serve.engine.types import Array, Floats
from lstm_serve.errors import InvalidInput, LstmServeError, NotFinite
from lstm_serve.explain.methods import Grain, Method
from lstm_serve.model.answers import answers, chosen
from lstm_serve.model.graph import INPUT, Source
from lstm_serve.model.inputs import fits, wanted
from lstm_serve.model.model import Model

GIVEN = "given"


class Baseline(NamedTuple):
    """What says nothing: a value for each feature (F,), or one id (), and where it comes from."""

    values: Floats
    origin: str


class Asked(NamedTuple):
    """What is to be explained: the score of a class, None being the one that is answered; how, against which baseline.

    The grain is that of occlusion. The method None is the first that the model has.
    """

    explained: int | None = None
    grain: Grain = "step"
    baseline: float | list[float] | None = None
    method: Method | None = None


def baseline_of(model: Model, given: float | list[float] | None = None) -> Baseline:
    """The given one, else the training mean where model or profile has it, else what the first layer takes as zeros.

    Raises InvalidInput where the given one does not fit.
    """
    if model.id_limit is not None:
        masks = any(isinstance(op, Embedding) and op.mask_zero for op, _ in model.nodes)
        if given is None:
            return Baseline(np.zeros(()), "the id 0, the padding that the model masks" if masks else "the id 0")
        if isinstance(given, list) or not (0 <= given < model.id_limit and given == int(given)):
            raise InvalidInput.at(f"expected {wanted(model.id_limit)}", "baseline")
        return Baseline(np.array(given, np.float64), GIVEN)
    features = model.input_shape[-1] or 1
    if given is not None:
        values = np.asarray(given, np.float64)
        if values.shape not in {(), (features,)} or not fits(values, None).all():
            raise InvalidInput.at(
                f"expected a finite number, or a list of {features}, one for each feature", "baseline"
            )
        return Baseline(np.broadcast_to(values, (features,)), GIVEN)
    first = _reading(model, Source(INPUT))
    offset, scale, origin = np.zeros(features), np.ones(features), "zeros"
    if isinstance(first, Scaling):
        offset, scale = (np.broadcast_to(array, (features,)) for array in (first.offset, first.scale))
        origin = "what the card's scaling makes 0"
        first = _reading(model, Source(0))
    if isinstance(first, Normalization | BatchNormalization) and first.mean.size in {1, features}:
        mean = np.broadcast_to(first.mean.reshape(-1), (features,))
        return Baseline(offset + mean * scale, f"the training mean, from the layer {first.name}")
    if model.profile is not None and len(model.profile.columns) == features:
        return Baseline(
            np.array([column.mean for column in model.profile.columns]), "the training mean, of the profile"
        )
    return Baseline(offset, origin)


def _reading(model: Model, source: Source) -> Any:  # noqa: ANN401 - an operation, or nothing
    """The one operation that reads a value, or None where several do."""
    readers = [op for op, inputs in model.nodes if source in inputs]
    return readers[0] if len(readers) == 1 else None


def index_of(model: Model, y: Array, index: int | None) -> int:
    """Which class of the answer y (*output_shape) is explained: the given one, or that which is answered.

    Of several labels the likeliest, of values the first.
    """
    if index is not None:
        return index
    last = last_of(y[np.newaxis])
    match model.kind:
        case "values":
            return 0
        case "labels":
            return int(last.argmax())
        case "classes" | "steps" | "binary":
            return int(chosen(model, last)[0])
        case _:
            assert_never(model.kind)


def score_of(model: Model, y: Array, index: int) -> Floats:
    """The probability of the class, or the value, in answers y (n, *output_shape) -> (n,); at the last of steps."""
    last = last_of(y).astype(np.float64)
    column, sign = place_of(model, index)
    return last[:, column] if sign > 0 else 1 - last[:, column]


def place_of(model: Model, index: int) -> tuple[int, int]:
    """Which number of an answer the score is, and by how much the score grows with it; -1: it is one minus it."""
    match model.kind:
        case "binary":
            return 0, 1 if index else -1
        case "classes" | "labels" | "steps" | "values":
            return index, 1
        case _:
            assert_never(model.kind)


def last_of(y: Array) -> Array:
    """Of answers (n, *output_shape) what the score is of, (n, classes): a view of the last of steps."""
    return y.reshape(len(y), -1, y.shape[-1])[:, -1]


def count_of(model: Model) -> int:
    """How many classes, or values, may be explained."""
    match model.kind:
        case "binary":
            return 2
        case "classes" | "labels" | "steps" | "values":
            return model.output_shape[-1] or 1
        case _:
            assert_never(model.kind)


def has_cells(model: Model) -> bool:
    """Whether an input is steps of features, each of which may be replaced by itself."""
    return model.has_time_axis and len(model.input_shape) == 2


@dataclass(frozen=True, eq=False)
class Explained:
    """An answer y (*output_shape) to x (*input_shape), the index of the score that is explained, and the baseline."""

    model: Model
    x: Array
    y: Array
    index: int
    baseline: Baseline

    @classmethod
    def of(cls, model: Model, x: Array, asked: Asked, y: Array) -> "Explained":
        """What is explained of an answer."""
        return cls(model, x, y, index_of(model, y, asked.explained), baseline_of(model, asked.baseline))

    @property
    def score(self) -> float:
        """That of the answer."""
        return float(score_of(self.model, self.y[np.newaxis], self.index)[0])

    def not_finite(self) -> LstmServeError:
        """What to raise where the answer is finite, and that to the baseline, or beside it, is not."""
        if self.baseline.origin == GIVEN:
            return InvalidInput.at("expected values with which the model's answers are finite", "baseline")
        return NotFinite(f"an answer is not finite where a part is replaced by {self.baseline.origin}")

    def told(self, method: Method, grain: Grain, **parts: Any) -> dict[str, Any]:  # noqa: ANN401 - arrays and numbers
        """The explanation; arrays are NumPy's."""
        (answer,), names = answers(self.model, self.y[np.newaxis]), self.model.about.classes
        return {
            "answer": answer,
            "class": self.index,
            "label": names and names[self.index],
            "score": self.score,
            **parts,
            "method": method,
            "grain": grain,
            "baseline": {"from": self.baseline.origin, "values": self.baseline.values.tolist()},
        }
