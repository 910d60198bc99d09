"""Products that an equation says, "btu,bsu->bts": of two arrays of a graph, and of one and a layer's kernel."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lstm_serve.engine.activations import LINEAR
from lstm_serve.engine.operations.pointwise import Activate, Dense
from lstm_serve.engine.types import Array
from lstm_serve.loading.config.options import MAX_SIZE
from lstm_serve.loading.layers.checks import expect, plain_weights
from lstm_serve.loading.layers.subgraph import Subgraph


class Equation(NamedTuple):
    """The axes of two arrays and of their product, a letter each. The first is the batch's, but of a kernel."""

    first: str
    second: str
    result: str


def dense(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """EinsumDense: a product with a kernel, a bias along some axes, and an activation."""
    options = graph.options
    text = options.take("equation", str)
    equation = _read(graph, text, len(graph.shapes[0]) + 1)
    bias_axes = options.take("bias_axes", str, default="")
    plain_weights(options)
    options.ignore("gptq_unpacked_column_size")
    sizes: dict[str, int | None] = dict(zip(equation.first[1:], graph.shapes[0], strict=True))
    said = options.config.get("output_shape")
    ends = said if isinstance(said, list) else [said]
    options.ignore("output_shape")
    for letter, size in zip(reversed(equation.result[1:]), reversed(ends), strict=False):
        if isinstance(size, int) and not isinstance(size, bool) and 0 < size < MAX_SIZE:
            sizes.setdefault(letter, size)
    taken = [letter for letter in equation.first[1:] if letter in equation.second]
    given = [letter for letter in equation.result if letter in equation.second]
    kept = [letter for letter in equation.first[1:] if letter not in taken]
    known = all(sizes.get(letter) for letter in equation.second)
    if (
        not known
        or set(taken) & set(given)
        or sorted([*taken, *given]) != sorted(equation.second)
        or sorted([*kept, *given]) != sorted(equation.result[1:])
        or not set(bias_axes) <= {*equation.result[1:]}
    ):
        raise graph.refusal(f"has the equation {text[:40]!r}, which is not supported")
    shape = tuple(sizes[letter] or 0 for letter in equation.second)
    # From its first axis on, 1 where it is the same along one.
    first = min((equation.result.index(letter) for letter in bias_axes), default=0)
    bias_shape = tuple((sizes[letter] or 0) if letter in bias_axes else 1 for letter in equation.result[first:])
    wanted = {"kernel": shape} | ({"bias": bias_shape} if bias_axes else {})
    kernel, *bias = expect(options, arrays, **wanted)
    kernel = kernel.transpose([equation.second.index(letter) for letter in (*taken, *given)])
    kernel = kernel.reshape(math.prod(sizes[letter] or 0 for letter in taken), -1)
    k = _turned(graph, 0, equation.first[1:], [*kept, *taken])
    k = graph.reshape(k, (*(sizes[letter] for letter in kept), len(kernel)))
    k = graph.add(Dense(name=f"{options.name}/kernel", kernel=kernel, bias=None, activation=LINEAR), k)
    k = graph.reshape(k, [sizes[letter] for letter in (*kept, *given)])
    k = _turned(graph, k, "".join([*kept, *given]), [*equation.result[1:]])
    if bias:
        k = graph.with_numbers(np.add, k, bias[0])
    graph.add(Activate(name=options.name, activation=options.activation("activation", "linear")), k)


def product(graph: Subgraph) -> None:
    """einsum of two arrays: along axes that both have and the product has not."""
    text, values = graph.options.take("subscripts", str), [graph.given("a"), graph.given("b")]
    equation = _read(graph, text, *(len(graph.shapes[k]) + 1 for k in values))
    first, second, result = (letters[1:] for letters in equation)
    if len({letters[0] for letters in equation}) != 1:
        raise graph.refusal(f"has the equation {text[:40]!r}: the batch has to stay the first axis of each")
    sizes = dict(zip(first + second, graph.shapes[values[0]] + graph.shapes[values[1]], strict=True))
    both = [letter for letter in first if letter in second and letter in result]
    along = [letter for letter in first if letter in second and letter not in result]
    rows = [letter for letter in first if letter not in second]
    columns = [letter for letter in second if letter not in first]
    if sorted([*both, *rows, *columns]) != sorted(result):
        raise graph.refusal(f"has the equation {text[:40]!r}, which is not supported")

    def laid(k: int, letters: str, *groups: list[str]) -> int:
        """The value with its axes in this order, those of each group as one, after those of `both`."""
        k = _turned(graph, k, letters, [*both, *(letter for group in groups for letter in group)])
        return graph.reshape(k, [*(sizes[letter] for letter in both), *(_joined(sizes, group) for group in groups)])

    y = graph.matmul(laid(values[0], first, rows, along), laid(values[1], second, along, columns))
    y = graph.reshape(y, [sizes[letter] for letter in (*both, *rows, *columns)])
    _turned(graph, y, "".join([*both, *rows, *columns]), [*result])


def _joined(sizes: dict[str, int | None], group: Sequence[str]) -> int | None:
    found = [sizes[letter] for letter in group]
    return None if None in found else math.prod(size or 0 for size in found)


def _read(graph: Subgraph, text: str, *ranks: int) -> Equation:
    """The equation, an ellipsis in it filled with letters for axes that it does not name."""
    sides = text.replace(" ", "").split("->")
    operands = sides[0].split(",") if len(sides) == 2 else []
    parts = [*operands, *sides[1:]]
    missing = ranks[0] - len(parts[0].replace("...", "")) if len(parts) == 3 else -1
    letters = [letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if letter not in text][: max(missing, 0)]
    parts = [part.replace("...", "".join(letters)) for part in parts]
    plain = len(parts) == 3 and all(part.isalpha() and len({*part}) == len(part) for part in parts)
    if not plain or any(len(part) != rank for part, rank in zip(parts, ranks, strict=False)):
        raise graph.refusal(f"has the equation {text[:40]!r}, which is not supported")
    if len(ranks) == 1 and (parts[0][0] != parts[2][0] or parts[0][0] in parts[1]):
        raise graph.refusal(f"has the equation {text[:40]!r}: the batch has to stay the first axis")
    return Equation(*parts)


def _turned(graph: Subgraph, k: int, letters: str, order: Sequence[str]) -> int:
    """The value with its axes in another order, where it is another."""
    dims = [letters.index(letter) + 1 for letter in order]
    return k if dims == sorted(dims) else graph.permute(k, *dims)
