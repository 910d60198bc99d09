"""What is answered for a row of output, by the kind of the model: the same over HTTP and on the command line."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from service.engine.activations import Array
from service.engine.model import Model

# At this probability and above a binary model answers 1.
THRESHOLD = 0.5


def answers(model: Model, y: Array, classes: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """For each row of y (n, *output_shape) its answer; arrays in it are still NumPy's, C-contiguous float32.

    `classes` are what `predicted_classes` gives, where the caller has asked already.
    """
    if model.kind == "values":
        return [{"values": row} for row in np.ascontiguousarray(y)]
    labels = model.about.classes
    classes = predicted_classes(model, y) if classes is None else classes
    if model.kind == "binary":
        return [
            {"probability": row[0], "predicted_class": k, "label": labels and labels[k]}
            for row, k in zip(y, classes, strict=True)
        ]
    return [
        {"probabilities": row, "predicted_class": k, "label": labels and labels[k]}
        for row, k in zip(np.ascontiguousarray(y), classes, strict=True)
    ]


def predicted_classes(model: Model, y: Array) -> list[int]:
    """The class predicted for each row of y (n, *output_shape); none at all for plain values."""
    if model.kind == "values":
        return []
    classes: list[int] = (y.argmax(axis=1) if model.kind == "classes" else (y[:, 0] >= THRESHOLD).astype(int)).tolist()
    return classes
