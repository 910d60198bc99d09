"""The recurrent layers, one cell a class.

A step is `z = [h, x, 1] @ [recurrent_kernel; kernel; bias]`, one matrix product, and then what the cell makes of z.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from lstm_serve.engine.activations import SIGMOID, TANH, Activation
from lstm_serve.engine.recurrence import BoundCell, Recurrent
from lstm_serve.engine.types import Array

# An array, not a number, which NumPy would make into one at each call.
HALF = np.array(0.5, np.float32)


@dataclass(frozen=True, eq=False, kw_only=True)
class LSTM(Recurrent):
    """Long short-term memory, with gate = `recurrent_activation`.

        i = gate(z_i)      f = gate(z_f)     g = activation(z_c)     o = gate(z_o)
        c = f * c + i * g                    h = o * activation(c)

    `kernel` (features, 4 units), `recurrent_kernel` (units, 4 units), `bias` (4 units,) or None; their column blocks
    are the gates i, f, c, o. Source: LSTMCell.call in keras/src/layers/rnn/lstm.py; the same from Keras 2.0 to 3.15.
    """

    recurrent_activation: Activation

    carried: ClassVar[tuple[str, ...]] = ("h", "c")

    @property
    def _fused(self) -> bool:
        # sigmoid(z) = (1 + tanh(z / 2)) / 2: with the halves in the weights, exactly, one tanh serves all four gates.
        return self.recurrent_activation is SIGMOID and self.activation is TANH

    @cached_property
    def _packed(self) -> Array:
        """[recurrent_kernel; kernel; bias], (units + features + 1, 4 units), the gates in the order o, i, f, c."""
        bias = np.zeros(4 * self.units, np.float32) if self.bias is None else self.bias
        i, f, c, o = np.split(np.vstack([self.recurrent_kernel, self.kernel, bias[np.newaxis]]), 4, axis=1)
        packed = np.hstack([o, i, f, c])
        if self._fused:
            packed[:, : 3 * self.units] /= 2
        return packed

    def buffers(self, batch: int) -> list[tuple[int, ...]]:
        """The gates with the cell state, the two products of its sum, and its activation."""
        u = self.units
        return [(5 * u, batch), (2 * u, batch), (u, batch)]

    def bind(self, buffers: Sequence[Array]) -> BoundCell:
        """The formulas above, on units-major arrays (units, b)."""
        u, fused = self.units, self._fused
        gate, activation = _units_major(self.recurrent_activation, u), _units_major(self.activation, u)
        s, products, squashed = buffers
        # The rows of s are o, i, f, g, c, so that (i, f) * (g, c) is one product of neighbours.
        o, i, f, g, c = s[:u], s[u : 2 * u], s[2 * u : 3 * u], s[3 * u : 4 * u], s[4 * u :]
        z, gates, i_f, g_c = s[: 4 * u], s[: 3 * u], s[u : 3 * u], s[3 * u :]
        i_g, f_c = products[:u], products[u:]

        def update(_: Array, h: Array) -> None:
            gate(gates)
            activation(g)
            np.multiply(i_f, g_c, products)
            np.add(i_g, f_c, c)
            np.copyto(squashed, c)
            activation(squashed)
            np.multiply(o, squashed, h)

        def update_fused(_: Array, h: Array) -> None:
            np.tanh(z, z)
            np.multiply(gates, HALF, gates)
            np.add(gates, HALF, gates)
            np.multiply(i_f, g_c, products)
            np.add(i_g, f_c, c)
            np.tanh(c, squashed)
            np.multiply(o, squashed, h)

        def keras_z() -> Array:
            scale = np.float32(2 if fused else 1)
            return np.concatenate([i * scale, f * scale, g, o * scale])

        parts = {"i": i, "f": f, "c~": g, "o": o, "c": c}
        return BoundCell(_product(self._packed, z), update_fused if fused else update, (c,), keras_z, parts)


@dataclass(frozen=True, eq=False, kw_only=True)
class GRU(Recurrent):
    """Gated recurrent unit, with gate = `recurrent_activation`.

        z = gate(z_z)      r = gate(z_r)     h = z * h + (1 - z) * h~
        h~ = activation(x @ W + b + r * (h @ U + d))     with `reset_after`
        h~ = activation(x @ W + b + (r * h) @ U)         without

    `kernel` (features, 3 units), `recurrent_kernel` (units, 3 units), their column blocks are z, r, h; `bias`
    (3 units,) or None, with reset_after (2, 3 units): of the input and of the recurrent product.
    Source: GRUCell.call in keras/src/layers/rnn/gru.py; the same from Keras 2.0 to 3.15.
    """

    recurrent_activation: Activation
    reset_after: bool

    @cached_property
    def _packed(self) -> Array:
        """[recurrent_kernel; kernel; bias], (units + features + 1, 4 units): z, r, and the two parts of h~.

        The recurrent part of h~ does not meet the input, nor its input part h: zeros are there. Without reset_after
        the recurrent part is a product of its own, and all of it zeros here.
        """
        u = self.units
        bias = np.zeros((2, 3 * u), self.kernel.dtype)
        if self.bias is not None:
            bias[: 2 if self.reset_after else 1] = self.bias
        packed = np.zeros((u + len(self.kernel) + 1, 4 * u), self.kernel.dtype)
        packed[:, : 2 * u] = np.vstack(
            [self.recurrent_kernel[:, : 2 * u], self.kernel[:, : 2 * u], bias.sum(axis=0, keepdims=True)[:, : 2 * u]]
        )
        packed[u:, 3 * u :] = np.vstack([self.kernel, bias[:1]])[:, 2 * u :]
        if self.reset_after:
            packed[:u, 2 * u : 3 * u] = self.recurrent_kernel[:, 2 * u :]
            packed[-1, 2 * u : 3 * u] = bias[1, 2 * u :]
        return packed

    @cached_property
    def _candidate(self) -> Array:
        """The recurrent kernel's block of h~, (units, units), contiguous."""
        return np.ascontiguousarray(self.recurrent_kernel[:, 2 * self.units :])

    def buffers(self, batch: int) -> list[tuple[int, ...]]:
        """The sums, and r * h."""
        return [(4 * self.units, batch), (self.units, batch)]

    def bind(self, buffers: Sequence[Array]) -> BoundCell:
        """The formulas above, on units-major arrays (units, b)."""
        u = self.units
        gate, activation = _units_major(self.recurrent_activation, u), _units_major(self.activation, u)
        s, reset = buffers
        z, r, recurrent, candidate = s[:u], s[u : 2 * u], s[2 * u : 3 * u], s[3 * u :]
        product, reset_after = _product(self._candidate, recurrent), self.reset_after

        def update(before: Array, h: Array) -> None:
            gate(s[: 2 * u])
            if reset_after:
                np.multiply(recurrent, r, out=recurrent)
            else:
                np.multiply(r, before, out=reset)
                product(reset)
            np.add(candidate, recurrent, out=candidate)
            activation(candidate)
            # z * h + (1 - z) * h~ = h~ + z * (h - h~)
            np.subtract(before, candidate, out=h)
            np.multiply(h, z, out=h)
            np.add(h, candidate, out=h)

        def keras_z() -> Array:
            return s[: 3 * u] if reset_after else np.concatenate([z, r, candidate])

        # With reset_after the third block of the sums is h @ U + d, without it x @ W + b.
        return BoundCell(_product(self._packed, s), update, (), keras_z, {"z": z, "r": r, "h~": candidate})


@dataclass(frozen=True, eq=False, kw_only=True)
class SimpleRNN(Recurrent):
    """h = activation(x @ kernel + h @ recurrent_kernel + bias).

    `kernel` (features, units), `recurrent_kernel` (units, units), `bias` (units,) or None.
    Source: SimpleRNNCell.call in keras/src/layers/rnn/simple_rnn.py.
    """

    @cached_property
    def _packed(self) -> Array:
        """[recurrent_kernel; kernel; bias], (units + features + 1, units)."""
        bias = np.zeros(self.units, np.float32) if self.bias is None else self.bias
        return np.vstack([self.recurrent_kernel, self.kernel, bias[np.newaxis]])

    def buffers(self, batch: int) -> list[tuple[int, ...]]:
        """The sum."""
        return [(self.units, batch)]

    def bind(self, buffers: Sequence[Array]) -> BoundCell:
        """The formula above, on units-major arrays (units, b)."""
        (z,) = buffers
        activation = _units_major(self.activation, self.units)

        def update(_: Array, h: Array) -> None:
            np.copyto(h, z)
            activation(h)

        return BoundCell(_product(self._packed, z), update, (), lambda: z, {})


def _units_major(activation: Activation, units: int) -> Callable[[Array], Array]:
    """The activation on units-major arrays, (n units, b): a softmax is over the units of one gate of one row."""
    if activation.elementwise:
        return activation.apply

    def apply(x: Array) -> Array:
        for gate in x.reshape(-1, units, *x.shape[1:]):
            gate[:] = activation.apply(gate.T.copy()).T
        return x

    return apply


def _product(packed: Array, z: Array) -> Callable[[Array], object]:
    """The product of a step, z (n, b) = packed (k, n) transposed @ a (k, b), in the faster of its two forms."""
    if z.ndim == 1:
        # vector @ matrix reads `packed` in its own order, 1.6 times as fast as its transpose @ vector.
        return lambda a: a.dot(packed, z)
    transposed = packed.T
    return lambda a: transposed.dot(a, z)
