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
from lstm_serve.loading.layers.steps import Steps


def padding(steps: Steps, arrays: Sequence[Array]) -> None:
    """ZeroPadding1D, 2D and 3D: steps of 0 before and after."""
    k = 0
    for axis, (before, after) in enumerate(_ends(steps, arrays, "padding"), 1):
        k = padded(steps, k, axis, before, after)


def cropping(steps: Steps, arrays: Sequence[Array]) -> None:
    """Cropping1D, 2D and 3D: less steps at the beginning and at the end."""
    k = 0
    for axis, (before, after) in enumerate(_ends(steps, arrays, "cropping"), 1):
        if steps.shapes[k][axis - 1] is None:
            raise steps.refusal("takes steps off a sequence whose length is not known: say timesteps in a card")
        if before or after:
            k = steps.slice(k, axis, slice(before, -after if after else None))


def upsampling(steps: Steps, arrays: Sequence[Array]) -> None:
    """UpSampling1D, 2D and 3D: each step several times, or steps between them."""
    options, axes = steps.options, len(steps.shapes[0]) - 1
    expect(options, arrays)
    last_axis(options, steps.shapes, rank=_axes(steps) + 1)
    channels_last(options)
    bilinear = options.choice("interpolation", ("nearest", "bilinear"), "nearest") == "bilinear"
    k = 0
    for axis, times in enumerate(options.sizes("size", axes, [2]), 1):
        k = _interpolated(steps, k, axis, times) if bilinear else repeated(steps, k, axis, [1] * times)


def padded(steps: Steps, k: int, axis: int, before: int, after: int) -> int:
    """The value k with steps of 0 before and after along an axis, counted from 1."""
    parts = [_zeros(steps, k, axis, before)] if before else []
    parts.append(steps.unmasked(k))
    parts += [_zeros(steps, k, axis, after)] if after else []
    if len(parts) == 1:
        return parts[0]
    return steps.add(Concatenate(name=steps.options.name, axis=axis, mask_rule=MaskRule.ALL), *parts)


def repeated(steps: Steps, k: int, axis: int, factors: Sequence[float], *, whole: bool = False) -> int:
    """Several steps for each along an axis, counted from 1, times each of the factors; or all of them as a `whole`."""
    if len(factors) == 1:
        return steps.unmasked(k)
    shape, at = steps.shapes[k], axis - 1 if whole else axis
    apart = steps.reshape(k, (*shape[:at], 1, *shape[at:]))
    column = np.array(factors, np.float32).reshape(-1, *(1,) * (len(shape) - at))
    size = shape[axis - 1]
    made = None if size is None else size * len(factors)
    return steps.reshape(steps.with_numbers(np.multiply, apart, column), (*shape[: axis - 1], made, *shape[axis:]))


def _interpolated(steps: Steps, k: int, axis: int, times: int) -> int:
    """Along an axis `times` as many steps, each of the two nearest by how near they are: a product with a matrix."""
    size = steps.shapes[k][axis - 1]
    if size is None or size * size * times > MAX_ROW:
        raise steps.refusal("interpolates along an axis whose size is not known, or is large")
    place = np.clip((np.arange(size * times) + 0.5) / times - 0.5, 0, size - 1)
    matrix = np.maximum(0, 1 - np.abs(place - np.arange(size)[:, None])).astype(np.float32)
    dense = Dense(name=f"{steps.options.name}/{axis}", kernel=matrix, bias=None, activation=LINEAR)
    return steps.over_axis(dense, k, axis)


def _ends(steps: Steps, arrays: Sequence[Array], key: str) -> list[tuple[int, int]]:
    """The option, how many steps at both ends: a number, or one for each axis, or two for each."""
    axes = _axes(steps)
    expect(steps.options, arrays)
    last_axis(steps.options, steps.shapes, rank=axes + 1)
    channels_last(steps.options)
    value = steps.options.take(key, object, default=1)
    listed = value if isinstance(value, list) and axes > 1 else [value] * axes
    ends = [tuple(each) if isinstance(each, list) else (each, each) for each in listed]
    if len(ends) != axes or not all(len(pair) == 2 and all(map(_counts, pair)) for pair in ends):
        raise steps.refusal(f"has {key} = {str(value)[:40]}, where one number or two for each axis were expected")
    return [(before, after) for before, after in ends]


def _counts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_ROW


def _axes(steps: Steps) -> int:
    return int(steps.options.class_name[-2])


def _zeros(steps: Steps, k: int, axis: int, count: int) -> int:
    """So many steps of 0 along an axis, whatever is in the value."""
    zeros = np.zeros((count, *(1,) * (len(steps.shapes[k]) - axis)), np.float32)
    return steps.with_numbers(np.multiply, steps.ones(k, axis), zeros)
