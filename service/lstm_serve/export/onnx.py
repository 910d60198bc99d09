"""ONNX with the fused recurrent operators, opset 17, IR 8.

Values are tensors (n, ...), masks bool (n, T), as in the engine. A recurrent operator can leave out steps at the end of
a sequence alone, by `sequence_lens`. A masked step changes no state, so the steps that count are gathered in front
first: the state after them is the same, and the outputs are put back where they belong.
"""

import importlib.util
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.operations import merging, pointwise, recurrent, temporal, wrappers
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.engine.types import Array
from lstm_serve.errors import Unsupported
from lstm_serve.export.artifact import Golden, Numbers, header, npz
from lstm_serve.export.operation import Support, Target, Value, activation_of, refuse, scaled_by_card, walk, writer_of
from lstm_serve.model.model import Model

TITLE = "ONNX"
OPSET, IR = 17, 8


@dataclass
class _Graph:
    """The operators and constants as they come."""

    helper: Any
    from_array: Callable[[Numbers, str], Any]
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    count: int = 0

    def write(self, op: Operation, xs: Sequence[Value]) -> Value:
        """An operation's operators."""
        written: Value = writer_of(TITLE, TABLE, op)(self, op, xs)
        return written

    def name(self) -> str:
        """A name that nothing else has."""
        self.count += 1
        return f"v{self.count}"

    def constant(self, array: Numbers | float, dtype: type = np.float32) -> str:
        """A tensor that is always the same."""
        name = self.name()
        self.constants.append(self.from_array(np.array(array, dtype, order="C"), name))
        return name

    def integers(self, *numbers: int) -> str:
        """A tensor of these."""
        return self.constant(np.array(numbers), np.int64)

    def add(self, operator: str, *inputs: str, **attributes: object) -> str:
        """An operator, and the name of its first output."""
        name = self.name()
        self.nodes.append(self.helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def result(self, op: Operation, xs: Sequence[Value], name: str, mask: str | None = None) -> Value:
        """An operation's output."""
        return Value(name, op.output_shapes([x.shape for x in xs])[0], mask)


Write = Callable[[_Graph, str, dict[str, float]], str]


def _plain(operator: str, **attributes: float) -> Write:
    return lambda g, x, _: g.add(operator, x, **attributes)


def _clip(low: float, high: float) -> Write:
    return lambda g, x, _: g.add("Clip", x, g.constant(low), g.constant(high))


def _times(g: _Graph, x: str, y: str) -> str:
    return g.add("Mul", x, y)


def _general_relu(g: _Graph, x: str, p: dict[str, float]) -> str:
    leak = _times(g, g.add("Sub", x, g.constant(p["threshold"])), g.constant(p["negative_slope"]))
    top = x if math.isinf(p["max_value"]) else g.add("Min", x, g.constant(p["max_value"]))
    return g.add("Where", g.add("Less", x, g.constant(p["threshold"])), leak, top)


def _gelu(g: _Graph, x: str, _: dict[str, float]) -> str:
    erf = g.add("Erf", _times(g, x, g.constant(math.sqrt(0.5))))
    return _times(g, _times(g, x, g.add("Add", erf, g.constant(1))), g.constant(0.5))


def _log_sigmoid(g: _Graph, x: str, _: dict[str, float]) -> str:
    return g.add("Neg", g.add("Softplus", g.add("Neg", x)))


ACTIVATIONS: dict[str, Write] = {
    "linear": lambda g, x, _: x,
    "tanh": _plain("Tanh"),
    "sigmoid": _plain("Sigmoid"),
    "relu": _plain("Relu"),
    "softmax": _plain("Softmax", axis=-1),
    "silu": lambda g, x, _: _times(g, x, g.add("Sigmoid", x)),
    "hard_silu": lambda g, x, _: _times(g, x, g.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)),
    "elu": lambda g, x, p: g.add("Elu", x, alpha=p["alpha"]),
    "celu": lambda g, x, p: g.add("Celu", x, alpha=p["alpha"]),
    "leaky_relu": lambda g, x, p: g.add("LeakyRelu", x, alpha=p["negative_slope"]),
    "general_relu": _general_relu,
    "relu6": _clip(0, 6),
    "selu": _plain("Selu", alpha=1.67326324, gamma=1.05070098),
    "softplus": _plain("Softplus"),
    "softsign": _plain("Softsign"),
    "exponential": _plain("Exp"),
    "gelu": _gelu,
    "mish": lambda g, x, _: _times(g, x, g.add("Tanh", g.add("Softplus", x))),
    "hard_tanh": _clip(-1, 1),
    "tanh_shrink": lambda g, x, _: g.add("Sub", x, g.add("Tanh", x)),
    "log_sigmoid": _log_sigmoid,
    "log_softmax": _plain("LogSoftmax", axis=-1),
    "hard_sigmoid_keras_2": _plain("HardSigmoid", alpha=0.2, beta=0.5),
    "hard_sigmoid_keras_3": _plain("HardSigmoid", alpha=1 / 6, beta=0.5),
}

# What the recurrent operators call an activation, with its alpha and beta.
FUSED: dict[str, Callable[[dict[str, float]], tuple[str, float, float]]] = {
    "linear": lambda p: ("Affine", 1, 0),
    "tanh": lambda p: ("Tanh", 0, 0),
    "sigmoid": lambda p: ("Sigmoid", 0, 0),
    "relu": lambda p: ("Relu", 0, 0),
    "softsign": lambda p: ("Softsign", 0, 0),
    "softplus": lambda p: ("Softplus", 0, 0),
    "elu": lambda p: ("Elu", p["alpha"], 0),
    "leaky_relu": lambda p: ("LeakyRelu", p["negative_slope"], 0),
    "hard_sigmoid_keras_2": lambda p: ("HardSigmoid", 0.2, 0.5),
    "hard_sigmoid_keras_3": lambda p: ("HardSigmoid", 1 / 6, 0.5),
}
TAKES = {"Affine": 2, "Elu": 1, "LeakyRelu": 1, "HardSigmoid": 2}  # of alpha and beta


def _activated(g: _Graph, op: Operation, activation: Activation, x: str) -> str:
    return activation_of(TITLE, ACTIVATIONS, op, activation)(g, x, dict(activation.parameters))


def _identity(g: _Graph, op: Operation, xs: Sequence[Value]) -> Value:
    return xs[0]


def _dense(g: _Graph, op: pointwise.Dense, xs: Sequence[Value]) -> Value:
    y = g.add("MatMul", xs[0].name, g.constant(op.kernel))
    if op.bias is not None:
        y = g.add("Add", y, g.constant(op.bias))
    return g.result(op, xs, _activated(g, op, op.activation, y), xs[0].mask)


def _activate(g: _Graph, op: pointwise.Activate, xs: Sequence[Value]) -> Value:
    return g.result(op, xs, _activated(g, op, op.activation, xs[0].name), xs[0].mask)


def _prelu(g: _Graph, op: pointwise.PReLU, xs: Sequence[Value]) -> Value:
    return g.result(op, xs, g.add("PRelu", xs[0].name, g.constant(op.alpha)), xs[0].mask)


def _normalization(g: _Graph, op: pointwise.Normalization, xs: Sequence[Value]) -> Value:
    deviation = np.maximum(np.sqrt(op.variance), np.float32(1e-7))
    y = g.add("Div", g.add("Sub", xs[0].name, g.constant(op.mean)), g.constant(deviation))
    return g.result(op, xs, y, xs[0].mask if op.keeps_mask else None)


def _rescaling(g: _Graph, op: pointwise.Rescaling, xs: Sequence[Value]) -> Value:
    y = g.add("Add", _times(g, xs[0].name, g.constant(op.scale)), g.constant(op.offset))
    return g.result(op, xs, y, xs[0].mask if op.keeps_mask else None)


def _batch_normalization(g: _Graph, op: pointwise.BatchNormalization, xs: Sequence[Value]) -> Value:
    factor: Array = 1 / np.sqrt(op.variance + np.float32(op.epsilon)) * (1 if op.gamma is None else op.gamma)
    offset = -op.mean * factor + (0 if op.beta is None else op.beta)
    y = g.add("Add", _times(g, xs[0].name, g.constant(factor)), g.constant(offset))
    return g.result(op, xs, y, xs[0].mask)


def _layer_normalization(g: _Graph, op: pointwise.LayerNormalization, xs: Sequence[Value]) -> Value:
    features = xs[0].shape[-1] or 1
    gamma = np.ones(features) if op.gamma is None else op.gamma
    arrays = [g.constant(gamma), *([] if op.beta is None else [g.constant(op.beta)])]
    y = g.add("LayerNormalization", xs[0].name, *arrays, axis=-1, epsilon=op.epsilon)
    return g.result(op, xs, y, xs[0].mask)


def _scaling(g: _Graph, op: pointwise.Scaling, xs: Sequence[Value]) -> Value:
    centred = g.add("Sub", xs[0].name, g.constant(op.offset, np.float64))
    y = g.add("Cast", g.add("Div", centred, g.constant(op.scale, np.float64)), to=1)  # to float
    return g.result(op, xs, y, xs[0].mask)


OPERATORS: dict[np.ufunc, str] = {
    np.add: "Add",
    np.subtract: "Sub",
    np.multiply: "Mul",
    np.maximum: "Max",
    np.minimum: "Min",
}


def _merge(g: _Graph, op: merging.Merge, xs: Sequence[Value]) -> Value:
    masks = [x.mask for x in xs if x.mask is not None]
    newer = op.mask_rule is merging.MaskRule.ANY
    if newer and masks and op.join in {np.multiply, np.maximum, np.minimum}:
        refuse(TITLE, op, "its inputs are masked, and this Keras leaves masked steps out of it")
    y = xs[0].name
    for x in xs[1:]:
        y = g.add(OPERATORS[op.join], y, x.name)
    if op.mean:
        y = g.add("Div", y, g.constant(len(xs)))
    joined = bool(masks) and (len(masks) == len(xs) or not newer)
    return g.result(op, xs, y, _joined(g, op.mask_rule, masks) if joined else None)


def _joined(g: _Graph, rule: merging.MaskRule, masks: Sequence[str]) -> str:
    joined = masks[0]
    for mask in masks[1:]:
        joined = g.add("And" if rule is merging.MaskRule.ALL else "Or", joined, mask)
    return joined


def _concatenate(g: _Graph, op: merging.Concatenate, xs: Sequence[Value]) -> Value:
    y = g.add("Concat", *(x.name for x in xs), axis=op.axis)
    masks = [x.mask for x in xs if x.mask is not None]
    if not masks:
        return g.result(op, xs, y)
    if len(masks) != len(xs):
        refuse(TITLE, op, "some of its inputs are masked, and others are not")
    if op.axis == 1 and len(xs[0].shape) > 1:
        bits = [g.add("Cast", mask, to=7) for mask in masks]
        return g.result(op, xs, y, g.add("Cast", g.add("Concat", *bits, axis=1), to=9))
    return g.result(op, xs, y, _joined(g, op.mask_rule, masks))


def _embedding(g: _Graph, op: temporal.Embedding, xs: Sequence[Value]) -> Value:
    mask = None
    if op.mask_zero:
        mask = g.add("Not", g.add("Equal", xs[0].name, g.constant(0, np.int32)))
    return g.result(op, xs, g.add("Gather", g.constant(op.embeddings), xs[0].name), mask)


def _masking(g: _Graph, op: temporal.Masking, xs: Sequence[Value]) -> Value:
    other = g.add("Not", g.add("Equal", xs[0].name, g.constant(op.mask_value)))
    kept = g.add("ReduceMax", g.add("Cast", other, to=1), axes=[-1])
    mask = g.add("Cast", g.add("Squeeze", kept, g.integers(-1)), to=9)
    return g.result(op, xs, _times(g, xs[0].name, kept), mask)


def _turned(g: _Graph, x: str) -> str:
    """(n, T, features) to (n, features, T), or back."""
    return g.add("Transpose", x, perm=[0, 2, 1])


def _pads(op: temporal.Conv1D | temporal.Pooling1D) -> dict[str, Any]:
    window = op.window
    if window.padding == "causal":
        return {"pads": [(window.size - 1) * window.dilation, 0]}
    return {"auto_pad": "SAME_UPPER" if window.padding == "same" else "VALID"}


def _conv1d(g: _Graph, op: temporal.Conv1D, xs: Sequence[Value]) -> Value:
    window = op.window
    arrays = [g.constant(op.kernel.transpose(2, 1, 0)), *([] if op.bias is None else [g.constant(op.bias)])]
    sizes = {"kernel_shape": [window.size], "strides": [window.stride], "dilations": [window.dilation]}
    pads = _pads(op)
    if window.padding == "same" and window.dilation > 1:
        if xs[0].shape[0] is None:
            refuse(TITLE, op, "it is dilated, padded as `same`, and its number of time steps is not known")
        n, span = window.count(xs[0].shape[0]) or 0, (window.size - 1) * window.dilation
        total = max((n - 1) * window.stride + span + 1 - xs[0].shape[0], 0)
        pads = {"pads": [total // 2, total - total // 2]}
    y = _turned(g, g.add("Conv", _turned(g, xs[0].name), *arrays, **sizes, **pads))
    return g.result(op, xs, _activated(g, op, op.activation, y))


def _pooling(g: _Graph, op: temporal.Pooling1D, xs: Sequence[Value]) -> Value:
    operator = "AveragePool" if op.average else "MaxPool"
    sizes = {"kernel_shape": [op.window.size], "strides": [op.window.stride]}
    return g.result(op, xs, _turned(g, g.add(operator, _turned(g, xs[0].name), **sizes, **_pads(op))))


def _global_pooling(g: _Graph, op: temporal.GlobalPooling1D, xs: Sequence[Value]) -> Value:
    x = xs[0]
    keep = int(op.keepdims)
    if not op.average or x.mask is None:
        operator = "ReduceMean" if op.average else "ReduceMax"
        return g.result(op, xs, g.add(operator, x.name, axes=[1], keepdims=keep))
    kept = g.add("Unsqueeze", g.add("Cast", x.mask, to=1), g.integers(2))
    axis = g.integers(1)
    sums = [g.add("ReduceSum", each, axis, keepdims=keep) for each in (_times(g, x.name, kept), kept)]
    return g.result(op, xs, g.add("Div", *sums))


def _repeat_vector(g: _Graph, op: temporal.RepeatVector, xs: Sequence[Value]) -> Value:
    row = g.add("Unsqueeze", xs[0].name, g.integers(1))
    return g.result(op, xs, g.add("Tile", row, g.integers(1, op.n, 1)))


def _reshape(g: _Graph, op: temporal.Reshape, xs: Sequence[Value]) -> Value:
    (target,) = op.output_shapes([xs[0].shape])
    # A 0 is the input's own size. Of an axis of unknown size there is one at most.
    sizes = [-1 if size is None else size for size in target]
    return g.result(op, xs, g.add("Reshape", xs[0].name, g.integers(0, *sizes)))


def _permute(g: _Graph, op: temporal.Permute, xs: Sequence[Value]) -> Value:
    return g.result(op, xs, g.add("Transpose", xs[0].name, perm=[0, *op.dims]))


# Recurrent layers.


def _blocks(array: Array, op: Recurrent) -> Array:
    """(k, gates units) to (gates units, k), the gates in the order of ONNX: an LSTM's i, o, f, c; a GRU's z, r, h."""
    if isinstance(op, recurrent.LSTM):
        i, f, c, o = np.split(array, 4, axis=-1)
        array = np.concatenate([i, o, f, c], axis=-1)
    return array.T


def _biases(op: Recurrent, columns: int) -> Array:
    """The input's and the recurrent bias, one after the other."""
    both = np.zeros((2, columns), np.float32)
    if op.bias is not None:
        both[: op.bias.ndim] = op.bias.reshape(-1, columns)
    return np.concatenate([_blocks(bias, op) for bias in both])


def _functions(op: Recurrent) -> dict[str, Any]:
    """The activations of a direction, as attributes."""
    used = [op.activation]
    if isinstance(op, recurrent.LSTM):
        used = [op.recurrent_activation, op.activation, op.activation]
    elif isinstance(op, recurrent.GRU):
        used = [op.recurrent_activation, op.activation]
    found = []
    for activation in used:
        if activation.kind not in FUSED:
            refuse(TITLE, op, f"ONNX's recurrent operators do not have its activation {activation.kind}")
        found.append(FUSED[activation.kind](dict(activation.parameters)))
    # Numbers are given in order to the functions that take any.
    return {
        "activations": [name for name, _, _ in found],
        "activation_alpha": [float(alpha) for name, alpha, _ in found if TAKES.get(name, 0) >= 1],
        "activation_beta": [float(beta) for name, _, beta in found if TAKES.get(name, 0) >= 2],
    }


def _fused(g: _Graph, directions: Sequence[Recurrent], x: str, direction: str, lens: str = "") -> tuple[str, str]:
    """The operator over x (T, n, features): every h (T, directions, n, units), and the last (directions, n, units)."""
    first = directions[0]
    arrays = [
        np.stack([_blocks(op.kernel, op) for op in directions]),
        np.stack([_blocks(op.recurrent_kernel, op) for op in directions]),
        np.stack([_biases(op, op.kernel.shape[1]) for op in directions]),
    ]
    attributes: dict[str, Any] = {"hidden_size": first.units, "direction": direction}
    for op in directions:
        for key, listed in _functions(op).items():
            attributes[key] = [*attributes.get(key, []), *listed]
    if isinstance(first, recurrent.GRU):
        attributes["linear_before_reset"] = int(first.reset_after)
    operator = {recurrent.LSTM: "LSTM", recurrent.GRU: "GRU", recurrent.SimpleRNN: "RNN"}[type(first)]
    attributes = {key: value for key, value in attributes.items() if value != []}
    every, last = g.name(), g.name()
    inputs = [x, *map(g.constant, arrays), *([lens] if lens else [])]
    g.nodes.append(g.helper.make_node(operator, inputs, [every, last], **attributes))
    return every, last


def _reversed(g: _Graph, x: str, axis: int = 1) -> str:
    ends = (-1, np.iinfo(np.int64).min)
    bounds = [g.integers(number) for number in (*ends, axis, -1)]
    return g.add("Slice", x, *bounds)


def _recurrent(g: _Graph, op: Recurrent, xs: Sequence[Value]) -> Value:
    x = xs[0]
    if x.mask is not None:
        return _masked(g, op, x)
    steps = g.add("Transpose", x.name, perm=[1, 0, 2])
    every, last = _fused(g, [op], steps, "reverse" if op.go_backwards else "forward")
    if not op.return_sequences:
        return g.result(op, xs, g.add("Squeeze", last, g.integers(0)))
    y = g.add("Transpose", g.add("Squeeze", every, g.integers(1)), perm=[1, 0, 2])
    # Keras leaves the order in which the steps were taken, ONNX does not.
    return g.result(op, xs, _reversed(g, y) if op.go_backwards else y)


def _masked(g: _Graph, op: Recurrent, x: Value) -> Value:
    """The steps that count, gathered in front, and the outputs put back."""
    mask, steps = str(x.mask), x.name
    if op.go_backwards:
        bits = g.add("Cast", mask, to=7)
        mask, steps = g.add("Cast", _reversed(g, bits), to=9), _reversed(g, steps)
    bits = g.add("Cast", mask, to=7)
    counts = g.add("CumSum", bits, g.constant(np.array(1), np.int64))  # (n, T), of the steps up to each that count
    length = g.add("ReduceSum", bits, g.integers(1), keepdims=1)
    some = g.add("Cast", g.add("Greater", length, g.integers(0)), to=1)  # (n, 1), 0. where no step counts
    # The place of each step in a stable order, those that count first.
    total = g.add("Gather", g.add("Shape", mask), g.integers(1))
    numbers = g.add(
        "CumSum", g.add("Add", _times(g, bits, g.integers(0)), g.integers(1)), g.constant(np.array(1), np.int64)
    )
    key = g.add("Where", mask, numbers, g.add("Add", numbers, total))
    order = g.name()
    unused = g.name()
    g.nodes.append(g.helper.make_node("TopK", [key, total], [unused, order], axis=1, largest=0, sorted=1))
    gathered = _take(g, steps, order, len(op.kernel))
    lens = g.add("Cast", g.add("Squeeze", g.add("Max", length, g.integers(1)), g.integers(1)), to=6)
    every, last = _fused(g, [op], g.add("Transpose", gathered, perm=[1, 0, 2]), "forward", lens)
    if not op.return_sequences:
        y = _times(g, g.add("Squeeze", last, g.integers(0)), some)
        if op.zero_output_for_mask:
            y = _times(g, y, g.add("Cast", g.add("Slice", bits, *map(g.integers, (-1, 2**31, 1))), to=1))
        return Value(y, (op.units,))
    y = g.add("Transpose", g.add("Squeeze", every, g.integers(1)), perm=[1, 0, 2])
    # At each step, the output of the last step that counted; 0 before the first.
    held = _take(g, y, g.add("Max", g.add("Sub", counts, g.integers(1)), g.integers(0)), op.units)
    kept = bits if op.zero_output_for_mask else g.add("Greater", counts, g.integers(0))
    y = _times(g, held, g.add("Unsqueeze", g.add("Cast", kept, to=1), g.integers(2)))
    return Value(y, (x.shape[0], op.units), x.mask)


def _take(g: _Graph, x: str, places: str, width: int) -> str:
    """x (n, T, width) at places (n, T)."""
    index = g.add("Tile", g.add("Unsqueeze", places, g.integers(2)), g.integers(1, 1, width))
    return g.add("GatherElements", x, index, axis=1)


def _stacked(g: _Graph, op: wrappers.Stacked, xs: Sequence[Value]) -> Value:
    x = xs[0]
    for layer in op.layers:
        mask = x.mask
        y = g.write(layer, [x])
        if layer.go_backwards and mask is not None:
            mask = g.add("Cast", _reversed(g, g.add("Cast", mask, to=7)), to=9)
        x = y._replace(mask=mask)
    return x._replace(mask=xs[0].mask if op.return_sequences else None)


def _bidirectional(g: _Graph, op: wrappers.Bidirectional, xs: Sequence[Value]) -> Value:
    forward, backward = op.forward, op.backward
    sequences = forward.return_sequences
    if xs[0].mask is None and _fit(forward, backward):
        steps = g.add("Transpose", xs[0].name, perm=[1, 0, 2])
        every, last = _fused(g, [forward, backward], steps, "bidirectional")  # type: ignore[list-item] # they are cells
        both, axis = (every, 1) if sequences else (last, 0)
        halves = [g.add("Gather", both, g.constant(np.array(k), np.int64), axis=axis) for k in (0, 1)]
        if sequences:
            halves = [g.add("Transpose", half, perm=[1, 0, 2]) for half in halves]
        mask = None
    else:
        there, back = g.write(forward, xs), g.write(backward, xs)
        halves = [there.name, _reversed(g, back.name) if sequences else back.name]
        mask = there.mask
    if op.merge_mode == "concat":
        return g.result(op, xs, g.add("Concat", *halves, axis=-1), mask)
    y = g.add("Mul" if op.merge_mode == "mul" else "Add", *halves)
    return g.result(op, xs, g.add("Div", y, g.constant(2)) if op.merge_mode == "ave" else y, mask)


def _fit(forward: Recurrent | wrappers.Stacked, backward: Recurrent | wrappers.Stacked) -> bool:
    """Whether one operator can be both directions."""
    if isinstance(forward, wrappers.Stacked) or isinstance(backward, wrappers.Stacked) or forward.go_backwards:
        return False
    same_class = type(forward) is type(backward) and forward.units == backward.units
    return same_class and getattr(forward, "reset_after", None) == getattr(backward, "reset_after", None)


def _time_distributed(g: _Graph, op: wrappers.TimeDistributed, xs: Sequence[Value]) -> Value:
    x = xs[0]
    if None in x.shape[1:]:
        refuse(TITLE, op, "a size of each step is not known")
    inner = g.write(op.layer, [Value(g.add("Reshape", x.name, g.integers(-1, *x.shape[1:])), x.shape[1:])])  # type: ignore[arg-type]
    lead = g.add("Slice", g.add("Shape", x.name), *map(g.integers, (0, 2)))
    shape = g.add("Concat", lead, g.integers(*(size or -1 for size in inner.shape)), axis=0)
    return g.result(op, xs, g.add("Reshape", inner.name, shape), x.mask)


CELL = "with the activations that the fused operators have; a mask by gathering the steps that count"
TABLE: dict[type, Support] = {
    pointwise.Identity: Support(_identity),
    pointwise.Dense: Support(_dense),
    pointwise.Activate: Support(_activate),
    pointwise.PReLU: Support(_prelu),
    pointwise.Normalization: Support(_normalization),
    pointwise.Rescaling: Support(_rescaling),
    pointwise.BatchNormalization: Support(_batch_normalization),
    pointwise.LayerNormalization: Support(_layer_normalization),
    pointwise.Scaling: Support(_scaling, "in double"),
    merging.Merge: Support(_merge, "no product, maximum or minimum of masked inputs of Keras 3.4 on"),
    merging.Concatenate: Support(_concatenate, "not of some inputs masked and others not"),
    temporal.Embedding: Support(_embedding),
    temporal.Masking: Support(_masking),
    temporal.Conv1D: Support(_conv1d, "dilated and padded as `same` where the number of time steps is known"),
    temporal.Pooling1D: Support(_pooling),
    temporal.GlobalPooling1D: Support(_global_pooling),
    temporal.RepeatVector: Support(_repeat_vector),
    temporal.Reshape: Support(_reshape),
    temporal.Permute: Support(_permute),
    recurrent.LSTM: Support(_recurrent, CELL),
    recurrent.GRU: Support(_recurrent, CELL),
    recurrent.SimpleRNN: Support(_recurrent, CELL),
    wrappers.Stacked: Support(_stacked, CELL),
    wrappers.Bidirectional: Support(_bidirectional, CELL),
    wrappers.TimeDistributed: Support(_time_distributed, "where the sizes of each step are known"),
}


def build(model: Model, golden: Golden) -> dict[str, bytes]:
    """The file, checked by onnx, and its golden predictions beside it."""
    try:
        import onnx  # noqa: PLC0415 - an extra that only this target needs
    except ImportError:
        raise Unsupported("to write ONNX the package onnx is needed: pip install 'lstm-serve[onnx]'") from None
    helper, types = onnx.helper, onnx.TensorProto
    graph = _Graph(helper, onnx.numpy_helper.from_array)
    last = walk(model, Value("sequences", model.input_shape), graph.write)
    output = "values" if model.kind == "values" else "probabilities"
    graph.nodes.append(helper.make_node("Identity", [last.name], [output]))
    takes_ids = np.dtype(model.input_dtype).kind == "i"
    kind = types.INT32 if takes_ids else types.DOUBLE if scaled_by_card(model) else types.FLOAT
    inputs = [helper.make_tensor_value_info("sequences", kind, _sizes(model.input_shape))]
    outputs = [helper.make_tensor_value_info(output, types.FLOAT, _sizes(model.output_shape))]
    made = helper.make_graph(graph.nodes, "lstm_serve", inputs, outputs, graph.constants)
    written = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="lstm-serve"
    )
    written.doc_string = "\n".join(header(model))
    helper.set_model_props(written, _properties(model))
    onnx.checker.check_model(written, full_check=True)
    return {"": written.SerializeToString(), ".golden.npz": npz(x=golden.x, y=golden.y)}


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
        "scaling": [
            {"offset": op.offset.tolist(), "scale": op.scale.tolist()}
            for op, _ in model.nodes
            if isinstance(op, pointwise.Scaling)
        ],
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in properties.items()}


def run(path: Path, x: Numbers) -> Array | str:
    """What ONNX Runtime answers with the file, where it is installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed here"
    import onnxruntime  # noqa: PLC0415 - it may not be there

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    dtype = {"tensor(int32)": np.int32, "tensor(double)": np.float64}.get(session.get_inputs()[0].type, np.float32)
    y: Array = session.run(None, {"sequences": x.astype(dtype)})[0]
    return y


TARGET = Target(TITLE, is_folder=False, suffix=".onnx", table=TABLE, activations=ACTIVATIONS, build=build, run=run)
