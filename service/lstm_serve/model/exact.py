"""The same model in float64, which says how far float32 is from the exact answer: its own, and Keras'."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.types import Array, Mask
from lstm_serve.model.model import Model, Node


def answers(model: Model, x: Array) -> npt.NDArray[np.float64]:
    """x (n, *input_shape) -> float64 (n, *output_shape), from float32 weights and inputs as they are.

    As slow as it is exact: for the golden predictions alone. x is as `Model.checked` gives it.
    """
    nodes = [Node(_widened(layer), inputs) for layer, inputs in model.nodes]
    rows = model.rows_at_once(x.shape[1:])
    with np.errstate(all="ignore"):
        return np.concatenate([_run(nodes, x[start : start + rows]) for start in range(0, len(x), rows)])


def _run(nodes: list[Node], x: Array) -> Array:
    values: list[tuple[Array, ...]] = [(_wide(x),)]
    masks: list[tuple[Mask, ...]] = [(None,)]
    for operation, inputs in nodes:
        ys, given = operation(
            [values[node + 1][output] for node, output in inputs],
            [masks[node + 1][output] for node, output in inputs],
        )
        values.append(tuple(map(_wide, ys)))  # the card's scaling rounds to what Keras was given
        masks.append(given)
    return values[-1][0]


def _wide(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def _widened(value: Any) -> Any:  # noqa: ANN401 - what a layer's field holds
    """A layer, or what is in its fields, with float64 in place of float32."""
    if isinstance(value, np.ndarray):
        return _wide(value)
    if isinstance(value, tuple):
        made = map(_widened, value)
        return value._make(made) if hasattr(value, "_make") else tuple(made)
    if is_dataclass(value) and not isinstance(value, type | Activation):
        return replace(value, **{field.name: _widened(getattr(value, field.name)) for field in fields(value)})
    return value
