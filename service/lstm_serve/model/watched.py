"""What is counted of a model's inputs and answers, to be held against its profile."""

from typing import assert_never

import numpy as np

from lstm_serve.engine.types import AnyArray, Array
from lstm_serve.model.answers import chosen
from lstm_serve.model.metadata import column_names
from lstm_serve.model.model import Model
from lstm_serve.model.profile import BINS, MOST_FEATURES, Spoken


def why_not(model: Model) -> str | None:
    """Why a model's inputs have no features that could be watched; None where they have."""
    if not model.is_single:
        return "it has several inputs or outputs, and one of each is watched"
    if model.id_limit is not None:
        return "it takes ids, and how far one is from another means nothing"
    if len(model.input_shape) > 2 or model.input_shape[-1] is None:
        return f"no row of features is in an input of the shape {model.input_shape}"
    return None


def names(model: Model) -> list[str]:
    """What the features that are watched are called, at most MOST_FEATURES."""
    return column_names(model.about.features, model.input_shape[-1] or 0)[:MOST_FEATURES]


def rows(x: AnyArray) -> AnyArray:
    """The rows that count, (n, F): of sequences (n, timesteps, features) the last; rows themselves as they are."""
    return x[:, :MOST_FEATURES] if x.ndim == 2 else x[:, -1, :MOST_FEATURES]


def class_count(model: Model) -> int | None:
    """How many classes the answers are distributions over; None where they are none."""
    match model.kind:
        case "binary":
            return 2
        case "classes" | "steps":
            return model.output_shape[-1]
        case "labels" | "values":
            return None
        case _:
            assert_never(model.kind)


def last(y: Array) -> Array:
    """The last step (n, 1, classes) of answers at each step; other answers as they are."""
    return y if y.ndim < 3 else y[:, -1:]


def spoken(model: Model, y: Array) -> Spoken | None:
    """What the outputs y (n, *output_shape) say, in counts; None where they are no distributions over classes.

    Of an answer for each step the last counts alone: it is of the row that counts.
    """
    count = class_count(model)
    if count is None:
        return None
    y = last(y)
    shares = np.concatenate([1 - y, y], axis=-1) if model.kind == "binary" else y
    shares = shares.reshape(-1, count).astype(np.float64)
    entropy = -(shares * np.log(np.maximum(shares, np.finfo(np.float64).tiny))).sum(axis=-1) / np.log(count)
    tenths = np.clip((entropy * BINS).astype(np.int64), 0, BINS - 1)
    return Spoken(np.bincount(chosen(model, y).ravel(), minlength=count), np.bincount(tenths, minlength=BINS))
