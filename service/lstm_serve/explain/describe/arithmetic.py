"""What is to be said of the operations that stand between layers."""

import numpy as np

from lstm_serve.engine.operations.arithmetic import Binary, MatMul, Reduce, Slice
from lstm_serve.engine.operations.merging import MaskedBy
from lstm_serve.engine.types import Shape
from lstm_serve.explain.describe.description import LayerDescription

SIGNS: dict[np.ufunc, str] = {np.add: "+", np.subtract: "-", np.multiply: "*", np.true_divide: "/", np.power: "**"}


def part(layer: Slice, _: Shape) -> LayerDescription:
    """A part of an array."""
    code = ", ".join(_written(each) for each in layer.slices)
    return LayerDescription(roles={}, equations=[f"y = x[{code}]"], numpy=[f"y = y[{code}]"])


def _written(part: slice) -> str:
    ends = ["" if end is None else str(end) for end in (part.start, part.stop)]
    return ":".join(ends) + ("" if part.step is None else f":{part.step}")


def binary(layer: Binary, _: Shape) -> LayerDescription:
    """A function of two arrays, or of one and numbers."""
    sign = SIGNS.get(layer.function)
    if layer.constant is None or layer.constant.ndim:
        other = "the second input" if layer.constant is None else f"numbers of the shape {layer.constant.shape}"
        return LayerDescription(roles={}, equations=[f"y = {layer.function.__name__} of x and {other}, one by one"])

    def written(x: str) -> str:
        a, b = (repr(float(layer.constant or 0)), x)[:: 1 if layer.constant_first else -1]
        return f"np.{layer.function.__name__}({a}, {b})" if sign is None else f"{a} {sign} {b}"

    return LayerDescription(
        roles={}, equations=[f"y = {written('x').removeprefix('np.')}"], numpy=[f"y = {written('y')}"]
    )


def reduce(layer: Reduce, _: Shape) -> LayerDescription:
    """One number of many."""
    axes = tuple(axis - 1 for axis in layer.axes)
    return LayerDescription(
        roles={},
        equations=[f"y = the {layer.function} of x along the axes {axes}, the batch left out"],
        numpy=[f"y = y.{layer.function}(axis={axes}{', keepdims=True' * layer.keepdims})"],
    )


def matmul(_: MatMul, __: Shape) -> LayerDescription:
    """A product of two arrays."""
    return LayerDescription(roles={}, equations=["y = x @ the second input, over the last two axes"])


def masked_by(layer: MaskedBy, _: Shape) -> LayerDescription:
    """The mask of another value."""
    zeroed = ", and 0 at the steps that it leaves out" if layer.zeroed else ""
    return LayerDescription(roles={}, equations=[f"y = x with the mask of the second input{zeroed}"])
