"""The layers that hold layers: both directions of a recurrent one, several cells in one, and those for each step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.operations.base import BaseOperation, Operation
from lstm_serve.engine.operations.conv_lstm import ConvLSTM
from lstm_serve.engine.operations.temporal import Embedding
from lstm_serve.engine.operations.wiring import INPUT, Node, Source, last_uses, products, rows_at_once, run, shapes_of
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
    def stateful(self) -> bool:
        """Whether Keras carries its layers' states from call to call."""
        return self.layers[0].stateful

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

    def products(self, shapes: Sequence[Shape]) -> int:
        """Each step meets all weights."""
        return (shapes[0][0] or 1) * sum(array.size for array in self.weights.values())

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
    """Operations applied to each time step by itself: time joins the batch, and leaves it again. The mask passes on.

    They are wired as a model's; what each takes is of the INPUT, a time step (...), or of those before it, and what
    comes out at the `end` is the step's output. None sees a mask that the sequence has.
    """

    not_causal = None

    nodes: tuple[Node, ...]
    end: Source

    @classmethod
    def of(cls, layer: Operation, *, name: str, keras_class: str = "") -> "TimeDistributed":
        """Of one layer."""
        return cls(name=name, keras_class=keras_class, nodes=(Node(layer, (Source(INPUT),)),), end=Source(0))

    @property
    def layer(self) -> Operation | None:
        """The one operation, or None where there are several."""
        return self.nodes[0].operation if len(self.nodes) == 1 else None

    @property
    def weights(self) -> dict[str, Array]:
        """The layer's; of several, each one's under its name."""
        if self.layer is not None:
            return self.layer.weights
        return {f"{op.name}/{name}": array for op, _ in self.nodes for name, array in op.weights.items()}

    @property
    def last_activation(self) -> Activation | None:
        """That of the operation at the end."""
        return self.nodes[self.end.node].operation.last_activation

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """(T, ...) -> (T, ...)."""
        timesteps, *shape = shapes[0]
        made = shapes_of(self.nodes, [tuple(shape)])
        return ((timesteps, *made[self.end.node + 1][self.end.output]),)

    def products(self, shapes: Sequence[Shape]) -> int:
        """Those of each operation, at each step."""
        timesteps, *shape = shapes[0]
        return (timesteps or 1) * sum(products(self.nodes, [tuple(shape)]))

    def step(self, xs: Sequence[Array], state: State) -> tuple[tuple[Array, ...], State]:
        """x (n, ...) -> (n, ...): what the call gives."""
        return (self._computed(xs[0]),), state

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, T, ...) -> (b, T, ...). A step counts where any place in it does."""
        (x,), (mask,) = xs, masks
        b, timesteps = x.shape[:2]
        y = self._computed(x.reshape(b * timesteps, *x.shape[2:]))
        if mask is not None and mask.ndim > 2:
            mask = np.logical_or.reduce(mask.reshape(b, timesteps, -1), axis=2)
        return (y.reshape(b, timesteps, *y.shape[1:]),), (mask,)

    def _computed(self, x: Array) -> Array:
        """Steps (n, ...) -> (n, ...), some at once, so that memory does not grow with the length of a sequence."""
        rows = self._rows_at_once(x.shape[1:])
        parts = [
            run(self.nodes, [x[start : start + rows]], [self.end], self._last_uses)[0][0]
            for start in range(0, max(1, len(x)), rows)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @cached_property
    def _rows_at_once(self) -> Callable[[Shape], int]:
        """How many steps of a shape are computed in one pass: to reckon it takes as long as a small layer does."""
        nodes, ends = self.nodes, [self.end]
        return lru_cache(maxsize=16)(lambda shape: rows_at_once(nodes, [shape], ends))

    @cached_property
    def _last_uses(self) -> tuple[tuple[int, ...], ...]:
        return last_uses(self.nodes, [self.end])


def is_stateful(operation: Operation) -> bool:
    """Whether Keras carries a state of it, or of what is inside it, from call to call."""
    if isinstance(operation, TimeDistributed):
        return any(is_stateful(node.operation) for node in operation.nodes)
    if isinstance(operation, Bidirectional):
        return operation.forward.stateful or operation.backward.stateful
    return isinstance(operation, Recurrent | Stacked | ConvLSTM) and operation.stateful


def tables(operation: Operation) -> list[Embedding]:
    """The tables in which an operation looks up what it is given, itself or at each time step."""
    if isinstance(operation, Embedding):
        return [operation]
    inside = operation.nodes if isinstance(operation, TimeDistributed) else ()
    return [table for node in inside if Source(INPUT) in node.inputs for table in tables(node.operation)]
