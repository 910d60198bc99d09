"""What a model takes and answers, and whether inputs fit together. How it is wired is the engine's."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lstm_serve.engine.operations.wiring import INPUT, Node, Source, last_uses, live_floats, rows_at_once, run
from lstm_serve.engine.operations.wiring import shapes_of as shapes
from lstm_serve.engine.types import Shape
from lstm_serve.errors import InvalidInput

__all__ = [
    "INPUT",
    "Node",
    "Source",
    "TensorSpec",
    "check_lengths",
    "last_uses",
    "live_floats",
    "rows_at_once",
    "run",
    "shapes",
]


class TensorSpec(NamedTuple):
    """What a model takes or answers: its name in the file, where that tells it, its shape and its dtype.

    The shape is without the batch axis, a free axis is None. `in_file` is its name there where its card calls it by
    another.
    """

    name: str | None
    shape: Shape
    dtype: np.dtype[Any]
    in_file: str | None = None


def check_lengths(nodes: Sequence[Node], names: Sequence[str | None], given: Sequence[Shape]) -> None:
    """Raise InvalidInput where inputs of these shapes, none of them free, are too short, or do not fit together."""
    if any(size is not None and size < 1 for first, *_ in shapes(nodes, given) for size in first):
        # A convolution would have no output.
        came = " and ".join(map(str, given))
        raise InvalidInput.at(f"a sequence of shape {came} has too few time steps for this model")
    if len(given) > 1:
        try:
            _expect_fit(nodes, given)
        except ValueError:
            came = ", ".join(f"{name} {shape}" for name, shape in zip(names, given, strict=True))
            raise InvalidInput.at(f"the lengths of the inputs do not fit together: {came}") from None


def _expect_fit(nodes: Sequence[Node], given: Sequence[Shape]) -> None:
    """Raise ValueError where inputs of these shapes, none of them free, do not fit together where they are joined."""
    found = shapes(nodes, given)
    for operation, inputs in nodes:
        if len(inputs) > 1:
            xs = [np.empty((0, *(n or 0 for n in found[node + 1][output])), np.float32) for node, output in inputs]
            operation(xs, [None] * len(xs))
