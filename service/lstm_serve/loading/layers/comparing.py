"""Comparisons and what is chosen by them, lowered to arithmetic: what is true is 1, and what is not is 0.

What is chosen is a sum of both with factors of 1 and 0: it is NaN where the other one is infinite or NaN.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lstm_serve.engine.functions import FUNCTIONS
from lstm_serve.engine.operations.temporal import Embedding
from lstm_serve.loading.layers.steps import Steps


class Comparison(NamedTuple):
    """Of a and b: whether a - b is above 0, times `sign` before, or whether it is not 0 where that is None."""

    function: np.ufunc
    sign: int | None
    opposite: bool


# By the names of Keras 3.
COMPARISONS = {
    "Greater": Comparison(np.greater, 1, opposite=False),
    "GreaterEqual": Comparison(np.greater_equal, -1, opposite=True),
    "Less": Comparison(np.less, -1, opposite=False),
    "LessEqual": Comparison(np.less_equal, 1, opposite=True),
    "NotEqual": Comparison(np.not_equal, None, opposite=False),
    "Equal": Comparison(np.equal, None, opposite=True),
}


def compared(comparison: Comparison) -> Callable[[Steps], None]:
    """One of them."""

    def build(steps: Steps) -> None:
        difference = steps.joined(np.subtract)
        if comparison.sign is None:
            difference = steps.unary(difference, FUNCTIONS["absolute"])
        elif comparison.sign < 0:
            difference = steps.with_numbers(np.multiply, difference, -1)
        true = positive(steps, difference)
        if comparison.opposite:
            inverse(steps, true)

    return build


def ids_compared(comparison: Comparison, count: int) -> Callable[[Steps], None]:
    """So many ids with a number: they are looked up in a table of what is so."""

    def build(steps: Steps) -> None:
        first = steps.has("a")
        k, ids = steps.given("a" if first else "b"), np.arange(count, dtype=np.float32)
        number = steps.numbers("b" if first else "a", k)
        if number.ndim:
            raise steps.refusal("compares ids with an array, where one number is supported")
        table = comparison.function(*((ids, number) if first else (number, ids))).astype(np.float32)[:, np.newaxis]
        found = steps.add(Embedding(name=steps.options.name, embeddings=table, mask_zero=False, learnt=False), k)
        steps.reshape(found, steps.shapes[k])

    return build


def positive(steps: Steps, k: int) -> int:
    """1 where a number is above 0, and 0 where it is not: times 2**254, and then kept between 0 and 1."""
    for function, number in ((np.multiply, 2.0**127), (np.multiply, 2.0**127), (np.maximum, 0), (np.minimum, 1)):
        k = steps.with_numbers(function, k, number)
    return k


def inverse(steps: Steps, k: int) -> int:
    """Where a value is not so."""
    return steps.with_numbers(np.add, steps.with_numbers(np.multiply, k, -1), 1)


def logical_not(steps: Steps) -> None:
    """Where a value is not so."""
    inverse(steps, steps.given("x"))


def logical(function: np.ufunc) -> Callable[[Steps], None]:
    """Of two values, where both are so, or any."""

    def build(steps: Steps) -> None:
        steps.pair(function, steps.given("a"), steps.given("b"))

    return build


def where(steps: Steps) -> None:
    """One value where a condition holds, and another elsewhere; each may be a number."""
    condition = steps.given("condition")
    parts = [
        steps.pair(np.multiply, factor, steps.given(key))
        if steps.has(key)
        else steps.with_numbers(np.multiply, factor, steps.numbers(key, condition))
        for key, factor in (("a", condition), ("b", inverse(steps, condition)))
    ]
    steps.pair(np.add, *parts)


def cast(steps: Steps) -> None:
    """Whether something is so as a number, or whether a number is not 0."""
    k = steps.given("x")
    if steps.options.choice("to", ("float32", "bool"), "") == "float32":
        steps.unmasked(k)
    else:
        positive(steps, steps.unary(k, FUNCTIONS["absolute"]))


def place_of(*, largest: bool) -> Callable[[Steps], None]:
    """The place of the largest number along an axis, or of the smallest: of several the first."""

    def build(steps: Steps) -> None:
        k = steps.given("x")
        steps.options.ignore("output_type")
        axis, *more = steps.axes(k)
        size = steps.shapes[k][axis - 1]
        if more or size is None:
            raise steps.refusal("looks along several axes, or along one whose size is not known")
        away = steps.apart(k, "max" if largest else "min", (axis,))
        from_end = np.arange(size, 0, -1, dtype=np.float32).reshape(-1, *[1] * (len(steps.shapes[k]) - axis))
        there = inverse(steps, positive(steps, steps.unary(away, FUNCTIONS["absolute"])))
        found = steps.with_numbers(np.multiply, there, from_end)
        first = steps.reduce("max", found, (axis,), keepdims=steps.options.take("keepdims", bool, default=False))
        steps.with_numbers(np.add, steps.with_numbers(np.multiply, first, -1), size)

    return build
