"""NumPy: the model as a Python program that reads its weights from an .npz and needs NumPy alone.

Values are arrays (n, ...), masks bool (n, T), as in the engine, whose formulas the functions below repeat in short.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.operations import merging, pointwise, recurrent, temporal, windows, wrappers
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.engine.types import Array
from lstm_serve.explain.describe.description import axes
from lstm_serve.export.artifact import Golden, Numbers, header, npz
from lstm_serve.export.library import add_called, filled, functions
from lstm_serve.export.numpy_activations import ACTIVATIONS
from lstm_serve.export.operation import (
    BETWEEN,
    NOT_YET,
    TIME_ALONE,
    Support,
    Target,
    Value,
    activation_of,
    both_biases,
    called,
    deviation,
    factor_and_offset,
    kernel_in_one_group,
    leaves_steps_out,
    masks_to_merge,
    walk,
    window_of,
    write_inside,
    write_stacked,
    writer_of,
)
from lstm_serve.model.model import Model

TITLE = "NumPy"


@dataclass
class _Program:
    """Lines of `predict` as they come, the weights they use, and the functions they call."""

    lines: list[str] = field(default_factory=list)
    weights: list[Numbers] = field(default_factory=list)
    functions: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def write(self, op: Operation, xs: Sequence[Value]) -> Value:
        """An operation, under a comment that says which."""
        self.lines.append(f"# {called(op)}")
        written: Value = writer_of(TITLE, TABLE, op)(self, op, xs)
        return written

    def let(self, op: Operation, xs: Sequence[Value], code: str, mask: str | None = None) -> Value:
        """A name for the operation's output, which `code` computes."""
        self.count += 1
        self.lines.append(f"y{self.count} = {code}")
        return Value(f"y{self.count}", op.output_shapes([x.shape for x in xs])[0], mask)

    def let_mask(self, code: str) -> str:
        """A name for a mask."""
        self.count += 1
        self.lines.append(f"m{self.count} = {code}")
        return f"m{self.count}"

    def weight(self, array: Numbers | None) -> str:
        """The place of an array; 0 stands for a bias that is not there."""
        if array is None:
            return "np.float32(0)"
        self.weights.append(array)
        return f"W[{len(self.weights) - 1}]"

    def call(self, function: str) -> str:
        """The name of a function, which is then written."""
        add_called(f"{function}()", functions("functions.py.txt"), self.functions)
        return function

    def activation(self, op: Operation, activation: Activation) -> str:
        """The name of an activation's function."""
        code = activation_of(TITLE, ACTIVATIONS, op, activation).format(**activation.parameters)
        add_called(code, functions("functions.py.txt"), self.functions)
        code = code.replace("float32(inf)", 'float32("inf")')
        name = activation.kind
        number = 2
        while (made := f"def {name}(x):\n    return {code}") != self.functions.setdefault(name, made):
            name, number = f"{activation.kind}_{number}", number + 1
        return name


def _identity(p: _Program, op: Operation, xs: Sequence[Value]) -> Value:
    return xs[0]


def _dense(p: _Program, op: pointwise.Dense, xs: Sequence[Value]) -> Value:
    sums = f"{xs[0].name} @ {p.weight(op.kernel)} + {p.weight(op.bias)}"
    return p.let(op, xs, f"{p.activation(op, op.activation)}({sums})", xs[0].mask)


def _activate(p: _Program, op: pointwise.Activate, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, f"{p.activation(op, op.activation)}({xs[0].name})", xs[0].mask)


def _prelu(p: _Program, op: pointwise.PReLU, xs: Sequence[Value]) -> Value:
    x = xs[0].name
    return p.let(op, xs, f"np.maximum({x}, 0) + {p.weight(op.alpha)} * np.minimum({x}, 0)", xs[0].mask)


def _normalization(p: _Program, op: pointwise.Normalization, xs: Sequence[Value]) -> Value:
    code = f"({xs[0].name} - {p.weight(op.mean)}) / {p.weight(deviation(op))}"
    return p.let(op, xs, code, xs[0].mask if op.keeps_mask else None)


def _rescaling(p: _Program, op: pointwise.Rescaling, xs: Sequence[Value]) -> Value:
    code = f"{xs[0].name} * {p.weight(op.scale)} + {p.weight(op.offset)}"
    return p.let(op, xs, code, xs[0].mask if op.keeps_mask else None)


def _batch_normalization(p: _Program, op: pointwise.BatchNormalization, xs: Sequence[Value]) -> Value:
    factor, offset = factor_and_offset(op)
    return p.let(op, xs, f"{xs[0].name} * {p.weight(factor)} + {p.weight(offset)}", xs[0].mask)


def _layer_normalization(p: _Program, op: pointwise.LayerNormalization, xs: Sequence[Value]) -> Value:
    gamma = "np.float32(1)" if op.gamma is None else p.weight(op.gamma)
    code = f"{p.call('standardize')}({xs[0].name}, {gamma}, {p.weight(op.beta)}, {op.epsilon!r})"
    return p.let(op, xs, code, xs[0].mask)


def _scaling(p: _Program, op: pointwise.Scaling, xs: Sequence[Value]) -> Value:
    code = f"(({xs[0].name} - {p.weight(op.offset)}) / {p.weight(op.scale)}).astype(np.float32)"
    return p.let(op, xs, code, xs[0].mask)


def _unscaling(p: _Program, op: pointwise.Unscaling, xs: Sequence[Value]) -> Value:
    code = f"({xs[0].name} * {p.weight(op.scale)} + {p.weight(op.offset)}).astype(np.float32)"
    return p.let(op, xs, code, xs[0].mask)


AND_OR = {merging.MaskRule.ALL: " & ", merging.MaskRule.ANY: " | "}


def _merge(p: _Program, op: merging.Merge, xs: Sequence[Value]) -> Value:
    masks = masks_to_merge(op, xs)
    mask = p.let_mask(AND_OR[op.mask_rule].join(masks)) if masks else None
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


def _extreme(p: _Program, op: merging.Merge, xs: Sequence[Value], mask: str | None) -> Value:
    """At a masked step the other input stands for the masked one."""
    masked, y, known = p.call("masked"), xs[0].name, xs[0].mask
    for x in xs[1:]:
        there = p.let(op, xs, f"{masked}({x.name}, {x.mask}, {y})").name
        y = p.let(op, xs, f"np.{op.join.__name__}({masked}({y}, {known}, {there}), {there})").name
        known = p.let_mask(f"{known} | {x.mask}") if known and x.mask else None
    return p.let(op, xs, y, mask)


def _concatenate(p: _Program, op: merging.Concatenate, xs: Sequence[Value]) -> Value:
    mask = None
    if any(x.mask for x in xs):
        masks = [x.mask or f"np.ones({x.name}.shape[:-1], bool)" for x in xs]
        if op.axis == 1 and len(xs[0].shape) > 1:
            mask = p.let_mask(f"np.concatenate([{', '.join(masks)}], axis=1)")
        else:
            mask = p.let_mask(AND_OR[op.mask_rule].join(masks))
    return p.let(op, xs, f"np.concatenate([{', '.join(x.name for x in xs)}], axis={op.axis})", mask)


def _embedding(p: _Program, op: temporal.Embedding, xs: Sequence[Value]) -> Value:
    mask = p.let_mask(f"{xs[0].name} != 0") if op.mask_zero else None
    return p.let(op, xs, f"{p.weight(op.embeddings)}[{xs[0].name}]", mask)


def _masking(p: _Program, op: temporal.Masking, xs: Sequence[Value]) -> Value:
    mask = p.let_mask(f"({xs[0].name} != np.float32({op.mask_value!r})).any(axis=-1)")
    return p.let(op, xs, f"{xs[0].name} * {mask}[..., None]", mask)


def _conv1d(p: _Program, op: windows.Convolution, xs: Sequence[Value]) -> Value:
    along = window_of(TITLE, op)
    window = f"{along.stride}, {along.dilation}, {along.padding!r}"
    code = f"{p.call('conv1d')}({xs[0].name}, {p.weight(kernel_in_one_group(op))}, {p.weight(op.bias)}, {window})"
    return p.let(op, xs, f"{p.activation(op, op.activation)}({code})")


def _pooling(p: _Program, op: windows.Pooling, xs: Sequence[Value]) -> Value:
    along = window_of(TITLE, op)
    window = f"{along.size}, {along.stride}, {along.dilation}, {along.padding!r}"
    return p.let(op, xs, f"{p.call('pool')}({xs[0].name}, {op.average}, {window})")


def _global_pooling(p: _Program, op: temporal.GlobalPooling1D, xs: Sequence[Value]) -> Value:
    x = xs[0]
    code = f"{x.name}.{'mean' if op.average else 'max'}(1, keepdims=True)"
    if op.average and x.mask is not None:
        code = f"{p.call('average')}({x.name}, {x.mask})"
    return p.let(op, xs, code if op.keepdims else f"{code}[:, 0]")


def _repeat_vector(p: _Program, op: temporal.RepeatVector, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, f"np.repeat({xs[0].name}[:, None], {op.n}, axis=1)")


def _reshape(p: _Program, op: temporal.Reshape, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, f"{xs[0].name}.reshape(len({xs[0].name}), *{op.target})")


def _permute(p: _Program, op: temporal.Permute, xs: Sequence[Value]) -> Value:
    return p.let(op, xs, f"{xs[0].name}.transpose(0, *{op.dims})")


def _lstm(p: _Program, op: recurrent.LSTM, xs: Sequence[Value]) -> Value:
    functions = f"{p.activation(op, op.activation)}, {p.activation(op, op.recurrent_activation)}"
    return _scan(p, op, xs, f"{p.call('lstm')}({functions}, {_cell(p, op)})", 2)


def _gru(p: _Program, op: recurrent.GRU, xs: Sequence[Value]) -> Value:
    functions = f"{p.activation(op, op.activation)}, {p.activation(op, op.recurrent_activation)}, {op.reset_after}"
    arrays = ", ".join(map(p.weight, (op.kernel, op.recurrent_kernel, *both_biases(op))))
    return _scan(p, op, xs, f"{p.call('gru')}({functions}, {arrays})", 1)


def _simple_rnn(p: _Program, op: recurrent.SimpleRNN, xs: Sequence[Value]) -> Value:
    return _scan(p, op, xs, f"{p.call('simple_rnn')}({p.activation(op, op.activation)}, {_cell(p, op)})", 1)


def _cell(p: _Program, op: Recurrent) -> str:
    return ", ".join(map(p.weight, (op.kernel, op.recurrent_kernel, op.bias)))


def _scan(p: _Program, op: Recurrent, xs: Sequence[Value], step: str, states: int) -> Value:
    x, widths = xs[0], [op.units] * states
    flags = f"{op.return_sequences}, {op.go_backwards}, {op.zero_output_for_mask}"
    code = f"{p.call('scan')}({step}, {widths}, {x.name}, {x.mask}, {flags})"
    return p.let(op, xs, code, x.mask if op.return_sequences else None)


def _stacked(p: _Program, op: wrappers.Stacked, xs: Sequence[Value]) -> Value:
    return write_stacked(p.write, lambda mask: p.let_mask(f"{mask}[:, ::-1]"), op, xs)


def _bidirectional(p: _Program, op: wrappers.Bidirectional, xs: Sequence[Value]) -> Value:
    forward, backward = p.write(op.forward, xs), p.write(op.backward, xs)
    there = f"{backward.name}[:, ::-1]" if op.forward.return_sequences else backward.name
    code = {
        "concat": f"np.concatenate([{forward.name}, {there}], axis=-1)",
        "sum": f"{forward.name} + {there}",
        "mul": f"{forward.name} * {there}",
        "ave": f"({forward.name} + {there}) / np.float32(2)",
    }[op.merge_mode]
    return p.let(op, xs, code, forward.mask)


def _time_distributed(p: _Program, op: wrappers.TimeDistributed, xs: Sequence[Value]) -> Value:
    inner = _Program(weights=p.weights, functions=p.functions, count=p.count + 1)
    y = write_inside(TITLE, op, Value("x", xs[0].shape[1:]), inner.write)
    p.count = inner.count
    p.lines += [f"def layer{p.count}(x):", *(f"    {line}" for line in inner.lines), f"    return {y.name}"]
    return p.let(op, xs, f"{p.call('each_step')}({xs[0].name}, layer{p.count})", xs[0].mask)


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
    **dict.fromkeys(BETWEEN, Support(None, NOT_YET)),
    recurrent.LSTM: Support(_lstm),
    recurrent.GRU: Support(_gru),
    recurrent.SimpleRNN: Support(_simple_rnn),
    wrappers.Stacked: Support(_stacked),
    wrappers.Bidirectional: Support(_bidirectional),
    wrappers.TimeDistributed: Support(_time_distributed),
}


def build(model: Model, golden: Golden) -> dict[str, bytes]:
    """The program, its weights, and the golden predictions."""
    program = _Program()
    last = walk(model, Value("x", model.input_shape), program.write)
    text = filled(
        "model.py.txt",
        header="\n".join(f"# {line}" for line in header(model)),
        whose=golden.whose,
        shape=axes(model.input_shape).replace("(", "(n, ", 1),
        output=axes(model.output_shape).replace("(", "(n, ", 1),
        classes=ascii(model.about.classes),
        sizes=repr(model.input_shape),
        count=len(program.weights),
        functions="\n\n\n".join(program.functions.values()),
        dtype=np.dtype(model.input_dtype),
        lines="\n".join(f"        {line}" for line in program.lines),
        last=last.name,
        unit=golden.unit.tolist() if golden.unit.max() > 1 else 1,
        tolerance=repr(model.origin.tolerance),
    )
    return {
        "model.py": text.encode("ascii"),
        "model.npz": npz(**{f"w{k}": np.asarray(array) for k, array in enumerate(program.weights)}),
        "model.golden.npz": npz(x=golden.x, y=golden.y),
    }


def run(path: Path, x: Numbers) -> Array | str:
    """What the program answers, in a Python of its own."""
    np.save(path / "x.npy", x)
    command = [sys.executable, "-I", "model.py", "x.npy", "y.npy"]
    subprocess.run(command, cwd=path, check=True, capture_output=True)  # noqa: S603 - our own program
    y: Array = np.load(path / "y.npy")
    return y


TARGET = Target(TITLE, is_folder=True, suffix="-numpy", table=TABLE, activations=ACTIVATIONS, build=build, run=run)
