"""C99: the model as two files for any compiler, its weights constant; no malloc, no files, no global state.

Each operation becomes calls of the functions in `code/functions.c`, on arrays of fixed sizes. A model that only looks
back, one step at a time up to its last recurrent layer, is written as `m_step`, and `m_predict` is a loop around it;
another is written as a whole. Names in the source are numbers: nothing of the model but numbers and comments gets into
it.
"""

import math
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lstm_serve.engine.operations import conv_lstm, merging, pointwise, recurrent, temporal, windows, wrappers
from lstm_serve.engine.types import AnyArray, Array, Shape
from lstm_serve.errors import Unsupported
from lstm_serve.export import c_files
from lstm_serve.export.artifact import Golden
from lstm_serve.export.c_between import BETWEEN, write_joined, write_permuted, write_repeated
from lstm_serve.export.c_recurrent import write_bidirectional, write_cell, write_stacked
from lstm_serve.export.c_streaming import streamed
from lstm_serve.export.c_writer import TITLE, CProgram, known, result, sizes
from lstm_serve.export.formulas import ACTIVATIONS
from lstm_serve.export.operation import (
    NO_CONV_LSTM,
    NOTHING_LEFT_OUT,
    TIME_ALONE,
    Affine,
    Support,
    Target,
    Value,
    affine_of,
    joined_mask,
    joins_in_time,
    kernel_in_one_group,
    refuse_left_out,
    window_of,
    write_nothing,
)
from lstm_serve.model.model import Model


def _dense(s: CProgram, op: pointwise.Dense, xs: Sequence[Value]) -> Value:
    y = result(s, op, xs)
    n, features = sizes(xs[0])
    arrays = s.constant(op.kernel), s.constant(op.bias)
    s.call("dense", n, features, op.kernel.shape[1], xs[0].name, *arrays, s.activation(op, op.activation), y.name)
    s.adds += n * op.kernel.size
    return y


def _activate(s: CProgram, op: pointwise.Activate, xs: Sequence[Value]) -> Value:
    y = result(s, op, xs)
    s.call("activate", *sizes(xs[0]), xs[0].name, s.activation(op, op.activation), y.name)
    return y


def _spread(arrays: Sequence[AnyArray | None], shape: Shape) -> tuple[int, int, list[AnyArray | None]]:
    """How often arrays of one size are met in an input, that size, and the arrays of it."""
    own = known(shape)
    given = [array for array in arrays if array is not None]
    each = all(array.ndim < 2 or math.prod(array.shape[:-1]) == 1 for array in given)
    to = own[-1:] if each else own
    spread = [
        None if array is None else np.broadcast_to(array.reshape(array.shape[-1:]) if each else array, to)
        for array in arrays
    ]
    return (math.prod(own[:-1]) if each else 1), math.prod(to), spread


def _affine(s: CProgram, op: Affine, xs: Sequence[Value]) -> Value:
    y = result(s, op, xs)
    n, features, spread = _spread(affine_of(op), xs[0].shape)
    s.call("affine", n, features, xs[0].name, *map(s.constant, spread), y.name)
    return y


def _in_double(s: CProgram, op: pointwise.Scaling | pointwise.Unscaling, xs: Sequence[Value]) -> Value:
    y = result(s, op, xs)
    n, features, spread = _spread([op.offset, op.scale], xs[0].shape)
    s.call(type(op).__name__.lower(), n, features, xs[0].name, *(s.constant(each, "double") for each in spread), y.name)
    return y


def _prelu(s: CProgram, op: pointwise.PReLU, xs: Sequence[Value]) -> Value:
    y = result(s, op, xs)
    n, features, (alpha,) = _spread([op.alpha], xs[0].shape)
    s.call("prelu", n, features, xs[0].name, s.constant(alpha), y.name)
    return y


def _layer_normalization(s: CProgram, op: pointwise.LayerNormalization, xs: Sequence[Value]) -> Value:
    y = result(s, op, xs)
    arrays = s.constant(op.gamma), s.constant(op.beta), f"{np.float32(op.epsilon)!s}f"
    s.call("standardize", *sizes(xs[0]), xs[0].name, *arrays, y.name)
    return y


def _merge(s: CProgram, op: merging.Merge, xs: Sequence[Value]) -> Value:
    refuse_left_out(TITLE, op, xs)
    return write_joined(s, xs, op.join, _mask(s, op, xs), len(xs) if op.mean else 1)


def _mask(s: CProgram, op: merging.Merge | merging.Concatenate, xs: Sequence[Value]) -> str | None:
    def join(a: str, b: str) -> str:
        joined = s.mask(s.lengths[a])
        s.call("join_masks", s.lengths[a], int(op.mask_rule is merging.MaskRule.ALL), a, b, joined)
        return joined

    return joined_mask(op, xs, join)


def _mask_in_time(s: CProgram, xs: Sequence[Value]) -> str:
    steps = [known(x.shape)[0] for x in xs]
    mask = s.mask(sum(steps))
    for k, (x, count) in enumerate(zip(xs, steps, strict=True)):
        counts = 1 if x.mask is None else f"{x.mask}[t]"
        s.lines.append(f"for (int t = 0; t < {count}; ++t) {mask}[{sum(steps[:k])} + t] = {counts};")
    return mask


def _concatenate(s: CProgram, op: merging.Concatenate, xs: Sequence[Value]) -> Value:
    mask = _mask_in_time(s, xs) if joins_in_time(op, xs) else _mask(s, op, xs)
    y = result(s, op, xs, mask)
    outer = math.prod(known(xs[0].shape)[: op.axis - 1])
    widths = [math.prod(known(x.shape)[op.axis - 1 :]) for x in xs]
    for k, (x, width) in enumerate(zip(xs, widths, strict=True)):
        s.call("place", outer, width, sum(widths), x.name, f"{y.name} + {sum(widths[:k])}")
    return y


def _embedding(s: CProgram, op: temporal.Embedding, xs: Sequence[Value]) -> Value:
    n = math.prod(known(xs[0].shape))
    mask = s.mask(n) if op.mask_zero else None
    y = result(s, op, xs, mask)
    s.call("embedding", n, op.embeddings.shape[1], xs[0].name, s.constant(op.embeddings), y.name, mask or "NULL")
    return y


def _masking(s: CProgram, op: temporal.Masking, xs: Sequence[Value]) -> Value:
    n, features = sizes(xs[0])
    y = result(s, op, xs, s.mask(n))
    s.call("masking", n, features, xs[0].name, f"{np.float32(op.mask_value)!s}f", y.name, y.mask)
    return y


def _window(op: windows.Convolution | windows.Pooling, xs: Sequence[Value]) -> tuple[int, int, int, int]:
    """The input's steps and features, the number of windows, and the steps of padding before."""
    window, (timesteps, features) = window_of(TITLE, op), sizes(xs[0])
    return timesteps, features, window.count(timesteps) or 0, window.padded(timesteps)[0]


def _conv1d(s: CProgram, op: windows.Convolution, xs: Sequence[Value]) -> Value:
    y = result(s, op, xs)
    timesteps, features, n, before = _window(op, xs)
    kernel, window = kernel_in_one_group(op), op.windows[0]
    numbers = timesteps, features, window.size, kernel.shape[-1], n, window.stride, window.dilation, before
    arrays = s.constant(kernel), s.constant(op.bias), s.activation(op, op.activation)
    s.call("conv1d", *numbers, xs[0].name, *arrays, y.name)
    s.adds += n * kernel.size
    return y


def _pooling(s: CProgram, op: windows.Pooling, xs: Sequence[Value]) -> Value:
    y = result(s, op, xs)
    timesteps, features, n, before = _window(op, xs)
    window = op.windows[0]
    numbers = timesteps, features, window.size, n, window.stride, before
    s.call("pool", *numbers, int(op.average), xs[0].name, y.name)
    return y


def _global_pooling(s: CProgram, op: temporal.GlobalPooling1D, xs: Sequence[Value]) -> Value:
    y = result(s, op, xs)
    s.call("pool_all", *sizes(xs[0]), int(op.average), xs[0].name, xs[0].mask or "NULL", y.name)
    return y


def _reshape(s: CProgram, op: temporal.Reshape, xs: Sequence[Value]) -> Value:
    return Value(xs[0].name, op.output_shapes([xs[0].shape])[0])


def _time_distributed(s: CProgram, op: wrappers.TimeDistributed, xs: Sequence[Value]) -> Value:
    y = result(s, op, xs)
    timesteps = known(xs[0].shape)[0]
    width, out = (math.prod(known(value.shape[1:])) for value in (xs[0], y))
    kept, s.state, adds = s.state, None, s.adds  # each step begins anew
    step = s.name("x")
    lines, inner = s.inside(op, Value(step, xs[0].shape[1:], ids=xs[0].ids))
    s.adds, s.state = adds + timesteps * (s.adds - adds), kept
    c_type = "const int" if xs[0].ids else "const float"
    s.lines += [
        f"for (int t = 0; t < {timesteps}; ++t) {{",
        f"    {c_type} *const {step} = {xs[0].name} + t * {width};",
        *(f"    {line}" for line in lines),
    ]
    s.line(f"    place(1, {out}, {out}, {inner.name}, {y.name} + t * {out});")
    s.lines.append("}")
    return y


TABLE: dict[type, Support] = {
    pointwise.Identity: Support(write_nothing),
    pointwise.Dense: Support(_dense),
    pointwise.Activate: Support(_activate),
    pointwise.PReLU: Support(_prelu),
    **dict.fromkeys((pointwise.Normalization, pointwise.Rescaling, pointwise.BatchNormalization), Support(_affine)),
    pointwise.LayerNormalization: Support(_layer_normalization),
    pointwise.Scaling: Support(_in_double, "in double, from an input of float"),
    pointwise.Unscaling: Support(_in_double, "in double"),
    merging.Merge: Support(_merge, NOTHING_LEFT_OUT),
    merging.Concatenate: Support(_concatenate),
    temporal.Embedding: Support(_embedding),
    temporal.Masking: Support(_masking),
    windows.Convolution: Support(_conv1d, TIME_ALONE),
    windows.Pooling: Support(_pooling, TIME_ALONE),
    temporal.GlobalPooling1D: Support(_global_pooling),
    temporal.RepeatVector: Support(write_repeated),
    temporal.Reshape: Support(_reshape),
    temporal.Permute: Support(write_permuted),
    **BETWEEN,
    **dict.fromkeys((recurrent.LSTM, recurrent.GRU, recurrent.SimpleRNN), Support(write_cell)),
    conv_lstm.ConvLSTM: Support(None, NO_CONV_LSTM),
    wrappers.Stacked: Support(write_stacked),
    wrappers.Bidirectional: Support(write_bidirectional),
    wrappers.TimeDistributed: Support(_time_distributed),
}


def build(model: Model, golden: Golden) -> dict[str, bytes]:
    """The header, the source, the golden predictions, and how to build them."""
    steps = streamed(model)
    if steps is None and any(None in spec.shape for spec in model.inputs):
        raise Unsupported(
            f"{TITLE} needs to know the number of time steps, as this model looks at all of them at once: say it in "
            'its card, as "timesteps"'
        )
    return c_files.build(model, golden, steps, CProgram(TABLE))


def run(path: Path, xs: Sequence[AnyArray]) -> list[Array] | str:
    """What the program answers to its golden predictions, built with the compiler at hand and both sanitizers."""
    cc = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if cc is None:
        return "there is no C compiler (cc) here"
    flags = ["-std=c99", "-pedantic", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-Wvla"]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = [cc, *flags, *sanitizers, "m.c", "m_golden.c", "-lm", "-o", "m_golden"]
    subprocess.run(command, cwd=path, check=True, capture_output=True)  # noqa: S603 - a compiler
    done = subprocess.run([str(path / "m_golden"), "all"], check=False, capture_output=True, text=True)  # noqa: S603
    if done.returncode not in {0, 1}:
        raise RuntimeError(f"the program ended with {done.returncode}: {done.stderr[:500]}")
    rows = [line.split(";")[:-1] for line in done.stdout.splitlines()[:-1]]
    return [np.array([[*map(float, part.split())] for part in parts], np.float32) for parts in zip(*rows, strict=True)]


TARGET = Target(TITLE, is_folder=True, suffix="-c", table=TABLE, activations=ACTIVATIONS, build=build, run=run)
