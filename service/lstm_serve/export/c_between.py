"""Operations on arrays of any rank in C99: parts of them, several joined, sums along axes, products, other orders.

What looks at the numbers of an array in another order is one call of `view`.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np

from lstm_serve.engine.operations.arithmetic import Binary, MatMul, Reduce, Slice
from lstm_serve.engine.operations.merging import MaskedBy
from lstm_serve.engine.operations.temporal import Permute, RepeatVector
from lstm_serve.engine.types import AnyArray, Shape
from lstm_serve.export.c_writer import CProgram, known, result
from lstm_serve.export.operation import REDUCTIONS, Support, Value


def viewed(s: CProgram, x: Value, change: Callable[[AnyArray], AnyArray]) -> str:
    """An array of the numbers that NumPy would have in what `change` makes of x, which is no copy."""
    before = np.empty(known(x.shape), np.int8)
    after = change(before)
    y = s.array(after.size)
    where = s.constant(after.shape, "int"), s.constant(after.strides, "int"), after.ctypes.data - before.ctypes.data
    s.call("view", after.ndim, *where, x.name, y)
    return y


def _operand(s: CProgram, x: Value, shape: Shape) -> str:
    """The number of x, which broadcasts to the shape, that belongs to its place k."""
    to, own = known(shape), known(x.shape)
    while own and own[0] == 1:
        own = own[1:]
    if own != to[len(to) - len(own) :]:
        return f"{viewed(s, x, lambda array: np.broadcast_to(array, to))}[k]"
    size = math.prod(own)
    return f"{x.name}[{'k' if size == math.prod(to) else '0' if size == 1 else f'k % {size}'}]"


def write_joined(s: CProgram, xs: Sequence[Value], function: np.ufunc, mask: str | None = None, over: int = 1) -> Value:
    """A function of two, of all of the inputs one after the other, and divided at the end."""
    shape = known(np.broadcast_shapes(*(known(x.shape) for x in xs)))
    code = reduce(lambda a, b: f"({s.joined(function, a, b)})", [_operand(s, x, shape) for x in xs])
    y = s.array(math.prod(shape))
    s.lines.append(f"for (int k = 0; k < {math.prod(shape)}; ++k) {y}[k] = {code}{f' / {over}.0f' * (over > 1)};")
    return Value(y, shape, mask)


def _binary(s: CProgram, op: Binary, xs: Sequence[Value]) -> Value:
    pair = xs if op.constant is None else [xs[0], Value(s.constant(op.constant), op.constant.shape)]
    return write_joined(s, pair[::-1] if op.constant_first else pair, op.function)


def _slice(s: CProgram, op: Slice, xs: Sequence[Value]) -> Value:
    return Value(viewed(s, xs[0], lambda array: array[op.slices]), op.output_shapes([xs[0].shape])[0])


def write_permuted(s: CProgram, op: Permute, xs: Sequence[Value]) -> Value:
    """The axes in another order."""
    dims = [dim - 1 for dim in op.dims]
    return Value(viewed(s, xs[0], lambda array: array.transpose(dims)), op.output_shapes([xs[0].shape])[0])


def write_repeated(s: CProgram, op: RepeatVector, xs: Sequence[Value]) -> Value:
    """A row, several times over."""
    shape = op.output_shapes([xs[0].shape])[0]
    return Value(viewed(s, xs[0], lambda array: np.broadcast_to(array, known(shape))), shape)


def _reduce(s: CProgram, op: Reduce, xs: Sequence[Value]) -> Value:
    x, axes = xs[0], [axis - 1 for axis in op.axes]
    kept = [axis for axis in range(len(x.shape)) if axis not in axes]
    name = x.name if [*kept, *axes] == sorted([*kept, *axes]) else viewed(s, x, lambda y: y.transpose(*kept, *axes))
    count = math.prod(known(x.shape)[axis] for axis in axes)
    joined = s.joined(REDUCTIONS[op.function], "v", f"{name}[k * {count} + j]")
    y = result(s, op, xs)
    s.lines += [
        f"for (int k = 0; k < {math.prod(known(y.shape))}; ++k) {{",
        f"    float v = {name}[k * {count}];",
        f"    for (int j = 1; j < {count}; ++j) v = {joined};",
        f"    {y.name}[k] = v{f' / {count}.0f' if op.function == 'mean' else ''};",
        "}",
    ]
    return y


def _matmul(s: CProgram, op: MatMul, xs: Sequence[Value]) -> Value:
    y = result(s, op, xs)
    *lead, m, n = known(y.shape)
    k = xs[0].shape[-1] or 1
    a, b = (
        x.name
        if known(x.shape)[:-2] == tuple(lead)
        else viewed(s, x, lambda array: np.broadcast_to(array, [*lead, *array.shape[-2:]]))
        for x in xs
    )
    s.line(
        f"for (int k = 0; k < {math.prod(lead)}; ++k) "
        f"multiply({m}, {k}, {n}, {a} + k * {m * k}, {b} + k * {k * n}, {y.name} + k * {m * n});"
    )
    s.adds += math.prod(lead) * m * k * n
    return y


def _masked_by(s: CProgram, op: MaskedBy, xs: Sequence[Value]) -> Value:
    x, mask = xs[0], xs[1].mask
    if mask is None or not op.zeroed:
        return x._replace(mask=mask)
    y = result(s, op, xs, mask)
    steps = s.lengths[mask]
    s.call("zeroed", steps, math.prod(known(x.shape)) // steps, x.name, mask, y.name)
    return y


BETWEEN: dict[type, Support] = {
    Slice: Support(_slice),
    Binary: Support(_binary),
    Reduce: Support(_reduce),
    MatMul: Support(_matmul),
    MaskedBy: Support(_masked_by),
}
