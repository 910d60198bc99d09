"""How a gradient goes back through what joins arrays, or takes a part of one, or makes one smaller."""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from lstm_serve.engine.operations.merging import MaskRule
from lstm_serve.engine.types import Array
from lstm_serve.explain.gradients.tape import Gradient, TapeEntry, summed_to


def merge(entry: TapeEntry, gs: Sequence[Any]) -> list[Gradient]:
    """To each input what it adds; of a maximum or a minimum to the first that it is."""
    op, xs = entry.operation, entry.xs
    g = gs[0] / len(xs) if op.mean else gs[0]
    if op.join in {np.add, np.subtract}:
        signs = [1, *[1 if op.join is np.add else -1] * (len(xs) - 1)]
        return [summed_to(sign * g, x.shape) for sign, x in zip(signs, xs, strict=True)]
    # What is masked is left out, as Keras does from 3.4 on.
    left_out = op.mask_rule is MaskRule.ANY and any(mask is not None for mask in entry.masks)
    counts = [
        np.ones((1,) * g.ndim, np.bool_) if mask is None or not left_out else mask[..., np.newaxis]
        for mask in entry.masks
    ]
    if op.join is np.multiply:
        factors = [np.where(counted, x, x.dtype.type(1)) for x, counted in zip(xs, counts, strict=True)]
        others = [reduce(np.multiply, [*factors[:k], *factors[k + 1 :]], g) for k in range(len(xs))]
        return [summed_to(y * counted, x.shape) for y, counted, x in zip(others, counts, xs, strict=True)]
    counts[0] = counts[0] | ~reduce(np.logical_or, counts)  # where all are masked it is the first
    found, left = list[Gradient](), np.ones(g.shape, np.bool_)
    for x, counted in zip(xs, counts, strict=True):
        hit = left & counted & (x == entry.ys[0])
        found.append(summed_to(g * hit, x.shape))
        left &= ~hit
    return found


def concatenate(entry: TapeEntry, gs: Sequence[Any]) -> list[Gradient]:
    """To each input its part."""
    axis = entry.operation.axis
    return [*np.split(gs[0], np.cumsum([x.shape[axis] for x in entry.xs])[:-1], axis=axis)]


def masked_by(entry: TapeEntry, gs: Sequence[Any]) -> list[Gradient]:
    """Nothing at the steps that do not count where they are zeroed, and nothing to what has the mask."""
    mask = entry.masks[1]
    if mask is None or not entry.operation.zeroed:
        return [gs[0], None]
    return [gs[0] * mask.reshape(*mask.shape, *(1,) * (gs[0].ndim - mask.ndim)), None]


def part(entry: TapeEntry, gs: Sequence[Any]) -> list[Gradient]:
    """Nothing to what is left out."""
    found = np.zeros(entry.xs[0].shape, gs[0].dtype)
    found[:, *entry.operation.slices] = gs[0]
    return [found]


# Of a function of a and b, by its name: the gradients by both, of that by its output y.
BINARY: dict[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "add": (lambda g, *_: g, lambda g, *_: g),
    "subtract": (lambda g, *_: g, lambda g, *_: -g),
    "multiply": (lambda g, _, b, __: g * b, lambda g, a, *_: g * a),
    "divide": (lambda g, _, b, __: g / b, lambda g, _, b, y: -g * y / b),
    "maximum": (lambda g, a, b, _: g * (a >= b), lambda g, a, b, _: g * (a < b)),
    "minimum": (lambda g, a, b, _: g * (a <= b), lambda g, a, b, _: g * (a > b)),
    # x to the power of 0 is 1 at 0 too.
    "power": (
        lambda g, a, b, _: g * np.where(b == 0, 0, b * np.power(a, b - 1, where=b != 0, out=np.zeros_like(a + b))),
        lambda g, a, _, y: g * np.where(y == 0, 0, y * np.log(np.where(y == 0, 1, a))),
    ),
}


def binary(entry: TapeEntry, gs: Sequence[Any]) -> list[Gradient]:
    """By the function; nothing to a constant."""
    op, xs = entry.operation, entry.xs
    operands = [*xs] if op.constant is None else [xs[0], op.constant]
    order = -1 if op.constant_first else 1
    by = BINARY[op.function.__name__][::order]
    a, b = operands[::order]
    return [summed_to(each(gs[0], a, b, entry.ys[0]), x.shape) for each, x in zip(by, xs, strict=False)]


def shrunk(entry: TapeEntry, gs: Sequence[Any]) -> list[Gradient]:
    """To all alike of a sum or a mean, of an extreme to those that it is."""
    op, (x,) = entry.operation, entry.xs
    g, y = (array if op.keepdims else np.expand_dims(array, op.axes) for array in (gs[0], entry.ys[0]))
    if op.function in {"max", "min"}:
        return [to_those(x == y, g, op.axes)]
    count = math.prod(x.shape[axis] for axis in op.axes) if op.function == "mean" else 1
    return [np.broadcast_to(g / count, x.shape)]


def to_those(hit: Array, g: Array, axes: int | tuple[int, ...]) -> Array:
    """Share a gradient among those that were the extreme, as TensorFlow does."""
    shared: Array = hit * (g / hit.sum(axis=axes, keepdims=True))
    return shared.astype(g.dtype, copy=False)


def matmul(entry: TapeEntry, gs: Sequence[Any]) -> list[Gradient]:
    """The product with the other, transposed."""
    a, b = entry.xs
    by_a, by_b = gs[0] @ b.swapaxes(-1, -2), a.swapaxes(-1, -2) @ gs[0]
    return [summed_to(by_a, a.shape), summed_to(by_b, b.shape)]
