"""Operations between layers and the masks of attention, in ONNX."""

from collections.abc import Sequence

import numpy as np

from lstm_serve.engine.operations.arithmetic import Binary, MatMul, Reduce, Slice
from lstm_serve.engine.operations.merging import MaskedBy
from lstm_serve.export.onnx_graph import OnnxGraph, times
from lstm_serve.export.operation import Support, Value, operands

OPERATORS: dict[np.ufunc, str] = {
    np.add: "Add",
    np.subtract: "Sub",
    np.multiply: "Mul",
    np.true_divide: "Div",
    np.maximum: "Max",
    np.minimum: "Min",
    np.power: "Pow",
}
# An end beyond every axis, from which ONNX counts as NumPy does from None.
BEYOND = (1 << 63) - 1


def _slice(g: OnnxGraph, op: Slice, xs: Sequence[Value]) -> Value:
    parts = [(axis, part) for axis, part in enumerate(op.slices, 1) if part != slice(None)]
    if not parts:
        return g.result(op, xs, xs[0].name)
    starts, ends, steps = [], [], []
    for _, part in parts:
        step = part.step or 1
        steps.append(step)
        starts.append(part.start if part.start is not None else 0 if step > 0 else BEYOND)
        ends.append(part.stop if part.stop is not None else BEYOND if step > 0 else -BEYOND)
    axes = [axis for axis, _ in parts]
    y = g.add("Slice", xs[0].name, *(g.integers(*numbers) for numbers in (starts, ends, axes, steps)))
    return g.result(op, xs, y)


def _binary(g: OnnxGraph, op: Binary, xs: Sequence[Value]) -> Value:
    return g.result(op, xs, g.add(OPERATORS[op.function], *operands(op, xs, g.constant)))


def _reduce(g: OnnxGraph, op: Reduce, xs: Sequence[Value]) -> Value:
    keep = int(op.keepdims)
    if op.function == "sum":
        return g.result(op, xs, g.add("ReduceSum", xs[0].name, g.integers(*op.axes), keepdims=keep))
    operator = {"mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin"}[op.function]
    return g.result(op, xs, g.add(operator, xs[0].name, axes=list(op.axes), keepdims=keep))


def _matmul(g: OnnxGraph, op: MatMul, xs: Sequence[Value]) -> Value:
    return g.result(op, xs, g.add("MatMul", xs[0].name, xs[1].name))


def _masked_by(g: OnnxGraph, op: MaskedBy, xs: Sequence[Value]) -> Value:
    x, mask = xs[0], xs[1].mask
    if mask is None or not op.zeroed:
        return x._replace(mask=mask)
    kept = g.add("Unsqueeze", g.add("Cast", mask, to=1), g.integers(*range(2, len(x.shape) + 1)))
    return g.result(op, xs, times(g, x.name, kept), mask)


BETWEEN: dict[type, Support] = {
    Slice: Support(_slice),
    Binary: Support(_binary),
    Reduce: Support(_reduce),
    MatMul: Support(_matmul),
    MaskedBy: Support(_masked_by),
}
