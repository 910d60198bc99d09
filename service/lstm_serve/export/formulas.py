"""Functions of each number, written once for C, JavaScript and NumPy, which differ in the words alone.

A formula is Python: x, or a and b, are what it is of, and {alpha} and its kin an activation's parameters.
"""

import re
from collections.abc import Callable, Mapping

import numpy as np

SOFTPLUS = "max({0}, 0) + log1p(exp(-abs(x)))"
# By an activation's function.
FORMULAS = {
    "linear": "x",
    "tanh": "tanh(x)",
    "sigmoid": "1 / (1 + exp(-x))",
    "relu": "max(x, 0)",
    "silu": "x / (1 + exp(-x))",
    "hard_silu": "x * (clip(x + 3, 0, 6) / 6)",
    "elu": "where(x > 0, x, {alpha} * expm1(x))",
    "celu": "where(x > 0, x, {alpha} * expm1(x / {alpha}))",
    "leaky_relu": "where(x > 0, x, {negative_slope} * x)",
    "general_relu": "where(x < {threshold}, {negative_slope} * (x - {threshold}), min(x, {max_value}))",
    "relu6": "clip(x, 0, 6)",
    "selu": "1.05070098 * where(x > 0, x, 1.67326324 * expm1(x))",
    "softplus": SOFTPLUS.format("x"),
    "softsign": "x / (1 + abs(x))",
    "exponential": "exp(x)",
    "gelu": "x * (1 + erf(x * 0.70710678)) / 2",
    "mish": f"x * tanh({SOFTPLUS.format('x')})",
    "hard_tanh": "clip(x, -1, 1)",
    "tanh_shrink": "x - tanh(x)",
    "log_sigmoid": f"-({SOFTPLUS.format('-x')})",
    "soft_shrink": "x - clip(x, -0.5, 0.5)",
    "hard_shrink": "where(abs(x) <= 0.5, 0, x)",
    "sparse_plus": "clip(x + 1, 0, 2) * clip(x + 1, 0, 2) / 4 + max(x - 1, 0)",
    "sparse_sigmoid": "clip(x + 1, 0, 2) / 2",
    "squareplus": "(x + sqrt(x * x + 4)) / 2",
    "hard_sigmoid_keras_2": "clip(0.2 * x + 0.5, 0, 1)",
    "hard_sigmoid_keras_3": "clip(x + 3, 0, 6) / 6",
    "absolute": "abs(x)",
    "square": "x * x",
    "rsqrt": "1 / sqrt(x)",
    "negative": "-x",
    "reciprocal": "1 / x",
    **{name: f"{name}(x)" for name in ("sqrt", "log", "log1p", "sin", "cos")},
}
# Functions of all that is along the last axis: each target has one of that name in its library.
VECTORS = ("softmax", "log_softmax", "sparsemax")
ACTIVATIONS = {**FORMULAS, **{name: name for name in VECTORS}}

# Functions of two arrays.
JOINS: dict[np.ufunc, str] = {
    np.add: "a + b",
    np.subtract: "a - b",
    np.multiply: "a * b",
    np.true_divide: "a / b",
    np.maximum: "max(a, b)",
    np.minimum: "min(a, b)",
    np.power: "pow(a, b)",
}

Spell = Callable[[str], str]
WORD = re.compile(r"[A-Za-z_]\w*|\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def spelled(
    formula: str, words: Mapping[str, str], parameters: Mapping[str, float] | None = None, number: Spell = str
) -> str:
    """A formula with its parameters filled in, in a target's own words, and its numbers as they are written there."""

    def word(found: re.Match[str]) -> str:
        text = found[0]
        return number(text) if text[0].isdigit() else words.get(text, text)

    return WORD.sub(word, formula.format(**(parameters or {})))
