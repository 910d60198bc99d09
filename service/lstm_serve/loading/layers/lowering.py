"""What graphs have between their layers, lowered to operations of the engine: one function for each kind.

A call becomes steps, one after the other. Whatever would mix the rows of a batch is refused, and so is each argument
that nobody asks for.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lstm_serve.engine.activations import ACTIVATIONS, Activation, leaky_relu
from lstm_serve.engine.functions import FUNCTIONS
from lstm_serve.engine.operations.arithmetic import Binary, MatMul, Reduce, ReduceKind, Slice
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.merging import Concatenate, MaskRule
from lstm_serve.engine.operations.pointwise import Activate
from lstm_serve.engine.operations.temporal import Permute, Reshape
from lstm_serve.engine.types import Shape
from lstm_serve.errors import Unsupported
from lstm_serve.loading.config.graph_operations import Given
from lstm_serve.loading.config.options import Options
from lstm_serve.loading.layers.checks import numbers
from lstm_serve.loading.layers.slices import sliced

# Of one row in one product: a hundred times what a wide layer takes at a time step.
MAX_PRODUCT = 1 << 30


class Step(NamedTuple):
    """An operation and what it is called on: a value of `Steps`, by its number."""

    operation: Operation
    inputs: tuple[int, ...]


class Steps:
    """The steps of one call. Values are numbered: first what the call is given, then what each step gives."""

    def __init__(self, options: Options, shapes: Sequence[Shape]) -> None:
        self.options = options
        self.shapes = list(shapes)
        self.made: list[Step] = []
        self.given_count = len(shapes)

    def add(self, operation: Operation, *inputs: int) -> int:
        """One step more; the number of its value."""
        (shape,) = operation.output_shapes([self.shapes[k] for k in inputs])
        if shape.count(None) > 1:
            raise self.refusal("makes an array of more than one axis whose size is not known: say timesteps in a card")
        self.made.append(Step(operation, inputs))
        self.shapes.append(shape)
        return len(self.shapes) - 1

    def refusal(self, why: str) -> Unsupported:
        """The refusal of the call."""
        return Unsupported(f"the {self.options} {why}")

    def given(self, key: str) -> int:
        """The argument `key`, which has to be an output of a layer."""
        return self.options.take(key, Given).number

    def listed(self, key: str) -> list[int]:
        """The argument `key`, which has to be outputs of layers."""
        values = self.options.take(key, list)
        if not values or not all(isinstance(value, Given) for value in values):
            raise self.refusal(f"is called with {key} that is no list of layers' outputs, which is not supported")
        return [value.number for value in values]

    def axis(self, value: int, rank: int) -> int:
        """An axis of so many, the batch counted, as a number from 1 on."""
        if not -rank <= value < rank or value % rank == 0:
            raise self.refusal(f"works along the axis {value} of {rank}, which is not supported: each row is by itself")
        return value % rank

    def axes(self, k: int, default: list[int] | None = None) -> tuple[int, ...]:
        """The option `axis` for the value k, as numbers from 1 on in order."""
        given = self.options.config.get("axis")
        if given is None and default is None:
            raise self.refusal("works along all axes, the batch's as well, which is not supported")
        rank = len(self.shapes[k]) + 1
        axes = sorted({self.axis(value, rank) for value in self.options.integers("axis", default)})
        if not axes:
            raise self.refusal("works along no axis")
        return tuple(axes)

    def reshape(self, k: int, shape: Sequence[int | None]) -> int:
        """The same numbers in another shape, of which one axis may be free."""
        if list(shape).count(None) > 1:
            raise self.refusal("is given an array of more than one axis whose size is not known")
        target = tuple(-1 if size is None else size for size in shape)
        return self.add(Reshape(name=self.options.name, target=target), k)

    def unmasked(self, k: int) -> int:
        """The same value without its mask, which only what the call is given may have."""
        return self.reshape(k, self.shapes[k]) if k < self.given_count else k

    def unary(self, k: int, function: Activation) -> int:
        """A function of each number. Activate would pass a mask on, and nothing between layers does."""
        k = self.unmasked(k)
        return self.add(Activate(name=self.options.name, activation=function), k)

    def pair(self, function: np.ufunc, a: int, b: int) -> int:
        """A function of two values of one rank that broadcast."""
        first, second = self.shapes[a], self.shapes[b]
        fit = len(first) == len(second) and all(i == j or 1 in {i, j} for i, j in zip(first, second, strict=False))
        if not fit:
            raise self.refusal(f"joins arrays of the shapes {first} and {second}, which is not supported")
        return self.add(Binary(name=self.options.name, function=function), a, b)

    def constant(self, function: np.ufunc, k: int, value: float) -> int:
        """A function of a value and a number."""
        number = np.array(value, np.float32)
        return self.add(Binary(name=self.options.name, function=function, constant=number), k)

    def reduce(self, function: ReduceKind, k: int, axes: tuple[int, ...], *, keepdims: bool) -> int:
        """One number of all along the axes."""
        return self.add(Reduce(name=self.options.name, function=function, axes=axes, keepdims=keepdims), k)


def binary(function: np.ufunc) -> Callable[[Steps], None]:
    """A function of two arrays, or of one and numbers."""

    def build(steps: Steps) -> None:
        options = steps.options
        first, second = (isinstance(options.config.get(key), Given) for key in ("a", "b"))
        if first and second:
            steps.pair(function, steps.given("a"), steps.given("b"))
            return
        key = "b" if first else "a"
        value = options.config.get(key)
        dtype = (
            value["config"].get("dtype") if isinstance(value, dict) and isinstance(value.get("config"), dict) else None
        )
        if value is None or isinstance(value, bool | str) or str(dtype) not in {"None", "float32"}:
            raise steps.refusal(f"has {key} = {str(value)[:40]!r}, where numbers were expected")
        constant = numbers(options, key)
        while constant.ndim and constant.shape[0] == 1:
            constant = constant[0]
        k = steps.given("a" if first else "b")
        sizes = steps.shapes[k][len(steps.shapes[k]) - constant.ndim :]
        if constant.ndim > len(steps.shapes[k]) or any(
            i != j and 1 not in {i, j} for i, j in zip(sizes, constant.shape, strict=True)
        ):
            raise steps.refusal(f"joins {steps.shapes[k]} with numbers of the shape {constant.shape}")
        steps.add(Binary(name=options.name, function=function, constant=constant, constant_first=not first), k)

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
    apart = steps.pair(np.subtract, k, steps.reduce("mean", k, axes, keepdims=True))
    steps.reduce("mean", steps.unary(apart, FUNCTIONS["square"]), axes, keepdims=keepdims)


def log_sum_exp(steps: Steps) -> None:
    """log(sum(exp(x))), the largest taken out first."""
    k = steps.given("x")
    axes, keepdims = steps.axes(k), steps.options.take("keepdims", bool, default=False)
    apart = steps.pair(np.subtract, k, steps.reduce("max", k, axes, keepdims=True))
    total = steps.reduce("sum", steps.unary(apart, ACTIVATIONS["exponential"]), axes, keepdims=keepdims)
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
        dims = [*range(1, rank + 1)]
        dims[axis - 1], dims[-1] = rank, axis
        turned = Permute(name=steps.options.name, dims=tuple(dims))
        steps.add(turned, steps.unary(steps.add(turned, k), function))

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
    steps.constant(np.maximum, steps.constant(np.minimum, k, high), low)


def item(steps: Steps) -> None:
    """x[...]."""
    k, key = steps.given("x"), steps.options.take("key", object)
    parts, shape = sliced(key, steps.shapes[k], str(steps.options))
    if any(part != slice(None) for part in parts):
        k = steps.add(Slice(name=steps.options.name, slices=parts), k)
    if shape != steps.shapes[k]:
        steps.reshape(k, shape)


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
    steps.add(Permute(name=steps.options.name, dims=tuple(dims[1:])), k)


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
    a, b = (
        steps.add(Permute(name=steps.options.name, dims=dims), k) if turn else k
        for k, turn in zip((a, b), turned, strict=True)
    )
    first, second = steps.shapes[a], steps.shapes[b]
    if first[-1] != second[-2] or any(i != j and 1 not in {i, j} for i, j in zip(first[:-2], second[:-2], strict=True)):
        raise steps.refusal(f"multiplies arrays of the shapes {first} and {second}, which do not fit together")
    k = steps.add(MatMul(name=steps.options.name), a, b)
    if math.prod(size or 1 for size in (*steps.shapes[k], first[-1])) > MAX_PRODUCT:
        raise steps.refusal(f"multiplies more than {MAX_PRODUCT} numbers for one row")
