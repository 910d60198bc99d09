"""Keras' convolutions and poolings, along time or along the axes of a picture, lowered.

Sources: keras/src/layers/convolutional/ and keras/src/layers/pooling/ of 3.15; the same in tf.keras 2.15.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from lstm_serve.engine.activations import LINEAR
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.conv_lstm import ConvLSTM
from lstm_serve.engine.operations.merging import Concatenate, MaskRule
from lstm_serve.engine.operations.pointwise import Dense
from lstm_serve.engine.operations.windows import Convolution, Padding, Pooling, Window, counts
from lstm_serve.engine.types import Array, Shape
from lstm_serve.loading.config.options import Options
from lstm_serve.loading.layers.checks import channels_last, expect, last_axis, with_bias
from lstm_serve.loading.layers.resizing import padded, repeated
from lstm_serve.loading.layers.subgraph import Subgraph
from lstm_serve.loading.refusals import STATEFUL


def axes_of(options: Options) -> int:
    """Along how many axes a layer works, as its class says: 2 of Conv2D."""
    found = re.search(r"\dD", options.class_name)
    return int(found[0][0]) if found else 1


def convolution(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    """Conv1D, Conv2D and Conv3D."""
    axes, filters = axes_of(options), options.size("filters")
    windows, features = _windows(options, shapes)
    groups = options.size("groups", 1)
    if arrays and axes == 1 and arrays[0].ndim == 4:  # Keras 1: (size, 1, features, filters)
        arrays = [arrays[0].reshape(arrays[0].shape[0] * arrays[0].shape[1], *arrays[0].shape[2:]), *arrays[1:]]
    shape = *(window.size for window in windows), features // groups, filters
    if features % groups or filters % groups:
        raise options.refusal(f"makes {groups} groups of {features} features and {filters} filters")
    (kernel,), bias = with_bias(options, arrays, kernel=shape, bias=(filters,))
    options.ignore("input_dim", "input_length")
    if options.keras.theano:  # Theano turns the kernel round where the others do not
        kernel = np.flip(kernel, tuple(range(axes)))
    elif options.keras.major == 1:
        options.assume("saved with the TensorFlow backend; Theano would have turned its kernel round")
    activation = options.activation("activation", "linear")
    return Convolution(
        name=options.name, kernel=kernel, bias=bias, windows=windows, groups=groups, activation=activation
    )


def depthwise(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    """DepthwiseConv1D and 2D: each feature by itself, `depth_multiplier` filters for each."""
    windows, features = _windows(options, shapes)
    multiplier = options.size("depth_multiplier", 1)
    options.ignore_training_of("depthwise")
    options.refuse_unless("groups", expected=1, why="each feature is a group by itself")
    sizes = [window.size for window in windows]
    filters = features * multiplier
    (kernel,), bias = with_bias(options, arrays, depthwise_kernel=(*sizes, features, multiplier), bias=(filters,))
    return Convolution(
        name=options.name,
        kernel=kernel.reshape(*sizes, 1, filters),
        bias=bias,
        windows=windows,
        groups=features,
        activation=options.activation("activation", "linear"),
    )


def separable(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """SeparableConv1D and 2D: each feature by itself, and then all that comes of them for each place."""
    options = graph.options
    windows, features = _windows(options, graph.shapes)
    multiplier, filters = options.size("depth_multiplier", 1), options.size("filters")
    options.ignore_training_of("depthwise", "pointwise")
    options.refuse_unless("groups", expected=1, why="each feature is a group by itself")
    sizes, width = [window.size for window in windows], features * multiplier
    kernels = {
        "depthwise_kernel": (*sizes, features, multiplier),
        "pointwise_kernel": (*(1,) * len(sizes), width, filters),
    }
    (apart, across), bias = with_bias(options, arrays, bias=(filters,), **kernels)
    kernel = apart.reshape(*sizes, 1, width)
    each = Convolution(name=options.name, kernel=kernel, bias=None, windows=windows, groups=features, activation=LINEAR)
    activation = options.activation("activation", "linear")
    graph.add(
        Dense(name=options.name, kernel=across.reshape(width, filters), bias=bias, activation=activation),
        graph.add(each, 0),
    )


def transposed(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """Conv1DTranspose, 2D and 3D: a convolution of what has zeros between its steps, its kernel turned round."""
    options, axes = graph.options, axes_of(graph.options)
    features, filters = last_axis(options, graph.shapes, rank=axes + 1), options.size("filters")
    sizes, strides = options.sizes("kernel_size", axes), options.sizes("strides", axes, [1])
    channels_last(options)
    for key, expected in (("dilation_rate", 1), ("groups", 1)):
        given = options.integers(key, [expected])
        if set(given) != {expected}:
            raise options.refusal(f"has {key} = {str(given)[:40]}, which is not supported")
    options.refuse_unless("output_padding", expected=None, why="it is not implemented")
    same = options.choice("padding", ("valid", "same"), "valid") == "same"
    (kernel,), bias = with_bias(options, arrays, kernel=(*sizes, filters, features), bias=(filters,))
    k = 0
    for axis, (size, stride) in enumerate(zip(sizes, strides, strict=True), 1):
        k = repeated(graph, k, axis, [1] + [0] * (stride - 1))
        before = max(size - stride, 0) // 2 if same else 0
        k = padded(graph, k, axis, size - 1 - before, before if same else max(size - stride, 0))
    turned = np.flip(kernel, tuple(range(axes))).swapaxes(-1, -2)
    windows = tuple(Window(size=size) for size in sizes)
    activation = options.activation("activation", "linear")
    graph.add(Convolution(name=options.name, kernel=turned, bias=bias, windows=windows, activation=activation), k)


def conv_lstm(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    """ConvLSTM1D, 2D and 3D, of pictures one after the other."""
    if len(shapes[0]) < 2:
        raise options.refusal(f"is given the shape {shapes[0]} without time steps")
    windows, features = _windows(options, [shapes[0][1:]])
    filters, sizes = options.size("filters"), [window.size for window in windows]
    stateful = options.take("stateful", bool, default=False)
    if stateful:
        options.assume(STATEFUL)
    options.refuse_unless("time_major", expected=False, why="time is expected on the second axis")
    options.ignore("zero_output_for_mask")  # there is none
    kernels = {
        "kernel": (*sizes, features, 4 * filters),
        "recurrent_kernel": (*sizes, filters, 4 * filters),
    }
    (kernel, recurrent_kernel), bias = with_bias(options, arrays, bias=(4 * filters,), **kernels)
    layer = ConvLSTM(
        name=options.name,
        kernel=kernel,
        recurrent_kernel=recurrent_kernel,
        bias=bias,
        windows=windows,
        activation=options.activation("activation", "tanh"),
        recurrent_activation=options.activation("recurrent_activation", ""),
        return_sequences=options.take("return_sequences", bool, default=False),
        go_backwards=options.take("go_backwards", bool, default=False),
        return_state=options.take("return_state", bool, default=False),
        stateful=stateful,
    )
    state = (*counts(windows, shapes[0][1:]), filters)
    if None in state or (len(shapes) > 1 and [*shapes[1:]] != [state, state]):
        raise options.refusal(f"is given pictures of a free size, or states of other shapes than {state}")
    return layer


def both_directions(graph: Subgraph, forward: Operation, backward: Operation) -> None:
    """What a Bidirectional makes of two such layers: the second goes backwards, and is turned round."""
    options = graph.options
    merge_mode = options.choice("merge_mode", ("concat", "sum", "mul", "ave"), "concat")
    options.ignore("layer", "backward_layer", "return_sequences", "return_state", "stateful")
    if not isinstance(forward, ConvLSTM) or not isinstance(backward, ConvLSTM) or forward.return_state:
        raise graph.refusal("gives the states of pictures, which is not supported")
    if forward.go_backwards == backward.go_backwards or forward.return_sequences != backward.return_sequences:
        raise graph.refusal("has two directions that do not fit together")
    a, b = (graph.add(replace(layer, name=f"{options.name}/{name}"), 0)
            for layer, name in ((forward, "forward"), (backward, "backward")))  # fmt: skip
    if forward.return_sequences:
        b = graph.slice(b, 1, slice(None, None, -1))
    if merge_mode == "concat":
        joined = Concatenate(name=options.name, axis=len(graph.shapes[a]), mask_rule=MaskRule.ALL)
        graph.add(joined, a, b)
        return
    y = graph.pair(np.multiply if merge_mode == "mul" else np.add, a, b)
    if merge_mode == "ave":
        graph.with_numbers(np.multiply, y, 0.5)


def pooling(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    """MaxPooling and AveragePooling, along each number of axes."""
    expect(options, arrays)
    axes = axes_of(options)
    last_axis(options, shapes, rank=axes + 1)
    channels_last(options)
    sizes = options.sizes("pool_size", axes, [2])
    strides = options.sizes("strides", axes, sizes)
    padding = cast("Padding", options.choice("padding", ("valid", "same"), "valid"))
    windows = [Window(size=size, stride=n, padding=padding) for size, n in zip(sizes, strides, strict=True)]
    return Pooling(name=options.name, windows=tuple(windows), average=options.class_name.startswith("Average"))


def global_pooling(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """GlobalMaxPooling and GlobalAveragePooling, along two axes and more."""
    options, axes = graph.options, axes_of(graph.options)
    expect(options, arrays)
    last_axis(options, graph.shapes, rank=axes + 1)
    channels_last(options)
    keepdims = options.take("keepdims", bool, default=False)
    average = options.class_name.startswith("GlobalAverage")
    graph.reduce("mean" if average else "max", 0, tuple(range(1, axes + 1)), keepdims=keepdims)


def _windows(options: Options, shapes: Sequence[Shape]) -> tuple[tuple[Window, ...], int]:
    """What a convolution's options say of its windows, and the features of its input."""
    axes = axes_of(options)
    features = last_axis(options, shapes, rank=axes + 1)
    channels_last(options)
    paddings = ("valid", "same", "causal") if axes == 1 else ("valid", "same")
    padding = cast("Padding", options.choice("padding", paddings, "valid"))
    each = zip(
        options.sizes("kernel_size", axes),
        options.sizes("strides", axes, [1]),
        options.sizes("dilation_rate", axes, [1]),
        strict=True,
    )
    return tuple(Window(size=size, stride=n, dilation=d, padding=padding) for size, n, d in each), features
