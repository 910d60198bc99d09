"""NumPy: the model as a Python program that reads its weights from an .npz and needs NumPy alone.

Values are arrays (n, ...), masks bool (n, T), as in the engine, whose formulas the functions below repeat in short.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

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
from lstm_serve.engine.types import AnyArray, Array
from lstm_serve.export.artifact import Golden, header, npz
from lstm_serve.export.formulas import ACTIVATIONS
from lstm_serve.export.library import filled
from lstm_serve.export.numpy_writer import TITLE, NumpyProgram
from lstm_serve.export.operation import (
    NO_CONV_LSTM,
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
    leaves_steps_out,
    mask_for,
    operands,
    walk,
    window_of,
    write_directions,
    write_nothing,
    write_stacked,
)
from lstm_serve.model.model import Model


def _dense(p: NumpyProgram, op: pointwise.Dense, xs: Sequence[Value]) -> Value:
    sums = f"{xs[0].name} @ {p.weight(op.kernel)} + {p.weight(op.bias)}"
    return p.let(op, xs, f"{p.activation(op, op.activation)}({sums})")


def _activate(p: NumpyProgram, op: pointwise.Activate, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, f"{p.activation(op, op.activation)}({xs[0].name})")


def _prelu(p: NumpyProgram, op: pointwise.PReLU, xs: Sequence[Value]) -> Value:
    x = xs[0].name
    return p.let(op, xs, f"np.maximum({x}, 0) + {p.weight(op.alpha)} * np.minimum({x}, 0)")


def _affine(p: NumpyProgram, op: Affine, xs: Sequence[Value]) -> Value:
    code = xs[0].name
    for sign, array in zip("-/*+", affine_of(op), strict=True):
        if array is not None:
            code = f"{code} {sign} {p.weight(array)}"
            code = f"({code})" if sign == "-" else code
    return p.let(op, xs, code)


def _layer_normalization(p: NumpyProgram, op: pointwise.LayerNormalization, xs: Sequence[Value]) -> Value:
    gamma = "np.float32(1)" if op.gamma is None else p.weight(op.gamma)
    code = f"{p.call('standardize')}({xs[0].name}, {gamma}, {p.weight(op.beta)}, {op.epsilon!r})"
    return p.let(op, xs, code)


def _scaling(p: NumpyProgram, op: pointwise.Scaling, xs: Sequence[Value]) -> Value:
    code = f"(({xs[0].name} - {p.weight(op.offset)}) / {p.weight(op.scale)}).astype(np.float32)"
    return p.let(op, xs, code)


def _unscaling(p: NumpyProgram, op: pointwise.Unscaling, xs: Sequence[Value]) -> Value:
    code = f"({xs[0].name} * {p.weight(op.scale)} + {p.weight(op.offset)}).astype(np.float32)"
    return p.let(op, xs, code)


def _merge(p: NumpyProgram, op: merging.Merge, xs: Sequence[Value]) -> Value:
    mask = _mask(p, op, xs)
    join = f"np.{op.join.__name__}"
    names = [x.name for x in xs]
    left_out = leaves_steps_out(op, xs)
    if left_out and op.join is np.multiply:
        names = [f"{p.call('masked')}({x.name}, {x.mask}, np.float32(1))" for x in xs]
    elif left_out:
        return _extreme(p, op, xs, mask)
    code = names[0]
    for name in names[1:]:
        code = f"{join}({code}, {name})"
    if op.mean:
        code = f"{code} / np.float32({len(xs)})"
    if left_out and mask is not None:
        code = f"{p.call('masked')}({code}, {mask}, np.float32(0))"
    return p.let(op, xs, code, mask)


def _extreme(p: NumpyProgram, op: merging.Merge, xs: Sequence[Value], mask: str | None) -> Value:
    """At a masked step the other input stands for the masked one."""
    masked, y, known = p.call("masked"), xs[0].name, xs[0].mask
    for x in xs[1:]:
        there = p.let(op, xs, f"{masked}({x.name}, {x.mask}, {y})").name
        y = p.let(op, xs, f"np.{op.join.__name__}({masked}({y}, {known}, {there}), {there})").name
        known = p.let_mask(f"{known} | {x.mask}") if known and x.mask else None
    return p.let(op, xs, y, mask)


def _mask(p: NumpyProgram, op: merging.Merge | merging.Concatenate, xs: Sequence[Value]) -> str | None:
    sign = "&" if op.mask_rule is merging.MaskRule.ALL else "|"
    return joined_mask(op, xs, lambda a, b: p.let_mask(f"{a} {sign} {b}"))


def _concatenate(p: NumpyProgram, op: merging.Concatenate, xs: Sequence[Value]) -> Value:
    if joins_in_time(op, xs):
        masks = [x.mask or f"np.ones({x.name}.shape[:2], bool)" for x in xs]
        mask: str | None = p.let_mask(f"np.concatenate([{', '.join(masks)}], axis=1)")
    else:
        mask = _mask(p, op, xs)
    return p.let(op, xs, f"np.concatenate([{', '.join(x.name for x in xs)}], axis={op.axis})", mask)


def _embedding(p: NumpyProgram, op: temporal.Embedding, xs: Sequence[Value]) -> Value:
    mask = p.let_mask(f"{xs[0].name} != 0") if op.mask_zero else None
    return p.let(op, xs, f"{p.weight(op.embeddings)}[{xs[0].name}]", mask)


def _masking(p: NumpyProgram, op: temporal.Masking, xs: Sequence[Value]) -> Value:
    mask = p.let_mask(f"({xs[0].name} != np.float32({op.mask_value!r})).any(axis=-1)")
    return p.let(op, xs, f"{xs[0].name} * {mask}[..., None]", mask)


def _conv1d(p: NumpyProgram, op: windows.Convolution, xs: Sequence[Value]) -> Value:
    along = window_of(TITLE, op)
    window = f"{along.stride}, {along.dilation}, {along.padding!r}"
    code = f"{p.call('conv1d')}({xs[0].name}, {p.weight(kernel_in_one_group(op))}, {p.weight(op.bias)}, {window})"
    return p.let(op, xs, f"{p.activation(op, op.activation)}({code})")


def _pooling(p: NumpyProgram, op: windows.Pooling, xs: Sequence[Value]) -> Value:
    along = window_of(TITLE, op)
    window = f"{along.size}, {along.stride}, {along.dilation}, {along.padding!r}"
    return p.let(op, xs, f"{p.call('pool')}({xs[0].name}, {op.average}, {window})")


def _global_pooling(p: NumpyProgram, op: temporal.GlobalPooling1D, xs: Sequence[Value]) -> Value:
    x = xs[0]
    code = f"{x.name}.{'mean' if op.average else 'max'}(1, keepdims=True)"
    if op.average and x.mask is not None:
        code = f"{p.call('average')}({x.name}, {x.mask})"
    return p.let(op, xs, code if op.keepdims else f"{code}[:, 0]")


def _repeat_vector(p: NumpyProgram, op: temporal.RepeatVector, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, f"np.repeat({xs[0].name}[:, None], {op.n}, axis=1)")


def _reshape(p: NumpyProgram, op: temporal.Reshape, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, f"{xs[0].name}.reshape(len({xs[0].name}), *{op.target})")


def _permute(p: NumpyProgram, op: temporal.Permute, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, f"{xs[0].name}.transpose(0, *{op.dims})")


def _slice(p: NumpyProgram, op: Slice, xs: Sequence[Value]) -> Value:
    ends = ([part.start, part.stop, part.step] for part in op.slices)
    taken = (":".join("" if end is None else str(end) for end in each).removesuffix(":") for each in ends)
    return p.let(op, xs, f"{xs[0].name}[{', '.join([':', *(part or ':' for part in taken)])}]")


def _binary(p: NumpyProgram, op: Binary, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, f"np.{op.function.__name__}({', '.join(operands(op, xs, p.weight))})")


def _reduce(p: NumpyProgram, op: Reduce, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, f"{xs[0].name}.{op.function}({op.axes}, keepdims={op.keepdims})")


def _matmul(p: NumpyProgram, op: MatMul, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, f"{xs[0].name} @ {xs[1].name}")


def _masked_by(p: NumpyProgram, op: merging.MaskedBy, xs: Sequence[Value]) -> Value:
    x, mask = xs[0], xs[1].mask
    if mask is None or not op.zeroed:
        return x._replace(mask=mask)
    return p.let(op, xs, f"{x.name} * {mask}[:, :{', None' * (len(x.shape) - 1)}]", mask)


CELLS = {recurrent.LSTM: "lstm", recurrent.GRU: "gru", recurrent.SimpleRNN: "simple_rnn"}


def _recurrent(p: NumpyProgram, op: Recurrent, xs: Sequence[Value]) -> Value:
    is_gru = isinstance(op, recurrent.GRU)
    arrays = op.kernel, op.recurrent_kernel, *(both_biases(op) if is_gru else [op.bias])
    options = [str(op.reset_after)] if isinstance(op, recurrent.GRU) else []
    cell = [*(p.activation(op, each) for each in functions_of(op)), *options, *map(p.weight, arrays)]
    step = f"{p.call(CELLS[type(op)])}({', '.join(cell)})"
    x, widths = xs[0], [op.units] * len(op.carried)
    flags = f"{op.return_sequences}, {op.go_backwards}, {op.zero_output_for_mask}"
    given = "".join(f", {state.name}" for state in xs[1:])
    code = f"{p.call('scan')}({step}, {widths}, {x.name}, {mask_for(op, x)}, {flags}{given})"
    if not op.return_state:
        return p.let(op, xs, f"{code}[0]")
    p.count += 1
    p.lines.append(f"y{p.count} = {code}")
    y = p.let(op, xs, f"y{p.count}[0]")
    ends = (Value(f"y{p.count - 1}[{k}]", (op.units,)) for k in range(1, len(op.carried) + 1))
    return y._replace(states=tuple(ends))


def _stacked(p: NumpyProgram, op: wrappers.Stacked, xs: Sequence[Value]) -> Value:
    return write_stacked(p.write, lambda mask: p.let_mask(f"{mask}[:, ::-1]"), op, xs)


def _bidirectional(p: NumpyProgram, op: wrappers.Bidirectional, xs: Sequence[Value]) -> Value:
    both = write_directions(p.write, lambda x: f"{x.name}[:, ::-1]", op, xs)
    return join_directions(p.write, op, *both)


def _time_distributed(p: NumpyProgram, op: wrappers.TimeDistributed, xs: Sequence[Value]) -> Value:
    p.count += 1
    lines, y = p.inside(op, Value("x", xs[0].shape[1:], ids=xs[0].ids))
    p.lines += [f"def layer{p.count}(x):", *(f"    {line}" for line in lines), f"    return {y.name}"]
    return p.let(op, xs, f"{p.call('each_step')}({xs[0].name}, layer{p.count})")


TABLE: dict[type, Support] = {
    pointwise.Identity: Support(write_nothing),
    pointwise.Dense: Support(_dense),
    pointwise.Activate: Support(_activate),
    pointwise.PReLU: Support(_prelu),
    **dict.fromkeys((pointwise.Normalization, pointwise.Rescaling, pointwise.BatchNormalization), Support(_affine)),
    pointwise.LayerNormalization: Support(_layer_normalization),
    pointwise.Scaling: Support(_scaling),
    pointwise.Unscaling: Support(_unscaling),
    merging.Merge: Support(_merge),
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
    """The program, its weights, and the golden predictions."""
    program = NumpyProgram(TABLE)
    given = [Value.given(f"x{k}", spec) for k, spec in enumerate(model.inputs)]
    results = walk(model.nodes, given, model.results, program.write)
    text = filled(
        "model.py.txt",
        header="\n".join(f"# {line}" for line in header(model)),
        whose=golden.whose,
        inputs=_listed([(spec.name, spec.shape, spec.dtype.name) for spec in model.inputs]),
        outputs=_listed([(spec.name, spec.shape) for spec in model.outputs]),
        classes=ascii(model.about.classes),
        count=len(program.weights),
        functions="\n\n\n".join(program.functions.values()),
        given=", ".join(x.name for x in given),
        lines="\n".join(f"        {line}" for line in program.lines),
        results=", ".join(y.name for y in results),
        units=[unit.tolist() for unit in golden.units],
        tolerance=repr(model.origin.tolerance),
    )
    return {
        "model.py": text.encode("ascii"),
        "model.npz": npz(**{f"w{k}": np.asarray(array) for k, array in enumerate(program.weights)}),
        "model.golden.npz": npz(**golden.arrays),
    }


def _listed(values: Sequence[tuple[object, ...]]) -> str:
    return "\n".join(["[", *(f"    {value!a}," for value in values), "]"])


def run(path: Path, xs: Sequence[AnyArray]) -> list[Array] | str:
    """What the program answers, in a Python of its own."""
    np.savez(path / "x.npz", *xs)
    command = [sys.executable, "-I", "model.py", "x.npz", "y.npz"]
    subprocess.run(command, cwd=path, check=True, capture_output=True)  # noqa: S603 - our own program
    with np.load(path / "y.npz") as arrays:
        return [arrays[name] for name in arrays.files]


TARGET = Target(TITLE, is_folder=True, suffix="-numpy", table=TABLE, activations=ACTIVATIONS, build=build, run=run)
