"""How a gradient goes back through time.

The forward is a scan by the engine's own cell, of which each step's gates are copied: they are still there for the way
back. Arrays are units-major, as in the engine: (T, units, batch). On the way back only what hangs on
the next step is computed step by step; the slopes are there before, and the products with the kernel come after.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.operations.recurrent import GRU, LSTM, SimpleRNN
from lstm_serve.engine.recurrence import Recurrent, shown_steps
from lstm_serve.engine.types import AnyArray, Array, Mask
from lstm_serve.explain.gradients.activations import needs_input, slope
from lstm_serve.explain.gradients.tape import Gradient, Pieces, TapeEntry


class Scan(NamedTuple):
    """All steps of a scan, in the order in which they were taken.

    `xs` (T, features, b) are the inputs, `hs` (T + 1, units, b) the h before each and the last one, `cs` the same of an
    LSTM's c. `parts` are the cell's, `sums` its sums as `BoundCell.z` has them, where they are needed. The mask is
    turned round where the steps are.
    """

    xs: Array
    hs: Array
    cs: Array
    parts: dict[str, Array]
    sums: Array | None
    mask: Mask


def why_not(op: Recurrent) -> str | None:
    """The way back multiplies by a slope for each unit, which an activation of all units together has not."""
    together = [each.name for each in _activations(op) if not each.elementwise]
    return f"its activation {together[0]} is of all units together" if together else None


def _activations(op: Recurrent) -> list[Activation]:
    return [op.activation, *([op.recurrent_activation] if isinstance(op, LSTM | GRU) else [])]


def forward(op: Recurrent, xs: Sequence[Array], masks: Sequence[Mask]) -> Pieces[TapeEntry]:
    """What the operation's call gives, with all that its steps computed."""
    (x, *before), mask = xs, None if op.ignores_mask else masks[0]
    if op.go_backwards:
        x, mask = x[:, ::-1], None if mask is None else mask[:, ::-1]
    (b, timesteps, features), u = x.shape, op.units
    operands = np.empty((timesteps + 1, u + features + 1, b), op.kernel.dtype)
    operands[:-1, u:-1] = x.transpose(1, 2, 0)
    operands[:, -1] = 1
    hs, cs = operands[:, :u], np.zeros((timesteps + 1, u, b), op.kernel.dtype)
    buffers = [np.empty(shape, op.kernel.dtype) for shape in op.buffers(b)]
    kept, cell = np.empty((timesteps, *buffers[0].shape), op.kernel.dtype), op.bind(buffers)
    carried = [hs, cs][: len(op.carried)]
    for k, states in enumerate(carried):
        states[0] = before[k].T if before else 0
    for state, states in zip(cell.states, carried[1:], strict=True):
        state[:] = states[0]
    with_sums = isinstance(op, GRU) or any(map(needs_input, _activations(op)))
    sums = []
    for t in range(timesteps):
        cell.sums(operands[t])
        if with_sums:
            sums.append(cell.z().copy())
        cell.update(hs[t], hs[t + 1])
        kept[t] = buffers[0]
        for state, states in zip(cell.states, carried[1:], strict=True):
            states[t + 1] = state
        if mask is not None:
            _stay(carried, cell.states, t, ~mask[:, t])
        yield
    # Bound to the buffers of all steps at once, the cell says where in them each of its parts is.
    parts = op.bind([kept.swapaxes(0, 1), *buffers[1:]]).parts
    scan = Scan(
        operands[:-1, u:-1],
        hs,
        cs,
        {name: part.swapaxes(0, 1) for name, part in parts.items()},
        np.stack(sums) if with_sums else None,
        mask,
    )
    y = hs[1:].transpose(2, 0, 1).copy() if op.return_sequences else hs[-1].T.copy()
    shown = shown_steps(op, mask, given=bool(before))
    if shown is not None:
        y[~shown if op.return_sequences else ~shown[:, -1]] = 0
    ends = tuple(states[-1].T.copy() for states in carried) if op.return_state else ()
    given = (masks[0] if op.return_sequences else None, *(None for _ in ends))
    return TapeEntry(op, xs, masks, (y, *ends), given, scan)


def _stay(carried: Sequence[Array], of_cell: Sequence[Array], t: int, masked: AnyArray) -> None:
    """Have the states after a step be those before it where it is masked, those that the cell goes on with too."""
    for states in carried:
        np.copyto(states[t + 1], states[t], where=masked)
    for state, states in zip(of_cell, carried[1:], strict=True):
        state[:] = states[t + 1]


# One step back: its number and the gradients by the states after it, which it may write into -> by those before it.
StepBack = Callable[..., tuple[Array, ...]]


def backward(entry: TapeEntry, gs: Sequence[Gradient]) -> Pieces[list[Gradient]]:
    """By x (b, T, features), and by the states before the first step where they were given."""
    op, scan = entry.operation, entry.kept
    timesteps, (_, u, b), dtype = len(scan.hs) - 1, scan.hs.shape, scan.hs.dtype
    by_y, *by_ends = gs
    shown = shown_steps(op, scan.mask, given=len(entry.xs) > 1)
    if by_y is not None and shown is not None:
        by_y = by_y * (shown[..., np.newaxis] if op.return_sequences else shown[:, -1:])
    by_h: dict[int, Array] = {}
    if by_y is not None:
        by_h = dict(enumerate(by_y.transpose(1, 2, 0))) if op.return_sequences else {timesteps - 1: by_y.T}
    ends = by_ends or [None] * len(op.carried)
    states = [np.zeros((u, b), dtype) if given is None else given.T.astype(dtype, "C") for given in ends]
    by_sums = np.empty((timesteps, op.kernel.shape[1], b), dtype)
    back = CELLS[type(op)](op, scan, by_sums)
    yield
    for t in reversed(range(timesteps)):
        if t in by_h:
            states[0] += by_h[t]
        if scan.mask is None:
            states = list(back(t, *states))
        else:
            counts = scan.mask[:, t]
            passed = [state * ~counts for state in states]
            states = [one + other for one, other in zip(back(t, *(s * counts for s in states)), passed, strict=True)]
        yield
    by_x = np.matmul(op.kernel, by_sums).transpose(2, 0, 1)
    return [by_x[:, ::-1] if op.go_backwards else by_x, *(state.T for state in states[: len(entry.xs) - 1])]


def _part_of(sums: Array | None, start: int, stop: int) -> Array:
    assert sums is not None  # noqa: S101 - it is where an activation needs it
    return sums[:, start:stop]


def _lstm(op: LSTM, scan: Scan, by_sums: Array) -> StepBack:
    (i, f, g, o), u = (scan.parts[name] for name in ("i", "f", "c~", "o")), op.units
    gate, activation = op.recurrent_activation, op.activation
    now, before = scan.cs[1:], scan.cs[:-1]
    squashed = activation.apply(now.copy())
    # For each sum first what the gradient by c is multiplied by, or of o's that by h: they are multiplied in place.
    rows = by_sums.reshape(len(i), 4, u, -1)
    for k, (other, y, by) in enumerate(((g, i, gate), (before, f, gate), (i, g, activation), (squashed, o, gate))):
        np.multiply(other, slope(by, partial(_part_of, scan.sums, k * u, k * u + u), y), rows[:, k])
    factor_c = o * slope(activation, lambda: now, squashed)

    def back(t: int, by_h: Array, by_c: Array) -> tuple[Array, ...]:
        rows[t, 3] *= by_h
        by_h *= factor_c[t]
        by_c += by_h
        rows[t, :3] *= by_c
        by_c *= f[t]
        return np.dot(op.recurrent_kernel, by_sums[t], by_h), by_c

    return back


def _gru(op: GRU, scan: Scan, by_sums: Array) -> StepBack:
    (z, r, candidate), u = (scan.parts[name] for name in ("z", "r", "h~")), op.units
    gate, before, of_h = op.recurrent_activation, scan.hs[:-1], op.recurrent_kernel[:, 2 * u :]
    third = _part_of(scan.sums, 2 * u, 3 * u)  # h @ U + d with reset_after, x @ W + b without
    slope_z = slope(gate, partial(_part_of, scan.sums, 0, u), z)
    slope_r = slope(gate, partial(_part_of, scan.sums, u, 2 * u), r)

    def sum_of_candidate() -> Array:
        if not op.reset_after:
            found: Array = third + np.matmul(of_h.T, r * before)
            return found
        bias = 0 if op.bias is None else op.bias[0, 2 * u :, np.newaxis]
        inputs: Array = np.matmul(op.kernel[:, 2 * u :].T, scan.xs) + bias + r * third
        return inputs

    factor_z = (before - candidate) * slope_z
    factor_h = (1 - z) * slope(op.activation, sum_of_candidate, candidate)
    factor_r = (third if op.reset_after else before) * slope_r
    recurrent = np.empty((3 * u, z.shape[-1]), z.dtype)

    def back(t: int, by_h: Array) -> tuple[Array, ...]:
        of_z, of_r, of_candidate = by_sums[t, :u], by_sums[t, u : 2 * u], by_sums[t, 2 * u :]
        np.multiply(by_h, factor_z[t], of_z)
        np.multiply(by_h, factor_h[t], of_candidate)
        if op.reset_after:
            np.multiply(of_candidate, factor_r[t], of_r)
            recurrent[: 2 * u] = by_sums[t, : 2 * u]
            np.multiply(of_candidate, r[t], recurrent[2 * u :])
            return (by_h * z[t] + op.recurrent_kernel @ recurrent,)
        by_reset = of_h @ of_candidate
        np.multiply(by_reset, factor_r[t], of_r)
        return (by_h * z[t] + by_reset * r[t] + op.recurrent_kernel[:, : 2 * u] @ by_sums[t, : 2 * u],)

    return back


def _simple(op: SimpleRNN, scan: Scan, by_sums: Array) -> StepBack:
    slopes = slope(op.activation, partial(_part_of, scan.sums, 0, op.units), scan.hs[1:])

    def back(t: int, by_h: Array) -> tuple[Array, ...]:
        np.multiply(by_h, slopes[t], by_sums[t])
        return (op.recurrent_kernel @ by_sums[t],)

    return back


CELLS: dict[type, Callable[[Any, Scan, Array], StepBack]] = {LSTM: _lstm, GRU: _gru, SimpleRNN: _simple}
