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
from typing import Any

import numpy as np

from lstm_serve.engine.operations import (
    conv_lstm,
    merging,
    pointwise,
    recurrent,
    temporal,
    windows,
    wrappers,
)
from lstm_serve.engine.operations.arithmetic import Binary, MatMul, Reduce, Slice
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.engine.types import AnyArray, Array, Shape
from lstm_serve.export.artifact import Golden, header, plain
from lstm_serve.export.formulas import ACTIVATIONS
from lstm_serve.export.js_writer import TITLE, JsProgram, joining
from lstm_serve.export.library import filled, functions
from lstm_serve.export.operation import (
    NO_CONV_LSTM,
    NOTHING_LEFT_OUT,
    REDUCTIONS,
    TIME_ALONE,
    Affine,
    Support,
    Target,
    Value,
    affine_of,
    both_biases,
    functions_of,
    join_directions,
    joined_mask,
    joins_in_time,
    kernel_in_one_group,
    mask_for,
    operands,
    refuse_left_out,
    walk,
    window_of,
    write_directions,
    write_nothing,
    write_stacked,
)
from lstm_serve.model.model import Model


def _dense(p: JsProgram, op: pointwise.Dense, xs: Sequence[Value]) -> Value:
    arrays = p.weight(op.kernel), p.weight(op.bias), op.kernel.shape[1]
    return p.let(op, xs, "dense", xs[0].name, *arrays, p.activation(op, op.activation))


def _activate(p: JsProgram, op: pointwise.Activate, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, "activate", xs[0].name, p.activation(op, op.activation))


def _affine(p: JsProgram, op: Affine, xs: Sequence[Value]) -> Value:
    spread = (p.weight(None if array is None else _spread(array, xs[0].shape)) for array in affine_of(op))
    return p.let(op, xs, "affine", xs[0].name, *spread)


def _spread(array: AnyArray, shape: Shape) -> AnyArray:
    """An array that broadcasts against x, as one that is repeated over its numbers."""
    if array.ndim < 2 or array.size == array.shape[-1]:
        return np.broadcast_to(array.ravel() if array.ndim else array, (shape[-1] or 1,))
    return np.broadcast_to(array, [size or 1 for size in shape])


def _prelu(p: JsProgram, op: pointwise.PReLU, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, "prelu", xs[0].name, p.weight(_spread(op.alpha, xs[0].shape)))


def _layer_normalization(p: JsProgram, op: pointwise.LayerNormalization, xs: Sequence[Value]) -> Value:
    arrays = p.weight(op.gamma), p.weight(op.beta), op.epsilon
    return p.let(op, xs, "standardize", xs[0].name, *arrays)


def _in_double(p: JsProgram, op: pointwise.Scaling | pointwise.Unscaling, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, type(op).__name__.lower(), xs[0].name, op.offset.tolist(), op.scale.tolist())


def _merge(p: JsProgram, op: merging.Merge, xs: Sequence[Value]) -> Value:
    refuse_left_out(TITLE, op, xs)
    return p.let(op, xs, "merge", _list(xs), joining(op.join), len(xs) if op.mean else 1, mask=_mask(p, op, xs))


def _list(xs: Sequence[Value]) -> str:
    return f"[{', '.join(x.name for x in xs)}]"


def _mask(p: JsProgram, op: merging.Merge | merging.Concatenate, xs: Sequence[Value]) -> str | None:
    every = op.mask_rule is merging.MaskRule.ALL
    return joined_mask(op, xs, lambda a, b: p.call("joinMasks", a, b, every))


def _concatenate(p: JsProgram, op: merging.Concatenate, xs: Sequence[Value]) -> Value:
    if joins_in_time(op, xs):
        mask: str | None = p.call("masksInTime", _list(xs), f"[{', '.join(x.mask or 'null' for x in xs)}]")
    else:
        mask = _mask(p, op, xs)
    return p.let(op, xs, "concatenate", _list(xs), op.axis - 1, mask=mask)


def _embedding(p: JsProgram, op: temporal.Embedding, xs: Sequence[Value]) -> Value:
    mask = p.call("notZero", xs[0].name) if op.mask_zero else None
    return p.let(op, xs, "embedding", xs[0].name, p.weight(op.embeddings), op.embeddings.shape[1], mask=mask)


def _masking(p: JsProgram, op: temporal.Masking, xs: Sequence[Value]) -> Value:
    mask = p.call("notAll", xs[0].name, float(np.float32(op.mask_value)))
    return p.let(op, xs, "zeroed", xs[0].name, mask, mask=mask)


def _conv1d(p: JsProgram, op: windows.Convolution, xs: Sequence[Value]) -> Value:
    window, kernel = _window(window_of(TITLE, op)), kernel_in_one_group(op)
    arrays = p.weight(kernel), p.weight(op.bias), kernel.shape[-1]
    return p.let(op, xs, "conv1d", xs[0].name, *arrays, window, p.activation(op, op.activation))


def _window(window: windows.Window) -> str:
    fields = {"size": window.size, "stride": window.stride, "dilation": window.dilation, "padding": window.padding}
    return json.dumps(fields)


def _pooling(p: JsProgram, op: windows.Pooling, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, "pool", xs[0].name, op.average, _window(window_of(TITLE, op)))


def _global_pooling(p: JsProgram, op: temporal.GlobalPooling1D, xs: Sequence[Value]) -> Value:
    flags = op.average, op.keepdims
    return p.let(op, xs, "poolAll", xs[0].name, xs[0].mask, *flags)


def _repeat_vector(p: JsProgram, op: temporal.RepeatVector, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, "repeat", xs[0].name, op.n)


def _reshape(p: JsProgram, op: temporal.Reshape, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, "reshape", xs[0].name, list(op.target))


def _permute(p: JsProgram, op: temporal.Permute, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, "permute", xs[0].name, [dim - 1 for dim in op.dims])


def _slice(p: JsProgram, op: Slice, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, "slice", xs[0].name, [[part.start, part.stop, part.step] for part in op.slices])


def _binary(p: JsProgram, op: Binary, xs: Sequence[Value]) -> Value:
    both = operands(op, xs, lambda numbers: f"{{ d: {p.weight(numbers)}, s: {list(numbers.shape)} }}")
    return p.let(op, xs, "merge", f"[{', '.join(both)}]", joining(op.function), 1)


def _reduce(p: JsProgram, op: Reduce, xs: Sequence[Value]) -> Value:
    axes, join = [axis - 1 for axis in op.axes], joining(REDUCTIONS[op.function])
    return p.let(op, xs, "reduce", xs[0].name, axes, join, op.function == "mean", op.keepdims)


def _matmul(p: JsProgram, op: MatMul, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, "matmul", xs[0].name, xs[1].name)


def _masked_by(p: JsProgram, op: merging.MaskedBy, xs: Sequence[Value]) -> Value:
    x, mask = xs[0], xs[1].mask
    return x._replace(mask=mask) if mask is None or not op.zeroed else p.let(op, xs, "zeroed", x.name, mask, mask=mask)


CELLS = {recurrent.LSTM: "lstm", recurrent.GRU: "gru", recurrent.SimpleRNN: "simpleRnn"}


def _recurrent(p: JsProgram, op: Recurrent, xs: Sequence[Value]) -> Value:
    is_gru = isinstance(op, recurrent.GRU)
    arrays = op.kernel, op.recurrent_kernel, both_biases(op) if is_gru else op.bias
    functions = (p.activation(op, each) for each in functions_of(op))
    options = [op.reset_after] if isinstance(op, recurrent.GRU) else []
    cell = p.call(CELLS[type(op)], op.units, *map(p.weight, arrays), *functions, *options)
    flags = op.return_sequences, op.go_backwards, op.zero_output_for_mask
    y = p.let(op, xs, "scan", xs[0].name, mask_for(op, xs[0]), cell, op.units, len(op.carried), _list(xs[1:]), *flags)
    ends = range(len(op.carried)) if op.return_state else ()
    return y._replace(states=tuple(Value(f"{y.name}.states[{k}]", (op.units,)) for k in ends))


def _stacked(p: JsProgram, op: wrappers.Stacked, xs: Sequence[Value]) -> Value:
    return write_stacked(p.write, lambda mask: p.call("reverseMask", mask), op, xs)


def _bidirectional(p: JsProgram, op: wrappers.Bidirectional, xs: Sequence[Value]) -> Value:
    both = write_directions(p.write, lambda x: p.call("reverse", x.name), op, xs)
    return join_directions(p.write, op, *both)


def _time_distributed(p: JsProgram, op: wrappers.TimeDistributed, xs: Sequence[Value]) -> Value:
    lines, y = p.inside(op, Value("x", xs[0].shape[1:], ids=xs[0].ids))
    body = "\n".join([*(f"    {line}" for line in lines), f"    return {y.name};"])
    return p.let(op, xs, "eachStep", xs[0].name, f"(x) => {{\n{body}\n  }}")


TABLE: dict[type, Support] = {
    pointwise.Identity: Support(write_nothing),
    pointwise.Dense: Support(_dense),
    pointwise.Activate: Support(_activate),
    pointwise.PReLU: Support(_prelu),
    **dict.fromkeys((pointwise.Normalization, pointwise.Rescaling, pointwise.BatchNormalization), Support(_affine)),
    pointwise.LayerNormalization: Support(_layer_normalization),
    **dict.fromkeys((pointwise.Scaling, pointwise.Unscaling), Support(_in_double)),
    merging.Merge: Support(_merge, NOTHING_LEFT_OUT),
    merging.Concatenate: Support(_concatenate),
    temporal.Embedding: Support(_embedding),
    temporal.Masking: Support(_masking),
    windows.Convolution: Support(_conv1d, TIME_ALONE),
    windows.Pooling: Support(_pooling, TIME_ALONE),
    temporal.GlobalPooling1D: Support(_global_pooling),
    temporal.RepeatVector: Support(_repeat_vector),
    temporal.Reshape: Support(_reshape),
    temporal.Permute: Support(_permute),
    Slice: Support(_slice),
    Binary: Support(_binary),
    Reduce: Support(_reduce),
    MatMul: Support(_matmul),
    merging.MaskedBy: Support(_masked_by),
    **dict.fromkeys((recurrent.LSTM, recurrent.GRU, recurrent.SimpleRNN), Support(_recurrent)),
    conv_lstm.ConvLSTM: Support(None, NO_CONV_LSTM),
    wrappers.Stacked: Support(_stacked),
    wrappers.Bidirectional: Support(_bidirectional),
    wrappers.TimeDistributed: Support(_time_distributed),
}


def build(model: Model, golden: Golden) -> dict[str, bytes]:
    """The module with its weights in it, its types, the golden predictions, and a check of them."""
    program = JsProgram(TABLE)
    given = [Value.given(f"x{k}", spec) for k, spec in enumerate(model.inputs)]
    results = walk(model.nodes, given, model.results, program.write)
    weights = b"".join(array.astype("<f4").tobytes() for array in program.weights)
    about = model.about
    takes, gives = [spec.name for spec in model.inputs], [spec.name for spec in model.outputs]
    words = {
        "shape": ", ".join(_words(spec.name, spec.shape) for spec in model.inputs),
        "output": ", ".join(_words(spec.name, spec.shape) for spec in model.outputs),
    }
    read = "input" if len(takes) == 1 else "input[{name}]"
    values = [
        f"const {x.name} = value({read.format(name=_text(name))}, {_text(x.shape)}, {_text(spec.dtype != np.float64)});"
        for x, name, spec in zip(given, takes, model.inputs, strict=True)
    ]
    always = {name: functions("functions.mjs")[name] for name in ("value", "nested")}
    text = filled(
        "model.mjs",
        header="\n".join(f"// {line}" for line in header(model)),
        classes=_text(about.classes),
        features=_text(None if about.features is None else [feature.name for feature in about.features]),
        weights=base64.b64encode(weights).decode("ascii"),
        count=len(weights) // 4,
        functions="\n\n".join((always | program.functions).values()),
        lines="\n".join(f"  {line}" for line in [*values, *program.lines]),
        result=_by_name(gives, [f"nested({y.name}.d, {y.name}.s)" for y in results]),
        **words,
    )
    units = [
        np.broadcast_to(unit, y.shape[1:]).tolist() for unit, y in zip(golden.units, golden.ys, strict=True)
    ]  # above which a difference is relative
    predictions = {
        "x": _rows(takes, golden.xs),
        "y": _rows(gives, [y.astype(np.float64) for y in golden.ys]),
        "unit": units[0] if len(gives) == 1 else dict(zip(map(str, gives), units, strict=True)),
    }
    types = {
        "input": _by_name(takes, ["Nested | ArrayLike<number>"] * len(takes), ";"),
        "result": _by_name(gives, ["Nested"] * len(gives), ";"),
    }
    return {
        "model.mjs": text.encode("ascii"),
        "model.d.mts": filled("model.d.mts", **words, **types).encode("ascii"),
        "model.golden.json": json.dumps(predictions).encode("ascii"),
        "check.mjs": filled("check.mjs", whose=golden.whose, tolerance=repr(model.origin.tolerance)).encode("ascii"),
    }


def _by_name(names: Sequence[str | None], values: Sequence[str], end: str = ",") -> str:
    """The one value, or an object of several: brackets make any name one of its own, __proto__ too."""
    if len(values) == 1:
        return values[0]
    pairs = (f"[{_text(name)}]: {value}{end}" for name, value in zip(names, values, strict=True))
    return f"{{ {' '.join(pairs)} }}"


def _rows(names: Sequence[str | None], arrays: Sequence[AnyArray]) -> list[Any]:
    """The rows of one input or output; of several objects by name."""
    if len(names) == 1:
        return list(arrays[0].tolist())
    rows = zip(*(array.tolist() for array in arrays), strict=True)
    return [dict(zip(map(str, names), row, strict=True)) for row in rows]


def _words(name: str | None, shape: Shape) -> str:
    sizes = "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"
    return sizes if name is None else f"{plain(name)} {sizes}"


def _text(value: object) -> str:
    """JSON, which is JavaScript once it is ASCII."""
    return json.dumps(value)


def run(path: Path, xs: Sequence[AnyArray]) -> list[Array] | str:
    """What node answers with the module."""
    node = shutil.which("node")
    if node is None:
        return "node is not installed here"
    golden = json.loads((path / "model.golden.json").read_text("ascii"))
    names = [*golden["x"][0]] if isinstance(golden["x"][0], dict) else [None]
    (path / "x.json").write_text(json.dumps(_rows(names, xs)), "ascii")
    command = [node, "check.mjs", "x.json", "y.json"]
    subprocess.run(command, cwd=path, check=True, capture_output=True)  # noqa: S603 - our own program
    rows = json.loads((path / "y.json").read_text("utf-8"))
    outputs = [*golden["y"][0]] if isinstance(golden["y"][0], dict) else None
    if outputs is None:
        return [np.array(rows, np.float32)]
    return [np.array([row[name] for row in rows], np.float32) for name in outputs]


TARGET = Target(TITLE, is_folder=True, suffix="-js", table=TABLE, activations=ACTIVATIONS, build=build, run=run)
