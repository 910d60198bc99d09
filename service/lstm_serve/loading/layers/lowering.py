"""What graphs have between their layers, lowered to operations of the engine: one function for each kind.

A call becomes steps, one after the other. Whatever would mix the rows of a batch is refused, and so is each argument
that nobody asks for.
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
from lstm_serve.loading.layers.steps import MAX_PRODUCT, Steps


def binary(function: np.ufunc) -> Callable[[Steps], None]:
    """A function of two arrays, or of one and numbers."""

    def build(steps: Steps) -> None:
        steps.joined(function)

    return build


def reduced(function: ReduceKind) -> Callable[[Steps], None]:
    """One number of all along some axes."""

    def build(steps: Steps) -> None:
        k = steps.given("x")
        steps.options.refuse_unless("initial", expected=None, why="only what is in the array counts")
        steps.reduce(function, k, steps.axes(k), keepdims=steps.options.take("keepdims", bool, default=False))

    return build


def variance(steps: Steps) -> None:
    """The mean square distance from the mean."""
    k = steps.given("x")
    axes, keepdims = steps.axes(k), steps.options.take("keepdims", bool, default=False)
    steps.reduce("mean", steps.unary(steps.apart(k, "mean", axes), FUNCTIONS["square"]), axes, keepdims=keepdims)


def log_sum_exp(steps: Steps) -> None:
    """log(sum(exp(x))), the largest taken out first."""
    k = steps.given("x")
    axes, keepdims = steps.axes(k), steps.options.take("keepdims", bool, default=False)
    powers = steps.unary(steps.apart(k, "max", axes), ACTIVATIONS["exponential"])
    total = steps.reduce("sum", powers, axes, keepdims=keepdims)
    largest = steps.reduce("max", k, axes, keepdims=keepdims)
    steps.pair(np.add, steps.unary(total, FUNCTIONS["log"]), largest)


def function_of(function: Activation) -> Callable[[Steps], None]:
    """A function of each number."""
    return lambda steps: (steps.unary(steps.given("x"), function), None)[1]


def along(function: Activation) -> Callable[[Steps], None]:
    """A function along one axis: the last one, or one that changes places with it meanwhile."""

    def build(steps: Steps) -> None:
        k = steps.given("x")
        (axis, *more), rank = steps.axes(k, [-1]), len(steps.shapes[k])
        if more:
            raise steps.refusal("works along several axes, which is not supported")
        if axis == rank:
            steps.unary(k, function)
            return
        steps.over_axis(Activate(name=steps.options.name, activation=function), k, axis)

    return build


def leaky(steps: Steps) -> None:
    """x, and less of it below 0."""
    steps.unary(steps.given("x"), leaky_relu(steps.options.take("negative_slope", float, 0.2)))


def gelu(steps: Steps) -> None:
    """The exact one alone."""
    steps.options.refuse_unless("approximate", expected=False, why="only the exact function is implemented")
    if "approximate" not in steps.options.config:
        raise steps.refusal("does not say whether it is approximate")
    steps.unary(steps.given("x"), ACTIVATIONS["gelu"])


def clip(steps: Steps) -> None:
    """Not less than one number and not more than another."""
    k, low, high = steps.given("x"), steps.options.take("low", float), steps.options.take("high", float)
    if low > high:
        raise steps.refusal(f"clips to {low:g} at least and {high:g} at most")
    steps.with_numbers(np.maximum, steps.with_numbers(np.minimum, k, high), low)


def item(steps: Steps) -> None:
    """x[...]."""
    k, key = steps.given("x"), steps.options.take("key", object)
    parts, shape = sliced(key, steps.shapes[k], str(steps.options))
    if any(part != slice(None) for part in parts):
        k = steps.add(Slice(name=steps.options.name, slices=parts), k)
    if shape != steps.shapes[k]:
        steps.reshape(k, shape)


def split(steps: Steps) -> None:
    """Parts along an axis, each an output: so many, or of these sizes (Keras 2), or up to these places (Keras 3)."""
    k, axis = steps.given("x"), steps.options.take("axis", int, 0)
    axis = steps.axis(axis, len(steps.shapes[k]) + 1)
    size = steps.shapes[k][axis - 1]
    key = next(key for key in SPLIT if key in steps.options.config)
    told = steps.options.integers(key)
    if size is None:
        raise steps.refusal("splits an axis whose size is not known: say timesteps in a card")
    if not isinstance(steps.options.config[key], list):
        sizes = [size // told[0]] * told[0]
    elif key == "sizes":
        sizes = [size - sum(told) - 1 if each == -1 else each for each in told]
    else:
        sizes = np.diff([0, *told, size]).tolist()
    if sum(sizes) != size or min(sizes, default=0) < 1:
        raise steps.refusal(f"splits an axis of size {size} by {str(told)[:60]}")
    for part, end in zip(sizes, itertools.accumulate(sizes), strict=True):
        steps.slice(k, axis, slice(end - part, end))


def unstack(steps: Steps) -> None:
    """Each place of an axis, an output each, as many as the graph `used`."""
    k, used = steps.given("x"), steps.used
    axis = steps.axis(steps.options.take("axis", int, 0), len(steps.shapes[k]) + 1)
    size = steps.shapes[k][axis - 1]
    if size is None:
        raise steps.refusal("takes an axis apart whose size is not known: say timesteps in a card")
    if steps.options.take("num", int, size) != size or used > size:
        raise steps.refusal(f"takes an axis of size {size} apart into more or fewer")
    shape = [*steps.shapes[k][: axis - 1], *steps.shapes[k][axis:]]
    for part in [steps.slice(k, axis, slice(n, n + 1)) for n in range(used)]:
        steps.reshape(part, shape)


# What says how an array is split, in Keras 2 and in Keras 3: into so many parts, or by a list of one entry less.
SPLIT = {"sizes": 0, "places": 1}


def reshape(steps: Steps) -> None:
    """Another shape of each row."""
    k, target = steps.given("x"), steps.options.integers("shape")
    shape = steps.shapes[k]
    sizes = [size for size in shape if size is not None]
    if (
        target[:1] != [-1]
        or min(target[1:], default=1) < 1
        or math.prod(target[1:]) != math.prod(sizes)
        or (len(sizes) != len(shape))
    ):
        raise steps.refusal(f"makes {str(target)[:60]} of rows of the shape {shape}: it has to keep rows apart")
    steps.reshape(k, target[1:])


def expand(steps: Steps) -> None:
    """An axis of size 1 more."""
    k = steps.given("x")
    (axis, *more) = steps.options.integers("axis")
    if more:
        raise steps.refusal("adds several axes, which is not supported")
    shape = list(steps.shapes[k])
    shape.insert(steps.axis(axis, len(shape) + 2) - 1, 1)
    steps.reshape(k, shape)


def squeeze(steps: Steps) -> None:
    """Axes of size 1 less."""
    k = steps.given("x")
    axes, shape = steps.axes(k), steps.shapes[k]
    if any(shape[axis - 1] != 1 for axis in axes):
        raise steps.refusal(f"takes the axes {axes} out of the shape {shape}")
    steps.reshape(k, [size for axis, size in enumerate(shape, 1) if axis not in axes])


def transpose(steps: Steps) -> None:
    """The axes in another order."""
    k, dims = steps.given("x"), steps.options.integers("axes")
    steps.options.refuse_unless("conjugate", expected=False, why="numbers are real")
    if dims[:1] != [0] or sorted(dims) != [*range(len(steps.shapes[k]) + 1)]:
        raise steps.refusal(f"permutes the axes {str(dims)[:60]}; the batch axis has to stay the first")
    steps.permute(k, *dims[1:])


def concatenate(steps: Steps) -> None:
    """Arrays one after the other."""
    _joined(steps, steps.listed("x"), steps.options.take("axis", int, -1))


def stack(steps: Steps) -> None:
    """Arrays along a new axis."""
    values = steps.listed("x")
    rank = len(steps.shapes[values[0]]) + 2
    axis = steps.axis(steps.options.take("axis", int, 0), rank)
    shapes = [[*steps.shapes[k][: axis - 1], 1, *steps.shapes[k][axis - 1 :]] for k in values]
    _joined(steps, [steps.reshape(k, shape) for k, shape in zip(values, shapes, strict=True)], axis)


def _joined(steps: Steps, values: Sequence[int], along: int) -> None:
    shapes = [steps.shapes[k] for k in values]
    axis = steps.axis(along, len(shapes[0]) + 1)
    others = {(*shape[: axis - 1], *shape[axis:]) for shape in shapes}
    if len(others) != 1 or len({len(shape) for shape in shapes}) != 1:
        raise steps.refusal(f"joins arrays of the shapes {str(shapes)[:100]}, which do not fit together")
    operation = Concatenate(name=steps.options.name, axis=axis, mask_rule=MaskRule.ALL)
    steps.add(operation, *(steps.unmasked(k) for k in values))


def matmul(steps: Steps) -> None:
    """A product along the last two axes."""
    a, b = steps.given("a"), steps.given("b")
    for key in ("adjoint_a", "adjoint_b", "a_is_sparse", "b_is_sparse"):
        steps.options.refuse_unless(key, expected=False, why="it is not implemented")
    turned = [steps.options.take(key, bool, default=False) for key in ("transpose_a", "transpose_b")]
    rank = len(steps.shapes[a])
    if rank < 2 or len(steps.shapes[b]) != rank:
        raise steps.refusal(f"multiplies arrays of the shapes {steps.shapes[a]} and {steps.shapes[b]}")
    dims = (*range(1, rank - 1), rank, rank - 1)
    a, b = (steps.permute(k, *dims) if turn else k for k, turn in zip((a, b), turned, strict=True))
    steps.matmul(a, b)


def normalize(steps: Steps) -> None:
    """x by its length along an axis, for which Keras 3 takes at least epsilon."""
    k = steps.given("x")
    steps.options.refuse_unless("order", expected=2, why="only the Euclidean length is implemented")
    steps.normalized(k, steps.axes(k, [-1]), steps.options.take("epsilon", float, 1e-7) ** 2)


def l2_normalize(steps: Steps) -> None:
    """The same of TensorFlow, which takes at least epsilon for the length's square."""
    k = steps.given("x")
    steps.normalized(k, steps.axes(k), steps.options.take("epsilon", float, 1e-12))


def tile(steps: Steps) -> None:
    """An array several times along each axis."""
    k, repeats = steps.given("x"), steps.options.integers("repeats")
    if len(repeats) != len(steps.shapes[k]) + 1 or repeats[0] != 1 or min(repeats) < 1:
        raise steps.refusal(f"repeats an array of the shape {steps.shapes[k]} {str(repeats)[:40]} times")
    for axis, times in enumerate(repeats[1:], 1):
        if times > 1:
            k = repeated(steps, k, axis, [1] * times, whole=True)
    steps.unmasked(k)


def pad(steps: Steps) -> None:
    """Zeros before and after along each axis."""
    k, ends = steps.given("x"), steps.options.take("pad_width", list)
    steps.options.choice("mode", ("constant", "CONSTANT"), "constant")
    steps.options.refuse_unless("value", expected=0, why="only zeros are put around")
    pairs = [[each] * 2 if isinstance(each, int) else each for each in ends]
    sizes = range(MAX_SIZE)
    plain = all(isinstance(pair, list) and len(pair) == 2 and all(n in sizes for n in pair) for pair in pairs)
    if not plain or len(pairs) != len(steps.shapes[k]) + 1 or pairs[0] != [0, 0]:
        raise steps.refusal(f"pads an array of the shape {steps.shapes[k]} by {str(ends)[:60]}")
    for axis, (before, after) in enumerate(pairs[1:], 1):
        k = padded(steps, k, axis, before, after)


def cumsum(steps: Steps) -> None:
    """Sums of all up to each place along an axis: a product with a triangle of ones."""
    k = steps.given("x")
    for key in ("exclusive", "reverse"):
        steps.options.refuse_unless(key, expected=False, why="it is not implemented")
    axis, *more = steps.axes(k)
    size = steps.shapes[k][axis - 1]
    if more or size is None or size * size > MAX_PRODUCT >> 6:
        raise steps.refusal("adds up along several axes, or one whose size is not known, or is large")
    triangle = np.triu(np.ones((size, size), np.float32))
    sums = Dense(name=f"{steps.options.name}/sums", kernel=triangle, bias=None, activation=LINEAR)
    steps.over_axis(sums, steps.unmasked(k), axis)


def masked(steps: Steps) -> None:
    """A sequence with a mask of whether each step counts."""
    _with_mask(steps, steps.given("x"), steps.given("mask"))


def _with_mask(steps: Steps, x: int, mask: int) -> None:
    if steps.shapes[mask] != steps.shapes[x][:1]:
        raise steps.refusal(f"gives {steps.shapes[x]} a mask of the shape {steps.shapes[mask]}, which is not supported")
    begun = steps.add(Masking(name=steps.options.name, mask_value=0), steps.reshape(mask, [*steps.shapes[mask], 1]))
    steps.add(MaskedBy(name=steps.options.name, zeroed=False), x, begun)


def lowered(steps: Steps) -> None:
    """Scores with their mask, 1e9 less where they do not count: Softmax.call of keras/src/layers/activation, 2.15."""
    x, mask = steps.given("x"), steps.given("mask")
    away = steps.with_numbers(np.multiply, steps.with_numbers(np.subtract, mask, 1), 1e9)
    _with_mask(steps, steps.pair(np.add, x, away), mask)


def softmax(steps: Steps, arrays: Sequence[Array]) -> None:
    """A Softmax layer, over the last axis or others. It passes its mask on."""
    expect(steps.options, arrays)
    axes, rank = steps.axes(0, [-1]), len(steps.shapes[0])
    activate = Activate(name=steps.options.name, activation=SOFTMAX)
    if axes == (rank,):
        steps.add(activate, 0)
        return
    if len(axes) == 1:
        y = steps.over_axis(activate, 0, axes[0])
    else:
        powers = steps.unary(steps.apart(0, "max", axes), ACTIVATIONS["exponential"])
        y = steps.pair(np.true_divide, powers, steps.reduce("sum", powers, axes, keepdims=True))
    steps.add(MaskedBy(name=steps.options.name, zeroed=False), y, 0)
