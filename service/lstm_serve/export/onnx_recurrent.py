"""Recurrent layers in ONNX: the fused operators LSTM, GRU and RNN.

They can leave out steps at the end of a sequence alone, by `sequence_lens`. A masked step changes no state, so the
steps that count are gathered in front first: the state after them is the same, and the outputs are put back.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lstm_serve.engine.operations import recurrent, wrappers
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.engine.types import Array
from lstm_serve.export.onnx_graph import FUSED, TAKES, TITLE, OnnxGraph, times
from lstm_serve.export.operation import (
    Value,
    both_biases,
    functions_of,
    join_directions,
    mask_for,
    refuse,
    write_directions,
)
from lstm_serve.export.operation import write_stacked as stacked


def _blocks(array: Array, op: Recurrent) -> Array:
    """(k, gates units) to (gates units, k), the gates in the order of ONNX: an LSTM's i, o, f, c; a GRU's z, r, h."""
    if isinstance(op, recurrent.LSTM):
        i, f, c, o = np.split(array, 4, axis=-1)
        array = np.concatenate([i, o, f, c], axis=-1)
    return array.T


def _functions(op: Recurrent) -> dict[str, Any]:
    """The activations of a direction, as attributes."""
    used = functions_of(op)[::-1]
    if isinstance(op, recurrent.LSTM):
        used.append(op.activation)
    found = []
    for activation in used:
        if activation.function not in FUSED:
            refuse(TITLE, op, f"ONNX's recurrent operators do not have its activation {activation.function}")
        found.append(FUSED[activation.function](dict(activation.parameters)))
    # Numbers are given in order to the functions that take any.
    return {
        "activations": [name for name, _, _ in found],
        "activation_alpha": [float(alpha) for name, alpha, _ in found if TAKES.get(name, 0) >= 1],
        "activation_beta": [float(beta) for name, _, beta in found if TAKES.get(name, 0) >= 2],
    }


def _fused(  # noqa: PLR0913, PLR0917 - what the operator takes
    g: OnnxGraph, ways: Sequence[Recurrent], x: str, direction: str, lens: str = "", given: Sequence[Value] = ()
) -> tuple[str, list[str]]:
    """The operator over x (T, n, features): every h (T, ways, n, units), and the last states (ways, n, units).

    `given` are the states to begin with, (n, units) each, of each way its own.
    """
    first, carried = ways[0], len(ways[0].carried)
    arrays = [
        np.stack([_blocks(op.kernel, op) for op in ways]),
        np.stack([_blocks(op.recurrent_kernel, op) for op in ways]),
        np.stack([np.concatenate([_blocks(bias, op) for bias in both_biases(op)]) for op in ways]),
    ]
    attributes: dict[str, Any] = {"hidden_size": first.units, "direction": direction}
    for op in ways:
        for key, listed in _functions(op).items():
            attributes[key] = [*attributes.get(key, []), *listed]
    if isinstance(first, recurrent.GRU):
        attributes["linear_before_reset"] = int(first.reset_after)
    operator = {recurrent.LSTM: "LSTM", recurrent.GRU: "GRU", recurrent.SimpleRNN: "RNN"}[type(first)]
    attributes = {key: value for key, value in attributes.items() if value != []}
    every, *ends = (g.name() for _ in range(1 + carried))
    begin = [
        g.add("Concat", *(g.add("Unsqueeze", state.name, g.integers(0)) for state in given[k::carried]), axis=0)
        for k in range(carried if given else 0)
    ]
    inputs = [x, *map(g.constant, arrays), *([lens] if lens or begin else []), *begin]
    g.node(operator, inputs, [every, *ends], **attributes)
    return every, ends


def _states(g: OnnxGraph, op: Recurrent, ends: Sequence[str], way: int = 0) -> tuple[Value, ...]:
    """The states after the last step, of one way, where the layer gives them."""
    return tuple(_of_way(g, end, way, op.units) for end in ends if op.return_state)


def _of_way(g: OnnxGraph, end: str, way: int, units: int) -> Value:
    return Value(g.add("Gather", end, g.constant(way, np.int64), axis=0), (units,))


def _turned(g: OnnxGraph, x: str) -> str:
    """(n, T, features) as (T, n, features), or back."""
    return g.add("Transpose", x, perm=[1, 0, 2])


def _reversed(g: OnnxGraph, x: str, axis: int = 1) -> str:
    bounds = (-1, np.iinfo(np.int64).min, axis, -1)
    return g.add("Slice", x, *map(g.integers, bounds))


def _reversed_mask(g: OnnxGraph, mask: str) -> str:
    return g.add("Cast", _reversed(g, g.add("Cast", mask, to=7)), to=9)


def write_recurrent(g: OnnxGraph, op: Recurrent, xs: Sequence[Value]) -> Value:
    """A layer of one cell, in one direction."""
    x = xs[0]
    if mask_for(op, x) is not None:
        return _masked(g, op, xs)
    every, ends = _fused(g, [op], _turned(g, x.name), "reverse" if op.go_backwards else "forward", given=xs[1:])
    states = _states(g, op, ends)
    if not op.return_sequences:
        return g.result(op, xs, g.add("Squeeze", ends[0], g.integers(0)))._replace(states=states)
    y = _turned(g, g.add("Squeeze", every, g.integers(1)))
    # Keras leaves the order in which the steps were taken, ONNX does not.
    return g.result(op, xs, _reversed(g, y) if op.go_backwards else y)._replace(states=states)


def _masked(g: OnnxGraph, op: Recurrent, xs: Sequence[Value]) -> Value:
    """The steps that count, gathered in front, and the outputs put back."""
    x = xs[0]
    if op.return_state or len(xs) > 1:
        refuse(TITLE, op, "it takes or gives states, and its sequence is masked")
    mask, steps = str(x.mask), x.name
    if op.go_backwards:
        mask, steps = _reversed_mask(g, mask), _reversed(g, steps)
    bits = g.add("Cast", mask, to=7)
    counts = g.add("CumSum", bits, g.constant(1, np.int64))  # (n, T), of the steps up to each that count
    length = g.add("ReduceSum", bits, g.integers(1), keepdims=1)
    some = g.add("Cast", g.add("Greater", length, g.integers(0)), to=1)  # (n, 1), 0. where no step counts
    # The place of each step in a stable order, those that count first.
    total = g.add("Gather", g.add("Shape", mask), g.integers(1))
    numbers = g.add("CumSum", g.add("Add", times(g, bits, g.integers(0)), g.integers(1)), g.constant(1, np.int64))
    key = g.add("Where", mask, numbers, g.add("Add", numbers, total))
    order = g.name()
    unused = g.name()
    g.node("TopK", [key, total], [unused, order], axis=1, largest=0, sorted=1)
    gathered = _take(g, steps, order, len(op.kernel))
    lens = g.add("Cast", g.add("Squeeze", g.add("Max", length, g.integers(1)), g.integers(1)), to=6)
    every, (last, *_) = _fused(g, [op], _turned(g, gathered), "forward", lens)
    if not op.return_sequences:
        y = times(g, g.add("Squeeze", last, g.integers(0)), some)
        if op.zero_output_for_mask:
            y = times(g, y, g.add("Cast", g.add("Slice", bits, *map(g.integers, (-1, 2**31, 1))), to=1))
        return Value(y, (op.units,))
    y = _turned(g, g.add("Squeeze", every, g.integers(1)))
    # At each step, the output of the last step that counted; 0 before the first.
    held = _take(g, y, g.add("Max", g.add("Sub", counts, g.integers(1)), g.integers(0)), op.units)
    kept = bits if op.zero_output_for_mask else g.add("Greater", counts, g.integers(0))
    y = times(g, held, g.add("Unsqueeze", g.add("Cast", kept, to=1), g.integers(2)))
    return Value(y, (x.shape[0], op.units), x.mask)


def _take(g: OnnxGraph, x: str, places: str, width: int) -> str:
    """x (n, T, width) at places (n, T)."""
    index = g.add("Tile", g.add("Unsqueeze", places, g.integers(2)), g.integers(1, 1, width))
    return g.add("GatherElements", x, index, axis=1)


def write_stacked(g: OnnxGraph, op: wrappers.Stacked, xs: Sequence[Value]) -> Value:
    """One operator after another."""
    return stacked(g.write, lambda mask: _reversed_mask(g, mask), op, xs)


def write_bidirectional(g: OnnxGraph, op: wrappers.Bidirectional, xs: Sequence[Value]) -> Value:
    """One operator for both directions where they fit together and nothing is masked, or else one for each."""
    forward, backward = op.forward, op.backward
    sequences = forward.return_sequences
    if xs[0].mask is not None or not _fit(forward, backward):
        return join_directions(g.write, op, *write_directions(g.write, lambda x: _reversed(g, x.name), op, xs))
    steps = _turned(g, xs[0].name)
    ways: tuple[Recurrent, ...] = forward, backward  # type: ignore[assignment] # they are cells
    every, ends = _fused(g, ways, steps, "bidirectional", given=xs[1:])
    both, axis = (every, 1) if sequences else (ends[0], 0)
    halves = []
    for k, way in enumerate(ways):
        half = g.add("Gather", both, g.constant(k, np.int64), axis=axis)
        shape, *_ = way.output_shapes([xs[0].shape])
        halves.append(Value(_turned(g, half) if sequences else half, shape, states=_states(g, way, ends, k)))
    return join_directions(g.write, op, *halves)


def _fit(forward: Recurrent | wrappers.Stacked, backward: Recurrent | wrappers.Stacked) -> bool:
    """Whether one operator can be both directions."""
    if isinstance(forward, wrappers.Stacked) or isinstance(backward, wrappers.Stacked) or forward.go_backwards:
        return False
    same_class = type(forward) is type(backward) and forward.units == backward.units
    return same_class and getattr(forward, "reset_after", None) == getattr(backward, "reset_after", None)
