"""What `inspect` says of one layer, and how names and shapes are written."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.operations.base import Operation


class LayerDescription(NamedTuple):
    """What is to be said of a layer.

    `roles` says what each array is, by its name. `equations` lead from the layer's input x to its output y, in lines
    that are not wrapped. `pitfalls` are sentences on what people get wrong. `numpy` are lines that make y, one
    sequence's output, of y, its input: the layer's weights are in `arrays`, and `activations` are those that the lines
    call. None where they cannot be short and right, as for a layer that joins branches. `masked` are those for an input
    with a mask, `mask` (timesteps,), where it makes a difference.
    """

    roles: Mapping[str, str]
    equations: Sequence[str]
    pitfalls: Sequence[str] = ()
    activations: Sequence[Activation] = ()
    numpy: Sequence[str] | None = None
    masked: Sequence[str] | None = None


DROPOUT = (
    "Dropout does nothing at inference, be it a layer or the dropout and recurrent_dropout of one, and nothing is "
    "rescaled for it: Keras scales while it trains."
)


def axes(shape: Sequence[int | None]) -> str:
    """A shape as Keras prints it: (None, 20, 15)."""
    return f"({', '.join(str(n) for n in shape)}{',' if len(shape) == 1 else ''})"


def weights_line(layer: Operation, part: str = "") -> str:
    """The line of NumPy that names a layer's weights; `part` is where they are in `arrays`, [3:6]."""
    return f"{', '.join(layer.weights)}{',' * (len(layer.weights) == 1)} = arrays{part}"
