"""The layers that work on each time step, or on each row, by itself, and those that join two branches.

Each is a frozen record of arrays and options, and a function of its inputs.
`layer(xs, masks) -> (y, mask)`: arrays (b, ...) in and out, masks bool (b, T) or None. No layer writes into xs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.activations import Activation, Array
from lstm_serve.engine.recurrence import Mask, Shape


class Layer(Protocol):
    """What the model asks of a layer."""

    @property
    def name(self) -> str:
        """The layer's name in the file."""

    @property
    def keras_class(self) -> str:
        """The class of Keras that it was in the file; empty in a layer that came from none."""

    @property
    def weights(self) -> dict[str, Array]:
        """The arrays by their Keras names, in the order of `get_weights()`."""

    @property
    def last_activation(self) -> Activation | None:
        """The function that made the output, or None where no single one did."""

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """The output's shape for these input shapes, all without the batch axis."""

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> tuple[Array, Mask]:
        """The output and its mask."""

    def trace(self, xs: Sequence[Array], masks: Sequence[Mask]) -> dict[str, Array]:
        """What is computed on the way to the output, by name, from the same functions."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Plain:
    """A layer without weights that keeps the shape and passes the mask on: overridden where a layer differs."""

    name: str
    keras_class: str = ""

    @property
    def weights(self) -> dict[str, Array]:
        """None by default."""
        return {}

    @property
    def last_activation(self) -> Activation | None:
        """None by default."""
        return None

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """The input's."""
        return shapes[0]

    def trace(self, xs: Sequence[Array], masks: Sequence[Mask]) -> dict[str, Array]:
        """Nothing by default."""
        return {}


@dataclass(frozen=True, eq=False, kw_only=True)
class Identity(Plain):
    """A layer that does nothing at inference: Dropout and its kin.

    Keras scales by 1 / (1 - rate) while training, so nothing is left to rescale here.
    """

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> tuple[Array, Mask]:
        """The input."""
        return xs[0], masks[0]


@dataclass(frozen=True, eq=False, kw_only=True)
class Product(Plain):
    """A layer that makes a product with its kernel, adds its bias, (units,) or None, and applies its activation."""

    kernel: Array
    bias: Array | None
    activation: Activation

    @property
    def weights(self) -> dict[str, Array]:
        """The kernel and, where there is one, the bias."""
        return {"kernel": self.kernel} if self.bias is None else {"kernel": self.kernel, "bias": self.bias}

    @property
    def last_activation(self) -> Activation | None:
        """The layer's own."""
        return self.activation


@dataclass(frozen=True, eq=False, kw_only=True)
class Dense(Product):
    """activation(x @ kernel + bias), over the last axis: kernel (features, units), bias (units,) or None."""

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """(..., features) -> (..., units)."""
        return (*shapes[0][:-1], self.kernel.shape[1])

    def sums(self, x: Array) -> Array:
        """x (..., features) -> x @ kernel + bias (..., units), what the activation is then applied to."""
        y: Array = np.matmul(x, self.kernel)
        if self.bias is not None:
            y += self.bias
        return y

    def trace(self, xs: Sequence[Array], masks: Sequence[Mask]) -> dict[str, Array]:
        """The `sums`."""
        return {"sums": self.sums(xs[0])}

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> tuple[Array, Mask]:
        """x (b, ..., features) -> (b, ..., units)."""
        return self.activation.apply(self.sums(xs[0])), masks[0]


@dataclass(frozen=True, eq=False, kw_only=True)
class Activate(Plain):
    """An activation as a layer of its own."""

    activation: Activation

    @property
    def last_activation(self) -> Activation | None:
        """The layer's own."""
        return self.activation

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> tuple[Array, Mask]:
        """The activation of x, of x's shape."""
        return self.activation.apply(xs[0].copy()), masks[0]


@dataclass(frozen=True, eq=False, kw_only=True)
class PReLU(Plain):
    """x, and alpha * x below 0, with alpha of a shape that broadcasts against x."""

    alpha: Array

    @property
    def weights(self) -> dict[str, Array]:
        """The slopes."""
        return {"alpha": self.alpha}

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> tuple[Array, Mask]:
        """x (b, ...) -> the same shape."""
        return np.maximum(xs[0], 0) + self.alpha * np.minimum(xs[0], 0), masks[0]


@dataclass(frozen=True, eq=False, kw_only=True)
class Normalization(Plain):
    """(x - mean) / max(sqrt(variance), 1e-7), with mean and variance of a shape that broadcasts against x.

    Not folded into the next kernel: on raw readings in the thousands that cancels, and moved a probability by 1.8e-5.
    Source: call() of keras/src/layers/preprocessing/normalization.py.
    """

    mean: Array
    variance: Array
    keeps_mask: bool = True

    @property
    def weights(self) -> dict[str, Array]:
        """Mean and variance."""
        return {"mean": self.mean, "variance": self.variance}

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> tuple[Array, Mask]:
        """x standardised, of x's shape. Keras 3 passes the mask on, tf.keras drops it."""
        y = xs[0] - self.mean
        y /= self._deviation
        return y, masks[0] if self.keeps_mask else None

    @cached_property
    def _deviation(self) -> Array:
        deviation: Array = np.maximum(np.sqrt(self.variance), np.float32(1e-7))
        return deviation


@dataclass(frozen=True, eq=False, kw_only=True)
class Rescaling(Plain):
    """x * scale + offset, numbers or arrays that broadcast against x."""

    scale: Array
    offset: Array
    keeps_mask: bool = True

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> tuple[Array, Mask]:
        """x rescaled, of x's shape. Keras 3 passes the mask on, tf.keras drops it."""
        return xs[0] * self.scale + self.offset, masks[0] if self.keeps_mask else None


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchNormalization(Plain):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, with the moving mean and variance that training left.

    The arrays broadcast against x; gamma and beta are None where the layer has none. Reckoned as Keras does it, x times
    one factor plus another, so that what cancels in one cancels in the other.
    """

    gamma: Array | None
    beta: Array | None
    mean: Array
    variance: Array
    epsilon: float

    @property
    def weights(self) -> dict[str, Array]:
        """In Keras' order; those that the layer has."""
        named = {
            "gamma": self.gamma,
            "beta": self.beta,
            "moving_mean": self.mean,
            "moving_variance": self.variance,
        }
        return {name: array for name, array in named.items() if array is not None}

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> tuple[Array, Mask]:
        """x (b, ...) -> the same shape."""
        factor: Array = np.reciprocal(np.sqrt(self.variance + np.float32(self.epsilon)))
        if self.gamma is not None:
            factor = factor * self.gamma
        offset = -self.mean * factor if self.beta is None else self.beta - self.mean * factor
        return xs[0] * factor + offset, masks[0]


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerNormalization(Plain):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, over the last axis; gamma, beta (features,) or None."""

    gamma: Array | None
    beta: Array | None
    epsilon: float

    @property
    def weights(self) -> dict[str, Array]:
        """Those that the layer has."""
        named = {"gamma": self.gamma, "beta": self.beta}
        return {name: array for name, array in named.items() if array is not None}

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> tuple[Array, Mask]:
        """x (b, ..., features) -> the same shape."""
        y = xs[0] - xs[0].mean(axis=-1, keepdims=True)
        y /= np.sqrt(np.square(y).mean(axis=-1, keepdims=True) + np.float32(self.epsilon))
        if self.gamma is not None:
            y *= self.gamma
        if self.beta is not None:
            y += self.beta
        return y, masks[0]


@dataclass(frozen=True, eq=False, kw_only=True)
class Merge(Plain):
    """Several inputs of one shape, or of shapes that broadcast, joined one by one.

    Divided by their number at the end where `mean` is set. `mask_join` joins the masks: np.logical_and in Keras 1 and
    2 and up to 3.3, np.logical_or since. With the first, an input without a mask says nothing; with the second, it
    makes the whole unmasked, and a product, a maximum or a minimum leaves masked steps out.
    Source: base_merge.py and multiply.py in keras/src/layers/merging of 3.3 and 3.15.
    """

    join: np.ufunc
    mean: bool
    mask_join: np.ufunc

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """The inputs', broadcast."""
        return tuple(_broadcast_size(sizes) for sizes in zip(*shapes, strict=True))

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> tuple[Array, Mask]:
        """All (b, ...) -> (b, ...)."""
        given = [mask for mask in masks if mask is not None]
        newer = self.mask_join is np.logical_or
        mask = reduce(self.mask_join, given) if given and (len(given) == len(masks) or not newer) else None
        if newer and given and self.join is np.multiply:
            y = _product(xs, masks, mask)
        elif newer and given and self.join in {np.maximum, np.minimum}:
            y = self._extreme(xs, masks)
        else:
            y = reduce(self.join, xs)
        return y / np.float32(len(xs)) if self.mean else y, mask

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
class Concatenate(Plain):
    """Several inputs, one after the other along `axis`, which counts the batch axis. `mask_join` as in Merge."""

    axis: int
    mask_join: np.ufunc

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """The inputs' sizes along the axis, added up; of the other axes what is known of any."""
        axis = self.axis - 1
        columns = list(zip(*shapes, strict=True))
        sizes = [next((size for size in column if size is not None), None) for column in columns]
        along = columns[axis]
        sizes[axis] = None if None in along else sum(size or 0 for size in along)
        return tuple(sizes)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> tuple[Array, Mask]:
        """All (b, ...) -> (b, ...)."""
        y = np.concatenate(xs, axis=self.axis)
        if all(mask is None for mask in masks):
            return y, None
        filled = [np.ones(x.shape[:-1], np.bool_) if mask is None else mask for x, mask in zip(xs, masks, strict=True)]
        if self.axis == 1 and y.ndim > 2:
            return y, np.concatenate(filled, axis=1)
        return y, reduce(self.mask_join, filled)


@dataclass(frozen=True, eq=False, kw_only=True)
class Scaling(Plain):
    """(x - offset) / scale, from the card: what was done to the data before training. offset and scale: float64 (F,).

    In float64, as scikit-learn does it, and then to the float32 that Keras was given.
    """

    offset: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> tuple[Array, Mask]:
        """x scaled, of x's shape."""
        scaled: npt.NDArray[np.float64] = (xs[0] - self.offset) / self.scale
        return scaled.astype(np.float32), masks[0]


@dataclass(frozen=True, eq=False, kw_only=True)
class Unscaling(Plain):
    """x * scale + offset, from the card: what was done to the targets before training, undone.

    offset and scale: float64, one for each number of the last axis, or one for all. In float64, as Scaling is.
    """

    offset: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> tuple[Array, Mask]:
        """x in the targets' own units, of x's shape."""
        unscaled: npt.NDArray[np.float64] = xs[0] * self.scale + self.offset
        return unscaled.astype(np.float32), masks[0]
