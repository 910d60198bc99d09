"""A model in the form that engines for bulk data call: a class for Ray Data, a function for Spark.

Their rows are windows. NumPy is there before us in their processes, so BLAS is limited as `Model.predict` does it, pass
by pass.
"""

from collections.abc import Callable, Mapping
from functools import partial
from os import PathLike, fspath
from typing import assert_never

import numpy as np

from lstm_serve.engine.types import AnyArray, Array
from lstm_serve.errors import InvalidInput
from lstm_serve.loading.load import load_model
from lstm_serve.model.answers import chosen
from lstm_serve.model.model import Model
from lstm_serve.scoring.inputs import only_one

Path = str | PathLike[str]

ANSWERED = ("y", "predicted_class", "label")


class Predictor:
    """Answers batches, as Ray Data's `map_batches` makes it in each actor and calls it.

    Raises ModelError where the model at `path`, as each node sees it, cannot be served.
    """

    def __init__(self, path: Path) -> None:
        """Load the model, with the card and the golden predictions beside it."""
        self._model = _loaded(path)

    def __call__(self, batch: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """The columns of a batch with the answers in the place of the windows.

        The windows are the column x, or the only one: (n, *input_shape), flattened to (n, size), or lists of either.
        The answers are y, float32 (n, *output_shape), and of a model that answers one class its `predicted_class` and,
        where the classes have names, its `label`. Raises InvalidInput.
        """
        name = only_one(batch)
        taken = [column for column in batch if column in ANSWERED and column != name]
        if taken:
            raise InvalidInput.at(f"has a column {taken[0]}, as an answer has: rename it")
        model = self._model
        y = model.predict(_unflattened(batch[name], model.input_shape))
        answered: dict[str, AnyArray] = {"y": y}
        match model.kind:
            case "classes" | "binary":
                answered["predicted_class"] = chosen(model, y)
                if model.about.classes is not None:
                    answered["label"] = np.array(model.about.classes)[answered["predicted_class"]]
            case "labels" | "steps" | "values":  # more than one class in a row, or none
                pass
            case _:
                assert_never(model.kind)
        return {**{column: cells for column, cells in batch.items() if column != name}, **answered}


def make_predict_fn(path: Path) -> Callable[[], Callable[[AnyArray], Array]]:
    """Return what Spark's `predict_batch_udf` takes: a function that loads the model, and returns what answers.

    That takes windows (n, *input_shape) and gives float32 (n, size of an output), as Spark knows no further axes. The
    executors load the model from `path` as they see it. Raises InvalidInput, and ModelError on loading.
    """
    return partial(_predict_fn, fspath(path))


def _predict_fn(path: str) -> Callable[[AnyArray], Array]:
    model = _loaded(path)

    def predict(x: AnyArray) -> Array:
        y: Array = model.predict(x).reshape(len(x), -1)
        return y

    return predict


def _loaded(path: Path) -> Model:
    model = load_model(path)
    model.expect_one("lstm_serve.bulk")
    return model


def _unflattened(column: AnyArray, input_shape: tuple[int | None, ...]) -> AnyArray:
    """Windows out of a column: lists of lists as one array, each window in its shape."""
    try:
        x = np.asarray(column)
        while x.dtype == object and x.size and isinstance(x.flat[0], list | np.ndarray):
            x = np.array(x.tolist())
    except ValueError:
        raise InvalidInput.at("has windows of different lengths in a batch") from None
    if x.ndim != 2 or len(input_shape) == 1:
        return x
    sizes = [-1 if size is None else size for size in input_shape]
    try:
        return x.reshape(len(x), *sizes)
    except ValueError:
        return x  # `predict` says what it expected
