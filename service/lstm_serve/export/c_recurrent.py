"""Recurrent layers in C99: one call a layer, from a state of 0 or from the state that `m_step` keeps."""

from collections.abc import Sequence

import numpy as np

from lstm_serve.engine.operations import recurrent, wrappers
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.export.c_writer import Source, result, sizes
from lstm_serve.export.operation import Value
from lstm_serve.export.operation import write_stacked as stacked


def write_cell(s: Source, op: Recurrent, xs: Sequence[Value]) -> Value:
    """A recurrent layer: from a state of 0 where nothing is kept, or a step from the state kept."""
    timesteps, features, _ = sizes(op, xs)
    x, units = xs[0], op.units
    states = (2 if isinstance(op, recurrent.LSTM) else 1) * units
    if s.state is None:
        state = s.array(states)
        s.call("start", states, "NULL", state)
    else:
        name = s.name("h")
        s.state[name] = states
        state = f"s->{name}"
    y = result(s, op, xs, x.mask if op.return_sequences else None)
    arrays = [s.constant(op.kernel), s.constant(op.recurrent_kernel)]
    act = s.activation(op, op.activation)
    if isinstance(op, recurrent.GRU):
        bias = op.bias if op.bias is None or op.reset_after else op.bias[np.newaxis]
        arrays += [s.constant(None if bias is None else bias[0])]
        arrays += [s.constant(bias[1] if bias is not None and op.reset_after else None), str(int(op.reset_after)), act]
    else:
        arrays += [s.constant(op.bias), act]
    if not isinstance(op, recurrent.SimpleRNN):
        arrays.append(s.activation(op, op.recurrent_activation))  # type: ignore[attr-defined] # an LSTM or a GRU
    name, blocks = {recurrent.LSTM: ("lstm", 4), recurrent.GRU: ("gru", 6), recurrent.SimpleRNN: ("simple_rnn", 1)}[
        type(op)
    ]
    flags = map(int, (op.return_sequences, op.go_backwards, op.zero_output_for_mask))
    scratch = s.array(blocks * units)
    s.call(name, timesteps, features, units, x.name, x.mask or "NULL", *arrays, state, y.name, *flags, scratch)
    s.adds += timesteps * (op.kernel.size + op.recurrent_kernel.size)
    if s.state is not None and not op.return_sequences:
        return Value(state, (units,))
    return y


def write_stacked(s: Source, op: wrappers.Stacked, xs: Sequence[Value]) -> Value:
    """Layers one above the other."""

    def turn(mask: str) -> str:
        steps = sizes(op, xs)[0]
        turned = s.array(steps, "unsigned char")
        s.call("reverse_mask", steps, mask, turned)
        return turned

    return stacked(s.write, turn, op, xs)


def write_bidirectional(s: Source, op: wrappers.Bidirectional, xs: Sequence[Value]) -> Value:
    """Both directions, and what joins them."""
    forward, backward = s.write(op.forward, xs), s.write(op.backward, xs)
    steps = sizes(op, xs)[0] if op.forward.return_sequences else 1
    widths = [part.shape[-1] or 0 for part in (forward, backward)]
    there = backward.name
    if op.forward.return_sequences:
        there = s.array(steps * widths[1])
        s.call("reverse", steps, widths[1], backward.name, there)
    y = result(s, op, xs, forward.mask)
    if op.merge_mode == "concat":
        s.call("place", steps, widths[0], sum(widths), forward.name, y.name)
        s.call("place", steps, widths[1], sum(widths), there, f"{y.name} + {widths[0]}")
        return y
    code = {"sum": "{a} + {b}", "mul": "{a} * {b}", "ave": "({a} + {b}) / 2.0f"}[op.merge_mode]
    code = code.format(a=f"{forward.name}[k]", b=f"{there}[k]")
    s.lines.append(f"for (int k = 0; k < {steps * widths[0]}; ++k) {y.name}[k] = {code};")
    return y
