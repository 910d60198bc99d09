"""The operations that join several inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import reduce

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.operations.base import BaseOperation
from lstm_serve.engine.types import Array, Mask, Outputs, Shape, State


class MaskRule(Enum):
    """How masks are joined: a step counts where it counts in all of the inputs, or in any."""

    ALL = "all"
    ANY = "any"

    def join(self, masks: Sequence[npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
        """One mask (b, T) of several."""
        joined: npt.NDArray[np.bool_] = reduce(np.logical_and if self is MaskRule.ALL else np.logical_or, masks)
        return joined


@dataclass(frozen=True, eq=False, kw_only=True)
class Merge(BaseOperation):
    """Several inputs of one shape, or of shapes that broadcast, joined one by one.

    Divided by their number at the end where `mean` is set. The `mask_rule` is ALL in Keras 1 and 2 and up to 3.3, ANY
    since. With ALL, an input without a mask says nothing; with ANY, it makes the whole unmasked, and a product, a
    maximum or a minimum leaves masked steps out.
    Source: base_merge.py and multiply.py in keras/src/layers/merging of 3.3 and 3.15.
    """

    not_causal = None

    join: np.ufunc
    mean: bool
    mask_rule: MaskRule

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """The inputs', broadcast."""
        return (tuple(_broadcast_size(sizes) for sizes in zip(*shapes, strict=True)),)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """All (b, ...) -> (b, ...)."""
        given = [mask for mask in masks if mask is not None]
        newer = self.mask_rule is MaskRule.ANY
        mask = self.mask_rule.join(given) if given and (len(given) == len(masks) or not newer) else None
        if newer and given and self.join is np.multiply:
            y = _product(xs, masks, mask)
        elif newer and given and self.join in {np.maximum, np.minimum}:
            y = self._extreme(xs, masks)
        else:
            y = reduce(self.join, xs)
        return (y / np.float32(len(xs)) if self.mean else y,), (mask,)

    def _extreme(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Array:
        """At a masked step the other input stands for the masked one."""
        y, known = xs[0], masks[0]
        for x, mask in zip(xs[1:], masks[1:], strict=True):
            there = x if mask is None else np.where(mask[..., np.newaxis], x, y)
            y = self.join(y if known is None else np.where(known[..., np.newaxis], y, there), there)
            known = None if known is None or mask is None else known | mask
        return y


def _product(xs: Sequence[Array], masks: Sequence[Mask], mask: Mask) -> Array:
    """At a masked step 1 stands for the masked input, and 0 for the product where all are masked."""
    factors = [
        x if m is None else np.where(m[..., np.newaxis], x, np.float32(1)) for x, m in zip(xs, masks, strict=True)
    ]
    y: Array = reduce(np.multiply, factors)
    return y if mask is None else np.where(mask[..., np.newaxis], y, np.float32(0))


def _broadcast_size(sizes: Sequence[int | None]) -> int | None:
    known = [size for size in sizes if size != 1]
    return next((size for size in known if size is not None), None) if known else 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Concatenate(BaseOperation):
    """Several inputs, one after the other along `axis`, which counts the batch axis. `mask_rule` as in Merge."""

    axis: int
    mask_rule: MaskRule

    @property
    def not_causal(self) -> str | None:
        """It has a step where the axis is not time."""
        return "joins sequences along time" if self.axis == 1 else None

    def step(self, xs: Sequence[Array], state: State) -> tuple[tuple[Array, ...], State]:
        """All (n, ...) -> (n, ...)."""
        return (np.concatenate(xs, axis=self.axis - 1),), state

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """The inputs' sizes along the axis, added up; of the other axes what is known of any."""
        axis = self.axis - 1
        columns = list(zip(*shapes, strict=True))
        sizes = [next((size for size in column if size is not None), None) for column in columns]
        along = columns[axis]
        sizes[axis] = None if None in along else sum(size or 0 for size in along)
        return (tuple(sizes),)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """All (b, ...) -> (b, ...)."""
        y = np.concatenate(xs, axis=self.axis)
        if all(mask is None for mask in masks):
            return (y,), (None,)
        filled = [np.ones(x.shape[:-1], np.bool_) if mask is None else mask for x, mask in zip(xs, masks, strict=True)]
        if self.axis == 1 and y.ndim > 2:
            return (y,), (np.concatenate(filled, axis=1),)
        return (y,), (self.mask_rule.join(filled),)


@dataclass(frozen=True, eq=False, kw_only=True)
class MaskedBy(BaseOperation):
    """The first input with the mask of the second; where `zeroed`, 0 at the steps that do not count."""

    not_causal = None

    zeroed: bool

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, T, ...) and what has the mask (b, T) -> x's shape."""
        mask = masks[1]
        if mask is None or not self.zeroed:
            return (xs[0],), (mask,)
        return (xs[0] * mask.reshape(*mask.shape, *(1,) * (xs[0].ndim - mask.ndim)),), (mask,)
