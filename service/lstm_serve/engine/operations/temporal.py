"""The layers that see a sequence, or a row, as a whole: lookups, masks, windows over time, and changes of shape."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lstm_serve.engine.operations.base import BaseOperation, KernelOperation
from lstm_serve.engine.types import Array, Mask, Outputs, Shape, State

Padding = Literal["valid", "same", "causal"]

# Why there is no step.
MASKS = "masks time steps"
WHOLE = "takes a sequence as a whole"
# A causal convolution carries the rows that it reaches back to, where these are not too many.
REACH = 4096


@dataclass(frozen=True, eq=False, kw_only=True)
class Embedding(BaseOperation):
    """A row of `embeddings` (input_dim, output_dim) for each id. `mask_zero` masks id 0, which is still looked up."""

    embeddings: Array
    mask_zero: bool

    @property
    def weights(self) -> dict[str, Array]:
        """The table."""
        return {"embeddings": self.embeddings}

    @property
    def not_causal(self) -> str | None:
        """It has a step where it masks nothing."""
        return MASKS if self.mask_zero else None

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """(T,) -> (T, output_dim)."""
        return ((*shapes[0], self.embeddings.shape[1]),)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """Ids (b, T), integers in [0, input_dim) -> (b, T, output_dim)."""
        return (self.embeddings[xs[0]],), (xs[0] != 0 if self.mask_zero else None,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Masking(BaseOperation):
    """Masks the steps at which every feature is `mask_value`, and sets them to 0."""

    not_causal = MASKS

    mask_value: float

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, T, features) -> the same shape."""
        mask = (xs[0] != np.float32(self.mask_value)).any(axis=-1)
        return (xs[0] * mask[..., np.newaxis],), (mask,)


@dataclass(frozen=True, kw_only=True)
class Window:
    """How a window of `size` steps, `dilation` apart, moves along time by `stride`.

    `same` pads so that ceil(T / stride) windows fit, the smaller half in front; `causal` pads in front alone.
    """

    size: int
    stride: int = 1
    dilation: int = 1
    padding: Padding = "valid"

    @property
    def span(self) -> int:
        """How many steps a window reaches from its first step to its last."""
        return (self.size - 1) * self.dilation

    def count(self, timesteps: int | None) -> int | None:
        """The number of windows in so many steps; it may be 0 or less where they do not suffice."""
        if timesteps is None:
            return None
        span = self.span if self.padding == "valid" else 0
        return -((span - timesteps) // self.stride)

    def taps(self, timesteps: int) -> Iterator[tuple[int, slice, slice]]:
        """For each position in the window that falls on a step in any: the position, these windows, these steps."""
        n = self.count(timesteps) or 0
        span = self.span
        before = {
            "valid": 0,
            "causal": span,
            "same": max((n - 1) * self.stride + span + 1 - timesteps, 0) // 2,
        }[self.padding]
        # A window may be far longer than the sequence, and most of it never on a step.
        nearest = -(((n - 1) * self.stride - before) // self.dilation)
        for k in range(max(0, nearest), min(self.size, (timesteps - 1 + before) // self.dilation + 1)):
            offset = k * self.dilation - before
            first = max(0, -(offset // self.stride))
            end = min(n, (timesteps - 1 - offset) // self.stride + 1)
            if first < end:
                start = first * self.stride + offset
                yield k, slice(first, end), slice(start, start + (end - first - 1) * self.stride + 1, self.stride)


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv1D(KernelOperation):
    """activation(kernel over a window in time + bias): kernel (size, features, filters), bias (filters,) or None."""

    window: Window

    @property
    def not_causal(self) -> str | None:
        """It has a step where each window ends at the step that it is for."""
        if self.window.stride != 1:
            return "leaves time steps out"
        if self.window.span > REACH:
            return f"reaches more than {REACH} time steps back"
        return None if self.window.padding == "causal" or self.window.span == 0 else "has windows that look ahead"

    def start(self, n: int) -> State:
        """The rows of the padding before the first step, (n, span, features)."""
        return (np.zeros((n, self.window.span, self.kernel.shape[1]), self.kernel.dtype),)

    def step(self, xs: Sequence[Array], state: State) -> tuple[tuple[Array, ...], State]:
        """x (n, features) -> (n, filters). The state is the rows before it that a window reaches back to."""
        rows = np.concatenate([state[0], xs[0][:, np.newaxis]], axis=1)
        taken = rows[:, :: self.window.dilation].reshape(len(rows), -1)
        y: Array = taken @ self.kernel.reshape(-1, self.kernel.shape[2])
        if self.bias is not None:
            y += self.bias
        return (self.activation.apply(y),), (rows[:, 1:],)

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """(T, features) -> (windows, filters)."""
        return ((self.window.count(shapes[0][0]), self.kernel.shape[2]),)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, T, features) -> (b, windows, filters). No mask: tf.keras and Keras 3 drop it, older ones refuse it."""
        (x,) = xs
        b, timesteps, _ = x.shape
        y = np.zeros((b, self.window.count(timesteps) or 0, self.kernel.shape[2]), self.kernel.dtype)
        for k, windows, steps in self.window.taps(timesteps):
            y[:, windows] += x[:, steps] @ self.kernel[k]
        if self.bias is not None:
            y += self.bias
        return (self.activation.apply(y),), (None,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Pooling1D(BaseOperation):
    """The maximum or the average of each window in time; padding is no part of either."""

    not_causal = "looks at steps that are still to come"

    window: Window
    average: bool

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """(T, features) -> (windows, features)."""
        return ((self.window.count(shapes[0][0]), shapes[0][1]),)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, T, features) -> (b, windows, features), without a mask."""
        (x,) = xs
        b, timesteps, features = x.shape
        n = self.window.count(timesteps) or 0
        y = np.full((b, n, features), 0 if self.average else -np.inf, x.dtype)
        met = np.zeros((n, 1), np.float32)
        for _, windows, steps in self.window.taps(timesteps):
            if self.average:
                y[:, windows] += x[:, steps]
                met[windows] += 1
            else:
                np.maximum(y[:, windows], x[:, steps], out=y[:, windows])
        return (y / met if self.average else y,), (None,)


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
