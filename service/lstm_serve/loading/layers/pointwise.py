"""A layer of a file that is neither recurrent nor around others, made into one of the engine: a function a class."""

import math
from collections.abc import Sequence
from typing import cast

import numpy as np

from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.merging import Concatenate, Merge
from lstm_serve.engine.operations.pointwise import (
    Activate,
    BatchNormalization,
    Dense,
    Identity,
    LayerNormalization,
    Normalization,
    PReLU,
    Rescaling,
)
from lstm_serve.engine.operations.temporal import (
    Conv1D,
    Embedding,
    GlobalPooling1D,
    Masking,
    Padding,
    Permute,
    Pooling1D,
    RepeatVector,
    Reshape,
    Window,
)
from lstm_serve.engine.types import Array, Shape
from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.loading.config.options import ACTIVATION_LAYERS, Options
from lstm_serve.loading.layers import mask_rules
from lstm_serve.loading.layers.checks import expect, kept_axes, last_axis, numbers, with_bias
from lstm_serve.loading.refusals import GROUPS, QUANTIZED


def dense(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    units = options.size("units")
    features = last_axis(options, shapes)
    options.refuse_unless("quantization_config", expected=None, why=QUANTIZED)
    options.refuse_unless("lora_rank", expected=None, why="LoRA weights are not read")
    (kernel,), bias = with_bias(options, arrays, kernel=(features, units), bias=(units,))
    options.ignore("input_dim", "lora_alpha")
    return Dense(name=options.name, kernel=kernel, bias=bias, activation=options.activation("activation", "linear"))


def conv1d(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    filters, size = options.size("filters"), options.size("kernel_size")
    features = last_axis(options, shapes, rank=2)
    _refuse_channels_first(options)
    options.refuse_unless("groups", expected=1, why=GROUPS)
    if arrays and arrays[0].ndim == 4:  # Keras 1: (size, 1, features, filters)
        arrays = [arrays[0].reshape(arrays[0].shape[0] * arrays[0].shape[1], *arrays[0].shape[2:]), *arrays[1:]]
    (kernel,), bias = with_bias(options, arrays, kernel=(size, features, filters), bias=(filters,))
    options.ignore("input_dim", "input_length")
    if options.keras.theano:  # Theano turns the kernel round where the others do not
        kernel = kernel[::-1]
    elif options.keras.major == 1:
        options.assume("saved with the TensorFlow backend; Theano would have turned its kernel round")
    window = Window(
        size=size,
        stride=options.size("strides", 1),
        dilation=options.size("dilation_rate", 1),
        padding=cast("Padding", options.choice("padding", ("valid", "same", "causal"), "valid")),
    )
    activation = options.activation("activation", "linear")
    return Conv1D(name=options.name, kernel=kernel, bias=bias, window=window, activation=activation)


def pooling(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    expect(options, arrays)
    last_axis(options, shapes, rank=2)
    _refuse_channels_first(options)
    size = options.size("pool_size", 2)
    window = Window(
        size=size,
        stride=options.size("strides", size),
        padding=cast("Padding", options.choice("padding", ("valid", "same"), "valid")),
    )
    return Pooling1D(name=options.name, window=window, average=options.class_name.startswith("Average"))


def global_pooling(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    expect(options, arrays)
    last_axis(options, shapes, rank=2)
    _refuse_channels_first(options)
    average = options.class_name.startswith("GlobalAverage")
    return GlobalPooling1D(name=options.name, average=average, keepdims=options.take("keepdims", bool, default=False))


def _refuse_channels_first(options: Options) -> None:
    options.refuse_unless("data_format", expected="channels_last", why="time comes before the features")


def embedding(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    table = (options.size("input_dim"), options.size("output_dim"))
    options.refuse_unless("quantization_config", expected=None, why=QUANTIZED)
    options.refuse_unless("lora_rank", expected=None, why="LoRA weights are not read")
    options.ignore("input_length", "sparse", "lora_alpha")
    options.ignore("embeddings_initializer", "embeddings_regularizer", "embeddings_constraint")
    (embeddings,) = expect(options, arrays, embeddings=table)
    mask_zero = options.take("mask_zero", bool, default=False)
    return Embedding(name=options.name, embeddings=embeddings, mask_zero=mask_zero)


def masking(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    expect(options, arrays)
    last_axis(options, shapes)
    options.ignore("input_dim", "input_length")
    return Masking(name=options.name, mask_value=options.take("mask_value", float, 0.0))


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
    options.ignore("alpha_initializer", "alpha_regularizer", "alpha_constraint")
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
    options.ignore(*(f"{name}_{what}" for name in ("beta", "gamma") for what in ("regularizer", "constraint")))
    options.ignore("beta_initializer", "gamma_initializer", "moving_mean_initializer", "moving_variance_initializer")
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


def layer_normalization(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    axes, sizes, _ = kept_axes(options, shapes)
    if axes != [len(shapes[0])]:
        raise Unsupported(f"the {options} normalizes along the axes {axes}; only the last is supported")
    options.refuse_unless("rms_scaling", expected=False, why="it is not implemented")
    options.ignore("beta_initializer", "gamma_initializer", "beta_regularizer", "gamma_regularizer")
    options.ignore("beta_constraint", "gamma_constraint")
    names = ["gamma"] * options.take("scale", bool, default=True) + ["beta"] * options.take(
        "center", bool, default=True
    )
    given = dict(zip(names, expect(options, arrays, **dict.fromkeys(names, sizes)), strict=True))
    epsilon = options.take("epsilon", float, 1e-3)
    if epsilon < 0:
        raise UnreadableFile(f"the {options} has an epsilon of {epsilon:g}, which may divide by the root of 0 or less")
    return LayerNormalization(name=options.name, gamma=given.get("gamma"), beta=given.get("beta"), epsilon=epsilon)


def normalization(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    options.refuse_unless("invert", expected=False, why="only the forward direction is implemented")
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
    return Normalization(name=options.name, mean=mean, variance=variance, keeps_mask=options.keras.major >= 3)


def rescaling(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    expect(options, arrays)
    scale, offset = numbers(options, "scale"), numbers(options, "offset")
    layer = Rescaling(name=options.name, scale=scale, offset=offset, keeps_mask=options.keras.major >= 3)
    for values in (scale, offset):
        if values.ndim and values.shape != (shapes[0][-1],):
            raise UnreadableFile(f"the {options} rescales by numbers of the shape {values.shape}")
    return layer


def repeat_vector(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    expect(options, arrays)
    if len(shapes[0]) != 1:
        raise UnreadableFile(f"the {options} is given the shape {shapes[0]}, where (features,) was expected")
    return RepeatVector(name=options.name, n=options.size("n"))


def reshape(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    expect(options, arrays)
    target = [-1]
    if options.class_name == "Flatten":
        _refuse_channels_first(options)
    else:
        target = options.integers("target_shape")
    (shape,) = shapes
    rest = math.prod(size for size in target if size != -1)
    total = math.prod(size or 1 for size in shape)
    fits = total % rest == 0 if -1 in target else total == rest
    if min(target, default=-1) < -1 or target.count(-1) > 1 or rest < 1 or (None not in shape and not fits):
        raise UnreadableFile(f"the {options} makes {str(target)[:60]} of an input of the shape {shape}")
    if None in shape and options.class_name != "Flatten":
        raise Unsupported(f"the {options} reshapes an input of the shape {shape}, whose size is not known")
    return Reshape(name=options.name, target=tuple(target))


def permute(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    expect(options, arrays)
    dims = options.integers("dims")
    if sorted(dims) != list(range(1, len(shapes[0]) + 1)):
        raise UnreadableFile(f"the {options} permutes the axes {str(dims)[:60]} of an input of the shape {shapes[0]}")
    return Permute(name=options.name, dims=tuple(dims))


JOINS = {
    "Add": np.add,
    "Subtract": np.subtract,
    "Multiply": np.multiply,
    "Average": np.add,
    "Maximum": np.maximum,
    "Minimum": np.minimum,
}


def merge(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    expect(options, arrays)
    same_rank = len({len(shape) for shape in shapes}) == 1
    if not same_rank or any(len({*sizes} - {1, None}) > 1 for sizes in zip(*shapes, strict=False)):
        raise UnreadableFile(f"the {options} joins inputs of the shapes {str(shapes)[:100]}, which do not fit together")
    mean = options.class_name == "Average"
    return Merge(
        name=options.name,
        join=JOINS[options.class_name],
        mean=mean,
        mask_rule=mask_rules.rule_of_merging(options.keras),
    )


def concatenate(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    expect(options, arrays)
    rank = len(shapes[0]) + 1
    (axis,) = options.integers("axis", [-1])[:1] or [-1]
    axis = axis % rank if -rank <= axis < rank else 0
    others = [[size for k, size in enumerate(shape, 1) if k != axis] for shape in shapes]
    if (
        axis == 0
        or len({len(shape) for shape in shapes}) != 1
        or any(len({*sizes} - {None}) > 1 for sizes in zip(*others, strict=False))
    ):
        raise UnreadableFile(f"the {options} joins inputs of the shapes {str(shapes)[:100]}, which do not fit together")
    return Concatenate(name=options.name, axis=axis, mask_rule=mask_rules.rule_of_merging(options.keras))
