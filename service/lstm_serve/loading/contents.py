"""What a model file turned out to hold, whichever form it has."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lstm_serve.engine.types import Array
from lstm_serve.loading.config.architecture import LayerSpec
from lstm_serve.loading.config.keras_version import KerasVersion


class Contents(NamedTuple):
    """`config` is the model's parsed JSON, or None where the file holds weights alone.

    `assign` gives each layer of an architecture its arrays. `stack` is the layers that have weights, in order, by the
    names that the file gives them, None where it gives none; for weights whose architecture nothing tells. It is None
    where the file does not tell the order. `notes` are for the record. `listed`: the arrays are in the order of
    `get_weights()`.
    """

    format: str
    config: Any
    keras: KerasVersion
    assign: Callable[[Sequence[LayerSpec]], list[list[Array]]]
    stack: Sequence[tuple[str | None, Sequence[Array]]] | None
    notes: tuple[str, ...] = ()
    listed: bool = False
