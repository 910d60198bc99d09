"""What is answered for a row of output, by the kind of the model: the same over HTTP and on the command line."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, assert_never

import numpy as np

from lstm_serve.engine.types import Array, Ints
from lstm_serve.model.model import Model
from lstm_serve.model.records import unpacked

# For each row its class; of several labels those that are predicted; of steps the class of each.
ClassIndices = list[int] | list[list[int]]


def answers(model: Model, y: Array, predicted: ClassIndices | None = None) -> list[dict[str, Any]]:
    """For each row of y (n, *output_shape) its answer; arrays in it are still NumPy's, C-contiguous float32.

    `predicted` is what `predicted_classes` gives, where the caller has asked already.
    """
    if y.dtype.names is not None:  # each of several outputs by its name
        each = [answers(head, part) for head, part in zip(model.heads.values(), unpacked(y), strict=True)]
        return [{"outputs": dict(zip(y.dtype.names, row, strict=True))} for row in zip(*each, strict=True)]
    y = np.ascontiguousarray(y)
    found: Any = predicted_classes(model, y) if predicted is None else predicted
    names = model.about.classes
    match model.kind:
        case "values":
            return [{"values": row} for row in y]
        case "binary":
            return [
                {"probability": row[0], "predicted_class": k, "label": names and names[k]}
                for row, k in zip(y, found, strict=True)
            ]
        case "labels":
            assert names is not None  # noqa: S101 - it is what makes the kind
            return [
                {"probabilities": row, "labels": [names[k] for k in classes]}
                for row, classes in zip(y, found, strict=True)
            ]
        case "steps":
            return [{"steps": _of_classes(names, row, classes)} for row, classes in zip(y, found, strict=True)]
        case "classes":
            return _of_classes(names, y, found)
        case _:
            assert_never(model.kind)


def _of_classes(names: Sequence[str] | None, y: Array, classes: Iterable[int]) -> list[dict[str, Any]]:
    """For each distribution in y (n, C) its answer."""
    return [
        {"probabilities": row, "predicted_class": k, "label": names and names[k]}
        for row, k in zip(y, classes, strict=True)
    ]


def predicted_classes(model: Model, y: Array) -> ClassIndices:
    """What is predicted for each row of y (n, *output_shape); nothing of plain values, or where outputs are several."""
    if y.dtype.names is not None:
        return []
    match model.kind:
        case "values":
            return []
        case "labels":
            return [np.flatnonzero(row).tolist() for row in chosen(model, y)]
        case "classes" | "binary" | "steps":
            classes: ClassIndices = chosen(model, y).tolist()
            return classes
        case _:
            assert_never(model.kind)


def chosen(model: Model, y: Array) -> Ints:
    """The class of each row of y (..., classes), an index; of several labels for each whether it is predicted.

    Raises ValueError where the model answers plain values.
    """
    match model.kind:
        case "binary" | "labels":
            over: Ints = (y >= model.about.threshold).astype(np.int64)
            return over[:, 0] if model.kind == "binary" else over
        case "classes" | "steps":
            index: Ints = y.argmax(axis=-1)
            return index
        case "values":
            raise ValueError("plain values are of no class")
        case _:
            assert_never(model.kind)


def counted(model: Model, predicted: ClassIndices) -> Iterable[int]:
    """Each class that is predicted, one by one: of labels and of steps there are several in a row."""
    found: Any = predicted
    match model.kind:
        case "labels" | "steps":
            return chain.from_iterable(found)
        case "classes" | "binary" | "values":
            one_each: list[int] = found
            return one_each
        case _:
            assert_never(model.kind)
