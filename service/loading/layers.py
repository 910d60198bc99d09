"""A layer of a file, made into a layer of the engine: one function a class, and the table of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypedDict, cast

import numpy as np

from service.engine.activations import Array
from service.engine.layers import (
    Activate,
    BatchNormalization,
    Concatenate,
    Dense,
    Identity,
    Layer,
    LayerNormalization,
    Merge,
    Normalization,
    PReLU,
    Rescaling,
)
from service.engine.recurrent import GRU, LSTM, Recurrent, Shape, SimpleRNN
from service.engine.sequences import (
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
from service.engine.wrappers import Bidirectional, Stacked, TimeDistributed
from service.errors import MissingFact, UnreadableFile, Unsupported
from service.loading import layouts, masks
from service.loading.keras_json import ACTIVATION_LAYERS, Options

Builder = Callable[[Options, Sequence[Array], Sequence[Shape]], Layer]

# The floats of one row of one layer's output, and the steps that a convolution may reach.
MAX_ROW = 1 << 24


class Kind(NamedTuple):
    """A class of Keras' layers: what builds it, and its arrays in the order of `get_weights()`.

    A name such as "bias?use_bias" is there where that option is not false.
    """

    build: Builder
    arrays: tuple[str, ...] = ()


def build(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    """The engine's layer for a Keras layer.

    `arrays` in the order of `get_weights()`, `shapes` of the inputs without the batch axis.
    Raises Unsupported, by name, for a class or an option that is not implemented.
    """
    check_class(options.class_name, options.name, len(shapes))
    layer = TABLE[options.class_name].build(options, arrays, shapes)
    options.finish()
    for size in layer.output_shape(shapes):
        if size is not None and size < 1:
            raise UnreadableFile(f"the {options} would give an empty output for the input shape {shapes[0]}")
    if math.prod(size or 1 for size in layer.output_shape(shapes)) > MAX_ROW:
        raise Unsupported(f"the {options} gives {layer.output_shape(shapes)}, more than {MAX_ROW} numbers for one row")
    return layer


def check_class(class_name: str, name: str, inputs: int) -> None:
    """Refuse a class of layers that is not implemented, and a number of inputs that its layers do not take."""
    if class_name not in TABLE:
        reason = f" ({REFUSED[class_name]})" if class_name in REFUSED else ""
        raise Unsupported(
            f"the layer {name[:100]!r} is of the class {class_name}, which is not supported{reason}. "
            f"Supported: {', '.join(sorted(TABLE))}"
        )
    if class_name not in MERGING and inputs != 1:
        states = " (an initial_state?)" if class_name in RECURRENT | {"Bidirectional"} else ""
        raise Unsupported(f"the {class_name} layer {name[:100]!r} has {inputs} inputs{states}, where one is supported")


def array_names(class_name: str, config: Mapping[str, Any]) -> list[str]:
    """The names of a layer's arrays, in the order of `get_weights()`, as far as its config tells."""

    def inside(key: str, prefix: str = "") -> list[str]:
        layer = config.get(key)
        if not isinstance(layer, dict) or not isinstance(layer.get("config"), dict):
            return []
        return [prefix + name for name in array_names(str(layer.get("class_name")), layer["config"])]

    if class_name == "Bidirectional":
        return inside("layer", "forward/") + (inside("backward_layer", "backward/") or inside("layer", "backward/"))
    if class_name in {"TimeDistributed", "RNN"}:
        return inside("layer" if class_name == "TimeDistributed" else "cell")
    if class_name == "StackedRNNCells":
        cells = [cell for cell in config.get("cells") or [] if isinstance(cell, dict)]
        listed = [array_names(str(cell.get("class_name")), cell.get("config") or {}) for cell in cells]
        return [f"{k}/{name}" for k, names in enumerate(listed) for name in names]
    if class_name == "Normalization" and config.get("mean") is not None:
        return []
    if class_name in KERAS_1_GATES and config.get("consume_less", "gpu") != "gpu":
        return [f"{name}_{gate}" for gate in KERAS_1_GATES[class_name] for name in "WUb"]
    kind = TABLE.get(class_name.removesuffix("Cell"))
    names = [name.partition("?") for name in kind.arrays] if kind else []
    return [name for name, _, option in names if config.get(option, True)]


# Keras 1 keeps the gates apart, unless it was told to consume less memory of a GPU.
KERAS_1_GATES = {"LSTM": "icfo", "GRU": "zrh"}

# Arrays that no training step changes: in a nested model they come after all that one does.
NOT_TRAINED = frozenset({"moving_mean", "moving_variance", "mean", "variance", "count"})


class _Flow(TypedDict):
    """What a recurrent layer of any class has."""

    name: str
    return_sequences: bool
    go_backwards: bool
    zero_output_for_mask: bool


def _flow(options: Options) -> _Flow:
    options.refuse_unless("stateful", expected=False, why="a service keeps no state between requests")
    options.refuse_unless("time_major", expected=False, why="time is expected on the second axis")
    # The states have no reader: a graph that uses one is refused where it is read.
    options.ignore("return_state", "num_constants", "input_dim", "input_length")
    return {
        "name": options.name,
        "return_sequences": options.take("return_sequences", bool, default=False),
        "go_backwards": options.take("go_backwards", bool, default=False),
        "zero_output_for_mask": options.take("zero_output_for_mask", bool, default=False),
    }


def _lstm(options: Options, arrays: Sequence[Array], features: int, flow: _Flow) -> Recurrent:
    units = options.size("units")
    options.ignore("consume_less")
    (kernel, recurrent_kernel), bias = _with_bias(
        options,
        layouts.lstm(arrays, units),
        kernel=(features, 4 * units),
        recurrent_kernel=(units, 4 * units),
        bias=(4 * units,),
    )
    return LSTM(
        kernel=kernel,
        recurrent_kernel=recurrent_kernel,
        bias=bias,
        activation=options.activation("activation", "tanh"),
        recurrent_activation=options.activation("recurrent_activation", _default_gate(options)),
        **flow,
    )


def _gru(options: Options, arrays: Sequence[Array], features: int, flow: _Flow) -> Recurrent:
    units = options.size("units")
    options.ignore("consume_less")
    arrays = layouts.gru(arrays, units)
    # Where there is a bias, its shape tells what the option says; the option came with Keras 2.1.5.
    told = len(arrays) == 3 and arrays[2].ndim == 2
    if options.config.get("reset_after") is None and len(arrays) != 3 and not options.keras.known:
        raise MissingFact(f"nothing tells whether the {options} has reset_after: give it in the architecture")
    reset_after = options.take("reset_after", bool, default=told) or (told and options.class_name == "CuDNNGRU")
    (kernel, recurrent_kernel), bias = _with_bias(
        options,
        arrays,
        kernel=(features, 3 * units),
        recurrent_kernel=(units, 3 * units),
        bias=(2, 3 * units) if reset_after else (3 * units,),
    )
    return GRU(
        kernel=kernel,
        recurrent_kernel=recurrent_kernel,
        bias=bias,
        activation=options.activation("activation", "tanh"),
        recurrent_activation=options.activation("recurrent_activation", _default_gate(options)),
        reset_after=reset_after,
        **flow,
    )


def _simple_rnn(options: Options, arrays: Sequence[Array], features: int, flow: _Flow) -> Recurrent:
    units = options.size("units")
    options.ignore("consume_less")
    (kernel, recurrent_kernel), bias = _with_bias(
        options, arrays, kernel=(features, units), recurrent_kernel=(units, units), bias=(units,)
    )
    return SimpleRNN(
        kernel=kernel,
        recurrent_kernel=recurrent_kernel,
        bias=bias,
        activation=options.activation("activation", "tanh"),
        **flow,
    )


CELLS: dict[str, Callable[[Options, Sequence[Array], int, _Flow], Recurrent]] = {
    "LSTM": _lstm,
    "GRU": _gru,
    "SimpleRNN": _simple_rnn,
    "CuDNNLSTM": _lstm,
    "CuDNNGRU": _gru,
}


def _default_gate(options: Options) -> str:
    if options.config.get("recurrent_activation") is not None:
        return ""
    if options.class_name.startswith("CuDNN"):
        return "sigmoid"
    gate = options.keras.default_gate
    if gate is None:
        raise MissingFact(
            f"nothing tells the recurrent_activation of the {options}. It was hard_sigmoid by default before Keras 2.3 "
            "and TensorFlow 2, and is sigmoid since: give it in the architecture"
        )
    options.assume(f"recurrent_activation = {gate}, the default of Keras {options.keras.text or '1.0'}")
    return gate


def _recurrent(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    return CELLS[options.class_name](options, arrays, _last_axis(options, shapes, rank=2), _flow(options))


def _rnn(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    """A layer around a cell, or around several: these are layers one above the other."""
    flow, features, cell = _flow(options), _last_axis(options, shapes, rank=2), options.inner("cell")
    cells = [cell] if cell else []
    if cell is not None and cell.class_name == "StackedRNNCells":
        cells = [cell.at("cells", k) for k in range(len(cell.take("cells", list)))]
    if not cells:
        raise UnreadableFile(f"the {options} has no cell")
    layers: list[Recurrent] = []
    for k, inner in enumerate(cells):
        build_cell = CELLS.get(inner.class_name.removesuffix("Cell"))
        if build_cell is None:
            raise Unsupported(f"the {options} has a cell of the class {inner.class_name!r}, which is not supported")
        count = len(array_names(inner.class_name, inner.config))
        last = k == len(cells) - 1
        steps: _Flow = {
            "name": options.name if len(cells) == 1 else inner.name,
            "return_sequences": flow["return_sequences"] or not last,
            "go_backwards": flow["go_backwards"] and k == 0,
            "zero_output_for_mask": flow["zero_output_for_mask"] and last,
        }
        layers.append(build_cell(inner, arrays if len(cells) == 1 else arrays[:count], features, steps))
        inner.finish()
        arrays, features = arrays[count:], layers[-1].units
    if len(layers) == 1:
        return layers[0]
    _expect(options, arrays)
    return Stacked(name=options.name, layers=tuple(layers))


def _bidirectional(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    merge_mode = options.choice("merge_mode", ("concat", "sum", "mul", "ave"), "concat")
    forward, backward = options.inner("layer"), options.inner("backward_layer")
    options.ignore("return_sequences", "return_state", "stateful", "input_dim", "input_length")
    if forward is None:
        raise UnreadableFile(f"the {options} holds no layer")
    if backward is None:
        turned = {**forward.config, "go_backwards": not forward.config.get("go_backwards", False)}
        backward = forward.with_config(turned)
    half = len(array_names(forward.class_name, forward.config))
    built: list[Recurrent | Stacked] = []
    for inner, part in ((forward, arrays[:half]), (backward, arrays[half:])):
        if inner.class_name not in RECURRENT:
            raise Unsupported(f"the {options} holds a {inner}, where one of {', '.join(RECURRENT)} is supported")
        layer = cast("Recurrent | Stacked", build(inner, part, shapes))
        built.append(_with_zeros(layer, zeros=masks.zeroed(inner)))
    if built[0].return_sequences != built[1].return_sequences or built[0].go_backwards == built[1].go_backwards:
        raise UnreadableFile(f"the two directions of the {options} do not fit together")
    merged = Bidirectional(name=options.name, forward=built[0], backward=built[1], merge_mode=cast("Any", merge_mode))
    if merge_mode != "concat" and built[0].output_shape(shapes) != built[1].output_shape(shapes):
        raise UnreadableFile(f"the two directions of the {options} have different units")
    return merged


def _with_zeros(layer: Recurrent | Stacked, *, zeros: bool) -> Recurrent | Stacked:
    if isinstance(layer, Stacked):
        return replace(layer, layers=(*layer.layers[:-1], replace(layer.layers[-1], zero_output_for_mask=zeros)))
    return replace(layer, zero_output_for_mask=zeros)


def _time_distributed(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    inner = options.inner("layer")
    options.ignore("input_dim", "input_length")
    (shape,) = shapes
    if inner is None or len(shape) < 2:
        raise UnreadableFile(f"the {options} holds no layer, or is given the shape {shape} without time steps")
    if inner.class_name in RECURRENT | MERGING | {"Masking", "Embedding", "TimeDistributed", "Bidirectional"}:
        raise Unsupported(f"the {options} holds a {inner}, which is not supported for each time step by itself")
    if inner.class_name in {"Dense", "Dropout", "Activation"}:  # these work on the last axis of any shape
        return build(inner.renamed(options.name), arrays, shapes)
    return TimeDistributed(name=options.name, layer=build(inner, arrays, [shape[1:]]))


def _dense(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    units = options.size("units")
    features = _last_axis(options, shapes)
    (kernel,), bias = _with_bias(options, arrays, kernel=(features, units), bias=(units,))
    options.refuse_unless("quantization_config", expected=None, why="quantized weights are not read")
    options.refuse_unless("lora_rank", expected=None, why="LoRA weights are not read")
    options.ignore("input_dim", "lora_alpha")
    return Dense(name=options.name, kernel=kernel, bias=bias, activation=options.activation("activation", "linear"))


def _conv1d(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    filters, size = options.size("filters"), options.size("kernel_size")
    features = _last_axis(options, shapes, rank=2)
    if arrays and arrays[0].ndim == 4:  # Keras 1: (size, 1, features, filters)
        arrays = [arrays[0].reshape(arrays[0].shape[0] * arrays[0].shape[1], *arrays[0].shape[2:]), *arrays[1:]]
    (kernel,), bias = _with_bias(options, arrays, kernel=(size, features, filters), bias=(filters,))
    _refuse_channels_first(options)
    options.refuse_unless("groups", expected=1, why="groups are not implemented")
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


def _pooling(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    _expect(options, arrays)
    _last_axis(options, shapes, rank=2)
    _refuse_channels_first(options)
    size = options.size("pool_size", 2)
    window = Window(
        size=size,
        stride=options.size("strides", size),
        padding=cast("Padding", options.choice("padding", ("valid", "same"), "valid")),
    )
    return Pooling1D(name=options.name, window=window, average=options.class_name.startswith("Average"))


def _global_pooling(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    _expect(options, arrays)
    _last_axis(options, shapes, rank=2)
    _refuse_channels_first(options)
    average = options.class_name.startswith("GlobalAverage")
    return GlobalPooling1D(name=options.name, average=average, keepdims=options.take("keepdims", bool, default=False))


def _refuse_channels_first(options: Options) -> None:
    options.refuse_unless("data_format", expected="channels_last", why="time comes before the features")


def _embedding(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    table = (options.size("input_dim"), options.size("output_dim"))
    options.refuse_unless("quantization_config", expected=None, why="quantized weights are not read")
    options.refuse_unless("lora_rank", expected=None, why="LoRA weights are not read")
    options.ignore("input_length", "sparse", "lora_alpha")
    options.ignore("embeddings_initializer", "embeddings_regularizer", "embeddings_constraint")
    (embeddings,) = _expect(options, arrays, embeddings=table)
    mask_zero = options.take("mask_zero", bool, default=False)
    return Embedding(name=options.name, embeddings=embeddings, mask_zero=mask_zero)


def _masking(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    _expect(options, arrays)
    _last_axis(options, shapes)
    options.ignore("input_dim", "input_length")
    return Masking(name=options.name, mask_value=options.take("mask_value", float, 0.0))


def _identity(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    _expect(options, arrays)
    options.ignore("rate", "noise_shape", "stddev", "l1", "l2", "data_format")
    return Identity(name=options.name, keras_class=options.class_name)


def _activation(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    _expect(options, arrays)
    return Activate(name=options.name, activation=options.activation("activation", "linear"))


def _activation_layer(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    _expect(options, arrays)
    return Activate(name=options.name, activation=ACTIVATION_LAYERS[options.class_name](options))


def _prelu(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    shared = options.integers("shared_axes", [])
    expected = tuple(1 if axis in shared else size for axis, size in enumerate(shapes[0], 1))
    options.ignore("alpha_initializer", "alpha_regularizer", "alpha_constraint")
    if None in expected:
        raise Unsupported(f"the {options} has slopes along an axis whose size is not known")
    (alpha,) = _expect(options, arrays, alpha=cast("tuple[int, ...]", expected))
    return PReLU(name=options.name, alpha=alpha)


def _batch_normalization(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    _, sizes, broadcast = _kept_axes(options, shapes)
    options.refuse_unless("mode", expected=0, why="only the statistics of training are used")
    options.refuse_unless("renorm", expected=False, why="batch renormalization is not implemented")
    options.refuse_unless("virtual_batch_size", expected=None, why="it is not implemented")
    options.ignore("momentum", "fused", "renorm_clipping", "renorm_momentum", "synchronized")
    options.ignore(*(f"{name}_{what}" for name in ("beta", "gamma") for what in ("regularizer", "constraint")))
    options.ignore("beta_initializer", "gamma_initializer", "moving_mean_initializer", "moving_variance_initializer")
    gamma, beta = options.take("scale", bool, default=True), options.take("center", bool, default=True)
    names = ["gamma"] * gamma + ["beta"] * beta + ["mean", "variance"]
    checked = _expect(options, arrays, **dict.fromkeys(names, sizes))
    given = {name: array.reshape(broadcast) for name, array in zip(names, checked, strict=True)}
    if (given["variance"] < 0).any():
        raise UnreadableFile(f"the {options} has a negative variance: the file is damaged")
    return BatchNormalization(
        name=options.name,
        gamma=given.get("gamma"),
        beta=given.get("beta"),
        mean=given["mean"],
        variance=given["variance"],
        epsilon=options.take("epsilon", float, 1e-3),
    )


def _layer_normalization(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    axes, sizes, _ = _kept_axes(options, shapes)
    if axes != [len(shapes[0])]:
        raise Unsupported(f"the {options} normalizes along the axes {axes}; only the last is supported")
    options.refuse_unless("rms_scaling", expected=False, why="it is not implemented")
    options.ignore("beta_initializer", "gamma_initializer", "beta_regularizer", "gamma_regularizer")
    options.ignore("beta_constraint", "gamma_constraint")
    names = ["gamma"] * options.take("scale", bool, default=True) + ["beta"] * options.take(
        "center", bool, default=True
    )
    given = dict(zip(names, _expect(options, arrays, **dict.fromkeys(names, sizes)), strict=True))
    epsilon = options.take("epsilon", float, 1e-3)
    return LayerNormalization(name=options.name, gamma=given.get("gamma"), beta=given.get("beta"), epsilon=epsilon)


def _normalization(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    options.refuse_unless("invert", expected=False, why="only the forward direction is implemented")
    axes, sizes, broadcast = _kept_axes(options, shapes)
    if options.config.get("mean") is None:  # learnt by adapt(); the third array counts what it saw
        mean, variance, _ = _expect(options, arrays, mean=sizes, variance=sizes, count=())
    else:
        _expect(options, arrays)
        mean, variance = _numbers(options, "mean"), _numbers(options, "variance")
    options.ignore("mean", "variance")
    try:
        # Given values line up with the kept axes from the right, and broadcast.
        mean, variance = (np.broadcast_to(values, sizes).reshape(broadcast) for values in (mean, variance))
    except ValueError:
        raise UnreadableFile(f"the {options} has a mean and a variance that do not fit its axes {axes}") from None
    if (variance < 0).any():
        raise UnreadableFile(f"the {options} has a negative variance: the file is damaged")
    return Normalization(name=options.name, mean=mean, variance=variance, keeps_mask=options.keras.major >= 3)


def _rescaling(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    _expect(options, arrays)
    scale, offset = _numbers(options, "scale"), _numbers(options, "offset")
    layer = Rescaling(name=options.name, scale=scale, offset=offset, keeps_mask=options.keras.major >= 3)
    for values in (scale, offset):
        if values.ndim and values.shape != (shapes[0][-1],):
            raise UnreadableFile(f"the {options} rescales by numbers of the shape {values.shape}")
    return layer


def _numbers(options: Options, key: str) -> Array:
    """The option `key`, a number or a list of them, or NumPy numbers as Keras writes them."""
    value = options.take(key, object, default=0.0)
    if isinstance(value, dict):
        config = value.get("config")
        value = (config if isinstance(config, dict) else value).get("value")
    try:
        with np.errstate(over="ignore"):
            numbers = np.asarray(value, np.float32)
    except (TypeError, ValueError, OverflowError):
        numbers = np.array(np.nan, np.float32)
    if not np.isfinite(numbers).all():
        raise UnreadableFile(f"the {options} has {key} = {str(value)[:40]!r}, where finite numbers were expected")
    return numbers


def _kept_axes(options: Options, shapes: Sequence[Shape]) -> tuple[list[int], tuple[int, ...], tuple[int, ...]]:
    """The axes that the option `axis` keeps apart, where the batch is 0, and their sizes.

    Then these sizes with 1 between them, as they broadcast against x.
    """
    (shape,) = shapes
    axes = options.integers("axis", [-1])
    rank = len(shape) + 1
    if any(not -rank <= axis < rank for axis in axes):
        raise UnreadableFile(f"the {options} keeps the axes {axes} apart, of an input of the shape {shape}")
    axes = sorted({axis % rank for axis in axes})
    sizes = tuple(size for size in (shape[axis - 1] for axis in axes if axis > 0) if size is not None)
    if len(sizes) != len(axes):
        raise Unsupported(f"the {options} keeps the axes {axes} apart, where the size of one is not known")
    first = axes[0] if axes else rank
    return axes, sizes, tuple(sizes[axes.index(axis)] if axis in axes else 1 for axis in range(first, rank))


def _repeat_vector(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    _expect(options, arrays)
    if len(shapes[0]) != 1:
        raise UnreadableFile(f"the {options} is given the shape {shapes[0]}, where (features,) was expected")
    return RepeatVector(name=options.name, n=options.size("n"))


def _reshape(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    _expect(options, arrays)
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


def _permute(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    _expect(options, arrays)
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


def _merge(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    _expect(options, arrays)
    same_rank = len({len(shape) for shape in shapes}) == 1
    if not same_rank or any(len({*sizes} - {1, None}) > 1 for sizes in zip(*shapes, strict=False)):
        raise UnreadableFile(f"the {options} joins inputs of the shapes {str(shapes)[:100]}, which do not fit together")
    mean = options.class_name == "Average"
    return Merge(name=options.name, join=JOINS[options.class_name], mean=mean, mask_join=masks.join(options.keras))


def _concatenate(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    _expect(options, arrays)
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
    return Concatenate(name=options.name, axis=axis, mask_join=masks.join(options.keras))


def _with_bias(
    options: Options, arrays: Sequence[Array], bias: tuple[int, ...], **kernels: tuple[int, ...]
) -> tuple[Sequence[Array], Array | None]:
    """The kernels and the bias of a layer; the bias is None where `use_bias` is false."""
    if options.take("use_bias", bool, default=True):
        *weights, last = _expect(options, arrays, **kernels, bias=bias)
        return weights, last
    return _expect(options, arrays, **kernels), None


def _expect(options: Options, arrays: Sequence[Array], **shapes: tuple[int, ...]) -> Sequence[Array]:
    """The arrays, once their number and shapes are those that the layer's options call for."""
    expected = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "none"
    if [array.shape for array in arrays] != list(shapes.values()):
        came = ", ".join(str(array.shape) for array in arrays[:12]) or "none"
        raise UnreadableFile(f"the {options} should have the arrays {expected}; the file has {came}")
    return arrays


def _last_axis(options: Options, shapes: Sequence[Shape], rank: int | None = None) -> int:
    """The size of the input's last axis; `rank` is how many axes are wanted, the batch left out."""
    (shape,) = shapes
    if not shape or shape[-1] is None or (rank is not None and len(shape) != rank):
        wanted = "(timesteps, features)" if rank == 2 else "a last axis of known size"
        raise UnreadableFile(f"the {options} is given the shape {shape}, where {wanted} was expected")
    return shape[-1]


GATED = ("kernel", "recurrent_kernel", "bias?use_bias")
SCALED = ("gamma?scale", "beta?center")

TABLE: dict[str, Kind] = {
    **dict.fromkeys(CELLS, Kind(_recurrent, GATED)),
    "RNN": Kind(_rnn),
    "Bidirectional": Kind(_bidirectional),
    "TimeDistributed": Kind(_time_distributed),
    "Dense": Kind(_dense, ("kernel", "bias?use_bias")),
    "Conv1D": Kind(_conv1d, ("kernel", "bias?use_bias")),
    "Embedding": Kind(_embedding, ("embeddings",)),
    "Masking": Kind(_masking),
    "MaxPooling1D": Kind(_pooling),
    "AveragePooling1D": Kind(_pooling),
    "GlobalMaxPooling1D": Kind(_global_pooling),
    "GlobalAveragePooling1D": Kind(_global_pooling),
    "Flatten": Kind(_reshape),
    "Reshape": Kind(_reshape),
    "Permute": Kind(_permute),
    "RepeatVector": Kind(_repeat_vector),
    "BatchNormalization": Kind(_batch_normalization, (*SCALED, "moving_mean", "moving_variance")),
    "LayerNormalization": Kind(_layer_normalization, SCALED),
    "Normalization": Kind(_normalization, ("mean", "variance", "count")),
    "Rescaling": Kind(_rescaling),
    "PReLU": Kind(_prelu, ("alpha",)),
    "Activation": Kind(_activation),
    **dict.fromkeys(ACTIVATION_LAYERS, Kind(_activation_layer)),
    "Concatenate": Kind(_concatenate),
    **dict.fromkeys(JOINS, Kind(_merge)),
    # Nothing is left of these at inference.
    "Dropout": Kind(_identity),
    "SpatialDropout1D": Kind(_identity),
    "GaussianNoise": Kind(_identity),
    "GaussianDropout": Kind(_identity),
    "AlphaDropout": Kind(_identity),
    "ActivityRegularization": Kind(_identity),
}
RECURRENT = frozenset({*CELLS, "RNN"})
MERGING = frozenset({*JOINS, "Concatenate"})

# Classes that files do have, with what keeps them out.
REFUSED = {
    "Lambda": "it carries code, and no code of a model is ever run",
    "TFOpLambda": "an operation outside any layer",
    "SlicingOpLambda": "an operation outside any layer",
    "Dot": "attention by hand is not implemented",
    "Attention": "attention is not implemented",
    "AdditiveAttention": "attention is not implemented",
    "MultiHeadAttention": "attention is not implemented",
}
