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
from lstm_serve.loading.layers.subgraph import Subgraph


def layer(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """LayerNormalization: along the last axis an operation of its own, along others several."""
    options, rank = graph.options, len(graph.shapes[0])
    _refuse_turned(graph)
    axes, sizes, broadcast = kept_axes(options, graph.shapes)
    options.refuse_unless("rms_scaling", expected=False, why="it is not implemented")
    gamma, beta, epsilon = _scale_and_offset(options, arrays, sizes)
    if axes == [rank]:
        graph.add(LayerNormalization(name=options.name, gamma=gamma, beta=beta, epsilon=epsilon), 0)
        return
    y = _standardized(graph, 0, tuple(axes), epsilon)
    _scaled(graph, y, broadcast, gamma, beta)


def group(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """GroupNormalization: an axis in groups, each normalized with all else of its row."""
    options, shape = graph.options, graph.shapes[0]
    rank = len(shape)
    axis = graph.axis(options.take("axis", int, -1), rank + 1)
    size = shape[axis - 1]
    groups = options.take("groups", int, 32)
    if size is None:
        raise graph.refusal(f"makes groups of the axis {axis}, whose size is not known")
    groups = size if groups == -1 else groups
    if groups < 1 or size % groups:
        raise graph.refusal(f"makes {groups} groups of {size}, which do not come out even")
    gamma, beta, epsilon = _scale_and_offset(options, arrays, (size,))
    apart = graph.reshape(0, (*shape[: axis - 1], groups, size // groups, *shape[axis:]))
    y = _standardized(graph, apart, tuple(k for k in range(1, rank + 2) if k != axis), epsilon)
    _scaled(graph, graph.reshape(y, shape), (size, *(1,) * (rank - axis)), gamma, beta)


def root_mean_square(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """RMSNormalization: x / sqrt(mean(x x) + epsilon) * scale. Keras passes no mask on."""
    options, rank = graph.options, len(graph.shapes[0])
    _refuse_turned(graph)
    axes, sizes, _ = kept_axes(options, graph.shapes)
    if axes != [*range(rank - len(axes) + 1, rank + 1)]:
        raise graph.refusal(f"normalizes along the axes {axes}; only the last ones are supported")
    epsilon = _positive_epsilon(options, 1e-6)
    (scale,) = expect(options, arrays, scale=sizes)
    squares = graph.unary(0, FUNCTIONS["square"])
    root = _root(graph, graph.reduce("mean", squares, tuple(axes), keepdims=True), epsilon)
    graph.with_numbers(np.multiply, graph.pair(np.true_divide, graph.unmasked(0), root), scale)


def unit(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """UnitNormalization: x by its length. Keras 3 takes at least 1e-12 for that, tf.keras 1e-12 for its square."""
    expect(graph.options, arrays)
    epsilon = 1e-24 if graph.options.keras.major >= 3 else 1e-12
    _with_mask(graph, graph.normalized(0, graph.axes(0, [-1]), epsilon))


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


def _refuse_turned(graph: Subgraph) -> None:
    """Refuse axes in another order than in the shape: Keras lines the arrays up by it."""
    axes, rank = graph.options.config.get("axis"), len(graph.shapes[0]) + 1
    if isinstance(axes, list) and all(isinstance(axis, int) for axis in axes):
        counted = [axis % rank for axis in axes]
        if counted != sorted(set(counted)):
            raise graph.refusal(f"normalizes along the axes {str(axes)[:40]}; supported are axes in their order")


def _standardized(graph: Subgraph, k: int, axes: tuple[int, ...], epsilon: float) -> int:
    """(x - mean) / sqrt(variance + epsilon), of the mean and the variance along the axes."""
    apart = graph.apart(k, "mean", axes)
    variance = graph.reduce("mean", graph.unary(apart, FUNCTIONS["square"]), axes, keepdims=True)
    return graph.pair(np.true_divide, apart, _root(graph, variance, epsilon))


def _root(graph: Subgraph, k: int, epsilon: float) -> int:
    return graph.unary(graph.with_numbers(np.add, k, epsilon), FUNCTIONS["sqrt"])


def _scaled(graph: Subgraph, y: int, broadcast: tuple[int, ...], gamma: Array | None, beta: Array | None) -> None:
    """Times gamma, plus beta, with the mask of what the layer is given."""
    for function, numbers in ((np.multiply, gamma), (np.add, beta)):
        if numbers is not None:
            y = graph.with_numbers(function, y, numbers.reshape(broadcast))
    _with_mask(graph, y)


def _with_mask(graph: Subgraph, y: int) -> None:
    graph.add(MaskedBy(name=graph.options.name, zeroed=False), y, 0)
