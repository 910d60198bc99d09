"""The layers that are not recurrent. Each is a frozen record of arrays and options, and a function of its inputs.

`layer(xs, masks) -> (y, mask)`: arrays (b, ...) in and out, masks bool (b, T) or None. No layer writes into xs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from service.engine.activations import Activation, Array
from service.engine.recurrent import Mask, Shape


class Layer(Protocol):
    """What the model asks of a layer."""

    @property
    def name(self) -> str:
        """The layer's name in the file."""

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


@dataclass(frozen=True, eq=False, kw_only=True)
class Plain:
    """A layer without weights that keeps the shape and passes the mask on: overridden where a layer differs."""

    name: str

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


@dataclass(frozen=True, eq=False, kw_only=True)
class Identity(Plain):
    """A layer that does nothing at inference: Dropout and its kin. `keras_class` says which it was.

    Keras scales by 1 / (1 - rate) while training, so nothing is left to rescale here.
    """

    keras_class: str

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> tuple[Array, Mask]:
        """The input."""
        return xs[0], masks[0]


@dataclass(frozen=True, eq=False, kw_only=True)
class Dense(Plain):
    """activation(x @ kernel + bias), over the last axis: kernel (features, units), bias (units,) or None."""

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

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """(..., features) -> (..., units)."""
        return (*shapes[0][:-1], self.kernel.shape[1])

    def sums(self, x: Array) -> Array:
        """x (..., features) -> x @ kernel + bias (..., units), what the activation is then applied to."""
        y: Array = np.matmul(x, self.kernel)
        if self.bias is not None:
            y += self.bias
        return y

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
class Normalization(Plain):
    """(x - mean) / max(sqrt(variance), 1e-7), with mean and variance of a shape that broadcasts against x.

    Not folded into the next kernel: on raw readings in the thousands that cancels, and moved a probability by 1.8e-5.
    Source: call() of keras/src/layers/preprocessing/normalization.py.
    """

    mean: Array
    variance: Array

    @property
    def weights(self) -> dict[str, Array]:
        """Mean and variance."""
        return {"mean": self.mean, "variance": self.variance}

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> tuple[Array, Mask]:
        """x standardised, of x's shape."""
        deviation: Array = np.maximum(np.sqrt(self.variance), np.float32(1e-7))
        return (xs[0] - self.mean) / deviation, masks[0]


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
