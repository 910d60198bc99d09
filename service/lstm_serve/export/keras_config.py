"""What stands in the config of a layer of Keras 3, and what becomes of its arrays where its activation was another.

hard_sigmoid is clip(0.2 x + 0.5, 0, 1) up to Keras 2 and clip(x / 6 + 0.5, 0, 1) in Keras 3: the old one of x is the
new one of 1.2 x, so what leads to it is multiplied by 1.2.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lstm_serve.engine.activations import HARD_SIGMOID_KERAS_2, Activation
from lstm_serve.engine.functions import FUNCTIONS
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.types import Array
from lstm_serve.export.operation import activation_of

TITLE = "Keras 3"
RATIO = 1.2  # from the argument of the old hard_sigmoid to that of the new


def _on_tensors(tensors: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    return [tensors[0] if len(tensors) == 1 else list(tensors)], {}


class Layer(NamedTuple):
    """A layer, or an operation that is none, as Keras 3 writes it.

    `arrays` are by the path of the object that has them, within the layer. `call` makes the arguments of a call, those
    by position and those by name, of the tensors that it is on.
    """

    class_name: str
    config: dict[str, Any]
    arrays: Mapping[str, Sequence[Array]] = {}
    call: Callable[[Sequence[Any]], tuple[list[Any], dict[str, Any]]] = _on_tensors
    module: str = "keras.layers"

    @property
    def is_layer(self) -> bool:
        """Whether it is a layer: others have no arrays and no dtype, and pass no mask on."""
        return self.module == "keras.layers"

    def serialized(self) -> dict[str, Any]:
        """As it stands inside another layer."""
        return {
            "module": self.module,
            "class_name": self.class_name,
            "config": {**({"dtype": "float32"} if self.is_layer else {}), **self.config},
            "registered_name": None,
        }


def _object(class_name: str, **config: float | None) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": class_name, "config": config, "registered_name": None}


def _by_name(activation: Activation) -> str:
    return activation.name


# By function: what stands in a layer's config, a name or a layer.
ACTIVATIONS: dict[str, Callable[[Activation], str | dict[str, Any]]] = {
    **dict.fromkeys(
        ("linear", "tanh", "sigmoid", "relu", "softmax", "silu", "hard_silu", "relu6", "selu", "softplus", "softsign"),
        _by_name,
    ),
    **dict.fromkeys(
        ("exponential", "gelu", "mish", "hard_tanh", "tanh_shrink", "log_sigmoid", "log_softmax"), _by_name
    ),
    **dict.fromkeys(
        ("soft_shrink", "hard_shrink", "sparse_plus", "sparse_sigmoid", "squareplus", "sparsemax"), _by_name
    ),
    "hard_sigmoid_keras_2": _by_name,
    "hard_sigmoid_keras_3": _by_name,
    "celu": _by_name,
    "elu": lambda given: "elu" if given.parameters["alpha"] == 1 else _object("ELU", **given.parameters),
    "leaky_relu": lambda given: _object("LeakyReLU", **given.parameters),
    "general_relu": lambda given: _object(
        "ReLU", **{name: None if number == np.inf else number for name, number in given.parameters.items()}
    ),
    **dict.fromkeys(FUNCTIONS, _by_name),
}


def activation_in(operation: Operation, activation: Activation) -> str | dict[str, Any]:
    """What stands in the config of an operation's layer."""
    written: str | dict[str, Any] = activation_of(TITLE, ACTIVATIONS, operation, activation)(activation)
    return written


def folded(array: Array, activation: Activation) -> Array:
    """The array that leads to this activation, as it has to be in Keras 3."""
    if activation is not HARD_SIGMOID_KERAS_2:
        return array
    return (array.astype(np.float64) * RATIO).astype(np.float32)


def folded_gates(array: Array, activations: Sequence[Activation]) -> Array:
    """An array (..., blocks * units), each block folded for its activation."""
    blocks = np.split(array, len(activations), axis=-1)
    return np.concatenate([folded(block, act) for block, act in zip(blocks, activations, strict=True)], axis=-1)
