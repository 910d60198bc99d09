"""JavaScript: the model as one ES module without dependencies, for node and for a browser; it sums in double.

A value is {d, s}: its numbers, a Float64Array, and its shape without the batch, for one sequence at a time; a mask is
an array of a boolean a step, or null. Names in the source are numbers, and text of the model is JSON or a comment.
"""

import base64
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lstm_serve.engine.operations import merging, pointwise, recurrent, temporal, windows, wrappers
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.types import Array, Shape
from lstm_serve.export.artifact import Golden, Numbers, header, scaled_by_card
from lstm_serve.export.js_activations import ACTIVATIONS
from lstm_serve.export.js_recurrent import write_bidirectional, write_recurrent, write_stacked
from lstm_serve.export.js_writer import TITLE, Program
from lstm_serve.export.library import filled, functions
from lstm_serve.export.operation import (
    BETWEEN,
    NO_MASKS_IN_TIME,
    NOT_YET,
    NOTHING_LEFT_OUT,
    TIME_ALONE,
    Support,
    Target,
    Value,
    deviation,
    factor_and_offset,
    kernel_in_one_group,
    masks_of_whole,
    places_in,
    refuse,
    walk,
    window_of,
    write_inside,
    writer_of,
)
from lstm_serve.model.model import Model


def _identity(p: Program, op: Operation, xs: Sequence[Value]) -> Value:
    return xs[0]


def _dense(p: Program, op: pointwise.Dense, xs: Sequence[Value]) -> Value:
    arrays = p.weight(op.kernel), p.weight(op.bias), op.kernel.shape[1]
    return p.let(op, xs, "dense", xs[0].name, *arrays, p.activation(op, op.activation), mask=xs[0].mask)


def _activate(p: Program, op: pointwise.Activate, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, "activate", xs[0].name, p.activation(op, op.activation), mask=xs[0].mask)


def _affine(
    p: Program, op: Operation, xs: Sequence[Value], arrays: Sequence[Numbers | None], mask: str | None
) -> Value:
    """(x - minus) / over * times + plus, of arrays that are repeated over x."""
    spread = (p.weight(None if array is None else _spread(array, xs[0].shape)) for array in arrays)
    return p.let(op, xs, "affine", xs[0].name, *spread, mask=mask)


def _spread(array: Numbers, shape: Shape) -> Numbers:
    """An array that broadcasts against x, as one that is repeated over its numbers."""
    if array.ndim < 2 or array.size == array.shape[-1]:
        return np.broadcast_to(array.ravel() if array.ndim else array, (shape[-1] or 1,))
    return np.broadcast_to(array, [size or 1 for size in shape])


def _prelu(p: Program, op: pointwise.PReLU, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, "prelu", xs[0].name, p.weight(_spread(op.alpha, xs[0].shape)), mask=xs[0].mask)


def _normalization(p: Program, op: pointwise.Normalization, xs: Sequence[Value]) -> Value:
    return _affine(p, op, xs, [op.mean, deviation(op), None, None], xs[0].mask if op.keeps_mask else None)


def _rescaling(p: Program, op: pointwise.Rescaling, xs: Sequence[Value]) -> Value:
    return _affine(p, op, xs, [None, None, op.scale, op.offset], xs[0].mask if op.keeps_mask else None)


def _batch_normalization(p: Program, op: pointwise.BatchNormalization, xs: Sequence[Value]) -> Value:
    return _affine(p, op, xs, [None, None, *factor_and_offset(op)], xs[0].mask)


def _layer_normalization(p: Program, op: pointwise.LayerNormalization, xs: Sequence[Value]) -> Value:
    arrays = p.weight(op.gamma), p.weight(op.beta), repr(op.epsilon)
    return p.let(op, xs, "standardize", xs[0].name, *arrays, mask=xs[0].mask)


def _scaling(p: Program, op: pointwise.Scaling, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, "scaling", xs[0].name, op.offset.tolist(), op.scale.tolist(), mask=xs[0].mask)


def _unscaling(p: Program, op: pointwise.Unscaling, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, "unscaling", xs[0].name, op.offset.tolist(), op.scale.tolist(), mask=xs[0].mask)


JOINS: dict[np.ufunc, str] = {
    np.add: "a + b",
    np.subtract: "a - b",
    np.multiply: "a * b",
    np.maximum: "Math.max(a, b)",
    np.minimum: "Math.min(a, b)",
}


def _merge(p: Program, op: merging.Merge, xs: Sequence[Value]) -> Value:
    masks = masks_of_whole(TITLE, op, xs)
    xs = _of_one_shape(p, op, xs)
    mask = _joined(p, op.mask_rule, masks) if masks else None
    listed = ", ".join(x.name for x in xs)
    return p.let(op, xs, "merge", f"[{listed}]", f"(a, b) => {JOINS[op.join]}", len(xs) if op.mean else 1, mask=mask)


def _of_one_shape(p: Program, op: merging.Merge, xs: Sequence[Value]) -> list[Value]:
    """The inputs, those that are smaller repeated to the output's shape."""
    (shape,) = op.output_shapes([x.shape for x in xs])
    if any(x.shape != shape for x in xs) and any(None in x.shape for x in xs):
        refuse(TITLE, op, "its inputs are of different shapes, and their number of time steps is not known")
    return [
        x
        if x.shape == shape
        else Value(p.call("gather", x.name, places_in(x, shape).tolist(), list(shape)), shape, x.mask)
        for x in xs
    ]


def _joined(p: Program, rule: merging.MaskRule, masks: Sequence[str | None]) -> str:
    listed = ", ".join(mask or "null" for mask in masks)
    return p.call("joinMasks", f"[{listed}]", "true" if rule is merging.MaskRule.ALL else "false")


def _concatenate(p: Program, op: merging.Concatenate, xs: Sequence[Value]) -> Value:
    mask = None
    if any(x.mask for x in xs):
        if op.axis == 1 and len(xs[0].shape) > 1:
            refuse(TITLE, op, "it puts masked sequences one after the other")
        mask = _joined(p, op.mask_rule, [x.mask for x in xs])
    return p.let(op, xs, "concatenate", f"[{', '.join(x.name for x in xs)}]", op.axis - 1, mask=mask)


def _embedding(p: Program, op: temporal.Embedding, xs: Sequence[Value]) -> Value:
    mask = p.call("notZero", xs[0].name) if op.mask_zero else None
    return p.let(op, xs, "embedding", xs[0].name, p.weight(op.embeddings), op.embeddings.shape[1], mask=mask)


def _masking(p: Program, op: temporal.Masking, xs: Sequence[Value]) -> Value:
    mask = p.call("notAll", xs[0].name, repr(float(np.float32(op.mask_value))))
    return p.let(op, xs, "zeroed", xs[0].name, mask, mask=mask)


def _conv1d(p: Program, op: windows.Convolution, xs: Sequence[Value]) -> Value:
    window, kernel = _window(window_of(TITLE, op)), kernel_in_one_group(op)
    arrays = p.weight(kernel), p.weight(op.bias), kernel.shape[-1]
    return p.let(op, xs, "conv1d", xs[0].name, *arrays, window, p.activation(op, op.activation))


def _window(window: windows.Window) -> str:
    fields = {"size": window.size, "stride": window.stride, "dilation": window.dilation, "padding": window.padding}
    return json.dumps(fields)


def _pooling(p: Program, op: windows.Pooling, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, "pool", xs[0].name, str(op.average).lower(), _window(window_of(TITLE, op)))


def _global_pooling(p: Program, op: temporal.GlobalPooling1D, xs: Sequence[Value]) -> Value:
    flags = str(op.average).lower(), str(op.keepdims).lower()
    return p.let(op, xs, "poolAll", xs[0].name, xs[0].mask or "null", *flags)


def _repeat_vector(p: Program, op: temporal.RepeatVector, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, "repeat", xs[0].name, op.n)


def _reshape(p: Program, op: temporal.Reshape, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, "reshape", xs[0].name, list(op.target))


def _permute(p: Program, op: temporal.Permute, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, "permute", xs[0].name, [dim - 1 for dim in op.dims])


def _time_distributed(p: Program, op: wrappers.TimeDistributed, xs: Sequence[Value]) -> Value:
    inner = Program(p.write_operation, weights=p.weights, functions=p.functions, count=p.count)
    y = write_inside(TITLE, op, Value("x", xs[0].shape[1:]), inner.write)
    p.count = inner.count
    body = "\n".join([*(f"    {line}" for line in inner.lines), f"    return {y.name};"])
    return p.let(op, xs, "eachStep", xs[0].name, f"(x) => {{\n{body}\n  }}", mask=xs[0].mask)


TABLE: dict[type, Support] = {
    pointwise.Identity: Support(_identity),
    pointwise.Dense: Support(_dense),
    pointwise.Activate: Support(_activate),
    pointwise.PReLU: Support(_prelu),
    pointwise.Normalization: Support(_normalization),
    pointwise.Rescaling: Support(_rescaling),
    pointwise.BatchNormalization: Support(_batch_normalization),
    pointwise.LayerNormalization: Support(_layer_normalization),
    pointwise.Scaling: Support(_scaling),
    pointwise.Unscaling: Support(_unscaling),
    merging.Merge: Support(_merge, NOTHING_LEFT_OUT),
    merging.Concatenate: Support(_concatenate, NO_MASKS_IN_TIME),
    temporal.Embedding: Support(_embedding),
    temporal.Masking: Support(_masking),
    windows.Convolution: Support(_conv1d, TIME_ALONE),
    windows.Pooling: Support(_pooling, TIME_ALONE),
    temporal.GlobalPooling1D: Support(_global_pooling),
    temporal.RepeatVector: Support(_repeat_vector),
    temporal.Reshape: Support(_reshape),
    temporal.Permute: Support(_permute),
    **dict.fromkeys(BETWEEN, Support(None, NOT_YET)),
    recurrent.LSTM: Support(write_recurrent),
    recurrent.GRU: Support(write_recurrent),
    recurrent.SimpleRNN: Support(write_recurrent),
    wrappers.Stacked: Support(write_stacked),
    wrappers.Bidirectional: Support(write_bidirectional),
    wrappers.TimeDistributed: Support(_time_distributed),
}


def _write(p: Program, op: Operation, xs: Sequence[Value]) -> Value:
    written: Value = writer_of(TITLE, TABLE, op)(p, op, xs)
    return written


def build(model: Model, golden: Golden) -> dict[str, bytes]:
    """The module with its weights in it, its types, the golden predictions, and a check of them."""
    program = Program(_write)
    last = walk(model, Value("x", model.input_shape), program.write)
    weights = b"".join(array.astype("<f4").tobytes() for array in program.weights)
    about = model.about
    names = {"shape": _words(model.input_shape), "output": _words(model.output_shape)}
    always = {name: functions("functions.mjs")[name] for name in ("value", "nested")}
    text = filled(
        "model.mjs",
        header="\n".join(f"// {line}" for line in header(model)),
        classes=_text(about.classes),
        features=_text(None if about.features is None else [feature.name for feature in about.features]),
        weights=base64.b64encode(weights).decode("ascii"),
        count=len(weights) // 4,
        functions="\n\n".join((always | program.functions).values()),
        sizes=json.dumps(model.input_shape),
        narrow=str(not scaled_by_card(model)).lower(),
        lines="\n".join(f"  {line}" for line in program.lines),
        last=last.name,
        **names,
    )
    unit = np.broadcast_to(golden.unit, golden.y.shape[1:]).ravel().tolist()  # above which a difference is relative
    predictions = {"x": golden.x.tolist(), "y": golden.y.astype(np.float64).tolist(), "unit": unit}
    return {
        "model.mjs": text.encode("ascii"),
        "model.d.mts": filled("model.d.mts", **names).encode("ascii"),
        "model.golden.json": json.dumps(predictions).encode("ascii"),
        "check.mjs": filled("check.mjs", whose=golden.whose, tolerance=repr(model.origin.tolerance)).encode("ascii"),
    }


def _words(shape: Shape) -> str:
    return "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"


def _text(listed: Sequence[str] | None) -> str:
    """Names as JSON, which is JavaScript once it is ASCII."""
    return json.dumps(listed)


def run(path: Path, x: Numbers) -> Array | str:
    """What node answers with the module."""
    node = shutil.which("node")
    if node is None:
        return "node is not installed here"
    (path / "x.json").write_text(json.dumps(x.tolist()), "utf-8")
    command = [node, "check.mjs", "x.json", "y.json"]
    subprocess.run(command, cwd=path, check=True, capture_output=True)  # noqa: S603 - our own program
    return np.array(json.loads((path / "y.json").read_text("utf-8")), np.float32)


TARGET = Target(TITLE, is_folder=True, suffix="-js", table=TABLE, activations=ACTIVATIONS, build=build, run=run)
