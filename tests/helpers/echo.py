"""A model whose answer is known, that can be told to fail or to be slow, and that keeps a record of its calls."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lstm_serve.engine.operations.base import BaseOperation
from lstm_serve.engine.types import Array, Mask, Outputs, Shape
from lstm_serve.model.graph import INPUT, Node, Source, TensorSpec
from lstm_serve.model.metadata import About, Origin
from lstm_serve.model.model import Model


class Fault(Exception):
    """What a layer that is told to fail raises."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Echo(BaseOperation):
    """Answers twice its input; raises for a row that begins with a number in `fail`, NaN for one in `nan`.

    For a row that begins with a number in `seconds` it takes so long.
    """

    name: str = "echo"
    fail: set[float] = field(default_factory=set)
    nan: set[float] = field(default_factory=set)
    seconds: dict[float, float] = field(default_factory=dict)
    calls: list[Array] = field(default_factory=list)

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        (x,) = xs
        self.calls.append(x.copy())
        first = x.reshape(len(x), -1)[:, 0]
        if self.fail & set(first.tolist()):
            raise Fault
        if self.seconds:
            time.sleep(sum(self.seconds.get(value, 0) for value in first.tolist()))
        y = 2 * x
        y[[value in self.nan for value in first.tolist()]] = np.nan
        return (y,), (masks[0],)

    @property
    def rows(self) -> list[int]:
        """How many rows each call had."""
        return [len(x) for x in self.calls]


def model_of(layer: Echo, input_shape: Shape = (2,)) -> Model:
    """The layer as a model of kind `values`."""
    return Model(
        nodes=(Node(layer, (Source(INPUT),)),),
        inputs=(TensorSpec(None, input_shape, np.dtype(np.float32)),),
        origin=Origin(file="echo", sha256="0" * 64, format="none", keras=None),
        about=About(name="echo"),
    )
