"""Keras' layers that make a sequence or a picture longer or shorter, lowered. None passes a mask on, in any Keras.

Sources: zero_padding1d.py, cropping1d.py, up_sampling1d.py and their kin in keras/src/layers/reshaping of 3.15.
"""

from collections.abc import Sequence

import numpy as np

from lstm_serve.engine.activations import LINEAR
from lstm_serve.engine.operations.merging import Concatenate, MaskRule
from lstm_serve.engine.operations.pointwise import Dense
from lstm_serve.engine.types import Array
from lstm_serve.loading.layers.checks import MAX_ROW, channels_last, expect, last_axis
from lstm_serve.loading.layers.subgraph import Subgraph


def padding(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """ZeroPadding1D, 2D and 3D: steps of 0 before and after."""
    k = 0
    for axis, (before, after) in enumerate(_ends(graph, arrays, "padding"), 1):
        k = padded(graph, k, axis, before, after)


def cropping(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """Cropping1D, 2D and 3D: less steps at the beginning and at the end."""
    k = 0
    for axis, (before, after) in enumerate(_ends(graph, arrays, "cropping"), 1):
        if graph.shapes[k][axis - 1] is None:
            raise graph.refusal("takes steps off a sequence whose length is not known: say timesteps in a card")
        if before or after:
            k = graph.slice(k, axis, slice(before, -after if after else None))


def upsampling(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """UpSampling1D, 2D and 3D: each step several times, or steps between them."""
    options, axes = graph.options, len(graph.shapes[0]) - 1
    expect(options, arrays)
    last_axis(options, graph.shapes, rank=_axes(graph) + 1)
    channels_last(options)
    bilinear = options.choice("interpolation", ("nearest", "bilinear"), "nearest") == "bilinear"
    k = 0
    for axis, times in enumerate(options.sizes("size", axes, [2]), 1):
        k = _interpolated(graph, k, axis, times) if bilinear else repeated(graph, k, axis, [1] * times)


def padded(graph: Subgraph, k: int, axis: int, before: int, after: int) -> int:
    """The value k with steps of 0 before and after along an axis, counted from 1."""
    parts = [_zeros(graph, k, axis, before)] if before else []
    parts.append(graph.unmasked(k))
    parts += [_zeros(graph, k, axis, after)] if after else []
    if len(parts) == 1:
        return parts[0]
    return graph.add(Concatenate(name=graph.options.name, axis=axis, mask_rule=MaskRule.ALL), *parts)


def repeated(graph: Subgraph, k: int, axis: int, factors: Sequence[float], *, whole: bool = False) -> int:
    """Several steps for each along an axis, counted from 1, times each of the factors; or all of them as a `whole`."""
    if len(factors) == 1:
        return graph.unmasked(k)
    shape, at = graph.shapes[k], axis - 1 if whole else axis
    apart = graph.reshape(k, (*shape[:at], 1, *shape[at:]))
    column = np.array(factors, np.float32).reshape(-1, *(1,) * (len(shape) - at))
    size = shape[axis - 1]
    made = None if size is None else size * len(factors)
    return graph.reshape(graph.with_numbers(np.multiply, apart, column), (*shape[: axis - 1], made, *shape[axis:]))


def _interpolated(graph: Subgraph, k: int, axis: int, times: int) -> int:
    """Along an axis `times` as many steps, each of the two nearest by how near they are: a product with a matrix."""
    size = graph.shapes[k][axis - 1]
    if size is None or size * size * times > MAX_ROW:
        raise graph.refusal("interpolates along an axis whose size is not known, or is large")
    place = np.clip((np.arange(size * times) + 0.5) / times - 0.5, 0, size - 1)
    matrix = np.maximum(0, 1 - np.abs(place - np.arange(size)[:, None])).astype(np.float32)
    dense = Dense(name=f"{graph.options.name}/{axis}", kernel=matrix, bias=None, activation=LINEAR)
    return graph.over_axis(dense, k, axis)


def _ends(graph: Subgraph, arrays: Sequence[Array], key: str) -> list[tuple[int, int]]:
    """The option, how many steps at both ends: a number, or one for each axis, or two for each."""
    axes = _axes(graph)
    expect(graph.options, arrays)
    last_axis(graph.options, graph.shapes, rank=axes + 1)
    channels_last(graph.options)
    value = graph.options.take(key, object, default=1)
    listed = value if isinstance(value, list) and axes > 1 else [value] * axes
    ends = [tuple(each) if isinstance(each, list) else (each, each) for each in listed]
    if len(ends) != axes or not all(len(pair) == 2 and all(map(_counts, pair)) for pair in ends):
        raise graph.refusal(f"has {key} = {str(value)[:40]}, where one number or two for each axis were expected")
    return [(before, after) for before, after in ends]


def _counts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_ROW


def _axes(graph: Subgraph) -> int:
    return int(graph.options.class_name[-2])


def _zeros(graph: Subgraph, k: int, axis: int, count: int) -> int:
    """So many steps of 0 along an axis, whatever is in the value."""
    zeros = np.zeros((count, *(1,) * (len(graph.shapes[k]) - axis)), np.float32)
    return graph.with_numbers(np.multiply, graph.ones(k, axis), zeros)
