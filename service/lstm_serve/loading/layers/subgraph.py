"""A layer or a call that is several operations of the engine, one after the other."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.operations.arithmetic import Binary, MatMul, Reduce, ReduceKind, Slice
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.pointwise import Activate
from lstm_serve.engine.operations.temporal import Permute, Reshape
from lstm_serve.engine.types import Array, Shape
from lstm_serve.errors import Unsupported
from lstm_serve.loading.config.graph_operations import TensorArgument
from lstm_serve.loading.config.options import Options
from lstm_serve.loading.layers.checks import check_output, numbers

# Of one row in one product: a hundred times what a wide layer takes at a time step.
MAX_PRODUCT = 1 << 30


# What makes the operations of a layer, whose arrays are given in the order of `get_weights()`.
Lowering = Callable[["Subgraph", Sequence[Array]], None]


class Part(NamedTuple):
    """An operation of a subgraph, and the numbers of the values that it is called on."""

    operation: Operation
    inputs: tuple[int, ...]


class Subgraph:
    """The operations of one call. Values are numbered: first what the call is given, then what each operation gives.

    The last values are the call's, as many as it gives. A part of the layer's own name is numbered at the end.
    """

    def __init__(self, options: Options, shapes: Sequence[Shape], used: int = 1) -> None:
        self.options = options
        self.used = used  # outputs that the graph refers to
        self.shapes = list(shapes)
        self.made: list[Part] = []
        self.given_count = len(shapes)

    def add(self, operation: Operation, *inputs: int) -> int:
        """One operation more; the number of its value, or of the first of its values."""
        given, first = [self.shapes[k] for k in inputs], len(self.shapes)
        shapes = operation.output_shapes(given)
        check_output(self.options, operation, given)
        if shapes[0].count(None) > max(1, *(each.count(None) for each in given)):
            raise self.refusal("makes an array of more than one axis whose size is not known: say timesteps in a card")
        self.made.append(Part(operation, inputs))
        self.shapes.extend(shapes)
        return first

    def follow(self, parts: Sequence[Part]) -> None:
        """Take the operations of another call on what this one is given."""
        for operation, inputs in parts:
            self.add(operation, *inputs)

    def refusal(self, why: str) -> Unsupported:
        """The refusal of the call."""
        return self.options.refusal(why)

    def given(self, key: str) -> int:
        """The argument `key`, which has to be an output of a layer."""
        return self.options.take(key, TensorArgument).number

    def has(self, key: str) -> bool:
        """Whether the argument `key` is an output of a layer, and no number."""
        return isinstance(self.options.config.get(key), TensorArgument)

    def numbers(self, key: str, k: int) -> Array:
        """The argument `key`, a number or several that broadcast against the value k; without axes of 1 in front."""
        value, shape = self.options.config.get(key), self.shapes[k]
        config = value.get("config") if isinstance(value, dict) else None
        dtype = config.get("dtype") if isinstance(config, dict) else None
        if value is None or isinstance(value, bool | str) or dtype not in {None, "float32"}:
            raise self.refusal(f"has {key} = {str(value)[:40]!r}, where numbers were expected")
        constant = numbers(self.options, key)
        while constant.ndim and constant.shape[0] == 1:
            constant = constant[0]
        sizes = shape[len(shape) - constant.ndim :]
        if constant.ndim > len(shape) or any(
            i != j and 1 not in {i, j} for i, j in zip(sizes, constant.shape, strict=True)
        ):
            raise self.refusal(f"joins {shape} with numbers of the shape {constant.shape}")
        return constant

    def listed(self, key: str) -> list[int]:
        """The argument `key`, which has to be outputs of layers."""
        values = self.options.take(key, list)
        if not values or not all(isinstance(value, TensorArgument) for value in values):
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

    def joined(self, function: np.ufunc) -> int:
        """A function of the arguments `a` and `b`, of which one may be numbers."""
        if self.has("a") and self.has("b"):
            return self.pair(function, self.given("a"), self.given("b"))
        first = self.has("a")
        k = self.given("a" if first else "b")
        constant = self.numbers("b" if first else "a", k)
        operation = Binary(name=self.options.name, function=function, constant=constant, constant_first=not first)
        return self.add(operation, k)

    def reduce(self, function: ReduceKind, k: int, axes: tuple[int, ...], *, keepdims: bool) -> int:
        """One number of all along the axes."""
        return self.add(Reduce(name=self.options.name, function=function, axes=axes, keepdims=keepdims), k)

    def permute(self, k: int, *dims: int) -> int:
        """The axes in another order, counted from 1."""
        return self.add(Permute(name=self.options.name, dims=dims), k)

    def over_axis(self, operation: Operation, k: int, axis: int) -> int:
        """An operation over the last axis, over one counted from 1, which changes places with it meanwhile."""
        rank = len(self.shapes[k])
        if axis == rank:
            return self.add(operation, k)
        dims = [*range(1, rank + 1)]
        dims[axis - 1], dims[-1] = rank, axis
        return self.permute(self.add(operation, self.permute(k, *dims)), *dims)

    def slice(self, k: int, axis: int, part: slice) -> int:
        """A part along one axis, counted from 1."""
        slices = [slice(None)] * len(self.shapes[k])
        slices[axis - 1] = part
        return self.add(Slice(name=self.options.name, slices=tuple(slices)), k)

    def with_numbers(self, function: np.ufunc, k: int, numbers: Array | float) -> int:
        """A function of a value and of numbers that broadcast to it, or it to them."""
        constant = np.asarray(numbers, np.float32)
        return self.add(Binary(name=self.options.name, function=function, constant=constant), k)

    def ones(self, k: int, axis: int) -> int:
        """1, whatever is in the value k, along all axes but one, counted from 1, of which one place is left."""
        return self.with_numbers(np.power, self.slice(k, axis, slice(0, 1)), 0)

    def apart(self, k: int, function: ReduceKind, axes: tuple[int, ...]) -> int:
        """How far each number of a value is from one of all along the axes, such as the mean."""
        return self.pair(np.subtract, k, self.reduce(function, k, axes, keepdims=True))

    def normalized(self, k: int, axes: tuple[int, ...], epsilon: float) -> int:
        """x / sqrt(max(sum of squares along the axes, epsilon))."""
        total = self.reduce("sum", self.pair(np.multiply, k, k), axes, keepdims=True)
        root = self.with_numbers(np.power, self.with_numbers(np.maximum, total, epsilon), 0.5)
        return self.pair(np.true_divide, k, root)

    def matmul(self, a: int, b: int) -> int:
        """A product along the last two axes."""
        first, second = self.shapes[a], self.shapes[b]
        fit = len(first) == len(second) >= 2 and first[-1] == second[-2]
        if not fit or any(i != j and 1 not in {i, j} for i, j in zip(first[:-2], second[:-2], strict=True)):
            raise self.refusal(f"multiplies arrays of the shapes {first} and {second}, which do not fit together")
        k = self.add(MatMul(name=self.options.name), a, b)
        if math.prod(size or 1 for size in (*self.shapes[k], first[-1])) > MAX_PRODUCT:
            raise self.refusal(f"multiplies more than {MAX_PRODUCT} numbers for one row")
        return k

    def finished(self, keras_class: str) -> list[Part]:
        """The parts with their names and the class that they were; all options have to be taken by now."""
        self.options.finish()
        if not self.made:
            self.unmasked(0)
        last, name = len(self.made) - 1, self.options.name
        return [
            Part(
                replace(
                    cast("Any", operation),
                    name=name if k == last else f"{name}/{k}" if operation.name == name else operation.name,
                    keras_class=keras_class,
                ),
                inputs,
            )
            for k, (operation, inputs) in enumerate(self.made)
        ]
