"""The layers that see a sequence, or a row, as a whole: lookups, masks, and changes of shape."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lstm_serve.engine.operations.base import BaseOperation
from lstm_serve.engine.types import Array, Mask, Outputs, Shape

# Why there is no step.
MASKS = "masks time steps"
WHOLE = "takes a sequence as a whole"


@dataclass(frozen=True, eq=False, kw_only=True)
class Embedding(BaseOperation):
    """A row of `embeddings` (input_dim, output_dim) for each id. `mask_zero` masks id 0, which is still looked up.

    Where it is not `learnt`, it is no weight, but a 1 in another place for each id.
    """

    embeddings: Array
    mask_zero: bool
    learnt: bool = True

    @property
    def weights(self) -> dict[str, Array]:
        """The table."""
        return {"embeddings": self.embeddings} if self.learnt else {}

    @property
    def not_causal(self) -> str | None:
        """It has a step where it masks nothing."""
        return MASKS if self.mask_zero else None

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """(T,) -> (T, output_dim)."""
        return ((*shapes[0], self.embeddings.shape[1]),)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """Ids (b, T), integers in [0, input_dim) whatever their type -> (b, T, output_dim)."""
        ids = xs[0] if np.issubdtype(xs[0].dtype, np.integer) else xs[0].astype(np.intp)
        return (self.embeddings[ids],), (xs[0] != 0 if self.mask_zero else None,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Masking(BaseOperation):
    """Masks the steps at which every feature is `mask_value`, and sets them to 0."""

    not_causal = MASKS

    mask_value: float

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, T, features) -> the same shape."""
        mask = (xs[0] != np.float32(self.mask_value)).any(axis=-1)
        return (xs[0] * mask[..., np.newaxis],), (mask,)


@dataclass(frozen=True, eq=False, kw_only=True)
class GlobalPooling1D(BaseOperation):
    """The maximum or the average over all time; the average leaves masked steps out, the maximum does not."""

    not_causal = WHOLE

    average: bool
    keepdims: bool

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """(T, features) -> (features,), or (1, features) with keepdims."""
        return ((1, shapes[0][1]) if self.keepdims else (shapes[0][1],),)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, T, features) -> (b, features) or (b, 1, features)."""
        (x,), (mask,) = xs, masks
        y: Array
        if not self.average:
            y = x.max(axis=1, keepdims=True)
        elif mask is None:
            y = x.mean(axis=1, keepdims=True)
        else:
            kept = mask[..., np.newaxis].astype(np.float32)
            y = (x * kept).sum(axis=1, keepdims=True) / kept.sum(axis=1, keepdims=True)
        return (y if self.keepdims else y[:, 0],), (None,)


@dataclass(frozen=True, eq=False, kw_only=True)
class RepeatVector(BaseOperation):
    """A row, `n` times over."""

    not_causal = WHOLE

    n: int

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """(features,) -> (n, features)."""
        return ((self.n, *shapes[0]),)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, features) -> (b, n, features)."""
        return (np.repeat(xs[0][:, np.newaxis], self.n, axis=1),), (None,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Reshape(BaseOperation):
    """The same numbers in another shape, in which one size may be -1 for what is left. Flatten is Reshape to (-1,)."""

    not_causal = WHOLE

    target: tuple[int, ...]

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """The target, with its -1 worked out; None where a free axis went into it."""
        (shape,) = shapes
        total = None if None in shape else math.prod(size or 0 for size in shape)
        rest = math.prod(size for size in self.target if size != -1)
        return (tuple(size if size != -1 else None if total is None else total // rest for size in self.target),)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, ...) -> (b, *target)."""
        return (xs[0].reshape(len(xs[0]), *self.target),), (None,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Permute(BaseOperation):
    """The axes in another order; `dims` count from 1, the batch axis stays in front."""

    not_causal = WHOLE

    dims: tuple[int, ...]

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """The input's sizes in the new order."""
        return (tuple(shapes[0][dim - 1] for dim in self.dims),)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, ...) -> the same numbers, permuted."""
        return (xs[0].transpose(0, *self.dims),), (None,)
