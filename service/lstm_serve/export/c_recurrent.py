"""Recurrent layers in C99: one call a layer, from a state of 0 or from the state that `m_step` keeps."""

from collections.abc import Sequence

import numpy as np

from lstm_serve.engine.operations import recurrent, wrappers
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.export.c_between import write_joined
from lstm_serve.export.c_writer import Source, result, sizes
from lstm_serve.export.operation import Value, mask_for, write_directions
from lstm_serve.export.operation import write_stacked as stacked


def write_cell(s: Source, op: Recurrent, xs: Sequence[Value]) -> Value:
    """A recurrent layer: from a state of 0 where nothing is kept, or a step from the state kept."""
    x, units = xs[0], op.units
    timesteps, features = sizes(x)
    states = len(op.carried) * units
    if s.state is None:
        state = s.array(states)
        for k, given in enumerate(xs[1:]):
            s.call("copy", units, given.name, f"{state} + {k * units}")
        if len(xs) == 1:
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
    s.call(name, timesteps, features, units, x.name, mask_for(op, x) or "NULL", *arrays, state, y.name, *flags, scratch)
    s.adds += timesteps * (op.kernel.size + op.recurrent_kernel.size)
    if s.state is not None and not op.return_sequences:
        return Value(state, (units,))
    return y._replace(
        states=tuple(_apart(s, state, k * units, units) for k in range(len(op.carried)) if op.return_state)
    )


def _apart(s: Source, states: str, start: int, units: int) -> Value:
    """One of several states."""
    y = s.array(units)
    s.call("copy", units, f"{states} + {start}", y)
    return Value(y, (units,))


def write_stacked(s: Source, op: wrappers.Stacked, xs: Sequence[Value]) -> Value:
    """Layers one above the other."""

    def turn(mask: str) -> str:
        steps = sizes(xs[0])[0]
        turned = s.array(steps, "unsigned char")
        s.call("reverse_mask", steps, mask, turned)
        return turned

    return stacked(s.write, turn, op, xs)


def write_bidirectional(s: Source, op: wrappers.Bidirectional, xs: Sequence[Value]) -> Value:
    """Both directions, and what joins them."""
    forward, backward = write_directions(s.write, op, xs)
    steps = sizes(xs[0])[0] if op.forward.return_sequences else 1
    widths = [part.shape[-1] or 0 for part in (forward, backward)]
    there = backward.name
    if op.forward.return_sequences:
        there = s.array(steps * widths[1])
        s.call("reverse", steps, widths[1], backward.name, there)
    if op.merge_mode == "concat":
        y = result(s, op, xs, forward.mask)
        s.call("place", steps, widths[0], sum(widths), forward.name, y.name)
        s.call("place", steps, widths[1], sum(widths), there, f"{y.name} + {widths[0]}")
        return y._replace(states=forward.states + backward.states)
    function = np.multiply if op.merge_mode == "mul" else np.add
    both = [forward, backward._replace(name=there)]
    y = write_joined(s, both, function, forward.mask, 2 if op.merge_mode == "ave" else 1)
    return y._replace(states=forward.states + backward.states)
