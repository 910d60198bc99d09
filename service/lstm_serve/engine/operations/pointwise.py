"""The operations that work on each time step, or on each row, by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.operations.base import BaseOperation, KernelOperation, SpreadOperation
from lstm_serve.engine.types import Array, Floats, Mask, Outputs, Shape


@dataclass(frozen=True, eq=False, kw_only=True)
class Identity(BaseOperation):
    """A layer that does nothing at inference: Dropout and its kin.

    Keras scales by 1 / (1 - rate) while training, so nothing is left to rescale here.
    """

    not_causal = None

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """The input."""
        return (xs[0],), (masks[0],)


@dataclass(frozen=True, eq=False, kw_only=True)
class Dense(KernelOperation):
    """activation(x @ kernel + bias), over the last axis: kernel (features, units), bias (units,) or None."""

    not_causal = None

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """(..., features) -> (..., units)."""
        return ((*shapes[0][:-1], self.kernel.shape[1]),)

    def sums(self, x: Array) -> Array:
        """x (..., features) -> x @ kernel + bias (..., units), what the activation is then applied to."""
        y: Array = np.matmul(x, self.kernel)
        if self.bias is not None:
            y += self.bias
        return y

    def trace(self, xs: Sequence[Array], masks: Sequence[Mask]) -> dict[str, Array]:
        """The `sums`."""
        return {"sums": self.sums(xs[0])}

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, ..., features) -> (b, ..., units)."""
        return (self.activation.apply(self.sums(xs[0])),), (masks[0],)


@dataclass(frozen=True, eq=False, kw_only=True)
class Activate(BaseOperation):
    """An activation as a layer of its own."""

    not_causal = None

    activation: Activation

    @property
    def last_activation(self) -> Activation | None:
        """The layer's own."""
        return self.activation

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """The activation of x, of x's shape."""
        return (self.activation.apply(xs[0].copy()),), (masks[0],)


@dataclass(frozen=True, eq=False, kw_only=True)
class PReLU(SpreadOperation):
    """x, and alpha * x below 0, with alpha of a shape that broadcasts against x."""

    alpha: Array

    @property
    def weights(self) -> dict[str, Array]:
        """The slopes."""
        return {"alpha": self.alpha}

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, ...) -> the same shape."""
        return (np.maximum(xs[0], 0) + self.alpha * np.minimum(xs[0], 0),), (masks[0],)


def deviation_of(variance: Array) -> Array:
    """What Keras' Normalization takes as the deviation: never 0, as that of a feature which is constant would be."""
    deviation: Array = np.maximum(np.sqrt(variance), np.float32(1e-7))
    return deviation


@dataclass(frozen=True, eq=False, kw_only=True)
class Normalization(SpreadOperation):
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

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x standardised, of x's shape. Keras 3 passes the mask on, tf.keras drops it."""
        y = xs[0] - self.mean
        y /= self.deviation
        return (y,), (masks[0] if self.keeps_mask else None,)

    @cached_property
    def deviation(self) -> Array:
        """What x less the mean is divided by."""
        return deviation_of(self.variance)


@dataclass(frozen=True, eq=False, kw_only=True)
class Rescaling(BaseOperation):
    """x * scale + offset, numbers or arrays that broadcast against x."""

    not_causal = None

    scale: Array
    offset: Array
    keeps_mask: bool = True

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x rescaled, of x's shape. Keras 3 passes the mask on, tf.keras drops it."""
        return (xs[0] * self.scale + self.offset,), (masks[0] if self.keeps_mask else None,)


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchNormalization(SpreadOperation):
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

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, ...) -> the same shape."""
        factor: Array = np.reciprocal(np.sqrt(self.variance + np.float32(self.epsilon)))
        if self.gamma is not None:
            factor = factor * self.gamma
        offset = -self.mean * factor if self.beta is None else self.beta - self.mean * factor
        return (xs[0] * factor + offset,), (masks[0],)


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerNormalization(BaseOperation):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, over the last axis; gamma, beta (features,) or None."""

    not_causal = None

    gamma: Array | None
    beta: Array | None
    epsilon: float

    @property
    def weights(self) -> dict[str, Array]:
        """Those that the layer has."""
        named = {"gamma": self.gamma, "beta": self.beta}
        return {name: array for name, array in named.items() if array is not None}

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, ..., features) -> the same shape."""
        y = xs[0] - xs[0].mean(axis=-1, keepdims=True)
        y /= np.sqrt(np.square(y).mean(axis=-1, keepdims=True) + np.float32(self.epsilon))
        if self.gamma is not None:
            y *= self.gamma
        if self.beta is not None:
            y += self.beta
        return (y,), (masks[0],)


@dataclass(frozen=True, eq=False, kw_only=True)
class Scaling(BaseOperation):
    """(x - offset) / scale, from the card: what was done to the data before training. offset and scale: float64 (F,).

    In float64, as scikit-learn does it, and then to the float32 that Keras was given.
    """

    not_causal = None

    offset: Floats
    scale: Floats

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x scaled, of x's shape."""
        scaled: Floats = (xs[0] - self.offset) / self.scale
        return (scaled.astype(np.float32),), (masks[0],)


@dataclass(frozen=True, eq=False, kw_only=True)
class Unscaling(BaseOperation):
    """x * scale + offset, from the card: what was done to the targets before training, undone.

    offset and scale: float64, one for each number of the last axis, or one for all. In float64, as Scaling is.
    """

    not_causal = None

    offset: Floats
    scale: Floats

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x in the targets' own units, of x's shape."""
        unscaled: Floats = xs[0] * self.scale + self.offset
        return (unscaled.astype(np.float32),), (masks[0],)
