"""What is kept of an operation that was computed forward, so that a gradient can go back through it.

What is computed stops after each operation, and a recurrent one after each time step: who has it computed may do
something else then.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeVar

from lstm_serve.engine.types import Array, Mask

T = TypeVar("T")
Pieces = Generator[None, None, T]  # what stops now and then, and gives T in the end

# By an output, or by an input: None where nothing depends on it.
Gradient = Array | None


class TapeEntry(NamedTuple):
    """An operation with its inputs, their masks and its outputs; `kept` is what its forward keeps beside them."""

    operation: Any
    xs: Sequence[Array]
    masks: Sequence[Mask]
    ys: tuple[Array, ...]
    given: tuple[Mask, ...]
    kept: Any = None


# From the gradients by the outputs to those by the inputs; in pieces where it takes long.
Backward = Callable[[TapeEntry, Sequence[Any]], Sequence[Gradient] | Pieces[Sequence[Gradient]]]


def in_one(pieces: Pieces[T]) -> T:
    """What it gives, without a stop."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            found: T = end.value
            return found


def summed_to(g: Array, shape: Sequence[int]) -> Array:
    """The gradient by an array that was broadcast, from the one by what it became."""
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1 and g.shape[axis] != 1)
    return g.sum(axis=axes, keepdims=True) if axes else g
