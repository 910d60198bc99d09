"""Operations between layers as Keras 3 calls them: Add, GetItem and their kin, none of them a layer."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lstm_serve.engine.operations.arithmetic import Binary, MatMul, Reduce, Slice
from lstm_serve.engine.types import AnyArray
from lstm_serve.export.keras_config import Layer
from lstm_serve.export.operation import Support, Value

# What a function of two is called; a Merge's layer is called the same.
CLASSES: dict[np.ufunc, str] = {
    np.add: "Add",
    np.subtract: "Subtract",
    np.multiply: "Multiply",
    np.true_divide: "TrueDivide",
    np.maximum: "Maximum",
    np.minimum: "Minimum",
    np.power: "Power",
}


def _called(class_name: str, before: Sequence[Any] = (), after: Sequence[Any] = (), **config: object) -> Layer:
    """An operation on tensors, and on what stands before and after them."""
    module = "keras.src.ops.math" if class_name == "Rsqrt" else "keras.src.ops.numpy"
    return Layer(class_name, config, {}, lambda tensors: ([*before, *tensors, *after], {}), module)


def of_each(function: str) -> Layer:
    """A function of each number, of FUNCTIONS of the engine."""
    return _called(function.capitalize())


def _binary(op: Binary, xs: Sequence[Value]) -> Layer:
    """A function of two tensors, or of one and numbers."""
    numbers = [] if op.constant is None else [_array(op.constant)]
    before, after = (numbers, []) if op.constant_first else ([], numbers)
    return _called(CLASSES[op.function], before, after)


def _array(array: AnyArray) -> Any:  # noqa: ANN401 - a number, or JSON
    if array.ndim == 0:
        return float(array)
    return {"class_name": "__numpy__", "config": {"value": array.tolist(), "dtype": "float32"}}


def _slice(op: Slice, xs: Sequence[Value]) -> Layer:
    """A part."""
    parts = [{"start": part.start, "stop": part.stop, "step": part.step} for part in (slice(None), *op.slices)]
    return _called("GetItem", after=[[{"class_name": "__slice__", "config": part} for part in parts]])


def _reduce(op: Reduce, xs: Sequence[Value]) -> Layer:
    """One number of all along some axes."""
    return _called(op.function.capitalize(), axis=list(op.axes), keepdims=op.keepdims)


def _matmul(op: MatMul, xs: Sequence[Value]) -> Layer:
    """A product along the last two axes."""
    return _called("Matmul")


BETWEEN: dict[type, Support] = {
    Slice: Support(_slice),
    Binary: Support(_binary),
    Reduce: Support(_reduce),
    MatMul: Support(_matmul),
}
