"""How a gradient goes back through what sees a sequence, or a row, as a whole. Each gives that by x."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lstm_serve.engine.activations import LINEAR
from lstm_serve.engine.types import Array
from lstm_serve.explain.gradients.activations import through
from lstm_serve.explain.gradients.between import to_those
from lstm_serve.explain.gradients.step import Step


def masking(step: Step, gs: Sequence[Any]) -> list[Array]:
    """Nothing at the masked steps."""
    (mask,) = step.given
    return [gs[0] * np.expand_dims(mask, -1)]  # type: ignore[arg-type] # it makes one


def repeat_vector(_: Step, gs: Sequence[Any]) -> list[Array]:
    """The sum of all times."""
    return [gs[0].sum(axis=1)]


def reshape(step: Step, gs: Sequence[Any]) -> list[Array]:
    """In the shape that x had."""
    return [gs[0].reshape(step.xs[0].shape)]


def permute(step: Step, gs: Sequence[Any]) -> list[Array]:
    """In the order that x had."""
    return [gs[0].transpose(0, *(np.argsort(step.operation.dims) + 1))]


def conv1d(step: Step, gs: Sequence[Any]) -> list[Array]:
    """To the steps that each window has, through the kernel."""
    op, (x,) = step.operation, step.xs
    g = through(op.activation, lambda: replace(op, activation=LINEAR)(step.xs, step.masks)[0][0], step.ys[0], gs[0])
    found = np.zeros(x.shape, g.dtype)
    for k, windows, steps in op.window.taps(x.shape[1]):
        found[:, steps] += g[:, windows] @ op.kernel[k].T
    return [found]


def pooling1d(step: Step, gs: Sequence[Any]) -> list[Array]:
    """To all steps of a window alike, or to the first that is its maximum, as TensorFlow does."""
    op, (x,), (y,), (g,) = step.operation, step.xs, step.ys, gs
    found, left = np.zeros(x.shape, g.dtype), np.ones(y.shape, np.bool_)
    taps = [*op.window.taps(x.shape[1])]
    if op.average:
        met = np.zeros((y.shape[1], 1), g.dtype)
        for _, windows, _ in taps:
            met[windows] += 1
        g = g / met
    for _, windows, steps in taps:
        if op.average:
            found[:, steps] += g[:, windows]
        else:
            hit = left[:, windows] & (x[:, steps] == y[:, windows])
            found[:, steps] += g[:, windows] * hit
            left[:, windows] &= ~hit
    return [found]


def global_pooling1d(step: Step, gs: Sequence[Any]) -> list[Array]:
    """To all steps that count alike, or to those that are the maximum."""
    op, (x,), mask = step.operation, step.xs, step.masks[0]
    g, y = (array if op.keepdims else array[:, np.newaxis] for array in (gs[0], step.ys[0]))
    if not op.average:
        return [to_those(x == y, g, 1)]
    if mask is None:
        return [np.broadcast_to(g / x.shape[1], x.shape)]
    kept = mask[..., np.newaxis].astype(g.dtype)
    return [g * kept / kept.sum(axis=1, keepdims=True)]
