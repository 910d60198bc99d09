"""Comparisons and what is chosen by them, lowered to arithmetic: what is true is 1, and what is not is 0.

What is chosen is a sum of both with factors of 1 and 0: it is NaN where the other one is infinite or NaN.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lstm_serve.engine.functions import FUNCTIONS
from lstm_serve.engine.operations.temporal import Embedding
from lstm_serve.loading.layers.subgraph import Subgraph


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


def compared(comparison: Comparison) -> Callable[[Subgraph], None]:
    """One of them."""

    def build(graph: Subgraph) -> None:
        difference = graph.joined(np.subtract)
        if comparison.sign is None:
            difference = graph.unary(difference, FUNCTIONS["absolute"])
        elif comparison.sign < 0:
            difference = graph.with_numbers(np.multiply, difference, -1)
        true = positive(graph, difference)
        if comparison.opposite:
            inverse(graph, true)

    return build


def ids_compared(comparison: Comparison, count: int) -> Callable[[Subgraph], None]:
    """So many ids with a number: they are looked up in a table of what is so."""

    def build(graph: Subgraph) -> None:
        first = graph.has("a")
        k, ids = graph.given("a" if first else "b"), np.arange(count, dtype=np.float32)
        number = graph.numbers("b" if first else "a", k)
        if number.ndim:
            raise graph.refusal("compares ids with an array, where one number is supported")
        table = comparison.function(*((ids, number) if first else (number, ids))).astype(np.float32)[:, np.newaxis]
        found = graph.add(Embedding(name=graph.options.name, embeddings=table, mask_zero=False, learnt=False), k)
        graph.reshape(found, graph.shapes[k])

    return build


def positive(graph: Subgraph, k: int) -> int:
    """1 where a number is above 0, and 0 where it is not: times 2**254, and then kept between 0 and 1."""
    for function, number in ((np.multiply, 2.0**127), (np.multiply, 2.0**127), (np.maximum, 0), (np.minimum, 1)):
        k = graph.with_numbers(function, k, number)
    return k


def inverse(graph: Subgraph, k: int) -> int:
    """Where a value is not so."""
    return graph.with_numbers(np.add, graph.with_numbers(np.multiply, k, -1), 1)


def logical_not(graph: Subgraph) -> None:
    """Where a value is not so."""
    inverse(graph, graph.given("x"))


def logical(function: np.ufunc) -> Callable[[Subgraph], None]:
    """Of two values, where both are so, or any."""

    def build(graph: Subgraph) -> None:
        graph.pair(function, graph.given("a"), graph.given("b"))

    return build


def where(graph: Subgraph) -> None:
    """One value where a condition holds, and another elsewhere; each may be a number."""
    condition = graph.given("condition")
    parts = [
        graph.pair(np.multiply, factor, graph.given(key))
        if graph.has(key)
        else graph.with_numbers(np.multiply, factor, graph.numbers(key, condition))
        for key, factor in (("a", condition), ("b", inverse(graph, condition)))
    ]
    graph.pair(np.add, *parts)


def cast(graph: Subgraph) -> None:
    """Whether something is so as a number, or whether a number is not 0."""
    k = graph.given("x")
    if graph.options.choice("to", ("float32", "bool"), "") == "float32":
        graph.unmasked(k)
    else:
        positive(graph, graph.unary(k, FUNCTIONS["absolute"]))


def place_of(*, largest: bool) -> Callable[[Subgraph], None]:
    """The place of the largest number along an axis, or of the smallest: of several the first."""

    def build(graph: Subgraph) -> None:
        k = graph.given("x")
        graph.options.ignore("output_type")
        axis, *more = graph.axes(k)
        size = graph.shapes[k][axis - 1]
        if more or size is None:
            raise graph.refusal("looks along several axes, or along one whose size is not known")
        away = graph.apart(k, "max" if largest else "min", (axis,))
        from_end = np.arange(size, 0, -1, dtype=np.float32).reshape(-1, *[1] * (len(graph.shapes[k]) - axis))
        there = inverse(graph, positive(graph, graph.unary(away, FUNCTIONS["absolute"])))
        found = graph.with_numbers(np.multiply, there, from_end)
        first = graph.reduce("max", found, (axis,), keepdims=graph.options.take("keepdims", bool, default=False))
        graph.with_numbers(np.add, graph.with_numbers(np.multiply, first, -1), size)

    return build
