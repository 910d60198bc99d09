"""The recurrent cells once more, as slow and plain as they can be: float64, one row and one step at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array64 = npt.NDArray[np.float64]
Function = Callable[[Array64], Array64]


def sigmoid(x: Array64) -> Array64:
    return 1 / (1 + np.exp(-x))


def tanh(x: Array64) -> Array64:
    return np.tanh(x)


def hard_sigmoid_2(x: Array64) -> Array64:
    return np.clip(0.2 * x + 0.5, 0, 1)


def relu(x: Array64) -> Array64:
    return np.maximum(x, 0)


def softmax(x: Array64) -> Array64:
    e: Array64 = np.exp(x)
    total: Array64 = e.sum(keepdims=True)
    return e / total


def log_softmax(x: Array64) -> Array64:
    total: Array64 = np.log(np.exp(x).sum(keepdims=True))
    result: Array64 = x - total
    return result


def lstm(
    x: Array64, h: Array64, c: Array64, w: dict[str, Any], activation: Function, gate: Function
) -> tuple[Array64, Array64]:
    i, f, g, o = np.split(x @ w["kernel"] + h @ w["recurrent_kernel"] + w.get("bias", 0), 4)
    c = gate(f) * c + gate(i) * activation(g)
    return gate(o) * activation(c), c


def gru(
    x: Array64, h: Array64, c: Array64, w: dict[str, Any], activation: Function, gate: Function
) -> tuple[Array64, Array64]:
    bias = np.zeros((2, 3 * len(h))) + np.asarray(w.get("bias", np.zeros((1, 3 * len(h)))))
    reset_after = bool(w["reset_after"])
    if not reset_after:
        bias[1] = 0
    x_z, x_r, x_h = np.split(x @ w["kernel"] + bias[0], 3)
    h_z, h_r, h_h = np.split(h @ w["recurrent_kernel"] + bias[1], 3)
    z, r = gate(x_z + h_z), gate(x_r + h_r)
    if not reset_after:
        h_h = (r * h) @ np.split(w["recurrent_kernel"], 3, axis=1)[2]
        candidate = activation(x_h + h_h)
    else:
        candidate = activation(x_h + r * h_h)
    return z * h + (1 - z) * candidate, c


def simple_rnn(
    x: Array64, h: Array64, c: Array64, w: dict[str, Any], activation: Function, gate: Function
) -> tuple[Array64, Array64]:
    del gate
    return activation(x @ w["kernel"] + h @ w["recurrent_kernel"] + w.get("bias", 0)), c


def walk(
    cell: Callable[..., tuple[Array64, Array64]],
    x: npt.NDArray[Any],
    w: dict[str, Any],
    activation: Function,
    gate: Function,
    mask: npt.NDArray[np.bool_] | None = None,
    *,
    backwards: bool = False,
    zeros: bool = False,
) -> Array64:
    """x (b, T, features) -> the outputs of all steps (b, T, units), in the order in which they were taken."""
    units = w["recurrent_kernel"].shape[0]
    y = np.zeros((*x.shape[:2], units))
    for row in range(len(x)):
        h, c = np.zeros(units), np.zeros(units)
        order = range(x.shape[1])
        for k, t in enumerate(reversed(order) if backwards else order):
            masked = mask is not None and not mask[row, t]
            if not masked:
                h, c = cell(x[row, t].astype(np.float64), h, c, w, activation, gate)
            y[row, k] = 0 if masked and zeros else h
    return y
