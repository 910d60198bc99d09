"""Keras' layers that make numbers of categories, and categories of numbers, lowered.

Sources: discretization.py, category_encoding.py and integer_lookup.py in keras/src/layers/preprocessing of 3.15, and
their kin in keras/layers/preprocessing of 2.15.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lstm_serve.engine.functions import FUNCTIONS
from lstm_serve.engine.operations.merging import Concatenate, MaskRule
from lstm_serve.engine.operations.temporal import Embedding
from lstm_serve.engine.types import FLOAT32_MAX, Array
from lstm_serve.loading.layers.checks import expect
from lstm_serve.loading.layers.comparing import positive
from lstm_serve.loading.layers.subgraph import Subgraph

# Integers up to it are float32 numbers, each another one.
EXACT = 1 << 24


def discretization(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """How many of the boundaries a number is not below, as an id or encoded."""
    options = graph.options
    expect(options, arrays)
    options.refuse_unless("sparse", expected=False, why="what is sparse is not implemented")
    options.ignore("num_bins", "epsilon", "bins")
    mode = options.choice("output_mode", ("int", "one_hot", "multi_hot", "count"), "int")
    boundaries = options.take("bin_boundaries", list)
    if not _are_numbers(boundaries, FLOAT32_MAX) or sorted(boundaries) != boundaries:
        raise graph.refusal("has no bin_boundaries that rise: adapt it before it is saved")
    shape = graph.shapes[0]
    axis = len(shape) + 1
    apart = graph.with_numbers(np.subtract, graph.reshape(0, (*shape, 1)), np.array(boundaries, np.float32))
    below = positive(graph, graph.with_numbers(np.multiply, apart, -1))
    reached = graph.with_numbers(np.add, graph.with_numbers(np.multiply, below, -1), 1)
    if mode == "int":
        graph.reduce("sum", reached, (axis,), keepdims=False)
        return
    ones = graph.ones(reached, axis)
    ends = (ones, reached), (reached, graph.with_numbers(np.multiply, ones, 0))
    joined = Concatenate(name=options.name, axis=axis, mask_rule=MaskRule.ALL)
    _encoded(graph, graph.pair(np.subtract, *(graph.add(joined, *pair) for pair in ends)), mode)


def category(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """CategoryEncoding: 1 in the place of each id, or how often it is there."""
    options = graph.options
    expect(options, arrays)
    options.refuse_unless("sparse", expected=False, why="what is sparse is not implemented")
    count = options.size("num_tokens")
    mode = options.choice("output_mode", ("multi_hot", "one_hot", "count"), "multi_hot")
    # Rows of the identity, which overlap in memory.
    line = np.zeros(2 * count - 1, np.float32)
    line[count - 1] = 1
    table = np.lib.stride_tricks.sliding_window_view(line, count)[::-1]
    y = graph.add(Embedding(name=options.name, embeddings=table, mask_zero=False, learnt=False), 0)
    _encoded(graph, graph.unmasked(y), mode)


def _encoded(graph: Subgraph, k: int, mode: str) -> None:
    """Of (..., ids, categories) what the mode makes of the ids of a row."""
    *shape, ids, categories = graph.shapes[k]
    if mode != "one_hot":
        graph.reduce("max" if mode == "multi_hot" else "sum", k, (len(shape) + 1,), keepdims=False)
    elif ids == 1:
        graph.reshape(k, (*shape, categories))
    elif graph.options.keras.major < 3:
        raise graph.refusal(f"encodes {ids} ids, where Keras 2 takes one")


def integer_lookup(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """The place of an integer in the vocabulary, after that of the mask and that of all others."""
    options = graph.options
    expect(options, arrays)
    for key, expected in (("invert", False), ("sparse", False), ("output_mode", "int"), ("num_oov_indices", 1)):
        options.refuse_unless(key, expected=expected, why="it is not implemented")
    options.refuse_unless("salt", expected=None, why="it is not implemented")
    options.ignore("max_tokens", "oov_token", "mask_token", "pad_to_max_tokens", "vocabulary", "vocabulary_size")
    options.ignore("vocabulary_dtype", "idf_weights", "oov_method", "encoding")
    config = options.config
    vocabulary, mask = config.get("vocabulary"), config.get("mask_token")
    tokens = [*([] if mask is None else [mask]), *(vocabulary if isinstance(vocabulary, list) else [])]
    if not vocabulary or not _are_numbers(tokens, EXACT) or len({*tokens, config.get("oov_token", -1)}) <= len(tokens):
        raise graph.refusal("has no vocabulary of distinct integers up to 16777216 in its config")
    # The others have the place after the mask's.
    others = 0 if mask is None else 1
    places = [0] * others + [*range(others + 1, len(tokens) + 1)]
    apart = graph.with_numbers(np.subtract, graph.reshape(0, (*graph.shapes[0], 1)), np.array(tokens, np.float32))
    away = graph.with_numbers(np.minimum, graph.unary(apart, FUNCTIONS["absolute"]), 1)
    back = np.array([others - place for place in places], np.float32)
    moved = graph.with_numbers(np.multiply, graph.with_numbers(np.subtract, away, 1), back)
    graph.with_numbers(np.add, graph.reduce("sum", moved, (len(graph.shapes[moved]),), keepdims=False), others)


def _are_numbers(values: Sequence[Any], most: float) -> bool:
    return all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) <= most for n in values)


def threshold(graph: Subgraph) -> None:
    """x above a number, and another number elsewhere."""
    k, options = graph.given("x"), graph.options
    edge, other = options.take("threshold", float), options.take("default_value", float)
    above = positive(graph, graph.with_numbers(np.subtract, k, edge))
    elsewhere = graph.with_numbers(np.multiply, graph.with_numbers(np.subtract, above, 1), -other)
    graph.pair(np.add, graph.pair(np.multiply, k, above), elsewhere)


def ids_of(class_name: str, config: Mapping[str, Any]) -> int | None:
    """How many ids a layer gives, from 0 on, as its config tells; None where it gives something else."""
    found = ID_LAYERS.get(class_name)
    listed = config.get(found[0]) if found and config.get("output_mode", "int") == "int" else None
    return len(listed) + found[1](config) if found and isinstance(listed, list) else None


# The list in a config of what gives ids, and how many more than in the list there are.
ID_LAYERS: dict[str, tuple[str, Callable[[Mapping[str, Any]], int]]] = {
    "Discretization": ("bin_boundaries", lambda _: 1),
    "IntegerLookup": ("vocabulary", lambda config: 1 + (config.get("mask_token") is not None)),
}
