"""ONNX with the fused recurrent operators, opset 17, IR 8.

Values are tensors (n, ...), masks bool (n, T), as in the engine.
"""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.operations import conv_lstm, merging, pointwise, recurrent, temporal, windows, wrappers
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.types import AnyArray, Array
from lstm_serve.errors import Unsupported
from lstm_serve.export.artifact import Golden, header, npz
from lstm_serve.export.onnx_between import BETWEEN, OPERATORS
from lstm_serve.export.onnx_graph import ACTIVATIONS, TITLE, OnnxGraph, times
from lstm_serve.export.onnx_recurrent import write_bidirectional, write_recurrent, write_stacked
from lstm_serve.export.operation import (
    NO_CONV_LSTM,
    NOTHING_LEFT_OUT,
    Affine,
    Support,
    Target,
    Value,
    activation_of,
    affine_of,
    joined_mask,
    joins_in_time,
    refuse,
    refuse_left_out,
    walk,
    write_inside,
    write_nothing,
)
from lstm_serve.model.model import Model

OPSET, IR = 17, 8


def _activated(g: OnnxGraph, op: Operation, activation: Activation, x: str) -> str:
    return activation_of(TITLE, ACTIVATIONS, op, activation)(g, x, dict(activation.parameters))


def _dense(g: OnnxGraph, op: pointwise.Dense, xs: Sequence[Value]) -> Value:
    y = g.add("MatMul", xs[0].name, g.constant(op.kernel))
    if op.bias is not None:
        y = g.add("Add", y, g.constant(op.bias))
    return g.result(op, xs, _activated(g, op, op.activation, y))


def _activate(g: OnnxGraph, op: pointwise.Activate, xs: Sequence[Value]) -> Value:
    return g.result(op, xs, _activated(g, op, op.activation, xs[0].name))


def _prelu(g: OnnxGraph, op: pointwise.PReLU, xs: Sequence[Value]) -> Value:
    return g.result(op, xs, g.add("PRelu", xs[0].name, g.constant(op.alpha)))


def _affine(g: OnnxGraph, op: Affine, xs: Sequence[Value]) -> Value:
    y = xs[0].name
    for operator, array in zip(("Sub", "Div", "Mul", "Add"), affine_of(op), strict=True):
        if array is not None:
            y = g.add(operator, y, g.constant(array))
    return g.result(op, xs, y)


def _layer_normalization(g: OnnxGraph, op: pointwise.LayerNormalization, xs: Sequence[Value]) -> Value:
    features = xs[0].shape[-1] or 1
    gamma = np.ones(features) if op.gamma is None else op.gamma
    arrays = [g.constant(gamma), *([] if op.beta is None else [g.constant(op.beta)])]
    y = g.add("LayerNormalization", xs[0].name, *arrays, axis=-1, epsilon=op.epsilon)
    return g.result(op, xs, y)


def _scaling(g: OnnxGraph, op: pointwise.Scaling, xs: Sequence[Value]) -> Value:
    centred = g.add("Sub", xs[0].name, g.constant(op.offset, np.float64))
    y = g.add("Cast", g.add("Div", centred, g.constant(op.scale, np.float64)), to=1)  # to float
    return g.result(op, xs, y)


def _unscaling(g: OnnxGraph, op: pointwise.Unscaling, xs: Sequence[Value]) -> Value:
    scaled = times(g, g.add("Cast", xs[0].name, to=11), g.constant(op.scale, np.float64))  # to double
    y = g.add("Cast", g.add("Add", scaled, g.constant(op.offset, np.float64)), to=1)
    return g.result(op, xs, y)


def _merge(g: OnnxGraph, op: merging.Merge, xs: Sequence[Value]) -> Value:
    refuse_left_out(TITLE, op, xs)
    y = xs[0].name
    for x in xs[1:]:
        y = g.add(OPERATORS[op.join], y, x.name)
    if op.mean:
        y = g.add("Div", y, g.constant(len(xs)))
    return g.result(op, xs, y, _mask(g, op, xs))


def _mask(g: OnnxGraph, op: merging.Merge | merging.Concatenate, xs: Sequence[Value]) -> str | None:
    operator = "And" if op.mask_rule is merging.MaskRule.ALL else "Or"
    return joined_mask(op, xs, lambda a, b: g.add(operator, a, b))


def _concatenate(g: OnnxGraph, op: merging.Concatenate, xs: Sequence[Value]) -> Value:
    y = g.add("Concat", *(x.name for x in xs), axis=op.axis)
    if not joins_in_time(op, xs):
        return g.result(op, xs, y, _mask(g, op, xs))
    if not all(x.mask for x in xs):
        refuse(TITLE, op, "it puts a masked sequence and one that is not one after the other")
    bits = [g.add("Cast", str(x.mask), to=7) for x in xs]
    return g.result(op, xs, y, g.add("Cast", g.add("Concat", *bits, axis=1), to=9))


def _embedding(g: OnnxGraph, op: temporal.Embedding, xs: Sequence[Value]) -> Value:
    mask = None
    if op.mask_zero:
        mask = g.add("Not", g.add("Equal", xs[0].name, g.constant(0, np.int32)))
    return g.result(op, xs, g.add("Gather", g.constant(op.embeddings), xs[0].name), mask)


def _masking(g: OnnxGraph, op: temporal.Masking, xs: Sequence[Value]) -> Value:
    other = g.add("Not", g.add("Equal", xs[0].name, g.constant(op.mask_value)))
    kept = g.add("ReduceMax", g.add("Cast", other, to=1), axes=[-1])
    mask = g.add("Cast", g.add("Squeeze", kept, g.integers(-1)), to=9)
    return g.result(op, xs, times(g, xs[0].name, kept), mask)


def _along(g: OnnxGraph, operator: str, xs: Sequence[Value], *arrays: str, **settings: Any) -> str:  # noqa: ANN401
    """An operator that has the features first, (n, features, *sizes), of and to what has them last."""
    axes = len(xs[0].shape)
    turned = g.add("Transpose", xs[0].name, perm=[0, axes, *range(1, axes)])
    return g.add("Transpose", g.add(operator, turned, *arrays, **settings), perm=[0, *range(2, axes + 1), 1])


def _settings(op: windows.Convolution | windows.Pooling, xs: Sequence[Value]) -> dict[str, Any]:
    """The sizes of an operator of windows, and how it pads."""
    settings: dict[str, Any] = {
        "kernel_shape": [window.size for window in op.windows],
        "strides": [window.stride for window in op.windows],
    }
    paddings = {window.padding for window in op.windows}
    dilated = any(window.dilation > 1 for window in op.windows)
    if paddings == {"valid"}:
        return settings | {"auto_pad": "VALID"}
    if paddings == {"same"} and not dilated:
        return settings | {"auto_pad": "SAME_UPPER"}
    pads = [_padding(op, window, size) for window, size in zip(op.windows, xs[0].shape, strict=False)]
    return settings | {"pads": [before for before, _ in pads] + [after for _, after in pads]}


def _padding(op: Operation, window: windows.Window, size: int | None) -> tuple[int, int]:
    if size is None and window.padding == "same":
        refuse(TITLE, op, "it is dilated, padded as `same`, and its number of time steps is not known")
    return window.padded(size or 0)


def _convolution(g: OnnxGraph, op: windows.Convolution, xs: Sequence[Value]) -> Value:
    axes = len(op.windows)
    kernel = op.kernel.transpose(axes + 1, axes, *range(axes))
    arrays = [g.constant(kernel), *([] if op.bias is None else [g.constant(op.bias)])]
    dilations = [window.dilation for window in op.windows]
    y = _along(g, "Conv", xs, *arrays, dilations=dilations, group=op.groups, **_settings(op, xs))
    return g.result(op, xs, _activated(g, op, op.activation, y))


def _pooling(g: OnnxGraph, op: windows.Pooling, xs: Sequence[Value]) -> Value:
    return g.result(op, xs, _along(g, "AveragePool" if op.average else "MaxPool", xs, **_settings(op, xs)))


def _global_pooling(g: OnnxGraph, op: temporal.GlobalPooling1D, xs: Sequence[Value]) -> Value:
    x = xs[0]
    keep = int(op.keepdims)
    if not op.average or x.mask is None:
        operator = "ReduceMean" if op.average else "ReduceMax"
        return g.result(op, xs, g.add(operator, x.name, axes=[1], keepdims=keep))
    kept = g.add("Unsqueeze", g.add("Cast", x.mask, to=1), g.integers(2))
    axis = g.integers(1)
    sums = [g.add("ReduceSum", each, axis, keepdims=keep) for each in (times(g, x.name, kept), kept)]
    return g.result(op, xs, g.add("Div", *sums))


def _repeat_vector(g: OnnxGraph, op: temporal.RepeatVector, xs: Sequence[Value]) -> Value:
    row = g.add("Unsqueeze", xs[0].name, g.integers(1))
    return g.result(op, xs, g.add("Tile", row, g.integers(1, op.n, 1)))


def _reshape(g: OnnxGraph, op: temporal.Reshape, xs: Sequence[Value]) -> Value:
    (target,) = op.output_shapes([xs[0].shape])
    # A 0 is the input's own size. Of an axis of unknown size there is one at most.
    sizes = [-1 if size is None else size for size in target]
    return g.result(op, xs, g.add("Reshape", xs[0].name, g.integers(0, *sizes)))


def _permute(g: OnnxGraph, op: temporal.Permute, xs: Sequence[Value]) -> Value:
    return g.result(op, xs, g.add("Transpose", xs[0].name, perm=[0, *op.dims]))


def _time_distributed(g: OnnxGraph, op: wrappers.TimeDistributed, xs: Sequence[Value]) -> Value:
    x = xs[0]
    if None in x.shape[1:]:
        refuse(TITLE, op, "a size of each step is not known")
    step = x._replace(name=g.add("Reshape", x.name, g.integers(-1, *x.shape[1:])), shape=x.shape[1:], mask=None)  # type: ignore[arg-type]
    inner = write_inside(op, step, g.write)
    lead = g.add("Slice", g.add("Shape", x.name), *map(g.integers, (0, 2)))
    shape = g.add("Concat", lead, g.integers(*(size or -1 for size in inner.shape)), axis=0)
    return g.result(op, xs, g.add("Reshape", inner.name, shape))


CELL = "with the activations that the fused operators have; a mask by gathering the steps that count"
TABLE: dict[type, Support] = {
    pointwise.Identity: Support(write_nothing),
    pointwise.Dense: Support(_dense),
    pointwise.Activate: Support(_activate),
    pointwise.PReLU: Support(_prelu),
    **dict.fromkeys((pointwise.Normalization, pointwise.Rescaling, pointwise.BatchNormalization), Support(_affine)),
    pointwise.LayerNormalization: Support(_layer_normalization),
    pointwise.Scaling: Support(_scaling, "in double"),
    pointwise.Unscaling: Support(_unscaling, "in double"),
    merging.Merge: Support(_merge, NOTHING_LEFT_OUT),
    merging.Concatenate: Support(_concatenate, "not of masked and other sequences one after the other"),
    temporal.Embedding: Support(_embedding),
    temporal.Masking: Support(_masking),
    windows.Convolution: Support(_convolution, "dilated and padded as `same` where the number of time steps is known"),
    windows.Pooling: Support(_pooling),
    temporal.GlobalPooling1D: Support(_global_pooling),
    temporal.RepeatVector: Support(_repeat_vector),
    temporal.Reshape: Support(_reshape),
    temporal.Permute: Support(_permute),
    **BETWEEN,
    **dict.fromkeys((recurrent.LSTM, recurrent.GRU, recurrent.SimpleRNN), Support(write_recurrent, CELL)),
    conv_lstm.ConvLSTM: Support(None, NO_CONV_LSTM),
    wrappers.Stacked: Support(write_stacked, CELL),
    wrappers.Bidirectional: Support(write_bidirectional, CELL),
    wrappers.TimeDistributed: Support(_time_distributed, "where the sizes of each step are known"),
}


def build(model: Model, golden: Golden) -> dict[str, bytes]:
    """The file, checked by onnx, and its golden predictions beside it."""
    try:
        import onnx  # noqa: PLC0415 - an extra that only this target needs
    except ImportError:
        raise Unsupported("to write ONNX the package onnx is needed: pip install 'lstm-serve[onnx]'") from None
    helper, types = onnx.helper, onnx.TensorProto
    graph = OnnxGraph(TABLE, helper, onnx.numpy_helper.from_array)
    dtypes = {"int32": types.INT32, "float64": types.DOUBLE, "float32": types.FLOAT}
    takes, gives = [graph.named(name) for name in _takes(model)], [graph.named(name) for name in _gives(model)]
    given = [Value.given(name, spec) for name, spec in zip(takes, model.inputs, strict=True)]
    for y, name in zip(walk(model.nodes, given, model.results, graph.write), gives, strict=True):
        graph.node("Identity", [y.name], [name])
    inputs = [
        helper.make_tensor_value_info(name, dtypes[spec.dtype.name], _sizes(spec.shape))
        for name, spec in zip(takes, model.inputs, strict=True)
    ]
    outputs = [
        helper.make_tensor_value_info(name, types.FLOAT, _sizes(spec.shape))
        for name, spec in zip(gives, model.outputs, strict=True)
    ]
    made = helper.make_graph(graph.nodes, "lstm_serve", inputs, outputs, graph.constants)
    written = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="lstm-serve"
    )
    written.doc_string = "\n".join(header(model))
    helper.set_model_props(written, _properties(model))
    onnx.checker.check_model(written, full_check=True)
    return {"{name}": written.SerializeToString(), "{name}.golden.npz": npz(**golden.arrays)}


def _takes(model: Model) -> list[str]:
    """What v2 calls the inputs."""
    return [str(spec.name) for spec in model.inputs] if len(model.inputs) > 1 else ["sequences"]


def _gives(model: Model) -> list[str]:
    """What v2 calls the outputs."""
    if len(model.outputs) > 1:
        return [str(spec.name) for spec in model.outputs]
    return ["values" if model.kind == "values" else "probabilities"]


def _sizes(shape: Sequence[int | None]) -> list[int | str]:
    """A shape as ONNX has it: the batch free, and the time axis where the model's is."""
    return ["batch", *("time" if size is None else size for size in shape)]


def _properties(model: Model) -> dict[str, str]:
    origin, about = model.origin, model.about
    properties: dict[str, object] = {
        "source": origin.file,
        "sha256": origin.sha256,
        "keras": origin.keras or "",
        "assumed": list(origin.assumed),
        "classes": list(about.classes or ()),
        "features": [feature.name for feature in about.features or ()],
        "scaling": _numbers_of(model, pointwise.Scaling),
        "output_scaling": _numbers_of(model, pointwise.Unscaling),
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in properties.items()}


def _numbers_of(
    model: Model, scaling: type[pointwise.Scaling] | type[pointwise.Unscaling]
) -> list[dict[str, list[float]]]:
    scalings = [op for op, _ in model.nodes if isinstance(op, scaling)]
    return [{"offset": op.offset.tolist(), "scale": op.scale.tolist()} for op in scalings]


def run(path: Path, xs: Sequence[AnyArray]) -> list[Array] | str:
    """What ONNX Runtime answers with the file, where it is installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed here"
    import onnxruntime  # noqa: PLC0415 - it may not be there

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    dtypes = {"tensor(int32)": np.int32, "tensor(double)": np.float64, "tensor(float)": np.float32}
    names = [each.name for each in session.get_inputs()]
    given = [x.astype(dtypes[each.type]) for x, each in zip(xs, session.get_inputs(), strict=True)]
    ys: list[Array] = session.run(None, dict(zip(names, given, strict=True)))
    return ys


TARGET = Target(TITLE, is_folder=False, suffix=".onnx", table=TABLE, activations=ACTIVATIONS, build=build, run=run)
