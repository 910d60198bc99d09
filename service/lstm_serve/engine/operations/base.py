"""What an operation is, and the two shapes that most of them have.

Each is a frozen record of arrays and options, and a function of its inputs.
`operation(xs, masks) -> (ys, masks)`: arrays (b, ...) in and out, masks bool (b, T) or None. It never writes into xs.

An operation on a sequence is causal where it gives one output for each time step, which depends on that step and those
before it. It has `step(xs, state) -> (ys, state)` beside its call, for one time step of n series: xs and ys (n, ...),
without the time axis and without a mask, and the state that `start(n)` begins with. To step through a sequence gives
what the call gives; where only the last output is returned, each step gives that of the sequence up to it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.types import Array, Mask, Outputs, Shape, State

# What a layer says that does not say itself whether it is causal. None of the engine's own does.
NO_STEP = "has no step"


class Operation(Protocol):
    """What the model asks of a layer."""

    @property
    def name(self) -> str:
        """The layer's name in the file."""

    @property
    def keras_class(self) -> str:
        """The class of Keras that it was in the file; empty in a layer that came from none."""

    @property
    def weights(self) -> dict[str, Array]:
        """The arrays by their Keras names, in the order of `get_weights()`."""

    @property
    def last_activation(self) -> Activation | None:
        """The function that made the output, or None where no single one did."""

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """The output's shape for these input shapes, all without the batch axis."""

    def products(self, shapes: Sequence[Shape]) -> int:
        """About how many multiplications a row of inputs of these shapes takes."""

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """The output and its mask."""

    def trace(self, xs: Sequence[Array], masks: Sequence[Mask]) -> dict[str, Array]:
        """What is computed on the way to the output, by name, from the same functions."""

    @property
    def not_causal(self) -> str | None:
        """Why there is no step on a sequence, as the end of a sentence about the layer; None where there is one."""

    def start(self, n: int) -> State:
        """The state of n series before their first step."""

    def step(self, xs: Sequence[Array], state: State) -> tuple[tuple[Array, ...], State]:
        """The outputs of one time step, and the state after it. It writes into neither xs nor state."""


@dataclass(frozen=True, eq=False, kw_only=True)
class BaseOperation:
    """What an operation is unless it says otherwise: no weights, the shape of its input, nothing traced, no step."""

    name: str
    keras_class: str = ""

    @property
    def weights(self) -> dict[str, Array]:
        """None by default."""
        return {}

    @property
    def last_activation(self) -> Activation | None:
        """None by default."""
        return None

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """The input's."""
        return (shapes[0],)

    def products(self: Operation, shapes: Sequence[Shape]) -> int:
        """By default one for each number of the output, or each place along the last axis meets all weights."""
        weights = sum(array.size for array in self.weights.values())
        (made, *_) = self.output_shapes(shapes)
        return max(_places(made), _places(shapes[0][:-1]) * weights)

    def trace(self, xs: Sequence[Array], masks: Sequence[Mask]) -> dict[str, Array]:
        """Nothing by default."""
        return {}

    @property
    def not_causal(self) -> str | None:
        """Not unless a layer says so: a sequence is computed as a whole."""
        return NO_STEP

    def start(self, n: int) -> State:
        """Nothing is carried by default."""
        del n
        return ()

    def step(self: Operation, xs: Sequence[Array], state: State) -> tuple[tuple[Array, ...], State]:
        """By default the call: a causal layer without a state sees a time step as it sees a row."""
        return self(xs, (None,) * len(xs))[0], state


def _places(shape: Shape) -> int:
    return math.prod(size or 1 for size in shape)


@dataclass(frozen=True, eq=False, kw_only=True)
class KernelOperation(BaseOperation):
    """A layer that makes a product with its kernel, adds its bias, (units,) or None, and applies its activation."""

    kernel: Array
    bias: Array | None
    activation: Activation

    @property
    def weights(self) -> dict[str, Array]:
        """The kernel and, where there is one, the bias."""
        return {"kernel": self.kernel} if self.bias is None else {"kernel": self.kernel, "bias": self.bias}

    @property
    def last_activation(self) -> Activation | None:
        """The layer's own."""
        return self.activation


class SpreadOperation(BaseOperation):
    """A layer of one input, whose arrays all broadcast against it: of the last axis alone, or of time too."""

    @property
    def not_causal(self) -> str | None:
        """It has a step where its arrays are of the last axis alone."""
        same = all(math.prod(array.shape[:-1]) == 1 for array in self.weights.values())
        return None if same else "has numbers of its own for each time step"

    def step(self: Operation, xs: Sequence[Array], state: State) -> tuple[tuple[Array, ...], State]:
        """x (n, ...) -> the same shape: without the time axis that its arrays may have."""
        return (self(xs, (None,))[0][0].reshape(xs[0].shape),), state
