"""How a gradient goes back through windows: convolutions, and pooling. Each gives that by x."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lstm_serve.engine.activations import LINEAR
from lstm_serve.engine.operations.windows import Window
from lstm_serve.engine.types import Array
from lstm_serve.explain.gradients.activations import through
from lstm_serve.explain.gradients.tape import TapeEntry


def convolution(entry: TapeEntry, gs: Sequence[Any]) -> list[Array]:
    """To what each window holds, through the kernel, each group by itself."""
    op, (x,), groups = entry.operation, entry.xs, entry.operation.groups
    sums = replace(op, activation=LINEAR)
    g = through(op.activation, lambda: sums(entry.xs, entry.masks)[0][0], entry.ys[0], gs[0])
    g = np.moveaxis(g.reshape(*g.shape[:-1], groups, -1), -2, 0)
    found = np.zeros((groups, *x.shape[:-1], x.shape[-1] // groups), g.dtype)
    # By position: (groups, 1, ..., filters, features), of each group.
    kernel = np.moveaxis(op.kernel.reshape(*op.kernel.shape[:-1], groups, -1), (-2, -1, -3), (0, -2, -1))
    along = [window.taps(size) for window, size in zip(op.windows, x.shape[1:], strict=False)]
    for taps in itertools.product(*along):
        position = tuple(slice(tap.position, tap.position + 1) for tap in taps)
        steps, windows = (tap.steps for tap in taps), (tap.windows for tap in taps)
        found[:, :, *steps] += g[:, :, *windows] @ kernel[:, *position]
    return [np.moveaxis(found, 0, -2).reshape(x.shape)]


def pooling(entry: TapeEntry, gs: Sequence[Any]) -> list[Array]:
    """Back along one axis after the other, the last one first."""
    op, g, y = entry.operation, gs[0], entry.ys[0]
    for k in reversed(range(len(op.windows))):
        (x,), _ = replace(op, windows=op.windows[:k])(entry.xs, entry.masks)
        first = [np.moveaxis(array, k + 1, 0) for array in (x, y, g)]
        g, y = np.moveaxis(_along(op.windows[k], *first, average=op.average), 0, k + 1), x
    return [g]


def _along(window: Window, x: Array, y: Array, g: Array, *, average: bool) -> Array:
    """To all of a window along the first axis alike, or to the first that is its maximum."""
    found, left, taps = np.zeros(x.shape, g.dtype), np.ones(y.shape, np.bool_), [*window.taps(len(x))]
    if average:
        met = np.zeros((len(y), *(1,) * (y.ndim - 1)), g.dtype)
        for _, windows, _ in taps:
            met[windows] += 1
        g = g / met
    for _, windows, steps in taps:
        if average:
            found[steps] += g[windows]
        else:
            hit = left[windows] & (x[steps] == y[windows])
            found[steps] += g[windows] * hit
            left[windows] &= ~hit
    return found
