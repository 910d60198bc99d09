"""What graphs have between their layers, lowered to operations of the engine: one function for each kind.

A call becomes operations, one after the other. Whatever would mix the rows of a batch is refused, and so is each
argument that nobody asks for.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from lstm_serve.engine.activations import ACTIVATIONS, LINEAR, SOFTMAX, Activation, leaky_relu
from lstm_serve.engine.functions import FUNCTIONS
from lstm_serve.engine.operations.arithmetic import ReduceKind, Slice
from lstm_serve.engine.operations.merging import Concatenate, MaskedBy, MaskRule
from lstm_serve.engine.operations.pointwise import Activate, Dense
from lstm_serve.engine.operations.temporal import Masking
from lstm_serve.engine.types import Array
from lstm_serve.loading.config.options import MAX_SIZE
from lstm_serve.loading.layers.checks import expect
from lstm_serve.loading.layers.resizing import padded, repeated
from lstm_serve.loading.layers.slices import sliced
from lstm_serve.loading.layers.subgraph import MAX_PRODUCT, Subgraph


def binary(function: np.ufunc) -> Callable[[Subgraph], None]:
    """A function of two arrays, or of one and numbers."""

    def build(graph: Subgraph) -> None:
        graph.joined(function)

    return build


def reduced(function: ReduceKind) -> Callable[[Subgraph], None]:
    """One number of all along some axes."""

    def build(graph: Subgraph) -> None:
        k = graph.given("x")
        graph.options.refuse_unless("initial", expected=None, why="only what is in the array counts")
        graph.reduce(function, k, graph.axes(k), keepdims=graph.options.take("keepdims", bool, default=False))

    return build


def variance(graph: Subgraph) -> None:
    """The mean square distance from the mean."""
    k = graph.given("x")
    axes, keepdims = graph.axes(k), graph.options.take("keepdims", bool, default=False)
    graph.reduce("mean", graph.unary(graph.apart(k, "mean", axes), FUNCTIONS["square"]), axes, keepdims=keepdims)


def log_sum_exp(graph: Subgraph) -> None:
    """log(sum(exp(x))), the largest taken out first."""
    k = graph.given("x")
    axes, keepdims = graph.axes(k), graph.options.take("keepdims", bool, default=False)
    powers = graph.unary(graph.apart(k, "max", axes), ACTIVATIONS["exponential"])
    total = graph.reduce("sum", powers, axes, keepdims=keepdims)
    largest = graph.reduce("max", k, axes, keepdims=keepdims)
    graph.pair(np.add, graph.unary(total, FUNCTIONS["log"]), largest)


def function_of(function: Activation) -> Callable[[Subgraph], None]:
    """A function of each number."""
    return lambda graph: (graph.unary(graph.given("x"), function), None)[1]


def along(function: Activation) -> Callable[[Subgraph], None]:
    """A function along one axis: the last one, or one that changes places with it meanwhile."""

    def build(graph: Subgraph) -> None:
        k = graph.given("x")
        (axis, *more), rank = graph.axes(k, [-1]), len(graph.shapes[k])
        if more:
            raise graph.refusal("works along several axes, which is not supported")
        if axis == rank:
            graph.unary(k, function)
            return
        graph.over_axis(Activate(name=graph.options.name, activation=function), k, axis)

    return build


def leaky(graph: Subgraph) -> None:
    """x, and less of it below 0."""
    graph.unary(graph.given("x"), leaky_relu(graph.options.take("negative_slope", float, 0.2)))


def gelu(graph: Subgraph) -> None:
    """The exact one alone."""
    graph.options.refuse_unless("approximate", expected=False, why="only the exact function is implemented")
    if "approximate" not in graph.options.config:
        raise graph.refusal("does not say whether it is approximate")
    graph.unary(graph.given("x"), ACTIVATIONS["gelu"])


def clip(graph: Subgraph) -> None:
    """Not less than one number and not more than another."""
    k, low, high = graph.given("x"), graph.options.take("low", float), graph.options.take("high", float)
    if low > high:
        raise graph.refusal(f"clips to {low:g} at least and {high:g} at most")
    graph.with_numbers(np.maximum, graph.with_numbers(np.minimum, k, high), low)


def item(graph: Subgraph) -> None:
    """x[...]."""
    k, key = graph.given("x"), graph.options.take("key", object)
    parts, shape = sliced(key, graph.shapes[k], str(graph.options))
    if any(part != slice(None) for part in parts):
        k = graph.add(Slice(name=graph.options.name, slices=parts), k)
    if shape != graph.shapes[k]:
        graph.reshape(k, shape)


def split(graph: Subgraph) -> None:
    """Parts along an axis, each an output: so many, or of these sizes (Keras 2), or up to these places (Keras 3)."""
    k, axis = graph.given("x"), graph.options.take("axis", int, 0)
    axis = graph.axis(axis, len(graph.shapes[k]) + 1)
    size = graph.shapes[k][axis - 1]
    key = next(key for key in SPLIT if key in graph.options.config)
    told = graph.options.integers(key)
    if size is None:
        raise graph.refusal("splits an axis whose size is not known: say timesteps in a card")
    if not isinstance(graph.options.config[key], list):
        sizes = [size // told[0]] * told[0]
    elif key == "sizes":
        sizes = [size - sum(told) - 1 if each == -1 else each for each in told]
    else:
        sizes = np.diff([0, *told, size]).tolist()
    if sum(sizes) != size or min(sizes, default=0) < 1:
        raise graph.refusal(f"splits an axis of size {size} by {str(told)[:60]}")
    for part, end in zip(sizes, itertools.accumulate(sizes), strict=True):
        graph.slice(k, axis, slice(end - part, end))


def unstack(graph: Subgraph) -> None:
    """Each place of an axis, an output each, as many as the graph `used`."""
    k, used = graph.given("x"), graph.used
    axis = graph.axis(graph.options.take("axis", int, 0), len(graph.shapes[k]) + 1)
    size = graph.shapes[k][axis - 1]
    if size is None:
        raise graph.refusal("takes an axis apart whose size is not known: say timesteps in a card")
    if graph.options.take("num", int, size) != size or used > size:
        raise graph.refusal(f"takes an axis of size {size} apart into more or fewer")
    shape = [*graph.shapes[k][: axis - 1], *graph.shapes[k][axis:]]
    for part in [graph.slice(k, axis, slice(n, n + 1)) for n in range(used)]:
        graph.reshape(part, shape)


# What says how an array is split, in Keras 2 and in Keras 3: into so many parts, or by a list of one entry less.
SPLIT = {"sizes": 0, "places": 1}


def reshape(graph: Subgraph) -> None:
    """Another shape of each row."""
    k, target = graph.given("x"), graph.options.integers("shape")
    shape = graph.shapes[k]
    sizes = [size for size in shape if size is not None]
    if (
        target[:1] != [-1]
        or min(target[1:], default=1) < 1
        or math.prod(target[1:]) != math.prod(sizes)
        or (len(sizes) != len(shape))
    ):
        raise graph.refusal(f"makes {str(target)[:60]} of rows of the shape {shape}: it has to keep rows apart")
    graph.reshape(k, target[1:])


def expand(graph: Subgraph) -> None:
    """An axis of size 1 more."""
    k = graph.given("x")
    (axis, *more) = graph.options.integers("axis")
    if more:
        raise graph.refusal("adds several axes, which is not supported")
    shape = list(graph.shapes[k])
    shape.insert(graph.axis(axis, len(shape) + 2) - 1, 1)
    graph.reshape(k, shape)


def squeeze(graph: Subgraph) -> None:
    """Axes of size 1 less."""
    k = graph.given("x")
    axes, shape = graph.axes(k), graph.shapes[k]
    if any(shape[axis - 1] != 1 for axis in axes):
        raise graph.refusal(f"takes the axes {axes} out of the shape {shape}")
    graph.reshape(k, [size for axis, size in enumerate(shape, 1) if axis not in axes])


def transpose(graph: Subgraph) -> None:
    """The axes in another order."""
    k, dims = graph.given("x"), graph.options.integers("axes")
    graph.options.refuse_unless("conjugate", expected=False, why="numbers are real")
    if dims[:1] != [0] or sorted(dims) != [*range(len(graph.shapes[k]) + 1)]:
        raise graph.refusal(f"permutes the axes {str(dims)[:60]}; the batch axis has to stay the first")
    graph.permute(k, *dims[1:])


def concatenate(graph: Subgraph) -> None:
    """Arrays one after the other."""
    _joined(graph, graph.listed("x"), graph.options.take("axis", int, -1))


def stack(graph: Subgraph) -> None:
    """Arrays along a new axis."""
    values = graph.listed("x")
    rank = len(graph.shapes[values[0]]) + 2
    axis = graph.axis(graph.options.take("axis", int, 0), rank)
    shapes = [[*graph.shapes[k][: axis - 1], 1, *graph.shapes[k][axis - 1 :]] for k in values]
    _joined(graph, [graph.reshape(k, shape) for k, shape in zip(values, shapes, strict=True)], axis)


def _joined(graph: Subgraph, values: Sequence[int], along: int) -> None:
    shapes = [graph.shapes[k] for k in values]
    axis = graph.axis(along, len(shapes[0]) + 1)
    others = {(*shape[: axis - 1], *shape[axis:]) for shape in shapes}
    if len(others) != 1 or len({len(shape) for shape in shapes}) != 1:
        raise graph.refusal(f"joins arrays of the shapes {str(shapes)[:100]}, which do not fit together")
    operation = Concatenate(name=graph.options.name, axis=axis, mask_rule=MaskRule.ALL)
    graph.add(operation, *(graph.unmasked(k) for k in values))


def matmul(graph: Subgraph) -> None:
    """A product along the last two axes."""
    a, b = graph.given("a"), graph.given("b")
    for key in ("adjoint_a", "adjoint_b", "a_is_sparse", "b_is_sparse"):
        graph.options.refuse_unless(key, expected=False, why="it is not implemented")
    turned = [graph.options.take(key, bool, default=False) for key in ("transpose_a", "transpose_b")]
    rank = len(graph.shapes[a])
    if rank < 2 or len(graph.shapes[b]) != rank:
        raise graph.refusal(f"multiplies arrays of the shapes {graph.shapes[a]} and {graph.shapes[b]}")
    dims = (*range(1, rank - 1), rank, rank - 1)
    a, b = (graph.permute(k, *dims) if turn else k for k, turn in zip((a, b), turned, strict=True))
    graph.matmul(a, b)


def normalize(graph: Subgraph) -> None:
    """x by its length along an axis, for which Keras 3 takes at least epsilon."""
    k = graph.given("x")
    graph.options.refuse_unless("order", expected=2, why="only the Euclidean length is implemented")
    graph.normalized(k, graph.axes(k, [-1]), graph.options.take("epsilon", float, 1e-7) ** 2)


def l2_normalize(graph: Subgraph) -> None:
    """The same of TensorFlow, which takes at least epsilon for the length's square."""
    k = graph.given("x")
    graph.normalized(k, graph.axes(k), graph.options.take("epsilon", float, 1e-12))


def tile(graph: Subgraph) -> None:
    """An array several times along each axis."""
    k, repeats = graph.given("x"), graph.options.integers("repeats")
    if len(repeats) != len(graph.shapes[k]) + 1 or repeats[0] != 1 or min(repeats) < 1:
        raise graph.refusal(f"repeats an array of the shape {graph.shapes[k]} {str(repeats)[:40]} times")
    for axis, times in enumerate(repeats[1:], 1):
        if times > 1:
            k = repeated(graph, k, axis, [1] * times, whole=True)
    graph.unmasked(k)


def pad(graph: Subgraph) -> None:
    """Zeros before and after along each axis."""
    k, ends = graph.given("x"), graph.options.take("pad_width", list)
    graph.options.choice("mode", ("constant", "CONSTANT"), "constant")
    graph.options.refuse_unless("value", expected=0, why="only zeros are put around")
    pairs = [[each] * 2 if isinstance(each, int) else each for each in ends]
    sizes = range(MAX_SIZE)
    plain = all(isinstance(pair, list) and len(pair) == 2 and all(n in sizes for n in pair) for pair in pairs)
    if not plain or len(pairs) != len(graph.shapes[k]) + 1 or pairs[0] != [0, 0]:
        raise graph.refusal(f"pads an array of the shape {graph.shapes[k]} by {str(ends)[:60]}")
    for axis, (before, after) in enumerate(pairs[1:], 1):
        k = padded(graph, k, axis, before, after)


def cumsum(graph: Subgraph) -> None:
    """Sums of all up to each place along an axis: a product with a triangle of ones."""
    k = graph.given("x")
    for key in ("exclusive", "reverse"):
        graph.options.refuse_unless(key, expected=False, why="it is not implemented")
    axis, *more = graph.axes(k)
    size = graph.shapes[k][axis - 1]
    if more or size is None or size * size > MAX_PRODUCT >> 6:
        raise graph.refusal("adds up along several axes, or one whose size is not known, or is large")
    triangle = np.triu(np.ones((size, size), np.float32))
    sums = Dense(name=f"{graph.options.name}/sums", kernel=triangle, bias=None, activation=LINEAR)
    graph.over_axis(sums, graph.unmasked(k), axis)


def masked(graph: Subgraph) -> None:
    """A sequence with a mask of whether each step counts."""
    _with_mask(graph, graph.given("x"), graph.given("mask"))


def _with_mask(graph: Subgraph, x: int, mask: int) -> None:
    if graph.shapes[mask] != graph.shapes[x][:1]:
        raise graph.refusal(f"gives {graph.shapes[x]} a mask of the shape {graph.shapes[mask]}, which is not supported")
    begun = graph.add(Masking(name=graph.options.name, mask_value=0), graph.reshape(mask, [*graph.shapes[mask], 1]))
    graph.add(MaskedBy(name=graph.options.name, zeroed=False), x, begun)


def lowered(graph: Subgraph) -> None:
    """Scores with their mask, 1e9 less where they do not count: Softmax.call of keras/src/layers/activation, 2.15."""
    x, mask = graph.given("x"), graph.given("mask")
    away = graph.with_numbers(np.multiply, graph.with_numbers(np.subtract, mask, 1), 1e9)
    _with_mask(graph, graph.pair(np.add, x, away), mask)


def softmax(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """A Softmax layer, over the last axis or others. It passes its mask on."""
    expect(graph.options, arrays)
    axes, rank = graph.axes(0, [-1]), len(graph.shapes[0])
    activate = Activate(name=graph.options.name, activation=SOFTMAX)
    if axes == (rank,):
        graph.add(activate, 0)
        return
    if len(axes) == 1:
        y = graph.over_axis(activate, 0, axes[0])
    else:
        powers = graph.unary(graph.apart(0, "max", axes), ACTIVATIONS["exponential"])
        y = graph.pair(np.true_divide, powers, graph.reduce("sum", powers, axes, keepdims=True))
    graph.add(MaskedBy(name=graph.options.name, zeroed=False), y, 0)
