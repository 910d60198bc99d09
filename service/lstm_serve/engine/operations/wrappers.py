"""The layers that hold layers: both directions of a recurrent one, several cells in one, one layer for each step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.operations.base import BaseOperation, Operation
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.engine.types import Array, Mask, Outputs, Shape, State


@dataclass(frozen=True, eq=False, kw_only=True)
class Stacked:
    """Recurrent layers one above the other, as Keras' RNN of several cells.

    Each takes the whole sequence of the one below. The first may go backwards, and the others take what it gives.
    """

    name: str
    layers: tuple[Recurrent, ...]
    keras_class: str = ""

    @property
    def return_sequences(self) -> bool:
        """Whether the last layer gives its whole sequence."""
        return self.layers[-1].return_sequences

    @property
    def go_backwards(self) -> bool:
        """Whether the steps are taken last to first."""
        return self.layers[0].go_backwards

    @property
    def weights(self) -> dict[str, Array]:
        """Each layer's, under its number."""
        return {f"{k}/{name}": array for k, layer in enumerate(self.layers) for name, array in layer.weights.items()}

    @property
    def last_activation(self) -> Activation | None:
        """None, as of its layers."""
        return None

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """That of the last layer."""
        (shape,) = shapes
        for layer in self.layers:
            (shape,) = layer.output_shapes([shape])
        return (shape,)

    @property
    def not_causal(self) -> str | None:
        """What the first of its layers says that has no step."""
        return next((why for layer in self.layers if (why := layer.not_causal)), None)

    def start(self, n: int) -> State:
        """The layers' states, one after the other."""
        return tuple(array for layer in self.layers for array in layer.start(n))

    def step(self, xs: Sequence[Array], state: State) -> tuple[tuple[Array, ...], State]:
        """x (n, features) -> (n, units)."""
        ys: tuple[Array, ...] = tuple(xs)
        after: State = ()
        for layer in self.layers:
            ys, made = layer.step(ys, state[len(after) : len(after) + len(layer.carried)])
            after += made
        return ys, after

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, T, features) -> (b, T, units) with the mask, or the last h, (b, units)."""
        x, mask = xs[0], masks[0]
        for layer in self.layers:
            (x,), _ = layer([x], [mask])
            if layer.go_backwards and mask is not None:
                mask = mask[:, ::-1]
        return (x,), (masks[0] if self.return_sequences else None,)

    def trace(self, xs: Sequence[Array], masks: Sequence[Mask]) -> dict[str, Array]:
        """Each layer's steps, under its number."""
        x, mask = xs[0], masks[0]
        traced: dict[str, Array] = {}
        for k, layer in enumerate(self.layers):
            traced |= {f"{k}/{name}": steps for name, steps in layer.trace([x], [mask]).items()}
            (x,), _ = layer([x], [mask])
            if layer.go_backwards and mask is not None:
                mask = mask[:, ::-1]
        return traced


@dataclass(frozen=True, eq=False, kw_only=True)
class Bidirectional(BaseOperation):
    """A recurrent layer in each direction of time, and their outputs merged.

    The output of `backward` is turned round before the merge where it is a sequence, so that equal times meet.
    """

    not_causal = "reads the sequence from its end as well"

    forward: Recurrent | Stacked
    backward: Recurrent | Stacked
    merge_mode: Literal["concat", "sum", "mul", "ave"]

    @property
    def weights(self) -> dict[str, Array]:
        """Forward, then backward."""
        return {
            f"{direction}/{name}": array
            for direction, layer in (("forward", self.forward), ("backward", self.backward))
            for name, array in layer.weights.items()
        }

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Forward's, twice as wide where the two are concatenated."""
        (*steps, forward), *states = self.forward.output_shapes(shapes[:1])
        (*_, backward), *others = self.backward.output_shapes(shapes[:1])
        width = (forward or 0) + (backward or 0) if self.merge_mode == "concat" else forward
        return ((*steps, width), *states, *others)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, T, features) -> (b, T, merged) with the mask, or the last of each direction merged, (b, merged).

        States before the first step are inputs, and those after the last one outputs, forward's and then backward's.
        """
        half = 1 + len(xs) // 2
        (forward, *states), (mask, *_) = self.forward(xs[:half], masks[:half])
        (backward, *others), _ = self.backward((xs[0], *xs[half:]), (masks[0], *masks[half:]))
        ends, unmasked = (*states, *others), (None,) * (len(states) + len(others))
        if self.forward.return_sequences:
            backward = backward[:, ::-1]
        if self.merge_mode == "concat":
            return (np.concatenate([forward, backward], axis=-1), *ends), (mask, *unmasked)
        if self.merge_mode == "mul":
            return (forward * backward, *ends), (mask, *unmasked)
        merged: Array = forward + backward
        if self.merge_mode == "ave":
            merged /= 2
        return (merged, *ends), (mask, *unmasked)

    def trace(self, xs: Sequence[Array], masks: Sequence[Mask]) -> dict[str, Array]:
        """The steps of each direction, in the order in which it took them."""
        return {
            f"{direction}/{name}": steps
            for direction, layer, given in (
                ("forward", self.forward, xs[: 1 + len(xs) // 2]),
                ("backward", self.backward, (xs[0], *xs[1 + len(xs) // 2 :])),
            )
            for name, steps in layer.trace(given, masks).items()
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class TimeDistributed(BaseOperation):
    """A layer applied to each time step by itself: time joins the batch, and leaves it again. The mask passes on."""

    not_causal = None

    layer: Operation

    @property
    def weights(self) -> dict[str, Array]:
        """The layer's."""
        return self.layer.weights

    @property
    def last_activation(self) -> Activation | None:
        """The layer's."""
        return self.layer.last_activation

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """(T, ...) -> (T, ...)."""
        timesteps, *shape = shapes[0]
        return ((timesteps, *self.layer.output_shapes([tuple(shape)])[0]),)

    def step(self, xs: Sequence[Array], state: State) -> tuple[tuple[Array, ...], State]:
        """x (n, ...) -> (n, ...): the layer's call."""
        return self.layer(xs, (None,))[0], state

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, T, ...) -> (b, T, ...)."""
        (x,) = xs
        b, timesteps = x.shape[:2]
        (y,), _ = self.layer([x.reshape(b * timesteps, *x.shape[2:])], [None])
        return (y.reshape(b, timesteps, *y.shape[1:]),), (masks[0],)
