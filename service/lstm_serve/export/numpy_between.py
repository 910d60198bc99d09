"""Operations between layers and the masks of attention, in NumPy."""

from collections.abc import Sequence

from lstm_serve.engine.operations.arithmetic import Binary, MatMul, Reduce, Slice
from lstm_serve.engine.operations.merging import MaskedBy
from lstm_serve.export.numpy_writer import Program
from lstm_serve.export.operation import Support, Value, operands


def _slice(p: Program, op: Slice, xs: Sequence[Value]) -> Value:
    ends = ([part.start, part.stop, part.step] for part in op.slices)
    taken = (":".join("" if end is None else str(end) for end in each).removesuffix(":") for each in ends)
    return p.let(op, xs, f"{xs[0].name}[{', '.join([':', *(part or ':' for part in taken)])}]")


def _binary(p: Program, op: Binary, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, f"np.{op.function.__name__}({', '.join(operands(op, xs, p.weight))})")


def _reduce(p: Program, op: Reduce, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, f"{xs[0].name}.{op.function}({op.axes}, keepdims={op.keepdims})")


def _matmul(p: Program, op: MatMul, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, f"{xs[0].name} @ {xs[1].name}")


def _masked_by(p: Program, op: MaskedBy, xs: Sequence[Value]) -> Value:
    x, mask = xs[0], xs[1].mask
    if mask is None or not op.zeroed:
        return x._replace(mask=mask)
    return p.let(op, xs, f"{x.name} * {mask}[:, :{', None' * (len(x.shape) - 1)}]", mask)


BETWEEN: dict[type, Support] = {
    Slice: Support(_slice),
    Binary: Support(_binary),
    Reduce: Support(_reduce),
    MatMul: Support(_matmul),
    MaskedBy: Support(_masked_by),
}
