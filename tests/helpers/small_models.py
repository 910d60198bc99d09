"""Small models made of layers by hand, for what no golden file is needed to show."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lstm_serve.engine.activations import LINEAR, SIGMOID, SOFTMAX, TANH, Activation
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.pointwise import Dense
from lstm_serve.engine.operations.recurrent import LSTM
from lstm_serve.engine.operations.temporal import Embedding
from lstm_serve.engine.types import Array, Mask, Shape
from lstm_serve.loading.config.keras_version import KerasVersion
from lstm_serve.loading.config.options import ACTIVATION_LAYERS, Options
from lstm_serve.model.graph import Node, Source, TensorSpec
from lstm_serve.model.metadata import About, Origin
from lstm_serve.model.model import Model


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32)


# Each layer of Keras that is an activation, as it is by default.
ACTIVATION_OF_LAYER = {
    name: made(Options(name, {}, KerasVersion.parse("3.15"), [])) for name, made in ACTIVATION_LAYERS.items()
}


def run(operation: Operation, xs: Sequence[Array], masks: Sequence[Mask]) -> tuple[Array, Mask]:
    """The output of an operation that has one, and its mask."""
    (y,), (mask,) = operation(xs, masks)
    return y, mask


def lstm(features: int, units: int, *, name: str = "lstm", bias: bool = True, **options: Any) -> LSTM:
    return LSTM(
        name=name,
        keras_class="LSTM",
        kernel=numbers(features, 4 * units, seed=1),
        recurrent_kernel=numbers(units, 4 * units, seed=2),
        bias=numbers(4 * units, seed=3) if bias else None,
        **{"activation": TANH, "recurrent_activation": SIGMOID, **options},
    )


def dense(
    features: int, units: int, activation: Activation = LINEAR, *, name: str = "dense", bias: bool = True
) -> Dense:
    return Dense(
        name=name,
        keras_class="Dense",
        kernel=numbers(features, units, seed=4),
        bias=numbers(units, seed=5) if bias else None,
        activation=activation,
    )


def model(
    layers: Sequence[Operation], input_shape: Shape = (4, 3), about: About | None = None, keras: str | None = "2.15.0"
) -> Model:
    return Model(
        nodes=tuple(Node(layer, (Source(k - 1),)) for k, layer in enumerate(layers)),
        inputs=(TensorSpec(None, input_shape, np.dtype(np.int32 if isinstance(layers[0], Embedding) else np.float32)),),
        origin=Origin(file="model.h5", sha256="0" * 64, format="whole-model HDF5", keras=keras),
        about=about or About(name="model"),
    )


def classes(input_shape: Shape = (4, 3), about: About | None = None) -> Model:
    return model([lstm(3, 5), dense(5, 2, SOFTMAX)], input_shape, about)
