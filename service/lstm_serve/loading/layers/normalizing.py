"""Keras' layers that normalize each row by its own numbers, along any of its axes, lowered.

Sources: keras/src/layers/normalization/ and keras/src/ops/nn.py of 3.15; the same in tf.keras 2.15.
"""

from collections.abc import Sequence

import numpy as np

from lstm_serve.engine.functions import FUNCTIONS
from lstm_serve.engine.operations.merging import MaskedBy
from lstm_serve.engine.operations.pointwise import LayerNormalization
from lstm_serve.engine.types import Array
from lstm_serve.errors import UnreadableFile
from lstm_serve.loading.config.options import Options
from lstm_serve.loading.layers.checks import expect, kept_axes
from lstm_serve.loading.layers.steps import Steps


def layer(steps: Steps, arrays: Sequence[Array]) -> None:
    """LayerNormalization: along the last axis an operation of its own, along others several."""
    options, rank = steps.options, len(steps.shapes[0])
    _refuse_turned(steps)
    axes, sizes, broadcast = kept_axes(options, steps.shapes)
    options.refuse_unless("rms_scaling", expected=False, why="it is not implemented")
    gamma, beta, epsilon = _scale_and_offset(options, arrays, sizes)
    if axes == [rank]:
        steps.add(LayerNormalization(name=options.name, gamma=gamma, beta=beta, epsilon=epsilon), 0)
        return
    y = _standardized(steps, 0, tuple(axes), epsilon)
    _scaled(steps, y, broadcast, gamma, beta)


def group(steps: Steps, arrays: Sequence[Array]) -> None:
    """GroupNormalization: an axis in groups, each normalized with all else of its row."""
    options, shape = steps.options, steps.shapes[0]
    rank = len(shape)
    axis = steps.axis(options.take("axis", int, -1), rank + 1)
    size = shape[axis - 1]
    groups = options.take("groups", int, 32)
    if size is None:
        raise steps.refusal(f"makes groups of the axis {axis}, whose size is not known")
    groups = size if groups == -1 else groups
    if groups < 1 or size % groups:
        raise steps.refusal(f"makes {groups} groups of {size}, which do not come out even")
    gamma, beta, epsilon = _scale_and_offset(options, arrays, (size,))
    apart = steps.reshape(0, (*shape[: axis - 1], groups, size // groups, *shape[axis:]))
    y = _standardized(steps, apart, tuple(k for k in range(1, rank + 2) if k != axis), epsilon)
    _scaled(steps, steps.reshape(y, shape), (size, *(1,) * (rank - axis)), gamma, beta)


def root_mean_square(steps: Steps, arrays: Sequence[Array]) -> None:
    """RMSNormalization: x / sqrt(mean(x x) + epsilon) * scale. Keras passes no mask on."""
    options, rank = steps.options, len(steps.shapes[0])
    _refuse_turned(steps)
    axes, sizes, _ = kept_axes(options, steps.shapes)
    if axes != [*range(rank - len(axes) + 1, rank + 1)]:
        raise steps.refusal(f"normalizes along the axes {axes}; only the last ones are supported")
    epsilon = _positive_epsilon(options, 1e-6)
    (scale,) = expect(options, arrays, scale=sizes)
    squares = steps.unary(0, FUNCTIONS["square"])
    root = _root(steps, steps.reduce("mean", squares, tuple(axes), keepdims=True), epsilon)
    steps.with_numbers(np.multiply, steps.pair(np.true_divide, steps.unmasked(0), root), scale)


def unit(steps: Steps, arrays: Sequence[Array]) -> None:
    """UnitNormalization: x by its length. Keras 3 takes at least 1e-12 for that, tf.keras 1e-12 for its square."""
    expect(steps.options, arrays)
    epsilon = 1e-24 if steps.options.keras.major >= 3 else 1e-12
    _with_mask(steps, steps.normalized(0, steps.axes(0, [-1]), epsilon))


def _scale_and_offset(
    options: Options, arrays: Sequence[Array], sizes: tuple[int, ...]
) -> tuple[Array | None, Array | None, float]:
    """Gamma, beta and epsilon of a layer that normalizes each row; None where it has no gamma, or no beta."""
    options.ignore_training_of("beta", "gamma")
    names = ["gamma"] * options.take("scale", bool, default=True) + ["beta"] * options.take(
        "center", bool, default=True
    )
    given = dict(zip(names, expect(options, arrays, **dict.fromkeys(names, sizes)), strict=True))
    return given.get("gamma"), given.get("beta"), _positive_epsilon(options, 1e-3)


def _positive_epsilon(options: Options, default: float) -> float:
    """The option `epsilon`, which is added to what a root is taken of."""
    epsilon = options.take("epsilon", float, default)
    if epsilon < 0:
        raise UnreadableFile(f"the {options} has an epsilon of {epsilon:g}, which may divide by the root of 0 or less")
    return epsilon


def _refuse_turned(steps: Steps) -> None:
    """Refuse axes in another order than in the shape: Keras lines the arrays up by it."""
    axes, rank = steps.options.config.get("axis"), len(steps.shapes[0]) + 1
    if isinstance(axes, list) and all(isinstance(axis, int) for axis in axes):
        counted = [axis % rank for axis in axes]
        if counted != sorted(set(counted)):
            raise steps.refusal(f"normalizes along the axes {str(axes)[:40]}; supported are axes in their order")


def _standardized(steps: Steps, k: int, axes: tuple[int, ...], epsilon: float) -> int:
    """(x - mean) / sqrt(variance + epsilon), of the mean and the variance along the axes."""
    apart = steps.apart(k, "mean", axes)
    variance = steps.reduce("mean", steps.unary(apart, FUNCTIONS["square"]), axes, keepdims=True)
    return steps.pair(np.true_divide, apart, _root(steps, variance, epsilon))


def _root(steps: Steps, k: int, epsilon: float) -> int:
    return steps.unary(steps.with_numbers(np.add, k, epsilon), FUNCTIONS["sqrt"])


def _scaled(steps: Steps, y: int, broadcast: tuple[int, ...], gamma: Array | None, beta: Array | None) -> None:
    """Times gamma, plus beta, with the mask of what the layer is given."""
    for function, numbers in ((np.multiply, gamma), (np.add, beta)):
        if numbers is not None:
            y = steps.with_numbers(function, y, numbers.reshape(broadcast))
    _with_mask(steps, y)


def _with_mask(steps: Steps, y: int) -> None:
    steps.add(MaskedBy(name=steps.options.name, zeroed=False), y, 0)
