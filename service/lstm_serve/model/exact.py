"""The same model in float64, which says how far float32 is from the exact answer: its own, and Keras'."""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.types import AnyArray, Array, Mask, Outputs
from lstm_serve.model import graph, records
from lstm_serve.model.graph import Node
from lstm_serve.model.model import Model


def answers(model: Model, x: Array) -> Array:
    """Rows as `Model.checked` gives them -> float64 (n, *output_shape), from float32 weights and inputs as they are.

    As slow as it is exact: for the golden predictions alone.
    """
    wide, xs = _changed(model, _wide), records.unpacked(x)
    rows = model.rows_at_once(*(each.shape[1:] for each in xs))
    with np.errstate(all="ignore"):
        parts = [_run(wide, [each[start : start + rows] for each in xs]) for start in range(0, len(x), rows)]
    return records.packed(model.output_names, [np.concatenate(of_one) for of_one in zip(*parts, strict=True)])


def nudged(model: Model, seed: int) -> Model:
    """The model with each weight about one rounding of float32 off: as far off as its answers are by rounding."""
    rng = np.random.default_rng(seed)

    def nudge(array: AnyArray) -> AnyArray:
        off = np.float32(2**-23) * rng.integers(-1, 2, array.shape).astype(np.float32)
        return array + array * off if array.dtype == np.float32 else array

    return _changed(model, nudge)


def _run(model: Model, xs: Sequence[Array]) -> tuple[Array, ...]:
    return graph.run(model.nodes, [_wide(x) for x in xs], model.results, model.last_uses, _computed)[0]


def _computed(operation: Operation, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
    ys, given = operation(xs, masks)
    return tuple(map(_wide, ys)), given  # the card's scaling rounds to what Keras was given


def _wide(array: AnyArray) -> AnyArray:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def _changed(model: Model, change: Callable[[AnyArray], AnyArray]) -> Model:
    return replace(model, nodes=tuple(Node(_through(layer, change), inputs) for layer, inputs in model.nodes))


def _through(value: Any, change: Callable[[AnyArray], AnyArray]) -> Any:  # noqa: ANN401 - what a layer's field holds
    """A layer, or what is in its fields, with each of its arrays changed."""
    if isinstance(value, np.ndarray):
        return change(value)
    if isinstance(value, tuple):
        made = [_through(each, change) for each in value]
        return value._make(made) if hasattr(value, "_make") else tuple(made)
    if is_dataclass(value) and not isinstance(value, type | Activation):
        return replace(value, **{field.name: _through(getattr(value, field.name), change) for field in fields(value)})
    return value
