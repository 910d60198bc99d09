"""Keras' layers that see a sequence, or a row, as a whole, lowered to operations."""

import math
from collections.abc import Sequence
from typing import cast

from lstm_serve.engine.operations.base import Operation
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
from lstm_serve.loading.config.options import Options
from lstm_serve.loading.layers.checks import expect, last_axis, with_bias
from lstm_serve.loading.refusals import GROUPS, QUANTIZED


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
