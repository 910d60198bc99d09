"""For each operation of the engine how a gradient goes back through it, or why it does not.

To add an operation: a function `(entry, gradients by the outputs) -> gradients by the inputs`, and a line in `TABLE`;
`forward` too where the way back needs more than inputs and outputs, and a reason where there is no way back. What takes
long is a generator of the same.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

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
from lstm_serve.engine.operations.wiring import INPUT, Node, Source
from lstm_serve.engine.operations.wrappers import Bidirectional, Stacked, TimeDistributed
from lstm_serve.engine.types import Array, Mask, Outputs
from lstm_serve.explain.gradients import between, pointwise, recurrent, temporal, windows
from lstm_serve.explain.gradients.tape import Backward, Gradient, Pieces, TapeEntry, in_one

Forward = Callable[[Any, Sequence[Array], Sequence[Mask]], TapeEntry | Pieces[TapeEntry]]


class Way(NamedTuple):
    """The way back through an operation, None where there is none; `why_not` says of one why it is so."""

    backward: Backward | None
    forward: Forward | None = None
    why_not: Callable[[Any], str | None] = lambda _: None


def why_not(op: Operation) -> str | None:
    """Why a gradient does not go back through an operation, as the end of a sentence about it; None where it does."""
    way = TABLE.get(type(op))
    return "no gradient is known of it" if way is None else way.why_not(op)


def forward(op: Operation, xs: Sequence[Array], masks: Sequence[Mask]) -> Pieces[TapeEntry]:
    """Compute an operation, and keep what its way back needs."""
    kept = TABLE[type(op)].forward
    if kept is None:
        return TapeEntry(op, xs, masks, *op(xs, masks))
    found = kept(op, xs, masks)
    return (yield from found) if isinstance(found, Generator) else found


def backward(entry: TapeEntry, gs: Sequence[Gradient]) -> Pieces[Sequence[Gradient]]:
    """The gradients by the inputs from those by the outputs, some of which are there."""
    way = TABLE[type(entry.operation)].backward
    assert way is not None  # noqa: S101 - why_not has been asked
    found = way(entry, gs)
    return (yield from found) if isinstance(found, Generator) else found


class _Kept:
    """An operation within another: it computes as it would, and keeps its entry of the tape."""

    def __init__(self, op: Operation) -> None:
        self.op = op

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the outer one asks of it
        return getattr(self.op, name)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        self.entry = in_one(forward(self.op, xs, masks))
        return self.entry.ys, self.entry.given


def _with_entries_of(*fields: str) -> Forward:
    """The forward of an operation that holds others, in these fields: their entries are what it keeps."""

    def computed(op: Any, xs: Sequence[Array], masks: Sequence[Mask]) -> TapeEntry:  # noqa: ANN401 - a record
        held = {name: getattr(op, name) for name in fields}
        kept = {name: [*map(_Kept, ops)] if isinstance(ops, tuple) else _Kept(ops) for name, ops in held.items()}
        ys, given = replace(op, **kept)(xs, masks)
        flat = [each for one in kept.values() for each in (one if isinstance(one, list) else [one])]
        return TapeEntry(op, xs, masks, ys, given, [each.entry for each in flat])

    return computed


def _back_through_stacked(entry: TapeEntry, gs: Sequence[Gradient]) -> Pieces[Sequence[Gradient]]:
    for each in reversed(entry.kept):
        gs = yield from backward(each, gs)
    return gs


def _back_through_bidirectional(entry: TapeEntry, gs: Sequence[Gradient]) -> Pieces[Sequence[Gradient]]:
    op, (one, other) = entry.operation, entry.kept
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
    by_x, *states = yield from backward(one, (by[0], *gs[1:half]))
    and_x, *others = yield from backward(other, (by[1], *gs[half:]))
    return [by_x + and_x, *states, *others]  # type: ignore[operator] # each reads x


def _on_all_steps(op: TimeDistributed, xs: Sequence[Array], masks: Sequence[Mask]) -> Pieces[TapeEntry]:
    """A TimeDistributed: what it keeps is the tape of its operations, on all time steps at once."""
    tape = yield from forward_through(op.nodes, xs[0].reshape(-1, *xs[0].shape[2:]))
    return TapeEntry(op, xs, masks, *op(xs, masks), tape)


def _back_through_time_distributed(entry: TapeEntry, gs: Sequence[Gradient]) -> Pieces[Sequence[Gradient]]:
    op, (g,), (x,) = entry.operation, gs, entry.xs
    assert g is not None  # noqa: S101 - it has one output
    by_x = yield from back_through(op.nodes, [*entry.kept], {op.end: g.reshape(-1, *g.shape[2:])})
    return [None if by_x is None else by_x.reshape(x.shape)]


def forward_through(
    nodes: Sequence[Node], x: Array, held: Mapping[int, Mask] = MappingProxyType({})
) -> Pieces[list[TapeEntry]]:
    """The tape of what is wired, for its input x; a Masking whose mask is `held`, by its node's number, has that."""
    tape: list[TapeEntry] = []
    for op, inputs in nodes:
        xs = [x if node == INPUT else tape[node].ys[output] for node, output in inputs]
        masks = [None if node == INPUT else tape[node].given[output] for node, output in inputs]
        mask = held.get(len(tape))
        if mask is None:
            tape.append((yield from forward(op, xs, masks)))
        else:
            tape.append(TapeEntry(op, xs, masks, (xs[0] * mask[..., np.newaxis],), (mask,)))
        yield
    return tape


def back_through(nodes: Sequence[Node], tape: list[TapeEntry], found: dict[Source, Array]) -> Pieces[Gradient]:
    """The gradient by the input of what is wired, from those by what comes out; the tape is used up on the way."""
    for k in reversed(range(len(tape))):
        entry = tape.pop()
        gs = [found.pop(Source(k, output), None) for output in range(len(entry.ys))]
        if all(g is None for g in gs):
            continue
        by_inputs = yield from backward(entry, gs)
        yield
        for source, g in zip(nodes[k].inputs, by_inputs, strict=True):
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
    Stacked: Way(_back_through_stacked, _with_entries_of("layers"), lambda op: _first(op.layers)),
    Bidirectional: Way(
        _back_through_bidirectional,
        _with_entries_of("forward", "backward"),
        lambda op: _first([op.forward, op.backward]),
    ),
    TimeDistributed: Way(
        _back_through_time_distributed, _on_all_steps, lambda op: _first([node.operation for node in op.nodes])
    ),
}
