"""How a gradient goes back through what works on each time step, or on each row, by itself. Each gives that by x."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lstm_serve.engine.types import Array
from lstm_serve.explain.gradients.activations import through
from lstm_serve.explain.gradients.tape import TapeEntry


def identity(_: TapeEntry, gs: Sequence[Any]) -> list[Array]:
    """As it came."""
    return [gs[0]]


def dense(entry: TapeEntry, gs: Sequence[Any]) -> list[Array]:
    """Through the activation, and the kernel."""
    op, x = entry.operation, entry.xs[0]
    return [through(op.activation, lambda: op.sums(x), entry.ys[0], gs[0]) @ op.kernel.T]


def activate(entry: TapeEntry, gs: Sequence[Any]) -> list[Array]:
    """Through the activation."""
    return [through(entry.operation.activation, lambda: entry.xs[0], entry.ys[0], gs[0])]


def prelu(entry: TapeEntry, gs: Sequence[Any]) -> list[Array]:
    """The slope where x is below 0."""
    return [gs[0] * np.where(entry.xs[0] > 0, 1, entry.operation.alpha)]


def normalization(entry: TapeEntry, gs: Sequence[Any]) -> list[Array]:
    """Divided as x is."""
    return [gs[0] / entry.operation.deviation]


def batch_normalization(entry: TapeEntry, gs: Sequence[Any]) -> list[Array]:
    """Times the factor of x."""
    op = entry.operation
    return [gs[0] / np.sqrt(op.variance + op.epsilon) * (1 if op.gamma is None else op.gamma)]


def layer_normalization(entry: TapeEntry, gs: Sequence[Any]) -> list[Array]:
    """x changes its mean and variance too, by what the gradient has along 1 and along the normalized x."""
    op, (x,) = entry.operation, entry.xs
    g = gs[0] if op.gamma is None else gs[0] * op.gamma
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + op.epsilon)
    normalized = centred / deviation
    along = normalized * (g * normalized).mean(axis=-1, keepdims=True)
    return [(g - g.mean(axis=-1, keepdims=True) - along) / deviation]


def times_scale(entry: TapeEntry, gs: Sequence[Any]) -> list[Array]:
    """Times the scale, as of Rescaling and Unscaling."""
    return [gs[0] * entry.operation.scale]


def over_scale(entry: TapeEntry, gs: Sequence[Any]) -> list[Array]:
    """Divided by the scale, as of Scaling."""
    return [gs[0] / entry.operation.scale]
