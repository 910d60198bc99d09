"""Operations between layers and the masks of attention, in JavaScript."""

import json
from collections.abc import Sequence

from lstm_serve.engine.operations.arithmetic import Binary, MatMul, Reduce, Slice
from lstm_serve.engine.operations.merging import MaskedBy
from lstm_serve.export.js_writer import Program, joining
from lstm_serve.export.operation import REDUCTIONS, Support, Value, operands


def _slice(p: Program, op: Slice, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, "slice", xs[0].name, json.dumps([[part.start, part.stop, part.step] for part in op.slices]))


def _binary(p: Program, op: Binary, xs: Sequence[Value]) -> Value:
    both = operands(op, xs, lambda numbers: f"{{ d: {p.weight(numbers)}, s: {list(numbers.shape)} }}")
    return p.let(op, xs, "merge", f"[{', '.join(both)}]", joining(op.function), 1)


def _reduce(p: Program, op: Reduce, xs: Sequence[Value]) -> Value:
    axes, flags = [axis - 1 for axis in op.axes], (str(flag).lower() for flag in (op.function == "mean", op.keepdims))
    return p.let(op, xs, "reduce", xs[0].name, axes, joining(REDUCTIONS[op.function]), *flags)


def _matmul(p: Program, op: MatMul, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, "matmul", xs[0].name, xs[1].name)


def _masked_by(p: Program, op: MaskedBy, xs: Sequence[Value]) -> Value:
    x, mask = xs[0], xs[1].mask
    return x._replace(mask=mask) if mask is None or not op.zeroed else p.let(op, xs, "zeroed", x.name, mask, mask=mask)


BETWEEN: dict[type, Support] = {
    Slice: Support(_slice),
    Binary: Support(_binary),
    Reduce: Support(_reduce),
    MatMul: Support(_matmul),
    MaskedBy: Support(_masked_by),
}
