"""Keras' layers that see each time step, or each row, by itself, lowered to operations."""

import math
from collections.abc import Sequence
from typing import cast

import numpy as np

from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.pointwise import (
    Activate,
    BatchNormalization,
    Dense,
    Identity,
    Normalization,
    PReLU,
    Rescaling,
    deviation_of,
)
from lstm_serve.engine.types import Array, Shape
from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.loading.config.options import ACTIVATION_LAYERS, Options
from lstm_serve.loading.layers.checks import expect, kept_axes, last_axis, numbers, plain_weights, with_bias


def dense(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    units = options.size("units")
    features = last_axis(options, shapes)
    plain_weights(options)
    (kernel,), bias = with_bias(options, arrays, kernel=(features, units), bias=(units,))
    options.ignore("input_dim")
    return Dense(name=options.name, kernel=kernel, bias=bias, activation=options.activation("activation", "linear"))


def identity(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    expect(options, arrays)
    options.ignore("rate", "noise_shape", "stddev", "l1", "l2", "data_format")
    return Identity(name=options.name)


def activation(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    expect(options, arrays)
    return Activate(name=options.name, activation=options.activation("activation", "linear"))


def activation_layer(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    expect(options, arrays)
    return Activate(name=options.name, activation=ACTIVATION_LAYERS[options.class_name](options))


def prelu(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    shared = options.integers("shared_axes", [])
    expected = tuple(1 if axis in shared else size for axis, size in enumerate(shapes[0], 1))
    options.ignore_training_of("alpha")
    if None in expected:
        raise Unsupported(f"the {options} has slopes along an axis whose size is not known")
    (alpha,) = expect(options, arrays, alpha=cast("tuple[int, ...]", expected))
    return PReLU(name=options.name, alpha=alpha)


def batch_normalization(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    _, sizes, broadcast = kept_axes(options, shapes)
    options.refuse_unless("mode", expected=0, why="only the statistics of training are used")
    options.refuse_unless("renorm", expected=False, why="batch renormalization is not implemented")
    options.refuse_unless("virtual_batch_size", expected=None, why="it is not implemented")
    options.ignore("momentum", "fused", "renorm_clipping", "renorm_momentum", "synchronized")
    options.ignore_training_of("beta", "gamma")
    options.ignore("moving_mean_initializer", "moving_variance_initializer")
    gamma, beta = options.take("scale", bool, default=True), options.take("center", bool, default=True)
    names = ["gamma"] * gamma + ["beta"] * beta + ["mean", "variance"]
    checked = expect(options, arrays, **dict.fromkeys(names, sizes))
    given = {name: array.reshape(broadcast) for name, array in zip(names, checked, strict=True)}
    if (given["variance"] < 0).any():
        raise UnreadableFile(f"the {options} has a negative variance: the file is damaged")
    epsilon = options.take("epsilon", float, 1e-3)
    if not (given["variance"] + np.float32(epsilon) > 0).all():
        raise UnreadableFile(f"the {options} divides by the root of 0 or less: epsilon is {epsilon:g}")
    return BatchNormalization(
        name=options.name,
        gamma=given.get("gamma"),
        beta=given.get("beta"),
        mean=given["mean"],
        variance=given["variance"],
        epsilon=epsilon,
    )


def normalization(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    invert = options.take("invert", bool, default=False)
    axes, sizes, broadcast = kept_axes(options, shapes)
    if options.config.get("mean") is None:  # learnt by adapt(); the third array counts what it saw
        mean, variance, _ = expect(options, arrays, mean=sizes, variance=sizes, count=())
    else:
        expect(options, arrays)
        mean, variance = numbers(options, "mean"), numbers(options, "variance")
    options.ignore("mean", "variance")
    try:
        # Given values line up with the kept axes from the right, and broadcast.
        mean, variance = (np.broadcast_to(values, sizes).reshape(broadcast) for values in (mean, variance))
    except ValueError:
        raise UnreadableFile(f"the {options} has a mean and a variance that do not fit its axes {axes}") from None
    if (variance < 0).any():
        raise UnreadableFile(f"the {options} has a negative variance: the file is damaged")
    keeps_mask = options.keras.major >= 3
    if not invert:
        return Normalization(name=options.name, mean=mean, variance=variance, keeps_mask=keeps_mask)
    if math.prod(mean.shape[:-1]) != 1:
        raise options.refusal("undoes a normalization along other axes than the last, which is not supported")
    deviation = deviation_of(variance).reshape(-1)
    return Rescaling(name=options.name, scale=deviation, offset=mean.reshape(-1), keeps_mask=keeps_mask)


def rescaling(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    expect(options, arrays)
    scale, offset = numbers(options, "scale"), numbers(options, "offset")
    layer = Rescaling(name=options.name, scale=scale, offset=offset, keeps_mask=options.keras.major >= 3)
    for values in (scale, offset):
        if values.ndim and values.shape != (shapes[0][-1],):
            raise UnreadableFile(f"the {options} rescales by numbers of the shape {values.shape}")
    return layer
