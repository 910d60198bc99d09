"""Activations, by the names that Keras gives them.

Each works in place: it overwrites the array it is given and returns it. That keeps the recurrent step free of
temporary arrays; callers that need their input afterwards pass a copy.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Activation:
    """A function of one array.

    `name` is Keras' name, `formula` what `inspect` prints, `apply` overwrites its argument and returns it.
    """

    name: str
    formula: str
    apply: Callable[[Array], Array]


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
    x -= x.max(axis=-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(axis=-1, keepdims=True)
    return x


LINEAR = Activation("linear", "x", _linear)
TANH = Activation("tanh", "tanh(x)", _tanh)
SIGMOID = Activation("sigmoid", "1 / (1 + exp(-x))", _sigmoid)
RELU = Activation("relu", "max(x, 0)", _relu)
SOFTMAX = Activation("softmax", "exp(x) / sum(exp(x))", _softmax)

# One name, two functions: https://github.com/keras-team/keras/issues/19477
HARD_SIGMOID_KERAS_2 = Activation("hard_sigmoid", "clip(0.2 x + 0.5, 0, 1)", _hard_sigmoid_keras_2)
HARD_SIGMOID_KERAS_3 = Activation("hard_sigmoid", "clip(x + 3, 0, 6) / 6", _hard_sigmoid_keras_3)

ACTIVATIONS = {activation.name: activation for activation in (LINEAR, TANH, SIGMOID, RELU, SOFTMAX)}
