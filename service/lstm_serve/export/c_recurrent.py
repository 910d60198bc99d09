"""Recurrent layers in C99: one call a layer, from a state of 0 or from the state that `m_step` keeps."""

import math
from collections.abc import Sequence

import numpy as np

from lstm_serve.engine.operations import recurrent, wrappers
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.engine.types import Array
from lstm_serve.export.c_writer import CProgram, known, result, sizes
from lstm_serve.export.operation import Value, functions_of, join_directions, mask_for, write_directions
from lstm_serve.export.operation import write_stacked as stacked

# The function of a cell, and how many times its units it needs beside its state.
CELLS = {recurrent.LSTM: ("lstm", 4), recurrent.GRU: ("gru", 6), recurrent.SimpleRNN: ("simple_rnn", 1)}


def write_cell(s: CProgram, op: Recurrent, xs: Sequence[Value]) -> Value:
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
    y = result(s, op, xs)
    biases: list[Array | None] = [op.bias]
    if isinstance(op, recurrent.GRU):  # of the two products; the second may have none
        biases = [None, None] if op.bias is None else [*np.atleast_2d(op.bias), None][:2]
    arrays: list[object] = [s.constant(array) for array in (op.kernel, op.recurrent_kernel, *biases)]
    if isinstance(op, recurrent.GRU):
        arrays.append(int(op.reset_after))
    arrays += [s.activation(op, each) for each in functions_of(op)]
    name, blocks = CELLS[type(op)]
    zeros = 2 if op.zero_output_for_mask else int(len(xs) > 1)
    flags = int(op.return_sequences), int(op.go_backwards), zeros
    scratch = s.array(blocks * units)
    s.call(name, timesteps, features, units, x.name, mask_for(op, x) or "NULL", *arrays, state, y.name, *flags, scratch)
    s.adds += timesteps * (op.kernel.size + op.recurrent_kernel.size)
    if s.state is not None and not op.return_sequences:
        return Value(state, (units,))
    return y._replace(
        states=tuple(_apart(s, state, k * units, units) for k in range(len(op.carried)) if op.return_state)
    )


def _apart(s: CProgram, states: str, start: int, units: int) -> Value:
    """One of several states."""
    y = s.array(units)
    s.call("copy", units, f"{states} + {start}", y)
    return Value(y, (units,))


def write_stacked(s: CProgram, op: wrappers.Stacked, xs: Sequence[Value]) -> Value:
    """Layers one above the other."""

    def turn(mask: str) -> str:
        steps = sizes(xs[0])[0]
        turned = s.mask(steps)
        s.call("reverse_mask", steps, mask, turned)
        return turned

    return stacked(s.write, turn, op, xs)


def write_bidirectional(s: CProgram, op: wrappers.Bidirectional, xs: Sequence[Value]) -> Value:
    """Both directions, and what joins them."""

    def turn(x: Value) -> str:
        turned = s.array(math.prod(known(x.shape)))
        s.call("reverse", *sizes(x), x.name, turned)
        return turned

    return join_directions(s.write, op, *write_directions(s.write, turn, op, xs))
