"""What slides over a sequence, or over the axes of a picture: windows, convolutions over them, and their pooling."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from lstm_serve.engine.operations.base import BaseOperation, KernelOperation
from lstm_serve.engine.types import Array, Mask, Outputs, Shape, State

Padding = Literal["valid", "same", "causal"]

# A causal convolution carries the rows that it reaches back to, where these are not too many.
REACH = 4096
# What windows hold is laid out for one product, so many floats at once: 4 MB.
AT_ONCE = 1 << 20


class Tap(NamedTuple):
    """A position in a window that falls on a step: its number, the windows where it does, and the steps."""

    position: int
    windows: slice
    steps: slice


@dataclass(frozen=True, kw_only=True)
class Window:
    """How a window of `size` steps, `dilation` apart, moves along an axis by `stride`.

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

    def padded(self, timesteps: int) -> tuple[int, int]:
        """How many steps are added in front and behind; the number of steps counts where it is `same`."""
        if self.padding != "same":
            return (self.span if self.padding == "causal" else 0), 0
        n = self.count(timesteps) or 0
        total = max((n - 1) * self.stride + self.span + 1 - timesteps, 0)
        return total // 2, total - total // 2

    def taps(self, timesteps: int, start: int = 0, stop: int | None = None) -> Iterator[Tap]:
        """Each position in the window that falls on a step in any, of the windows from `start` to `stop` or to all."""
        n = self.count(timesteps) or 0
        before, _ = self.padded(timesteps)
        # A window may be far longer than the sequence, and most of it never on a step.
        nearest = -(((n - 1) * self.stride - before) // self.dilation)
        for k in range(max(0, nearest), min(self.size, (timesteps - 1 + before) // self.dilation + 1)):
            offset = k * self.dilation - before
            first = max(start, -(offset // self.stride))
            end = min(n if stop is None else stop, (timesteps - 1 - offset) // self.stride + 1)
            if first < end:
                at = first * self.stride + offset
                steps = slice(at, at + (end - first - 1) * self.stride + 1, self.stride)
                yield Tap(k, slice(first - start, end - start), steps)


@dataclass(frozen=True, eq=False, kw_only=True)
class Convolution(KernelOperation):
    """activation(kernel over windows + bias), along as many axes as there are windows; the last one is the features.

    `kernel` (*sizes, features / groups, filters), `bias` (filters,) or None. Of several groups each takes its part of
    the features, and gives its part of the filters.
    """

    windows: tuple[Window, ...]
    groups: int = 1

    @property
    def not_causal(self) -> str | None:
        """It has a step where each window is of time alone and ends at the step that it is for."""
        window, *others = self.windows
        if others:
            return "has windows along other axes than time"
        if window.stride != 1:
            return "leaves time steps out"
        if window.span > REACH:
            return f"reaches more than {REACH} time steps back"
        return None if window.padding == "causal" or window.span == 0 else "has windows that look ahead"

    def start(self, n: int) -> State:
        """The rows of the padding before the first step, (n, span, features)."""
        return (np.zeros((n, self.windows[0].span, self.kernel.shape[1] * self.groups), self.kernel.dtype),)

    def step(self, xs: Sequence[Array], state: State) -> tuple[tuple[Array, ...], State]:
        """x (n, features) -> (n, filters). The state is the rows before it that a window reaches back to."""
        rows = np.concatenate([state[0], xs[0][:, np.newaxis]], axis=1)
        window = self.windows[0]
        taps = [
            Tap(k, slice(0, 1), slice(at, at + 1)) for k, at in enumerate(range(0, window.span + 1, window.dilation))
        ]
        y = self._product(rows, [taps], (1,))[:, 0]
        return (self._activated(y),), (rows[:, 1:],)

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """(*sizes, features) -> (*windows, filters)."""
        return ((*counts(self.windows, shapes[0]), self.kernel.shape[-1]),)

    def products(self, shapes: Sequence[Shape]) -> int:
        """Each window meets the kernel."""
        return math.prod(size or 1 for size in counts(self.windows, shapes[0])) * self.kernel.size

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, *sizes, features) -> (b, *windows, filters).

        No mask: tf.keras and Keras 3 drop it, older ones refuse it.
        """
        (x,) = xs
        b, *sizes, features = x.shape
        made = [count or 0 for count in counts(self.windows, x.shape[1:])]
        y = np.empty((b, *made, self.kernel.shape[-1]), self.kernel.dtype)
        for rows, *places in _blocks([b, *made], math.prod(self.kernel.shape[:-2]) * features):
            parts = [*zip(self.windows, sizes, places, strict=True)]
            taps = [[*window.taps(size, part.start, part.stop)] for window, size, part in parts]
            y[rows, *places] = self._product(x[rows], taps, [part.stop - part.start for part in places])
        return (self._activated(y),), (None,)

    def _product(self, x: Array, taps: Sequence[Sequence[Tap]], windows: Sequence[int]) -> Array:
        """The kernel over so many windows, (b, *windows, filters). What a window has of the padding is 0."""
        b, groups, kernel = len(x), self.groups, self.kernel
        held = tuple(map(len, taps))
        if held != kernel.shape[:-2]:
            kernel = kernel[np.ix_(*([tap.position for tap in along] for along in taps))]
        given = np.moveaxis(x.reshape(*x.shape[:-1], groups, -1), -2, 0)
        columns = np.zeros((groups, b, *windows, *held, given.shape[-1]), x.dtype)
        for places in itertools.product(*map(enumerate, taps)):
            at: list[slice | int] = [*(tap.windows for _, tap in places), *(k for k, _ in places)]
            columns[:, :, *at] = given[:, :, *(tap.steps for _, tap in places)]
        shape = (-1, groups, kernel.shape[-1] // groups)
        product = columns.reshape(groups, b * math.prod(windows), -1) @ kernel.reshape(shape).transpose(1, 0, 2)
        return product.transpose(1, 0, 2).reshape(b, *windows, kernel.shape[-1])

    def _activated(self, y: Array) -> Array:
        if self.bias is not None:
            y += self.bias
        return self.activation.apply(y)


def _blocks(sizes: Sequence[int], floats: int) -> Iterator[tuple[slice, ...]]:
    """Blocks of an array of these sizes, each of about `AT_ONCE` floats where one place is of so many."""
    room, steps = AT_ONCE // max(1, floats), list[int]()
    for size in reversed(sizes):
        steps.insert(0, max(1, min(size, room)))
        room //= steps[0]
    along = [
        [slice(start, min(start + step, size)) for start in range(0, size, step)]
        for size, step in zip(sizes, steps, strict=True)
    ]
    return itertools.product(*along)


def counts(windows: Sequence[Window], shape: Shape) -> tuple[int | None, ...]:
    """The number of windows along each axis."""
    return tuple(window.count(size) for window, size in zip(windows, shape, strict=False))


@dataclass(frozen=True, eq=False, kw_only=True)
class Pooling(BaseOperation):
    """The maximum or the average of each window, along as many axes as there are; padding is no part of either."""

    not_causal = "looks at steps that are still to come"

    windows: tuple[Window, ...]
    average: bool

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """(*sizes, features) -> (*windows, features)."""
        return ((*counts(self.windows, shapes[0]), shapes[0][-1]),)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, *sizes, features) -> (b, *windows, features), without a mask."""
        y = xs[0]
        for axis, window in enumerate(self.windows, 1):
            y = self._along(y, axis, window)
        return (y,), (None,)

    def _along(self, x: Array, axis: int, window: Window) -> Array:
        """One axis: an average of averages is that of all, as each has as many."""
        n = window.count(x.shape[axis]) or 0
        shape, before = list(x.shape), (slice(None),) * axis
        shape[axis] = n
        y = np.full(shape, 0 if self.average else -np.inf, x.dtype)
        met = np.zeros((n, *(1,) * (x.ndim - axis - 1)), np.float32)
        for _, windows, steps in window.taps(x.shape[axis]):
            part = y[*before, windows]
            if self.average:
                part += x[*before, steps]
                met[windows] += 1
            else:
                np.maximum(part, x[*before, steps], out=part)
        return y / met if self.average else y
