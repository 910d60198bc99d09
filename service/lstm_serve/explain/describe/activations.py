"""Activations in NumPy, in formulas, and the name that stands for two of them."""

import math
from collections.abc import Sequence

from lstm_serve.engine.activations import HARD_SIGMOID_KERAS_2, HARD_SIGMOID_KERAS_3, Activation

# By function, as functions of x and of the activation's parameters, with NumPy and math. One that is missing costs the
# model its lines of NumPy.
NUMPY = {
    "linear": "x",
    "tanh": "np.tanh(x)",
    "sigmoid": "1 / (1 + np.exp(-x))",
    "relu": "np.maximum(x, 0)",
    "general_relu": "np.where(x < {threshold}, {negative_slope} * (x - {threshold}), np.minimum(x, {max_value}))",
    "leaky_relu": "np.where(x < 0, {negative_slope} * x, x)",
    "elu": "np.where(x < 0, {alpha} * np.expm1(np.minimum(x, 0)), x)",
    "celu": "np.where(x < 0, {alpha} * np.expm1(np.minimum(x, 0) / {alpha}), x)",
    "softmax": "(e := np.exp(x - x.max(-1, keepdims=True))) / e.sum(-1, keepdims=True)",
    "hard_sigmoid_keras_2": "np.clip(0.2 * x + 0.5, 0, 1)",
    "hard_sigmoid_keras_3": "np.clip(x + 3, 0, 6) / 6",
    "silu": "x / (1 + np.exp(-x))",
    "hard_silu": "x * np.clip(x + 3, 0, 6) / 6",
    "gelu": "x * (1 + np.vectorize(math.erf, otypes=[np.float32])(x / 2**0.5)) / 2",
    "relu6": "np.clip(x, 0, 6)",
    "selu": "1.05070098 * np.where(x < 0, 1.67326324 * np.expm1(np.minimum(x, 0)), x)",
    "softplus": "np.logaddexp(x, 0)",
    "softsign": "x / (1 + abs(x))",
    "exponential": "np.exp(x)",
    "mish": "x * np.tanh(np.logaddexp(x, 0))",
    "hard_tanh": "np.clip(x, -1, 1)",
    "tanh_shrink": "x - np.tanh(x)",
    "log_sigmoid": "-np.logaddexp(-x, 0)",
    "log_softmax": "(d := x - x.max(-1, keepdims=True)) - np.log(np.exp(d).sum(-1, keepdims=True))",
    "soft_shrink": "x - np.clip(x, -0.5, 0.5)",
    "hard_shrink": "np.where(abs(x) <= 0.5, 0, x)",
    "sparse_plus": "np.clip(x + 1, 0, 2) ** 2 / 4 + np.maximum(x - 1, 0)",
    "sparse_sigmoid": "np.clip(x + 1, 0, 2) / 2",
    "squareplus": "(x + np.sqrt(x * x + 4)) / 2",
    "sparsemax": (
        "np.maximum(x - (np.where(k := (s := np.sort(x)[..., ::-1])"
        " - ((c := np.cumsum(s, -1)) - 1) / np.arange(1, x.shape[-1] + 1, dtype=x.dtype) > 0, c, 0)"
        ".sum(-1, keepdims=True) - 1) / k.sum(-1, keepdims=True, dtype=x.dtype), 0)"
    ),
}


def numpy_of(activation: Activation) -> str | None:
    """The activation as an expression in x; None where there is none that is short."""
    code = NUMPY.get(activation.function)
    numbers = {
        name: "np.inf" if math.isinf(value) else repr(float(value)) for name, value in activation.parameters.items()
    }
    return code and code.format(**numbers)


def formulas(activations: Sequence[Activation]) -> list[str]:
    """A line for each activation, once, that says which function its name means here; tanh is tanh."""
    named = dict.fromkeys((f"{activation.name}(x)", activation.formula) for activation in activations)
    return [f"{call} = {formula}" for call, formula in named if call != formula]


def pitfalls(activations: Sequence[Activation]) -> list[str]:
    """What is to be said of hard_sigmoid, where it is among them."""
    versions = ((HARD_SIGMOID_KERAS_2, "Keras 1 and 2"), (HARD_SIGMOID_KERAS_3, "Keras 3"))
    return [
        f"hard_sigmoid is that of {here} in this model, {used.formula}. In {there} the name means {other.formula}, "
        "which gives other answers; so does sigmoid."
        for (used, here), (other, there) in (versions, versions[::-1])
        if used in activations
    ]
