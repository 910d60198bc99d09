"""For each operation of the engine how a gradient goes back through it, or why it does not.

To add an operation: a function `(step, gradients by the outputs) -> gradients by the inputs`, and a line in `TABLE`;
`forward` too where the way back needs more than inputs and outputs, and a reason where there is no way back.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from lstm_serve.engine.operations.arithmetic import Binary, MatMul, Reduce, Slice
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.conv_lstm import ConvLSTM
from lstm_serve.engine.operations.merging import Concatenate, MaskedBy, Merge
from lstm_serve.engine.operations.pointwise import (
    Activate,
    BatchNormalization,
    Dense,
    Identity,
    LayerNormalization,
    Normalization,
    PReLU,
    Rescaling,
    Scaling,
    Unscaling,
)
from lstm_serve.engine.operations.recurrent import GRU, LSTM, SimpleRNN
from lstm_serve.engine.operations.temporal import Embedding, GlobalPooling1D, Masking, Permute, RepeatVector, Reshape
from lstm_serve.engine.operations.windows import Convolution, Pooling
from lstm_serve.engine.operations.wiring import INPUT, Node, Source, run
from lstm_serve.engine.operations.wrappers import Bidirectional, Stacked, TimeDistributed
from lstm_serve.engine.types import Array, Mask, Outputs
from lstm_serve.explain.gradients import between, pointwise, recurrent, temporal, windows
from lstm_serve.explain.gradients.step import Backward, Gradient, Step

Forward = Callable[[Any, Sequence[Array], Sequence[Mask]], Step]


class Way(NamedTuple):
    """The way back through an operation, None where there is none; `why_not` says of one why it is so."""

    backward: Backward | None
    forward: Forward | None = None
    why_not: Callable[[Any], str | None] = lambda _: None


def why_not(op: Operation) -> str | None:
    """Why a gradient does not go back through an operation, as the end of a sentence about it; None where it does."""
    way = TABLE.get(type(op))
    return "no gradient is known of it" if way is None else way.why_not(op)


def forward(op: Operation, xs: Sequence[Array], masks: Sequence[Mask]) -> Step:
    """Compute an operation, and keep what its way back needs."""
    kept = TABLE[type(op)].forward
    return Step(op, xs, masks, *op(xs, masks)) if kept is None else kept(op, xs, masks)


def backward(step: Step, gs: Sequence[Gradient]) -> Sequence[Gradient]:
    """The gradients by the inputs from those by the outputs, some of which are there."""
    way = TABLE[type(step.operation)].backward
    assert way is not None  # noqa: S101 - why_not has been asked
    return way(step, gs)


class _Kept:
    """An operation within another: it computes as it would, and keeps its step."""

    def __init__(self, op: Operation) -> None:
        self.op = op

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the outer one asks of it
        return getattr(self.op, name)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        self.step = forward(self.op, xs, masks)
        return self.step.ys, self.step.given


def _with_steps_of(*fields: str) -> Forward:
    """The forward of an operation that holds others, in these fields: their steps are what it keeps."""

    def computed(op: Any, xs: Sequence[Array], masks: Sequence[Mask]) -> Step:  # noqa: ANN401 - a record
        held = {name: getattr(op, name) for name in fields}
        kept = {name: [*map(_Kept, ops)] if isinstance(ops, tuple) else _Kept(ops) for name, ops in held.items()}
        ys, given = replace(op, **kept)(xs, masks)
        flat = [each for one in kept.values() for each in (one if isinstance(one, list) else [one])]
        return Step(op, xs, masks, ys, given, [each.step for each in flat])

    return computed


def _back_through_stacked(step: Step, gs: Sequence[Gradient]) -> Sequence[Gradient]:
    for each in reversed(step.kept):
        gs = backward(each, gs)
    return gs


def _back_through_bidirectional(step: Step, gs: Sequence[Gradient]) -> Sequence[Gradient]:
    op, (one, other) = step.operation, step.kept
    half, units = len(one.ys), one.ys[0].shape[-1]
    # The other's output is merged turned round where it is a sequence, and its gradient is turned back.
    turned = slice(None, None, -1 if op.forward.return_sequences else 1)
    by: tuple[Gradient, Gradient] = (None, None)
    g: Any = gs[0]
    if g is not None:
        by_one, by_other = {
            "concat": lambda: (g[..., :units], g[..., units:]),
            "sum": lambda: (g, g),
            "mul": lambda: (g * other.ys[0][:, turned], g * one.ys[0]),
            "ave": lambda: (g / 2, g / 2),
        }[op.merge_mode]()
        by = (by_one, by_other[:, turned])
    by_x, *states = backward(one, (by[0], *gs[1:half]))
    and_x, *others = backward(other, (by[1], *gs[half:]))
    return [by_x + and_x, *states, *others]  # type: ignore[operator] # each reads x


def _each_step(op: TimeDistributed, xs: Sequence[Array], masks: Sequence[Mask]) -> Step:
    """A TimeDistributed: what it keeps is the steps of its operations, on all time steps at once."""
    steps: list[Step] = []

    def compute(inner: Operation, given: Sequence[Array], of: Sequence[Mask]) -> Outputs:
        steps.append(forward(inner, given, of))
        return steps[-1].ys, steps[-1].given

    run(op.nodes, [xs[0].reshape(-1, *xs[0].shape[2:])], [op.end], [()] * len(op.nodes), compute)
    return Step(op, xs, masks, *op(xs, masks), steps)


def _back_through_time_distributed(step: Step, gs: Sequence[Gradient]) -> Sequence[Gradient]:
    op, (g,), (x,) = step.operation, gs, step.xs
    assert g is not None  # noqa: S101 - it has one output
    by_x = back_through(op.nodes, [*step.kept], {op.end: g.reshape(-1, *g.shape[2:])})
    return [None if by_x is None else by_x.reshape(x.shape)]


def back_through(nodes: Sequence[Node], steps: list[Step], found: dict[Source, Array]) -> Gradient:
    """The gradient by the input of what is wired, from those by what comes out; the steps are let go of on the way."""
    for k in reversed(range(len(steps))):
        step = steps.pop()
        gs = [found.pop(Source(k, output), None) for output in range(len(step.ys))]
        if all(g is None for g in gs):
            continue
        for source, g in zip(nodes[k].inputs, backward(step, gs), strict=True):
            if g is not None:
                found[source] = found[source] + g if source in found else g
    return found.get(Source(INPUT))


def _first(layers: Sequence[Operation]) -> str | None:
    return next((why for layer in layers if (why := why_not(layer))), None)


_RECURRENT = Way(recurrent.backward, recurrent.forward, recurrent.why_not)

# In the order of OPERATIONS.
TABLE: dict[type, Way] = {
    Identity: Way(pointwise.identity),
    Dense: Way(pointwise.dense),
    Activate: Way(pointwise.activate),
    PReLU: Way(pointwise.prelu),
    Normalization: Way(pointwise.normalization),
    Rescaling: Way(pointwise.times_scale),
    BatchNormalization: Way(pointwise.batch_normalization),
    LayerNormalization: Way(pointwise.layer_normalization),
    Scaling: Way(pointwise.over_scale),
    Unscaling: Way(pointwise.times_scale),
    Merge: Way(between.merge),
    Concatenate: Way(between.concatenate),
    Embedding: Way(None, why_not=lambda _: "between two ids there is nothing"),
    Masking: Way(temporal.masking),
    Convolution: Way(windows.convolution),
    Pooling: Way(windows.pooling),
    GlobalPooling1D: Way(temporal.global_pooling1d),
    RepeatVector: Way(temporal.repeat_vector),
    Reshape: Way(temporal.reshape),
    Permute: Way(temporal.permute),
    Slice: Way(between.part),
    Binary: Way(between.binary),
    Reduce: Way(between.shrunk),
    MatMul: Way(between.matmul),
    MaskedBy: Way(between.masked_by),
    LSTM: _RECURRENT,
    GRU: _RECURRENT,
    SimpleRNN: _RECURRENT,
    ConvLSTM: Way(None, why_not=lambda _: "the way back through an LSTM of pictures is not there"),
    Stacked: Way(_back_through_stacked, _with_steps_of("layers"), lambda op: _first(op.layers)),
    Bidirectional: Way(
        _back_through_bidirectional, _with_steps_of("forward", "backward"), lambda op: _first([op.forward, op.backward])
    ),
    TimeDistributed: Way(
        _back_through_time_distributed, _each_step, lambda op: _first([node.operation for node in op.nodes])
    ),
}
