"""Weights as a list of arrays, as `model.get_weights()` gives it: in an .npz file, or in JSON."""

import re
import zipfile
from collections.abc import Sequence
from functools import partial
from typing import Any, BinaryIO

import numpy as np

from lstm_serve.engine.types import AnyArray, Array
from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.formats.array_budget import Budget
from lstm_serve.formats.npy import HoldsObjects, read_npz
from lstm_serve.loading.config.keras_version import UNKNOWN
from lstm_serve.loading.contents import Contents
from lstm_serve.loading.files.foreign import PICKLE
from lstm_serve.loading.weights import assign as weights
from lstm_serve.loading.weights import infer_architecture

DOUBLED = (
    "the weights are there {} times over, as [model.get_weights() for layer in model.layers] makes them; taken once"
)


def from_npz(archive: zipfile.ZipFile, file: BinaryIO, budget: Budget) -> Contents:
    """Of `np.savez("w.npz", *model.get_weights())`: arr_0, arr_1, ... by their numbers, other names as they come."""
    most = budget.left
    budget.take(sum(member.file_size for member in archive.infolist()), archive.namelist()[-1][:100])
    try:
        named = read_npz(file, limit=most)
    except HoldsObjects:
        raise Unsupported(PICKLE) from None
    # What is shorter than a float32 grows to one.
    budget.take(sum(max(0, 4 * array.size - array.nbytes) for array in named.values()), [*named][-1][:100])
    if all(re.fullmatch(r"arr_\d{1,6}", name) for name in named):
        named = dict(sorted(named.items(), key=lambda item: int(item[0][4:])))
    # One by one out of the dict, so that what was read goes as what it becomes comes.
    return _contents(".npz", [_array(named.pop(name), f"the array {name[:100]!r}") for name in list(named)])


def from_json(data: list[Any]) -> Contents:
    """Of `json.dump([w.tolist() for w in model.get_weights()], f)`, or of a list of such lists, one for each layer."""
    flat = [_number_array(item) for item in data]
    arrays = [array for array in flat if array is not None]
    if len(arrays) == len(flat):
        return _contents("JSON list", arrays)
    layers: list[list[Array]] = []
    for k, item in enumerate(data):
        inner = [_number_array(array) for array in item] if isinstance(item, list) else [None]
        layers.append([array for array in inner if array is not None])
        if len(layers[k]) != len(inner):
            raise UnreadableFile(f"item {k} of the JSON list is neither an array of numbers nor a list of such")
    if len(layers) == 1:
        return _contents("JSON list", layers[0])
    if _all_equal(layers):
        return _contents("JSON list", layers[0], DOUBLED.format(len(layers)))
    return _contents("JSON list", [array for layer in layers for array in layer], layers=layers)


def _contents(
    form: str, arrays: list[Array], note: str | None = None, layers: Sequence[Sequence[Array]] | None = None
) -> Contents:
    if not arrays:
        raise UnreadableFile("the list of weights is empty")
    for times in range(len(arrays), 1, -1):
        size = len(arrays) // times
        parts = [arrays[k : k + size] for k in range(0, len(arrays), size)]
        if note is None and layers is None and size * times == len(arrays) and size > 1 and _all_equal(parts):
            arrays, note = parts[0], DOUBLED.format(times)
            break
    groups = infer_architecture.split(arrays) if layers is None else [(None, layer) for layer in layers if layer]
    assign = partial(weights.in_order, arrays=arrays)
    return Contents(form, None, UNKNOWN, assign, groups, () if note is None else (note,), listed=True)


def _all_equal(lists: Sequence[Sequence[Array]]) -> bool:
    first, *others = lists
    return all(
        len(other) == len(first) and all(map(np.array_equal, other, first)) and len(first) > 0 for other in others
    )


def _number_array(item: object) -> Array | None:
    """A nested list as an array; None where its rows are of different lengths, as a list of arrays' are."""
    if not isinstance(item, list) or not item:
        return None
    try:
        values = np.array(item)
    except ValueError:
        return None
    return _array(values, "an array of the JSON list") if values.dtype.kind in "fiu" else None


def _array(values: AnyArray, what: str) -> Array:
    if values.dtype.kind not in "fiu":
        raise UnreadableFile(f"{what} is of type {values.dtype}, where floats were expected")
    with np.errstate(over="ignore"):
        array = values.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise UnreadableFile(
            f"{what} holds NaN, infinity or numbers beyond float32: a training that diverged, or a damaged file"
        )
    return array
