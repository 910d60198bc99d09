"""Keras' layers that make a sequence longer or shorter, lowered. None passes a mask on, in any Keras.

Sources: zero_padding1d.py, cropping1d.py and up_sampling1d.py in keras/src/layers/reshaping of 3.15.
"""

from collections.abc import Sequence

import numpy as np

from lstm_serve.engine.operations.merging import Concatenate, MaskRule
from lstm_serve.engine.types import Array
from lstm_serve.loading.layers.checks import expect, last_axis
from lstm_serve.loading.layers.steps import Steps


def padding(steps: Steps, arrays: Sequence[Array]) -> None:
    """ZeroPadding1D: steps of 0 before and after."""
    before, after = _ends(steps, arrays, "padding")
    parts = [_zeros(steps, before)] if before else []
    parts.append(steps.unmasked(0))
    parts += [_zeros(steps, after)] if after else []
    if len(parts) > 1:
        steps.add(Concatenate(name=steps.options.name, axis=1, mask_rule=MaskRule.ALL), *parts)


def cropping(steps: Steps, arrays: Sequence[Array]) -> None:
    """Cropping1D: less steps at the beginning and at the end."""
    before, after = _ends(steps, arrays, "cropping")
    if steps.shapes[0][0] is None:
        raise steps.refusal("takes steps off a sequence whose length is not known: say timesteps in a card")
    if before or after:
        steps.slice(0, 1, slice(before, -after if after else None))


def upsampling(steps: Steps, arrays: Sequence[Array]) -> None:
    """UpSampling1D: each step several times."""
    expect(steps.options, arrays)
    features = last_axis(steps.options, steps.shapes, rank=2)
    timesteps, size = steps.shapes[0][0], steps.options.size("size", 2)
    apart = steps.reshape(0, (timesteps, 1, features))
    repeated = steps.with_numbers(np.multiply, apart, np.ones((size, 1), np.float32))
    steps.reshape(repeated, (None if timesteps is None else timesteps * size, features))


def _ends(steps: Steps, arrays: Sequence[Array], key: str) -> tuple[int, int]:
    """The option, a number for both ends of a sequence or one for each."""
    expect(steps.options, arrays)
    last_axis(steps.options, steps.shapes, rank=2)
    steps.options.refuse_unless("data_format", expected="channels_last", why="time comes before the features")
    given = steps.options.integers(key, [1])
    if len(given) > 2 or min(given, default=-1) < 0:
        raise steps.refusal(f"has {key} = {str(given)[:40]}, where one number or two were expected")
    return given[0], given[-1]


def _zeros(steps: Steps, count: int) -> int:
    """So many steps of 0, whatever is in the sequence: (count, features)."""
    return steps.with_numbers(np.multiply, steps.ones(0, 1), np.zeros((count, 1), np.float32))
