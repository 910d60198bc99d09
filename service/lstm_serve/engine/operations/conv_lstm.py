"""An LSTM whose products are convolutions: through time, of pictures of one, two or three axes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lstm_serve.engine.activations import LINEAR, Activation
from lstm_serve.engine.operations.base import BaseOperation
from lstm_serve.engine.operations.windows import Convolution, Window, counts
from lstm_serve.engine.operations.wiring import FLOATS_AT_ONCE, ROWS_AT_ONCE
from lstm_serve.engine.types import Array, Mask, Outputs, Shape


@dataclass(frozen=True, eq=False, kw_only=True)
class ConvLSTM(BaseOperation):
    """With * for a convolution, and gate = `recurrent_activation`.

        i = gate(x * W_i + h * U_i + b_i)     f, o alike
        c = f c + i activation(x * W_c + h * U_c + b_c)     h = o activation(c)

    `kernel` (*sizes, features, 4 filters) over the `windows`, `recurrent_kernel` (*sizes, filters, 4 filters) over each
    place, padded so that h stays as large; their last axis are the gates i, f, c, o. The states before the first step
    are 0, or inputs; with `return_state` those after the last are outputs. Source: ConvLSTMCell.call in
    keras/src/layers/rnn/conv_lstm.py; the same in tf.keras 2.15.
    """

    not_causal = "has pictures for its states"

    kernel: Array
    recurrent_kernel: Array
    bias: Array | None
    windows: tuple[Window, ...]
    activation: Activation
    recurrent_activation: Activation
    return_sequences: bool = False
    go_backwards: bool = False
    return_state: bool = False
    stateful: bool = False

    @property
    def weights(self) -> dict[str, Array]:
        """In Keras' order."""
        named = {"kernel": self.kernel, "recurrent_kernel": self.recurrent_kernel}
        return named if self.bias is None else named | {"bias": self.bias}

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """(T, *sizes, features) -> (T, *windows, filters), or of the last step alone; and then the states."""
        timesteps, *picture = shapes[0]
        state = (*counts(self.windows, tuple(picture)), self.recurrent_kernel.shape[-2])
        y = (timesteps, *state) if self.return_sequences else state
        return (y, state, state) if self.return_state else (y,)

    def products(self, shapes: Sequence[Shape]) -> int:
        """Each window meets both kernels, at each step."""
        timesteps, *picture = shapes[0]
        of_input = self._input.products([tuple(picture)])
        return (timesteps or 1) * (of_input + of_input // self.kernel.size * self.recurrent_kernel.size)

    @cached_property
    def _input(self) -> Convolution:
        return Convolution(name=self.name, kernel=self.kernel, bias=self.bias, windows=self.windows, activation=LINEAR)

    @cached_property
    def _recurrent(self) -> Convolution:
        places = tuple(Window(size=size, padding="same") for size in self.recurrent_kernel.shape[:-2])
        return Convolution(name=self.name, kernel=self.recurrent_kernel, bias=None, windows=places, activation=LINEAR)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, T, *sizes, features) -> (b, T, *windows, filters) or the last h, and the states; some rows at once."""
        b, places = len(xs[0]), math.prod(count or 0 for count in counts(self.windows, xs[0].shape[2:]))
        rows = max(1, min(ROWS_AT_ONCE, FLOATS_AT_ONCE // max(1, 12 * places * self.recurrent_kernel.shape[-2])))
        parts = [self._scan([x[start : start + rows] for x in xs]) for start in range(0, max(1, b), rows)]
        ys = tuple(np.concatenate(each) if len(each) > 1 else each[0] for each in zip(*parts, strict=True))
        return ys, (None,) * len(ys)

    def _scan(self, xs: Sequence[Array]) -> tuple[Array, ...]:
        x = xs[0]
        timesteps, gate, activation = x.shape[1], self.recurrent_activation.apply, self.activation.apply
        places = [count or 0 for count in counts(self.windows, x.shape[2:])]
        zeros = np.zeros((len(x), *places, self.recurrent_kernel.shape[-2]), self.kernel.dtype)
        h, c = xs[1:] if len(xs) > 1 else (zeros, zeros)
        taken: list[Array] = []
        for t in reversed(range(timesteps)) if self.go_backwards else range(timesteps):
            (z,), _ = self._input([x[:, t]], [None])
            z += self._recurrent([h], [None])[0][0]
            # Each gate by itself, so that a softmax is over its own filters.
            i, f, g, o = (np.ascontiguousarray(part) for part in np.split(z, 4, axis=-1))
            c = gate(f) * c + gate(i) * activation(g)
            h = gate(o) * activation(c.copy())
            if self.return_sequences:
                taken.append(h)
        y = np.stack(taken, axis=1) if self.return_sequences else h
        return (y, h, c) if self.return_state else (y,)
