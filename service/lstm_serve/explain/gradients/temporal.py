"""How a gradient goes back through what sees a sequence, or a row, as a whole. Each gives that by x."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lstm_serve.engine.types import Array
from lstm_serve.explain.gradients.between import to_those
from lstm_serve.explain.gradients.tape import TapeEntry


def masking(entry: TapeEntry, gs: Sequence[Any]) -> list[Array]:
    """Nothing at the masked steps."""
    (mask,) = entry.given
    return [gs[0] * np.expand_dims(mask, -1)]  # type: ignore[arg-type] # it makes one


def repeat_vector(_: TapeEntry, gs: Sequence[Any]) -> list[Array]:
    """The sum of all times."""
    return [gs[0].sum(axis=1)]


def reshape(entry: TapeEntry, gs: Sequence[Any]) -> list[Array]:
    """In the shape that x had."""
    return [gs[0].reshape(entry.xs[0].shape)]


def permute(entry: TapeEntry, gs: Sequence[Any]) -> list[Array]:
    """In the order that x had."""
    return [gs[0].transpose(0, *(np.argsort(entry.operation.dims) + 1))]


def global_pooling1d(entry: TapeEntry, gs: Sequence[Any]) -> list[Array]:
    """To all steps that count alike, or to those that are the maximum."""
    op, (x,), mask = entry.operation, entry.xs, entry.masks[0]
    g, y = (array if op.keepdims else array[:, np.newaxis] for array in (gs[0], entry.ys[0]))
    if not op.average:
        return [to_those(x == y, g, 1)]
    if mask is None:
        return [np.broadcast_to(g / x.shape[1], x.shape)]
    kept = mask[..., np.newaxis].astype(g.dtype)
    return [g * kept / kept.sum(axis=1, keepdims=True)]
