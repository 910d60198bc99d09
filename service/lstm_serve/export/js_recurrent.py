"""Recurrent layers in JavaScript: a function of one step, and the scan that walks it through time."""

from collections.abc import Sequence

from lstm_serve.engine.operations import recurrent, wrappers
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.export.js_writer import Program
from lstm_serve.export.operation import Value, both_biases
from lstm_serve.export.operation import write_stacked as stacked


def write_recurrent(p: Program, op: Recurrent, xs: Sequence[Value]) -> Value:
    """A recurrent layer, from a state of 0."""
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
    states = 2 if isinstance(op, recurrent.LSTM) else 1
    cell = p.call(str(step[0]), *step[1:])
    arguments = xs[0].name, xs[0].mask or "null", cell, op.units, states, *flags
    return p.let(op, xs, "scan", *arguments, mask=xs[0].mask if op.return_sequences else None)


def write_stacked(p: Program, op: wrappers.Stacked, xs: Sequence[Value]) -> Value:
    """Layers one above the other."""
    return stacked(p.write, lambda mask: p.call("reverseMask", mask), op, xs)


def write_bidirectional(p: Program, op: wrappers.Bidirectional, xs: Sequence[Value]) -> Value:
    """Both directions, and what joins them."""
    forward, backward = p.write(op.forward, xs), p.write(op.backward, xs)
    there = p.call("reverse", backward.name) if op.forward.return_sequences else backward.name
    both = f"[{forward.name}, {there}]"
    if op.merge_mode == "concat":
        return p.let(op, xs, "concatenate", both, len(forward.shape) - 1, mask=forward.mask)
    code = "a * b" if op.merge_mode == "mul" else "a + b"
    return p.let(op, xs, "merge", both, f"(a, b) => {code}", 2 if op.merge_mode == "ave" else 1, mask=forward.mask)
