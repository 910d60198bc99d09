"""What a model takes and answers, and whether inputs fit together. How it is wired is the engine's."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lstm_serve.engine.operations.wiring import INPUT, Node, Source, last_uses, live_floats, rows_at_once, run
from lstm_serve.engine.operations.wiring import shapes_of as shapes
from lstm_serve.engine.types import Shape

__all__ = [
    "INPUT",
    "Node",
    "Source",
    "TensorSpec",
    "expect_fit",
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


def expect_fit(nodes: Sequence[Node], given: Sequence[Shape]) -> None:
    """Raise ValueError where inputs of these shapes, none of them free, do not fit together where they are joined."""
    found = shapes(nodes, given)
    for operation, inputs in nodes:
        if len(inputs) > 1:
            xs = [np.empty((0, *(n or 0 for n in found[node + 1][output])), np.float32) for node, output in inputs]
            operation(xs, [None] * len(xs))
