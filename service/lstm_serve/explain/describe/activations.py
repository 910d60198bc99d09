"""Activations in NumPy, in formulas, and the name that stands for two of them."""

import re
from collections.abc import Sequence

from lstm_serve.engine.activations import HARD_SIGMOID_KERAS_2, HARD_SIGMOID_KERAS_3, Activation

# By their formulas, as functions of x, with NumPy and math. One that is missing costs the model its lines of NumPy.
NUMPY = {
    "x": "x",
    "tanh(x)": "np.tanh(x)",
    "1 / (1 + exp(-x))": "1 / (1 + np.exp(-x))",
    "max(x, 0)": "np.maximum(x, 0)",
    "exp(x) / sum(exp(x))": "(e := np.exp(x - x.max(-1, keepdims=True))) / e.sum(-1, keepdims=True)",
    "clip(0.2 x + 0.5, 0, 1)": "np.clip(0.2 * x + 0.5, 0, 1)",
    "clip(x + 3, 0, 6) / 6": "np.clip(x + 3, 0, 6) / 6",
    "x / (1 + exp(-x))": "x / (1 + np.exp(-x))",
    "x clip(x + 3, 0, 6) / 6": "x * np.clip(x + 3, 0, 6) / 6",
    "x (1 + erf(x / sqrt(2))) / 2": "x * (1 + np.vectorize(math.erf, otypes=[np.float32])(x / 2**0.5)) / 2",
    "clip(x, 0, 6)": "np.clip(x, 0, 6)",
    "1.0507 x, below 0: 1.7581 (exp(x) - 1)": (
        "1.05070098 * np.where(x < 0, 1.67326324 * np.expm1(np.minimum(x, 0)), x)"
    ),
    "log(1 + exp(x))": "np.logaddexp(x, 0)",
    "x / (1 + |x|)": "x / (1 + abs(x))",
    "exp(x)": "np.exp(x)",
    "x tanh(log(1 + exp(x)))": "x * np.tanh(np.logaddexp(x, 0))",
    "clip(x, -1, 1)": "np.clip(x, -1, 1)",
    "x - tanh(x)": "x - np.tanh(x)",
    "-log(1 + exp(-x))": "-np.logaddexp(-x, 0)",
    "x - log(sum(exp(x)))": "(d := x - x.max(-1, keepdims=True)) - np.log(np.exp(d).sum(-1, keepdims=True))",
    "x - clip(x, -0.5, 0.5)": "x - np.clip(x, -0.5, 0.5)",
    "x, where |x| <= 0.5: 0": "np.where(abs(x) <= 0.5, 0, x)",
    "clip(x + 1, 0, 2)^2 / 4 + max(x - 1, 0)": "np.clip(x + 1, 0, 2) ** 2 / 4 + np.maximum(x - 1, 0)",
    "clip(x + 1, 0, 2) / 2": "np.clip(x + 1, 0, 2) / 2",
    "(x + sqrt(x^2 + 4)) / 2": "(x + np.sqrt(x * x + 4)) / 2",
    "max(x - t, 0), t of Keras' sparsemax": (
        "np.maximum(x - (np.where(k := (s := np.sort(x)[..., ::-1])"
        " - ((c := np.cumsum(s, -1)) - 1) / np.arange(1, x.shape[-1] + 1, dtype=x.dtype) > 0, c, 0)"
        ".sum(-1, keepdims=True) - 1) / k.sum(-1, keepdims=True, dtype=x.dtype), 0)"
    ),
}


# The same for formulas with numbers of their own.
WITH_NUMBERS = {
    r"x, below 0: (\S+) x": "np.where(x < 0, {0} * x, x)",
    r"x, below 0: (\S+) \(exp\(x\) - 1\)": "np.where(x < 0, {0} * np.expm1(np.minimum(x, 0)), x)",
    r"x, below 0: (\S+) \(exp\(x / \S+\) - 1\)": "np.where(x < 0, {0} * np.expm1(np.minimum(x, 0) / {0}), x)",
    r"min\(x, inf\), below (\S+): (\S+) \(x - \S+\)": "np.where(x < {0}, {1} * (x - {0}), x)",
    r"min\(x, (\S+)\), below (\S+): (\S+) \(x - \S+\)": "np.where(x < {1}, {2} * (x - {1}), np.minimum(x, {0}))",
}


def numpy_of(activation: Activation) -> str | None:
    """The activation as an expression in x; None where there is none that is short."""
    for formula, code in WITH_NUMBERS.items():
        if numbers := re.fullmatch(formula, activation.formula):
            return code.format(*numbers.groups())
    return NUMPY.get(activation.formula)


def formulas(activations: Sequence[Activation]) -> list[str]:
    """A line for each activation, once, that says which function its name means here; tanh is tanh."""
    named = dict.fromkeys((f"{activation.name}(x)", activation.formula) for activation in activations)
    return [f"{call} = {formula}" for call, formula in named if call != formula]


def pitfalls(activations: Sequence[Activation]) -> list[str]:
    """What is to be said of hard_sigmoid, where it is among them."""
    kinds = ((HARD_SIGMOID_KERAS_2, "Keras 1 and 2"), (HARD_SIGMOID_KERAS_3, "Keras 3"))
    return [
        f"hard_sigmoid is that of {here} in this model, {used.formula}. In {there} the name means {other.formula}, "
        "which gives other answers; so does sigmoid."
        for (used, here), (other, there) in (kinds, kinds[::-1])
        if used in activations
    ]
