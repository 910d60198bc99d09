"""Each operation as a layer of Keras 3, or as an operation of it between layers: its class, its config, its arrays."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lstm_serve.engine.activations import HARD_SIGMOID_KERAS_2
from lstm_serve.engine.functions import FUNCTIONS
from lstm_serve.engine.operations import (
    conv_lstm,
    merging,
    pointwise,
    recurrent,
    temporal,
    windows,
    wrappers,
)
from lstm_serve.engine.operations.arithmetic import Reduce
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.merging import MaskRule
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.engine.types import AnyArray, Array, Shape
from lstm_serve.export.keras_between import BETWEEN, CLASSES, of_each
from lstm_serve.export.keras_config import TITLE, Layer, activation_in, folded, folded_gates
from lstm_serve.export.operation import NO_CONV_LSTM, Support, Value, refuse, writer_of

# What stands at masked steps until it is masked.
MASKED = -1e9

# One function an operation: the layer, without its name.


def _dense(op: pointwise.Dense, xs: Sequence[Value]) -> Layer:
    return _with_kernel(op, "Dense", units=op.kernel.shape[1])


def _convolution(op: windows.Convolution, xs: Sequence[Value]) -> Layer:
    return _with_kernel(
        op,
        f"Conv{_count(op)}D",
        filters=op.kernel.shape[-1],
        kernel_size=[window.size for window in op.windows],
        strides=[window.stride for window in op.windows],
        dilation_rate=[window.dilation for window in op.windows],
        padding=op.windows[0].padding,
        groups=op.groups,
    )


def _count(op: windows.Convolution | windows.Pooling) -> int:
    """As many as Keras has layers for."""
    if len(op.windows) > 3 or len({window.padding for window in op.windows}) > 1:
        refuse(TITLE, op, "Keras has no such layer")
    return len(op.windows)


def _with_kernel(op: pointwise.Dense | windows.Convolution, class_name: str, **config: object) -> Layer:
    arrays = [folded(array, op.activation) for array in op.weights.values()]
    settings = {**config, "activation": activation_in(op, op.activation), "use_bias": op.bias is not None}
    return Layer(class_name, settings, {"": arrays})


def _identity(op: pointwise.Identity, xs: Sequence[Value]) -> Layer:
    return Layer("Identity", {})


def _activate(op: pointwise.Activate, xs: Sequence[Value]) -> Layer:
    if op.activation.function in FUNCTIONS:
        return of_each(op.activation.function)
    written = activation_in(op, op.activation)
    if isinstance(written, dict):
        return Layer(written["class_name"], written["config"])
    return Layer("Activation", {"activation": written})


def _prelu(op: pointwise.PReLU, xs: Sequence[Value]) -> Layer:
    sizes = zip(op.alpha.shape, xs[0].shape, strict=True)
    shared = [axis for axis, (here, size) in enumerate(sizes, 1) if here == 1 and size != 1]
    return Layer("PReLU", {"shared_axes": shared or None}, {"": [op.alpha]})


def _axes(op: Operation, array: Array, shape: Shape) -> list[int]:
    """The axes, counting the batch's, along which an array that broadcasts against x is given."""
    aligned = (1,) * (len(shape) - array.ndim) + array.shape
    axes = [axis for axis, size in enumerate(aligned, 1) if size != 1]
    if not axes:
        axes = [axis for axis, size in enumerate(shape, 1) if size == 1][-1:]
    if any(shape[axis - 1] is None for axis in axes):
        refuse(TITLE, op, "it normalizes along an axis whose size is not known")
    return axes


def _normalization(op: pointwise.Normalization, xs: Sequence[Value]) -> Layer:
    axes = _axes(op, op.mean, xs[0].shape)
    sizes = [xs[0].shape[axis - 1] or 1 for axis in axes]
    arrays = [op.mean.reshape(sizes), op.variance.reshape(sizes), np.zeros((), np.int32)]
    return Layer("Normalization", {"axis": axes}, {"": arrays})  # type: ignore[dict-item] # the count is an integer


def _rescaling(op: pointwise.Rescaling, xs: Sequence[Value]) -> Layer:
    return _rescaled(op.scale, op.offset)


def _scaling(op: pointwise.Scaling, xs: Sequence[Value]) -> Layer:
    return _rescaled(1 / op.scale, -op.offset / op.scale, "float64")


def _unscaling(op: pointwise.Unscaling, xs: Sequence[Value]) -> Layer:
    return _rescaled(op.scale, op.offset, "float64")


def _rescaled(scale: AnyArray, offset: AnyArray, dtype: str = "float32") -> Layer:
    """A Rescaling; one number for all is a number, not a list of one."""
    scale, offset = (array.reshape(()) if array.size == 1 else array for array in (scale, offset))
    return Layer("Rescaling", {"scale": scale.tolist(), "offset": offset.tolist(), "dtype": dtype})


def _batch_normalization(op: pointwise.BatchNormalization, xs: Sequence[Value]) -> Layer:
    axes = _axes(op, op.mean, xs[0].shape) or [len(xs[0].shape)]
    if len(axes) != 1:
        refuse(TITLE, op, f"it normalizes along the axes {axes}, and the layer takes one")
    config = {"axis": axes[0], "epsilon": op.epsilon, "center": op.beta is not None, "scale": op.gamma is not None}
    return Layer("BatchNormalization", config, {"": [array.ravel() for array in op.weights.values()]})


def _layer_normalization(op: pointwise.LayerNormalization, xs: Sequence[Value]) -> Layer:
    config = {"axis": -1, "epsilon": op.epsilon, "center": op.beta is not None, "scale": op.gamma is not None}
    return Layer("LayerNormalization", config, {"": list(op.weights.values())})


def _merge(op: merging.Merge, xs: Sequence[Value]) -> Layer:
    left_out = op.join in {np.multiply, np.maximum, np.minimum}
    _check_masks(op, op.mask_rule, xs, "leaves masked steps out of it" if left_out else None)
    return Layer("Average" if op.mean else CLASSES[op.join], {})


def _concatenate(op: merging.Concatenate, xs: Sequence[Value]) -> Layer:
    _check_masks(op, op.mask_rule, xs, None)
    return Layer("Concatenate", {"axis": op.axis})


def _check_masks(op: Operation, rule: MaskRule, xs: Sequence[Value], differs: str | None) -> None:
    """Refuse where the Keras of the model joined masks otherwise than Keras 3 does."""
    masks = {x.mask for x in xs}
    if rule is MaskRule.ANY or masks == {None} or (len(masks) == 1 and differs is None):
        return
    refuse(TITLE, op, f"its inputs are masked, and Keras 3 {differs or 'joins different masks otherwise'}")


def _embedding(op: temporal.Embedding, xs: Sequence[Value]) -> Layer:
    n, width = op.embeddings.shape
    return Layer("Embedding", {"input_dim": n, "output_dim": width, "mask_zero": op.mask_zero}, {"": [op.embeddings]})


def _masking(op: temporal.Masking, xs: Sequence[Value]) -> Layer:
    return Layer("Masking", {"mask_value": op.mask_value})


def _pooling(op: windows.Pooling, xs: Sequence[Value]) -> Layer:
    settings = {
        "pool_size": [window.size for window in op.windows],
        "strides": [window.stride for window in op.windows],
        "padding": op.windows[0].padding,
    }
    return Layer(f"{'Average' if op.average else 'Max'}Pooling{_count(op)}D", settings)


def _global_pooling(op: temporal.GlobalPooling1D, xs: Sequence[Value]) -> Layer:
    keras_class = "GlobalAveragePooling1D" if op.average else "GlobalMaxPooling1D"
    return Layer(keras_class, {"keepdims": op.keepdims})


def _repeat_vector(op: temporal.RepeatVector, xs: Sequence[Value]) -> Layer:
    return Layer("RepeatVector", {"n": op.n})


def _reshape(op: temporal.Reshape, xs: Sequence[Value]) -> Layer:
    return Layer("Flatten", {}) if op.target == (-1,) else Layer("Reshape", {"target_shape": list(op.target)})


def _permute(op: temporal.Permute, xs: Sequence[Value]) -> Layer:
    return Layer("Permute", {"dims": list(op.dims)})


def _masked_by(op: merging.MaskedBy, xs: Sequence[Value]) -> Layer:
    """The mask of steps that are all MASKED, which are then 0: what is put there first makes it that of another."""
    return Layer("Masking", {"mask_value": MASKED})


def _recurrent(op: Recurrent, xs: Sequence[Value]) -> Layer:
    settings, arrays = _cell(op)
    flow = {
        "return_sequences": op.return_sequences,
        "go_backwards": op.go_backwards,
        "zero_output_for_mask": op.zero_output_for_mask,
        "return_state": op.return_state,
    }
    return Layer(type(op).__name__, {**settings, **flow}, {"cell": arrays}, _on_states)


def _on_states(tensors: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """A sequence, and the states to begin with where there are any."""
    return [tensors[0]], {"initial_state": list(tensors[1:])} if len(tensors) > 1 else {}


def _cell(op: Recurrent) -> tuple[dict[str, Any], list[Array]]:
    """The config of a cell, and its arrays, the old hard_sigmoid folded into them."""
    config: dict[str, Any] = {
        "units": op.units,
        "activation": activation_in(op, op.activation),
        "use_bias": op.bias is not None,
    }
    blocks = [op.activation]
    if isinstance(op, recurrent.LSTM):
        gate = op.recurrent_activation
        if op.activation is HARD_SIGMOID_KERAS_2:
            refuse(
                TITLE,
                op,
                "its activation is the hard_sigmoid of Keras 1 and 2, of the cell state too; Keras 3 has "
                "another function of that name, and nothing that leads to a state can be multiplied",
            )
        blocks = [gate, gate, op.activation, gate]
    elif isinstance(op, recurrent.GRU):
        gate = op.recurrent_activation
        blocks = [gate, gate, op.activation]
        config["reset_after"] = op.reset_after
    if not isinstance(op, recurrent.SimpleRNN):
        config["recurrent_activation"] = activation_in(op, gate)
    return config, [folded_gates(array, blocks) for array in op.weights.values()]


def _stacked(op: wrappers.Stacked, xs: Sequence[Value]) -> Layer:
    last = op.layers[-1]
    cells: list[dict[str, Any]] = []
    arrays: dict[str, Sequence[Array]] = {}
    used: dict[str, int] = {}
    for part in op.layers:
        config, weights = _cell(part)
        cell = Layer(f"{type(part).__name__}Cell", config)
        cells.append(cell.serialized())
        arrays[f"cell/cells/{numbered(cell.class_name, used)}"] = weights
    config = {
        "cell": Layer("StackedRNNCells", {"cells": cells}).serialized(),
        "return_sequences": op.return_sequences,
        "go_backwards": op.go_backwards,
        "zero_output_for_mask": last.zero_output_for_mask,
    }
    return Layer("RNN", config, arrays)


def _bidirectional(op: wrappers.Bidirectional, xs: Sequence[Value]) -> Layer:
    (forward, backward) = (_direction(part, xs) for part in (op.forward, op.backward))
    forward.config["name"], backward.config["name"] = "forward", "backward"
    return Layer(
        "Bidirectional",
        {"merge_mode": op.merge_mode, "layer": forward.serialized(), "backward_layer": backward.serialized()},
        {
            **{f"forward_layer/{path}": arrays for path, arrays in forward.arrays.items()},
            **{f"backward_layer/{path}": arrays for path, arrays in backward.arrays.items()},
        },
        _on_states,
    )


def _direction(op: Recurrent | wrappers.Stacked, xs: Sequence[Value]) -> Layer:
    return _stacked(op, xs) if isinstance(op, wrappers.Stacked) else _recurrent(op, xs)


def _time_distributed(op: wrappers.TimeDistributed, xs: Sequence[Value]) -> Layer:
    if isinstance(op.layer, Reduce) and xs[0].mask is None:
        return layer_of(replace(op.layer, axes=tuple(axis + 1 for axis in op.layer.axes)), xs)
    if op.layer is None or isinstance(op.layer, pointwise.Activate):  # of those, others are taken apart before
        refuse(TITLE, op, "it holds several operations, or a function, and is in another TimeDistributed")
    inner = layer_of(op.layer, [Value("x", xs[0].shape[1:])])
    if not inner.is_layer:
        refuse(TITLE, op, "what it does at each step is no layer there")
    inner.config["name"] = "layer"
    arrays = {f"layer/{path}".rstrip("/"): arrays for path, arrays in inner.arrays.items()}
    return Layer("TimeDistributed", {"layer": inner.serialized()}, arrays)


NO_OLD_MASKS = "where its inputs are masked, only as Keras 3 joins masks, or where all have the same mask"
TABLE: dict[type, Support] = {
    pointwise.Identity: Support(
        _identity, "as Identity: a Dropout's rate is not kept, so put it back to train with it"
    ),
    pointwise.Dense: Support(_dense),
    pointwise.Activate: Support(_activate, "the hard_sigmoid of Keras 1 and 2, with a Rescaling by 1.2 before it"),
    pointwise.PReLU: Support(_prelu),
    pointwise.Normalization: Support(_normalization, "not where tf.keras dropped a mask that Keras 3 passes on"),
    pointwise.Rescaling: Support(_rescaling, "not where tf.keras dropped a mask that Keras 3 passes on"),
    pointwise.BatchNormalization: Support(_batch_normalization),
    pointwise.LayerNormalization: Support(_layer_normalization),
    pointwise.Scaling: Support(_scaling, "as a Rescaling in float64"),
    pointwise.Unscaling: Support(_unscaling, "as a Rescaling in float64"),
    merging.Merge: Support(_merge, NO_OLD_MASKS),
    merging.Concatenate: Support(_concatenate, NO_OLD_MASKS),
    temporal.Embedding: Support(_embedding),
    temporal.Masking: Support(_masking),
    windows.Convolution: Support(_convolution),
    windows.Pooling: Support(_pooling),
    temporal.GlobalPooling1D: Support(_global_pooling),
    temporal.RepeatVector: Support(_repeat_vector),
    temporal.Reshape: Support(_reshape),
    temporal.Permute: Support(_permute),
    **BETWEEN,
    merging.MaskedBy: Support(_masked_by, "a mask of Masking or Embedding, where no later layer sees masked steps"),
    recurrent.LSTM: Support(
        _recurrent, "the hard_sigmoid of Keras 1 and 2 as that of its gates, not as its activation"
    ),
    recurrent.GRU: Support(_recurrent),
    recurrent.SimpleRNN: Support(_recurrent),
    conv_lstm.ConvLSTM: Support(None, NO_CONV_LSTM),
    wrappers.Stacked: Support(_stacked),
    wrappers.Bidirectional: Support(
        _bidirectional,
        "not where an old Keras held its output at masked steps, Keras 3 gives 0, and a later layer sees it",
    ),
    wrappers.TimeDistributed: Support(_time_distributed),
}


def layer_of(op: Operation, xs: Sequence[Value]) -> Layer:
    """The layer for an operation on these inputs, without its name. Raises Unsupported where Keras 3 has none."""
    layer: Layer = writer_of(TITLE, TABLE, op)(op, xs)
    return layer


def _snake(class_name: str) -> str:
    """A class in snake case, as Keras names its groups: simple_rnn, conv1d, p_re_lu."""
    apart = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", class_name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", apart).lower()


def numbered(class_name: str, used: dict[str, int]) -> str:
    """The group of the next layer of a class: lstm, lstm_1, ..."""
    snake = _snake(class_name)
    count = used[snake] = used.get(snake, -1) + 1
    return f"{snake}_{count}" if count else snake
