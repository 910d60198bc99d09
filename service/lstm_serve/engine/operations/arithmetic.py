"""The operations that stand between layers: a part of an array, two arrays joined, one made smaller, a product.

None passes a mask on: neither do the operations that Keras 2 and 3 write into a graph.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lstm_serve.engine.operations.base import BaseOperation
from lstm_serve.engine.types import Array, Mask, Outputs, Shape, State

ReduceKind = Literal["mean", "sum", "max", "min"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice(BaseOperation):
    """A part of x: one slice for each axis, the batch axis left out."""

    slices: tuple[slice, ...]

    @property
    def not_causal(self) -> str | None:
        """It has a step where it takes all time steps in their order."""
        return None if self.slices[0] == slice(None) else "takes some time steps out of a sequence"

    def step(self, xs: Sequence[Array], state: State) -> tuple[tuple[Array, ...], State]:
        """x (n, ...) -> its part."""
        return (xs[0][:, *self.slices[1:]],), state

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """What is left of each axis; of a free one None, unless one step alone is taken."""
        return (tuple(sliced_size(part, size) for part, size in zip(self.slices, shapes[0], strict=True)),)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, ...) -> its part."""
        return (xs[0][:, *self.slices],), (None,)


def sliced_size(part: slice, size: int | None) -> int | None:
    """How many a slice leaves of an axis; of a free one None, unless it takes one place alone."""
    if size is not None:
        return len(range(size)[part])
    return 1 if (part.start, part.stop, part.step) in {(-1, None, None), (0, 1, None)} else None


@dataclass(frozen=True, eq=False, kw_only=True)
class Binary(BaseOperation):
    """function(a, b) of two inputs of one rank that broadcast, or of one and a constant, first where `constant_first`.

    The constant has no batch axis, and no axis of size 1 in front.
    """

    function: np.ufunc
    constant: Array | None = None
    constant_first: bool = False

    @property
    def not_causal(self) -> str | None:
        """It has a step where its constant is of the last axis alone."""
        same = self.constant is None or math.prod(self.constant.shape[:-1]) == 1
        return None if same else "has numbers of its own for each time step"

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """The inputs', broadcast."""
        first, second = shapes[0], shapes[-1] if self.constant is None else self.constant.shape
        filled = (*(1,) * (len(first) - len(second)), *second)
        return (tuple(_broadcast(a, b) for a, b in zip(first, filled, strict=True)),)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """All (b, ...) -> (b, ...)."""
        a, b = (xs[0], xs[1]) if self.constant is None else (xs[0], self.constant)
        y: Array = self.function(b, a) if self.constant_first else self.function(a, b)
        return (y,), (None,)


def _broadcast(a: int | None, b: int | None) -> int | None:
    return b if a == 1 else a if b in {1, None} else b


@dataclass(frozen=True, eq=False, kw_only=True)
class Reduce(BaseOperation):
    """The mean, the sum, the largest or the smallest along `axes`, which count the batch axis as 0."""

    function: ReduceKind
    axes: tuple[int, ...]
    keepdims: bool

    @property
    def not_causal(self) -> str | None:
        """It has a step where time stays."""
        return "takes a sequence as a whole" if 1 in self.axes else None

    def step(self, xs: Sequence[Array], state: State) -> tuple[tuple[Array, ...], State]:
        """x (n, ...) -> the same along axes that count no time."""
        return (self._reduced(xs[0], tuple(axis - 1 for axis in self.axes)),), state

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """The axes left out, or 1 with keepdims."""
        sizes = [1 if axis in self.axes else size for axis, size in enumerate(shapes[0], 1)]
        return (tuple(size for axis, size in enumerate(sizes, 1) if self.keepdims or axis not in self.axes),)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, ...) -> (b, ...)."""
        return (self._reduced(xs[0], self.axes),), (None,)

    def _reduced(self, x: Array, axes: tuple[int, ...]) -> Array:
        y: Array
        if self.function == "max":
            y = x.max(axis=axes, keepdims=self.keepdims)
            return y
        if self.function == "min":
            y = x.min(axis=axes, keepdims=self.keepdims)
            return y
        y = x.sum(axis=axes, keepdims=self.keepdims)
        return y / y.dtype.type(math.prod(x.shape[axis] for axis in axes)) if self.function == "mean" else y


@dataclass(frozen=True, eq=False, kw_only=True)
class MatMul(BaseOperation):
    """The product of two inputs along their last two axes: (..., m, k) and (..., k, n)."""

    not_causal = "multiplies sequences as a whole"

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """(..., m, n)."""
        a, b = shapes
        return ((*(_broadcast(i, j) for i, j in zip(a[:-2], b[:-2], strict=True)), a[-2], b[-1]),)

    def products(self, shapes: Sequence[Shape]) -> int:
        """As many for each number of the output as there are along the axis that goes."""
        return math.prod(size or 1 for size in (*self.output_shapes(shapes)[0], shapes[0][-1]))

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """(b, ..., m, k) and (b, ..., k, n) -> (b, ..., m, n)."""
        return (np.matmul(xs[0], xs[1]),), (None,)
