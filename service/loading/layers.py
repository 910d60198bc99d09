"""A layer of a file, made into a layer of the engine: one function a class, and the table of them."""

from collections.abc import Callable, Sequence

import numpy as np

from service.engine.activations import Array
from service.engine.layers import Activate, Dense, Identity, Layer, Normalization
from service.engine.recurrent import LSTM, Shape
from service.errors import UnreadableFile, Unsupported
from service.loading.keras_json import Options

Builder = Callable[[Options, Sequence[Array], Sequence[Shape]], Layer]


def build(class_name: str, options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    """The engine's layer for a Keras layer.

    `arrays` in the order of `get_weights()`, `shapes` of the inputs without the batch axis.
    Raises Unsupported, by name, for a class or an option that is not implemented.
    """
    builder = TABLE.get(class_name)
    if builder is None:
        raise Unsupported(f"the {options} is of a class that is not supported. Supported: {', '.join(TABLE)}")
    layer = builder(options, arrays, shapes)
    options.finish()
    return layer


def _lstm(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    units = options.take("units", int)
    features = _last_axis(options, shapes, rank=2)
    (kernel, recurrent_kernel), bias = _with_bias(
        options, arrays, kernel=(features, 4 * units), recurrent_kernel=(units, 4 * units), bias=(4 * units,)
    )
    options.refuse_unless("stateful", expected=False, why="a service keeps no state between requests")
    options.refuse_unless("time_major", expected=False, why="time is expected on the second axis")
    options.refuse_unless("return_state", expected=False, why="only the output is served")
    options.ignore("zero_output_for_mask")
    return LSTM(
        name=options.name,
        kernel=kernel,
        recurrent_kernel=recurrent_kernel,
        bias=bias,
        activation=options.activation("activation", "tanh"),
        recurrent_activation=options.activation("recurrent_activation", _default_gate(options)),
        return_sequences=options.take("return_sequences", bool, default=False),
        go_backwards=options.take("go_backwards", bool, default=False),
    )


def _default_gate(options: Options) -> str:
    # Keras 2.3.0 changed it, and tf.keras with TensorFlow 2.
    return "sigmoid" if (options.keras.major, options.keras.minor) >= (2, 3) else "hard_sigmoid"


def _dense(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    units = options.take("units", int)
    features = _last_axis(options, shapes)
    (kernel,), bias = _with_bias(options, arrays, kernel=(features, units), bias=(units,))
    options.refuse_unless("quantization_config", expected=None, why="quantized weights are not read")
    return Dense(name=options.name, kernel=kernel, bias=bias, activation=options.activation("activation", "linear"))


def _identity(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    _expect(options, arrays)
    options.ignore("rate", "noise_shape")
    return Identity(name=options.name, keras_class=options.class_name)


def _activation(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    _expect(options, arrays)
    return Activate(name=options.name, activation=options.activation("activation", "linear"))


def _normalization(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Layer:
    (shape,) = shapes
    rank = len(shape) + 1
    options.refuse_unless("invert", expected=False, why="only the forward direction is implemented")
    axes = sorted(axis % rank for axis in options.integers("axis", default=[-1]))
    mean, variance = options.take("mean", object, default=False), options.take("variance", object, default=False)
    sizes = tuple(size for size in (shape[axis - 1] for axis in axes if axis > 0) if size is not None)
    if len(sizes) != len(axes):
        raise Unsupported(f"the {options} keeps the axes {axes} apart, where the size of one is not known")
    if mean is False:  # learnt by adapt(); the third array counts what it saw
        mean, variance, _ = _expect(options, arrays, mean=sizes, variance=sizes, count=())
    else:
        _expect(options, arrays)
    try:
        given = [np.asarray(values, np.float32) for values in (mean, variance)]
        # Given values line up with the kept axes from the right, and broadcast.
        aligned = [np.broadcast_to(values, sizes) if values.ndim else np.full(sizes, values) for values in given]
    except (TypeError, ValueError):
        raise UnreadableFile(f"the {options} has a mean and a variance that do not fit its axes {axes}") from None
    broadcast = tuple(sizes[axes.index(axis)] if axis in axes else 1 for axis in range(1, rank))
    mean, variance = (values.reshape(broadcast) for values in aligned)
    return Normalization(name=options.name, mean=mean, variance=variance)


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


TABLE: dict[str, Builder] = {
    "LSTM": _lstm,
    "Dense": _dense,
    "Dropout": _identity,
    "Activation": _activation,
    "Normalization": _normalization,
}
