"""Recurrent layers: one cell a class, and one scan through time for all of them.

A step is `z = [h, x, 1] @ [recurrent_kernel; kernel; bias]`, one matrix product, and then what the cell makes of z.
Inside a scan arrays are units-major, (units, batch): a gate is one contiguous block, and one NumPy call serves several.
One row alone has no batch axis there, (units,): for one dimension NumPy has a shorter way, a tenth of the whole time.

Buffers belong to the thread that computes: a layer, once made, is only read, and keeps for each thread what one row
alone is computed in.
"""

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.engine.activations import SIGMOID, TANH, Activation, Array

Mask = npt.NDArray[np.bool_] | None
Shape = tuple[int | None, ...]

# Steps whose operands are laid out at once: memory grows with the batch, never with the length of a sequence.
BLOCK = 32

# An array, not a number, which NumPy would make into one at each call.
HALF = np.array(0.5, np.float32)

Allocate = Callable[[Sequence[tuple[int, ...]]], list[Array]]  # shapes to arrays, of whatever content

_local = threading.local()


def _scratch(shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """This thread's scratch memory, cut into arrays of these shapes; they hold until the thread's next call."""
    sizes = [math.prod(shape) for shape in shapes]
    memory: Array | None = getattr(_local, "memory", None)
    if memory is None or memory.size < sum(sizes):
        memory = _local.memory = np.empty(sum(sizes), np.float32)
    arrays, start = [], 0
    for shape, size in zip(shapes, sizes, strict=True):
        arrays.append(memory[start : start + size].reshape(shape))
        start += size
    return arrays


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a cell, bound to the buffers of a scan.

    `sums(a)` computes the sums z from the operand a = [h; x; 1], (units + features + 1, b). `update(before, h)` makes
    the new hidden state of it and of the one before, and writes it into h, (units, b). `states` are the states besides
    h, which a scan sets to 0 first. `z()` gives the sums in Keras' column order, to be asked before `update`; `parts`
    are views, by name, of what the update computed.
    """

    sums: Callable[[Array], object]
    update: Callable[[Array, Array], None]
    states: tuple[Array, ...]
    z: Callable[[], Array]
    parts: Mapping[str, Array]


@dataclass(frozen=True, eq=False, kw_only=True)
class Recurrent(ABC):
    """What every recurrent layer has: arrays in Keras' own layout, float32, and how it walks through time.

    With `go_backwards` the steps are taken last to first, and a returned sequence stays in that order, as in Keras.
    With `zero_output_for_mask` the output of a masked step is 0; without it, the last output before it, held.
    """

    name: str
    kernel: Array
    recurrent_kernel: Array
    bias: Array | None
    activation: Activation
    return_sequences: bool = False
    go_backwards: bool = False
    zero_output_for_mask: bool = False

    @cached_property
    def kept(self) -> threading.local:
        """For `_alone`: each thread's `workspace` for one row."""
        return threading.local()

    @property
    def units(self) -> int:
        """The length of h."""
        return int(self.recurrent_kernel.shape[0])

    @property
    def weights(self) -> dict[str, Array]:
        """The arrays by their Keras names, in the order of `get_weights()`."""
        named = {"kernel": self.kernel, "recurrent_kernel": self.recurrent_kernel}
        return named if self.bias is None else named | {"bias": self.bias}

    @property
    def last_activation(self) -> Activation | None:
        """None: a gated state is no plain activation of anything."""
        return None

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """(T, features) -> (T, units), or (units,) for the last step alone."""
        timesteps, _ = shapes[0]
        return (timesteps, self.units) if self.return_sequences else (self.units,)

    @abstractmethod
    def buffers(self, batch: int) -> list[tuple[int, ...]]:
        """The shapes of the arrays that `step` works in."""

    @abstractmethod
    def step(self, buffers: Sequence[Array]) -> Step:
        """A step, bound to these buffers."""

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> tuple[Array, Mask]:
        """x (b, T, features) -> (b, T, units) with the mask, or the last h, (b, units)."""
        return scan(self, xs[0], masks[0])

    def trace(self, xs: Sequence[Array], masks: Sequence[Mask]) -> dict[str, Array]:
        """Every step's sums, gates and states by name, each (b, T, width), in the order in which they were taken."""
        record: dict[str, list[Array]] = {}
        scan(self, xs[0], masks[0], record)
        b = len(xs[0])
        return {name: np.stack(steps).reshape(len(steps), -1, b).transpose(2, 0, 1) for name, steps in record.items()}


@dataclass(frozen=True, eq=False, kw_only=True)
class LSTM(Recurrent):
    """Long short-term memory, with gate = `recurrent_activation`.

        i = gate(z_i)      f = gate(z_f)     g = activation(z_c)     o = gate(z_o)
        c = f * c + i * g                    h = o * activation(c)

    `kernel` (features, 4 units), `recurrent_kernel` (units, 4 units), `bias` (4 units,) or None; their column blocks
    are the gates i, f, c, o. Source: LSTMCell.call in keras/src/layers/rnn/lstm.py; the same from Keras 2.0 to 3.15.
    """

    recurrent_activation: Activation

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

    def step(self, buffers: Sequence[Array]) -> Step:
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
        return Step(_product(self._packed, z), update_fused if fused else update, (c,), keras_z, parts)


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
        bias = np.zeros((2, 3 * u), np.float32)
        if self.bias is not None:
            bias[: 2 if self.reset_after else 1] = self.bias
        packed = np.zeros((u + len(self.kernel) + 1, 4 * u), np.float32)
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

    def step(self, buffers: Sequence[Array]) -> Step:
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
        return Step(_product(self._packed, s), update, (), keras_z, {"z": z, "r": r, "h~": candidate})


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

    def step(self, buffers: Sequence[Array]) -> Step:
        """The formula above, on units-major arrays (units, b)."""
        (z,) = buffers
        activation = _units_major(self.activation, self.units)

        def update(_: Array, h: Array) -> None:
            np.copyto(h, z)
            activation(h)

        return Step(_product(self._packed, z), update, (), lambda: z, {})


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


def scan(layer: Recurrent, x: Array, mask: Mask, record: dict[str, list[Array]] | None = None) -> tuple[Array, Mask]:
    """Walk a layer's cell over x (b, T, features) from zero states.

    Where mask (b, T) is False, every state stays what it was, and so does the output, or it is 0 where the layer says
    so. Gives (b, T, units) with the mask, or the last h, (b, units), with none. `record` collects, by name, what each
    step computed, each (width, b).
    """
    b, timesteps, _ = x.shape
    u = layer.units
    # Keras passes the mask on in the order in which it came, also where it reverses the sequence.
    mask_out = mask
    if layer.go_backwards:
        x = x[:, ::-1]
        mask = None if mask is None else mask[:, ::-1]
    y = np.empty((b, timesteps, u), np.float32) if layer.return_sequences else None
    block = min(BLOCK, timesteps)
    operands, steps, hs, step = _alone(layer, block) if b == 1 else _workspace(layer, block, b, _scratch)
    advance = _plain(step) if mask is None and record is None else _observed(step, mask, record)
    for state in (operands[0, :u], *step.states):
        state[:] = 0
    n = 0
    for start in range(0, timesteps, block):
        operands[0, :u] = operands[n, :u]
        n = min(block, timesteps - start)
        operands[:n, u:-1] = x[:, start : start + n].transpose(1, 2, 0)
        advance(steps[:n], hs, start)
        if y is not None:
            y[:, start : start + n] = operands[1 : n + 1, :u].transpose(2, 0, 1)
    zeroed = mask if layer.zero_output_for_mask else None
    if y is not None:
        if zeroed is not None:
            y[~zeroed] = 0
        return y, mask_out
    last = operands[n, :u].T.copy()
    if zeroed is not None:
        last[~zeroed[:, -1]] = 0
    return last, None


class Workspace(NamedTuple):
    """What a scan works in: `operands`, (steps + 1, units + features + 1, b), and a step bound to its buffers.

    operands[t] is [h_(t-1); x_t; 1]: a step writes its h straight into the next step's operand. `steps` is the same
    without the batch axis of one row alone, and `hs` the h in each.
    """

    operands: Array
    steps: Array
    hs: Sequence[Array]
    step: Step


def _workspace(layer: Recurrent, block: int, b: int, allocate: Allocate) -> Workspace:
    """One for so many steps of b rows."""
    operands, *buffers = allocate([(block + 1, layer.units + len(layer.kernel) + 1, b), *layer.buffers(b)])
    operands[:, -1] = 1
    steps = _without_batch(operands)
    step = layer.step([_without_batch(buffer) for buffer in buffers])
    return Workspace(operands, steps, list(steps[:, : layer.units]), step)


def _alone(layer: Recurrent, block: int) -> Workspace:
    """One for one row, which this thread keeps: to make it takes a tenth of the time of 20 steps."""
    kept: Workspace | None = getattr(layer.kept, "workspace", None)
    if kept is None or len(kept.operands) != block + 1:
        kept = layer.kept.workspace = _workspace(layer, block, 1, _empty)
    return kept


def _empty(shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    return [np.empty(shape, np.float32) for shape in shapes]


def _without_batch(array: Array) -> Array:
    """An array (..., b) as (...) where b is 1."""
    return array[..., 0] if array.shape[-1] == 1 else array


Advance = Callable[[Array, Sequence[Array], int], None]  # over some steps: operands, the h before each and after, start


def _plain(step: Step) -> Advance:
    """The usual case: nothing but the steps."""
    sums, update = step.sums, step.update

    def advance(operands: Array, hs: Sequence[Array], _: int) -> None:
        for t, operand in enumerate(operands):
            sums(operand)
            update(hs[t], hs[t + 1])

    return advance


def _observed(step: Step, mask: Mask, record: dict[str, list[Array]] | None) -> Advance:
    """The steps with a mask, which holds the states where it is False, or with a record of what each computed."""

    def advance(operands: Array, hs: Sequence[Array], start: int) -> None:
        for t, operand in enumerate(operands):
            step.sums(operand)
            # z is the sums of an LSTM, and a gate of a GRU.
            z = {"sums" if "z" in step.parts else "z": step.z().copy()} if record is not None else {}
            before = [hs[t], *(state.copy() for state in step.states)]
            step.update(hs[t], hs[t + 1])
            if mask is not None:
                for old, new in zip(before, (hs[t + 1], *step.states), strict=True):
                    np.copyto(new, old, where=~mask[:, start + t])
            if record is not None:
                for name, part in {**z, **step.parts, "h": hs[t + 1]}.items():
                    record.setdefault(name, []).append(part.copy())

    return advance
