"""Recurrent layers in JavaScript: a function of one step, and the scan that walks it through time."""

from collections.abc import Sequence

import numpy as np

from lstm_serve.engine.operations import recurrent, wrappers
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.export.js_writer import Program, joining
from lstm_serve.export.operation import Value, both_biases, mask_for, write_directions
from lstm_serve.export.operation import write_stacked as stacked


def write_recurrent(p: Program, op: Recurrent, xs: Sequence[Value]) -> Value:
    """A recurrent layer, from states of 0 or from those given."""
    act = p.activation(op, op.activation)
    arrays = [p.weight(op.kernel), p.weight(op.recurrent_kernel)]
    step: tuple[object, ...]
    if isinstance(op, recurrent.LSTM):
        step = ("lstm", op.units, *arrays, p.weight(op.bias), act, p.activation(op, op.recurrent_activation))
    elif isinstance(op, recurrent.GRU):
        gate = p.activation(op, op.recurrent_activation)
        step = ("gru", op.units, *arrays, p.weight(both_biases(op)), act, gate, str(op.reset_after).lower())
    else:
        step = ("simpleRnn", op.units, *arrays, p.weight(op.bias), act)
    flags = (str(flag).lower() for flag in (op.return_sequences, op.go_backwards, op.zero_output_for_mask))
    cell = p.call(str(step[0]), *step[1:])
    given = f"[{', '.join(x.name for x in xs[1:])}]"
    arguments = xs[0].name, mask_for(op, xs[0]) or "null", cell, op.units, len(op.carried), given, *flags
    y = p.let(op, xs, "scan", *arguments, mask=xs[0].mask if op.return_sequences else None)
    ends = range(len(op.carried)) if op.return_state else ()
    return y._replace(states=tuple(Value(f"{y.name}.states[{k}]", (op.units,)) for k in ends))


def write_stacked(p: Program, op: wrappers.Stacked, xs: Sequence[Value]) -> Value:
    """Layers one above the other."""
    return stacked(p.write, lambda mask: p.call("reverseMask", mask), op, xs)


def write_bidirectional(p: Program, op: wrappers.Bidirectional, xs: Sequence[Value]) -> Value:
    """Both directions, and what joins them."""
    forward, backward = write_directions(p.write, op, xs)
    states = forward.states + backward.states
    there = p.call("reverse", backward.name) if op.forward.return_sequences else backward.name
    both = f"[{forward.name}, {there}]"
    if op.merge_mode == "concat":
        y = p.let(op, xs, "concatenate", both, len(forward.shape) - 1, mask=forward.mask)
        return y._replace(states=states)
    join = joining(np.multiply if op.merge_mode == "mul" else np.add)
    y = p.let(op, xs, "merge", both, join, 2 if op.merge_mode == "ave" else 1, mask=forward.mask)
    return y._replace(states=states)
