"""Activations, by the names that Keras gives them.

Each works in place: it overwrites the array it is given and returns it. That keeps the recurrent step free of
temporary arrays; callers that need their input afterwards pass a copy.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from lstm_serve.engine.types import Array


@dataclass(frozen=True, slots=True)
class Activation:
    """A function of one array.

    `name` is Keras' name, `formula` what `inspect` prints, `apply` overwrites its argument and returns it. Where it is
    not `elementwise`, each number that it gives depends on all that are along the last axis. `variant` tells functions
    of one name apart, and `parameters` are the numbers in the formula that are not always the same: for whoever writes
    the function down elsewhere.
    """

    name: str
    formula: str
    apply: Callable[[Array], Array]
    elementwise: bool = True
    variant: str = ""
    parameters: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def function(self) -> str:
        """Which function it is, its parameters aside."""
        return self.variant or self.name


def _linear(x: Array) -> Array:
    return x


def _tanh(x: Array) -> Array:
    return np.tanh(x, out=x)


def _sigmoid(x: Array) -> Array:
    # exp overflows to infinity below -88, and 1 / infinity is the right answer, 0.
    np.negative(x, out=x)
    np.exp(x, out=x)
    x += 1
    return np.reciprocal(x, out=x)


def _hard_sigmoid_keras_2(x: Array) -> Array:
    x *= np.float32(0.2)
    x += np.float32(0.5)
    return np.clip(x, 0, 1, out=x)


def _hard_sigmoid_keras_3(x: Array) -> Array:
    x += 3
    np.clip(x, 0, 6, out=x)
    x /= 6
    return x


def _relu(x: Array) -> Array:
    return np.maximum(x, 0, out=x)


def _softmax(x: Array) -> Array:
    # Subtracting the largest changes nothing but keeps exp from overflowing.
    x -= np.maximum.reduce(x, axis=-1, keepdims=True)  # at once: `x.max` is Python around this
    np.exp(x, out=x)
    x /= np.add.reduce(x, axis=-1, keepdims=True)
    return x


def _log_softmax(x: Array) -> Array:
    x -= x.max(axis=-1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return x


def _selu(x: Array) -> Array:
    x = _negative_part(x, lambda below: np.multiply(np.expm1(below, out=below), np.float32(1.67326324), out=below))
    x *= np.float32(1.05070098)
    return x


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, np.float32(0), out=x)


def _log_sigmoid(x: Array) -> Array:
    np.negative(x, out=x)
    return np.negative(_softplus(x), out=x)


def _softsign(x: Array) -> Array:
    x /= np.abs(x) + 1
    return x


def _silu(x: Array) -> Array:
    x *= _sigmoid(x.copy())
    return x


def _exponential(x: Array) -> Array:
    return np.exp(x, out=x)


def _mish(x: Array) -> Array:
    x *= np.tanh(_softplus(x.copy()))
    return x


def _hard_silu(x: Array) -> Array:
    x *= _hard_sigmoid_keras_3(x.copy())
    return x


def _tanh_shrink(x: Array) -> Array:
    x -= np.tanh(x)
    return x


def _soft_shrink(x: Array) -> Array:
    x -= np.clip(x, np.float32(-0.5), np.float32(0.5))
    return x


def _hard_shrink(x: Array) -> Array:
    np.copyto(x, 0, where=np.abs(x) <= np.float32(0.5))
    return x


def _sparse_plus(x: Array) -> Array:
    linear = np.maximum(x - 1, 0)
    x += 1
    np.clip(x, 0, 2, out=x)
    np.square(x, out=x)
    x /= 4
    x += linear
    return x


def _sparse_sigmoid(x: Array) -> Array:
    x += 1
    np.clip(x, 0, 2, out=x)
    x /= 2
    return x


def _squareplus(x: Array) -> Array:
    # As Keras reckons it, so that what cancels far below 0 does so here.
    x += np.sqrt(np.square(x) + 4)
    x /= 2
    return x


def _sparsemax(x: Array) -> Array:
    # As Keras has it: it takes the mean of the sums of the largest, and what is left does not add up to 1. Source:
    # sparsemax() of keras/src/backend/tensorflow/nn.py, 3.15, and of each other backend.
    falling = np.sort(x, axis=-1)[..., ::-1]
    sums = np.cumsum(falling, axis=-1, dtype=x.dtype)
    large = falling - (sums - 1) / np.arange(1, x.shape[-1] + 1, dtype=x.dtype) > 0
    taken = np.where(large, sums, 0).sum(axis=-1, keepdims=True) - 1
    x -= taken / large.sum(axis=-1, keepdims=True, dtype=x.dtype)
    return np.maximum(x, 0, out=x)


def _erf(x: Array) -> Array:
    """The error function to 1.5e-7: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.

    Of float64, which is there to judge float32, to its last digit.
    """
    if x.dtype == np.float64:
        exact: Array = np.vectorize(math.erf, otypes=[np.float64])(x)
        return exact
    t = np.reciprocal(1 + np.float32(0.3275911) * np.abs(x))
    series = np.zeros_like(x)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(factor)) * t
    erf: Array = np.copysign(1 - series * np.exp(-x * x), x)
    return erf


def _gelu(x: Array) -> Array:
    x *= (1 + _erf(x * np.float32(math.sqrt(0.5)))) / 2
    return x


def _negative_part(x: Array, change: Callable[[Array], Array]) -> Array:
    """x where it is positive, and `change(x)`, which works in place, where it is not."""
    below = change(np.minimum(x, 0))
    np.maximum(x, 0, out=x)
    x += below
    return x


def elu(alpha: float = 1.0) -> Activation:
    """The exponential linear unit."""
    factor = np.float32(alpha)

    def change(below: Array) -> Array:
        np.expm1(below, out=below)
        below *= factor
        return below

    formula = f"x, below 0: {alpha:.9g} (exp(x) - 1)"
    return Activation("elu", formula, lambda x: _negative_part(x, change), parameters={"alpha": alpha})


def celu(alpha: float = 1.0) -> Activation:
    """The continuously differentiable exponential linear unit."""
    factor = np.float32(alpha)

    def change(below: Array) -> Array:
        below /= factor
        np.expm1(below, out=below)
        below *= factor
        return below

    formula = f"x, below 0: {alpha:.9g} (exp(x / {alpha:.9g}) - 1)"
    return Activation("celu", formula, lambda x: _negative_part(x, change), parameters={"alpha": alpha})


def relu(max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0) -> Activation:
    """The rectified linear unit with all that Keras' ReLU layer can do; without any of it RELU itself.

    max_value above it, x from the threshold on, negative_slope (x - threshold) below. Source: relu() of
    keras/src/activations/activations.py.
    """
    if (max_value, negative_slope, threshold) == (None, 0, 0):
        return RELU
    top = np.float32(np.inf if max_value is None else max_value)
    slope, edge = np.float32(negative_slope), np.float32(threshold)

    def apply(x: Array) -> Array:
        below = x < edge
        leak = (x - edge) * slope
        np.minimum(x, top, out=x)
        np.copyto(x, leak, where=below)
        return x

    formula = f"min(x, {top:.9g}), below {threshold:.9g}: {negative_slope:.9g} (x - {threshold:.9g})"
    parameters = {"max_value": float(top), "negative_slope": negative_slope, "threshold": threshold}
    return Activation("relu", formula, apply, variant="general_relu", parameters=parameters)


def leaky_relu(negative_slope: float) -> Activation:
    """x, and negative_slope * x below 0."""
    slope = np.float32(negative_slope)

    def change(below: Array) -> Array:
        below *= slope
        return below

    formula = f"x, below 0: {negative_slope:.9g} x"
    parameters = {"negative_slope": negative_slope}
    return Activation("leaky_relu", formula, lambda x: _negative_part(x, change), parameters=parameters)


LINEAR = Activation("linear", "x", _linear)
TANH = Activation("tanh", "tanh(x)", _tanh)
SIGMOID = Activation("sigmoid", "1 / (1 + exp(-x))", _sigmoid)
RELU = Activation("relu", "max(x, 0)", _relu)
SOFTMAX = Activation("softmax", "exp(x) / sum(exp(x))", _softmax, elementwise=False)
SILU = Activation("silu", "x / (1 + exp(-x))", _silu)
HARD_SILU = Activation("hard_silu", "x clip(x + 3, 0, 6) / 6", _hard_silu)

# One name, two functions: https://github.com/keras-team/keras/issues/19477
HARD_SIGMOID_KERAS_2 = Activation(
    "hard_sigmoid", "clip(0.2 x + 0.5, 0, 1)", _hard_sigmoid_keras_2, variant="hard_sigmoid_keras_2"
)
HARD_SIGMOID_KERAS_3 = Activation(
    "hard_sigmoid", "clip(x + 3, 0, 6) / 6", _hard_sigmoid_keras_3, variant="hard_sigmoid_keras_3"
)

# By Keras' names, but for hard_sigmoid; what is not here is refused by its name.
ACTIVATIONS = {
    activation.name: activation
    for activation in (
        LINEAR,
        TANH,
        SIGMOID,
        RELU,
        SOFTMAX,
        SILU,
        HARD_SILU,
        elu(),
        celu(),
        leaky_relu(0.2),
        Activation("relu6", "clip(x, 0, 6)", lambda x: np.clip(x, 0, 6, out=x)),
        Activation("selu", "1.0507 x, below 0: 1.7581 (exp(x) - 1)", _selu),
        Activation("softplus", "log(1 + exp(x))", _softplus),
        Activation("softsign", "x / (1 + |x|)", _softsign),
        Activation("exponential", "exp(x)", _exponential),
        Activation("gelu", "x (1 + erf(x / sqrt(2))) / 2", _gelu),
        Activation("mish", "x tanh(log(1 + exp(x)))", _mish),
        Activation("hard_tanh", "clip(x, -1, 1)", lambda x: np.clip(x, -1, 1, out=x)),
        Activation("tanh_shrink", "x - tanh(x)", _tanh_shrink),
        Activation("log_sigmoid", "-log(1 + exp(-x))", _log_sigmoid),
        Activation("log_softmax", "x - log(sum(exp(x)))", _log_softmax, elementwise=False),
        Activation("soft_shrink", "x - clip(x, -0.5, 0.5)", _soft_shrink),
        Activation("hard_shrink", "x, where |x| <= 0.5: 0", _hard_shrink),
        Activation("sparse_plus", "clip(x + 1, 0, 2)^2 / 4 + max(x - 1, 0)", _sparse_plus),
        Activation("sparse_sigmoid", "clip(x + 1, 0, 2) / 2", _sparse_sigmoid),
        Activation("squareplus", "(x + sqrt(x^2 + 4)) / 2", _squareplus),
        Activation("sparsemax", "max(x - t, 0), t of Keras' sparsemax", _sparsemax, elementwise=False),
    )
} | {"swish": SILU, "hard_swish": HARD_SILU, "softmax_v2": SOFTMAX}
