"""Keras' layers that see a sequence, or a row, as a whole, lowered to operations."""

import math
from collections.abc import Sequence

from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.temporal import Embedding, GlobalPooling1D, Masking, Permute, RepeatVector, Reshape
from lstm_serve.engine.types import Array, Shape
from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.loading.config.options import Options
from lstm_serve.loading.layers.checks import channels_last, expect, last_axis, plain_weights


def global_pooling(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    expect(options, arrays)
    last_axis(options, shapes, rank=2)
    channels_last(options)
    average = options.class_name.startswith("GlobalAverage")
    return GlobalPooling1D(name=options.name, average=average, keepdims=options.take("keepdims", bool, default=False))


def embedding(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    table = (options.size("input_dim"), options.size("output_dim"))
    plain_weights(options)
    options.ignore("input_length", "sparse")
    options.ignore_training_of("embeddings")
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
        channels_last(options)
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
