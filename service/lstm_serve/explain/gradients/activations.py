"""The slopes of the activations, and how a gradient goes back through one.

Most slopes follow from the output, which is there anyway. At a corner the slope is that of the left, 0 for a ReLU, as
TensorFlow has it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lstm_serve.engine.activations import ACTIVATIONS, Activation
from lstm_serve.engine.types import Array

# By `Activation.function`. Of the output y:
OF_OUTPUT: dict[str, Callable[[Array], Any]] = {
    "linear": np.ones_like,
    "tanh": lambda y: 1 - y * y,
    "sigmoid": lambda y: y * (1 - y),
    "hard_sigmoid_keras_2": lambda y: 0.2 * _inside(y, 0, 1),
    "hard_sigmoid_keras_3": lambda y: _inside(y, 0, 1) / 6,
    "relu": lambda y: _inside(y, 0, np.inf),
    "relu6": lambda y: _inside(y, 0, 6),
    "softplus": lambda y: -np.expm1(-y),
    "softsign": lambda y: np.square(1 - np.abs(y)),
    "exponential": lambda y: y,
    "hard_tanh": lambda y: _inside(y, -1, 1),
    "log_sigmoid": lambda y: -np.expm1(y),
    "soft_shrink": lambda y: (y != 0).astype(y.dtype),
    "hard_shrink": lambda y: (y != 0).astype(y.dtype),
    "sparse_sigmoid": lambda y: _inside(y, 0, 1) / 2,
    "sqrt": lambda y: 0.5 / y,
    "rsqrt": lambda y: -0.5 * y**3,
    "negative": lambda y: np.full_like(y, -1),
    "reciprocal": lambda y: -y * y,
}
# Of the input x, and the activation's parameters:
OF_INPUT: dict[str, Callable[[Array, Mapping[str, float]], Any]] = {
    "silu": lambda x, _: _silu(x),
    "hard_silu": lambda x, _: np.clip(x / 6 + 0.5, 0, 1) + x * _inside(x, -3, 3) / 6,
    "elu": lambda x, p: np.where(x > 0, 1, p["alpha"] * _exp_below(x)),
    "celu": lambda x, p: np.where(x > 0, 1, np.exp(np.where(x > 0, 0, x) / p["alpha"])),
    "selu": lambda x, _: 1.05070098 * np.where(x > 0, 1, 1.67326324 * _exp_below(x)),
    "leaky_relu": lambda x, p: np.where(x > 0, 1, p["negative_slope"]),
    "general_relu": lambda x, p: np.where(x < p["threshold"], p["negative_slope"], x < p["max_value"]),
    "gelu": lambda x, _: _gelu(x),
    "mish": lambda x, _: _mish(x),
    "tanh_shrink": lambda x, _: np.square(np.tanh(x)),
    "sparse_plus": lambda x, _: np.clip(x / 2 + 0.5, 0, 1),
    "squareplus": lambda x, _: 0.5 + 0.5 * x / np.sqrt(x * x + 4),
    "absolute": lambda x, _: np.sign(x),
    "square": lambda x, _: 2 * x,
    "log": lambda x, _: 1 / x,
    "log1p": lambda x, _: 1 / (1 + x),
    "sin": lambda x, _: np.cos(x),
    "cos": lambda x, _: -np.sin(x),
}


def through(activation: Activation, x: Callable[[], Array], y: Array, g: Array) -> Array:
    """The gradient by the input of an activation from g, that by its output y; x() is asked only where it is needed."""
    if activation.elementwise:
        return g * slope(activation, x, y)
    return WHOLE[activation.function](x() if activation.function == "sparsemax" else y, y, g)


def slope(activation: Activation, x: Callable[[], Array], y: Array) -> Array:
    """The slope of an activation of each number by itself, where it gave y; of y's shape and dtype."""
    of_output = OF_OUTPUT.get(activation.function)
    found: Array = of_output(y) if of_output else OF_INPUT[activation.function](x(), activation.parameters)
    return found.astype(y.dtype, copy=False)


def needs_input(activation: Activation) -> bool:
    """Whether the slope does not follow from the output."""
    return activation.function in OF_INPUT


def _inside(y: Array, low: float, high: float) -> Array:
    return ((y > low) & (y < high)).astype(y.dtype)


def _exp_below(x: Array) -> Array:
    found: Array = np.exp(np.minimum(x, 0))
    return found


def _applied(name: str, x: Array) -> Array:
    return ACTIVATIONS[name].apply(x.copy())


def _silu(x: Array) -> Array:
    s = _applied("sigmoid", x)
    return s + x * s * (1 - s)


def _mish(x: Array) -> Any:  # noqa: ANN401 - NumPy's
    t = np.tanh(_applied("softplus", x))
    return t + x * (1 - t * t) * _applied("sigmoid", x)


def _gelu(x: Array) -> Any:  # noqa: ANN401 - NumPy's
    density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    # gelu(x) is x times the share below x.
    below = np.divide(_applied("gelu", x), x, out=np.full_like(x, 0.5), where=x != 0)
    return below + x * density


def _sparsemax(x: Array, y: Array, g: Array) -> Array:
    """Of Keras' sparsemax, which takes off a mean of sums: of K numbers the j-th largest is in K - j of them."""
    rank = np.argsort(np.argsort(-x, axis=-1), axis=-1)
    falling = np.sort(x, axis=-1)[..., ::-1]
    sums = np.cumsum(falling, axis=-1)
    counted = (falling - (sums - 1) / np.arange(1, x.shape[-1] + 1) > 0).sum(axis=-1, keepdims=True)
    taken = g * (y > 0)
    shares = np.maximum(counted - rank, 0) / counted
    found: Array = taken - shares * taken.sum(axis=-1, keepdims=True)
    return found.astype(y.dtype, copy=False)


# Where each output depends on all inputs along the last axis: the gradient by x, of x, y and that by y.
WHOLE: dict[str, Callable[[Array, Array, Array], Array]] = {
    "softmax": lambda _, y, g: y * (g - (g * y).sum(axis=-1, keepdims=True)),
    "log_softmax": lambda _, y, g: g - np.exp(y) * g.sum(axis=-1, keepdims=True),
    "sparsemax": _sparsemax,
}
