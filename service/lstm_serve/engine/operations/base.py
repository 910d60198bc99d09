"""What an operation is, and the two shapes that most of them have.

Each is a frozen record of arrays and options, and a function of its inputs.
`operation(xs, masks) -> (ys, masks)`: arrays (b, ...) in and out, masks bool (b, T) or None. It never writes into xs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.types import Array, Mask, Outputs, Shape


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

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """The output and its mask."""

    def trace(self, xs: Sequence[Array], masks: Sequence[Mask]) -> dict[str, Array]:
        """What is computed on the way to the output, by name, from the same functions."""


@dataclass(frozen=True, eq=False, kw_only=True)
class StatelessOperation:
    """A layer without weights that keeps the shape and passes the mask on: overridden where a layer differs."""

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

    def trace(self, xs: Sequence[Array], masks: Sequence[Mask]) -> dict[str, Array]:
        """Nothing by default."""
        return {}


@dataclass(frozen=True, eq=False, kw_only=True)
class KernelOperation(StatelessOperation):
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
