"""Where in an HDF5 file a model's arrays lie, for those who would read it without this package."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.types import Array
from lstm_serve.errors import LstmServeError
from lstm_serve.formats import hdf5
from lstm_serve.formats.array_budget import Budget


def array_paths(path: Path, layers: Iterable[Operation]) -> dict[str, list[str]]:
    """By the layers' names, the path of each of their arrays in the order of `weights`.

    Only of layers whose arrays all lie there as they are: Keras 1 keeps gates apart, CuDNN has an order of its own.
    Nothing where `path` is no HDF5 file.
    """
    try:
        with path.open("rb") as source, hdf5.opened(source, Budget()) as file:
            paths = sorted(file.datasets(lambda top: top != "optimizer_weights"))
            arrays = {name: file.array(file.root, name) for name in paths}
    except (OSError, LstmServeError):
        return {}
    found: dict[str, list[str]] = {}
    for layer in layers:
        places = [_place(arrays, values, {layer.name, *name.split("/")}) for name, values in layer.weights.items()]
        if places and all(places):
            found[layer.name] = [place for place in places if place is not None]
    return found


def _place(arrays: dict[str, Array], values: Array, names: set[str]) -> str | None:
    """The path of the array that has these values; of several, such as biases of 0, the one with most of the names."""
    same = [path for path, array in arrays.items() if np.array_equal(array, values)]
    return max(same, key=lambda path: sum(name in path for name in names), default=None)
