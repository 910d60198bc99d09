"""What operations compute, once more and plainly: float64, one row and one step at a time, masks and all."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import reference
from reference import Array64

from lstm_serve.engine.operations.arithmetic import Binary, MatMul, Reduce, Slice
from lstm_serve.engine.operations.merging import Concatenate, MaskedBy, MaskRule, Merge
from lstm_serve.engine.operations.pointwise import Activate, BatchNormalization, Dense, LayerNormalization
from lstm_serve.engine.operations.recurrent import GRU, LSTM, SimpleRNN
from lstm_serve.engine.operations.temporal import GlobalPooling1D, Masking, Permute, RepeatVector, Reshape
from lstm_serve.engine.operations.windows import Convolution, Pooling
from lstm_serve.engine.operations.wiring import Node
from lstm_serve.engine.operations.wrappers import Bidirectional, TimeDistributed

# A value (b, ...) of float64 and its mask (b, T), or None.
Value = tuple[Array64, Any]
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "tanh": np.tanh,
    "relu": reference.relu,
    "sigmoid": reference.sigmoid,
    "linear": lambda x: x,
}
CELLS: dict[type, Callable[..., Any]] = {LSTM: reference.lstm, GRU: reference.gru, SimpleRNN: reference.simple_rnn}


def evaluated(nodes: Sequence[Node], inputs: Sequence[Array64]) -> list[Value]:
    """What each node gives, one after the other."""
    values: list[Value] = []
    for operation, sources in nodes:
        given = [(inputs[k], None) if node < 0 else values[node] for node, k in map(tuple, sources)]
        values.append(OPERATIONS[type(operation)](operation, *given))
    return values


def _steps(op: Any, x: Array64, mask: Any) -> Array64:
    weights = {name: array.astype(np.float64) for name, array in op.weights.items()}
    weights["reset_after"] = getattr(op, "reset_after", False)
    zeros = op.zero_output_for_mask
    gate = FUNCTIONS[op.recurrent_activation.name] if hasattr(op, "recurrent_activation") else reference.sigmoid
    own = FUNCTIONS[op.activation.name]
    return reference.walk(CELLS[type(op)], x, weights, own, gate, mask, backwards=op.go_backwards, zeros=zeros)


def _recurrent(op: Any, x: Value) -> Value:
    y = _steps(op, *x)
    return (y, x[1]) if op.return_sequences else (y[:, -1], None)


def _bidirectional(op: Any, x: Value) -> Value:
    forward, backward = (_steps(layer, *x) for layer in (op.forward, op.backward))
    pair = (forward, backward[:, ::-1]) if op.forward.return_sequences else (forward[:, -1], backward[:, -1])
    joined: dict[str, Callable[[Any, Any], Any]] = {
        "concat": lambda a, b: np.concatenate([a, b], axis=-1),
        "sum": lambda a, b: a + b,
        "mul": lambda a, b: a * b,
        "ave": lambda a, b: (a + b) / 2,
    }
    return joined[op.merge_mode](*pair), x[1] if op.forward.return_sequences else None


def _dense(op: Any, x: Value) -> Value:
    return FUNCTIONS[op.activation.name](np.einsum("...f,fu->...u", x[0], op.kernel) + op.bias), x[1]


def _masking(op: Any, x: Value) -> Value:
    mask = np.array([[any(number != op.mask_value for number in step) for step in row] for row in x[0]])
    return x[0] * mask[:, :, None], mask


def _merge(op: Any, *xs: Value) -> Value:
    masks = [mask for _, mask in xs if mask is not None]
    newer = op.mask_rule is MaskRule.ANY
    mask = None
    if masks and not (newer and len(masks) < len(xs)):
        mask = np.logical_or.reduce(masks) if newer else np.logical_and.reduce(masks)
    y = op.join(xs[0][0], xs[1][0])
    if newer and op.join is np.multiply:
        factors = [x if m is None else np.where(m[..., None], x, 1) for x, m in xs]
        y = factors[0] * factors[1] * (1 if mask is None else mask[..., None])
    return y / (2 if op.mean else 1), mask


def _concatenate(op: Any, *xs: Value) -> Value:
    y, masks = np.concatenate([x for x, _ in xs], axis=op.axis), [mask for _, mask in xs]
    if all(mask is None for mask in masks):
        return y, None
    filled = [np.ones(x.shape[:2], bool) if mask is None else mask for x, mask in xs]
    if op.axis == 1:
        return y, np.hstack(filled)
    return y, np.logical_or.reduce(filled) if op.mask_rule is MaskRule.ANY else np.logical_and.reduce(filled)


def _pooled(op: Any, x: Value) -> Value:
    rows = [row if mask is None or not op.average else row[mask] for row, mask in zip(x[0], _masks(x), strict=True)]
    y = np.array([row.mean(axis=0) if op.average else row.max(axis=0) for row in rows])
    return (y[:, None] if op.keepdims else y), None


def _masks(x: Value) -> Any:
    return x[1] if x[1] is not None else [None] * len(x[0])


def _windows(op: Any, x: Value) -> tuple[list[list[list[int]]], Array64]:
    """The steps of each window that are there, by their place in it, of a sequence."""
    (window,), timesteps = op.windows, x[0].shape[1]
    before, _ = window.padded(timesteps)
    starts = [k * window.stride - before for k in range(window.count(timesteps) or 0)]
    places = [[[k, start + k * window.dilation] for k in range(window.size)] for start in starts]
    return [[[k, t] for k, t in each if 0 <= t < timesteps] for each in places], x[0]


def _convolution(op: Any, x: Value) -> Value:
    windows, steps = _windows(op, x)
    y = np.stack([sum(steps[:, t] @ op.kernel[k].astype(float) for k, t in each) for each in windows], axis=1)
    return FUNCTIONS[op.activation.name](y + op.bias), None


def _pooling(op: Any, x: Value) -> Value:
    windows, steps = _windows(op, x)
    function = np.mean if op.average else np.max
    return np.stack([function([steps[:, t] for _, t in each], axis=0) for each in windows], axis=1), None


def _layer_normalization(op: Any, x: Value) -> Value:
    away = x[0] - x[0].mean(axis=-1, keepdims=True)
    return away / np.sqrt((away**2).mean(axis=-1, keepdims=True) + op.epsilon) * op.gamma + op.beta, x[1]


def _batch_normalization(op: Any, x: Value) -> Value:
    deviation = np.sqrt(op.variance.astype(np.float64) + op.epsilon)
    return (x[0] - op.mean) / deviation * op.gamma + op.beta, x[1]


def _binary(op: Any, *xs: Value) -> Value:
    a, b = xs[0][0], xs[1][0] if op.constant is None else op.constant
    return (op.function(b, a) if op.constant_first else op.function(a, b)), None


def _reduce(op: Any, x: Value) -> Value:
    return getattr(np, op.function)(x[0], axis=op.axes, keepdims=op.keepdims), None


def _time_distributed(op: Any, x: Value) -> Value:
    made = [evaluated(op.nodes, [x[0][:, t]])[op.end.node][0] for t in range(x[0].shape[1])]
    return np.stack(made, axis=1), x[1]


OPERATIONS: dict[type, Callable[..., Value]] = {
    **dict.fromkeys(CELLS, _recurrent),
    Bidirectional: _bidirectional,
    Dense: _dense,
    Activate: lambda op, x: (FUNCTIONS[op.activation.name](x[0]), x[1]),
    Masking: _masking,
    Merge: _merge,
    Concatenate: _concatenate,
    GlobalPooling1D: _pooled,
    Convolution: _convolution,
    Pooling: _pooling,
    LayerNormalization: _layer_normalization,
    BatchNormalization: _batch_normalization,
    Slice: lambda op, x: (np.array([row[op.slices] for row in x[0]]), None),
    Binary: _binary,
    Reduce: _reduce,
    MatMul: lambda _, x, y: (np.einsum("...mk,...kn->...mn", x[0], y[0]), None),
    MaskedBy: lambda op, x, y: (x[0] * y[1][..., None] if op.zeroed and y[1] is not None else x[0], y[1]),
    RepeatVector: lambda op, x: (np.stack([x[0]] * op.n, axis=1), None),
    Permute: lambda op, x: (np.array([row.transpose([dim - 1 for dim in op.dims]) for row in x[0]]), None),
    Reshape: lambda op, x: (np.array([row.reshape(op.target) for row in x[0]]), None),
    TimeDistributed: _time_distributed,
}
