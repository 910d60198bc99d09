"""Keras' layers of attention, lowered: scores of each query with each key, a softmax over keys, a sum of values.

Sources: keras/src/layers/attention/attention.py, additive_attention.py, multi_head_attention.py and
grouped_query_attention.py of 3.15; the same in tf.keras 2.15.
"""

import math
from collections.abc import Sequence

import numpy as np

from lstm_serve.engine.activations import LINEAR, SOFTMAX, TANH
from lstm_serve.engine.operations.merging import MaskedBy
from lstm_serve.engine.operations.pointwise import Dense
from lstm_serve.engine.types import Array
from lstm_serve.loading.layers.checks import expect
from lstm_serve.loading.layers.subgraph import Subgraph

# What Keras adds to the score of a step that does not count: exp() of it is 0, and of a row of such all are the same.
LEFT_OUT = 1e9
ONE = np.array(1, np.float32)


def attention(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """Attention and AdditiveAttention, of [query, value] or [query, value, key]: (T, d), (S, v) and (S, d)."""
    options = graph.options
    query, value, key = _given(graph)
    additive = options.class_name == "AdditiveAttention"
    use_scale = options.take("use_scale", bool, default=additive)
    concat = not additive and options.choice("score_mode", ("dot", "concat"), "dot") == "concat"
    options.ignore("dropout")
    width = graph.shapes[query][-1] or 0
    shapes: dict[str, tuple[int, ...]] = {"scale": (width,) if additive else ()} if use_scale else {}
    if concat:
        shapes["concat_score_weight"] = ()
    named = dict(zip(shapes, expect(options, arrays, **shapes), strict=True))
    scale = named.get("scale", ONE)
    if additive or concat:
        scores = _summed(
            graph, query, key, ONE if additive else scale, scale if additive else named["concat_score_weight"]
        )
    else:
        scores = graph.matmul(query, graph.permute(key, 2, 1))
        scores = graph.with_numbers(np.multiply, scores, scale) if use_scale else scores
    weights = _weights(graph, scores, [_counts(graph, value, as_query=False)])
    y = graph.matmul(weights, value)
    graph.add(MaskedBy(name=options.name, zeroed=True), y, query)


def _given(graph: Subgraph) -> tuple[int, int, int]:
    """The numbers of query, value and key, sequences of known width that fit together."""
    count = graph.given_count
    if count not in {2, 3} or any(len(shape) != 2 or shape[-1] is None for shape in graph.shapes):
        raise graph.refusal(
            f"is given the shapes {str(graph.shapes)[:100]}; supported are sequences, [query, value] or with a key"
        )
    query, value, key = 0, 1, count - 1
    if graph.shapes[key][0] != graph.shapes[value][0]:
        raise graph.refusal("is given keys and values of different lengths")
    return query, value, key


def _summed(graph: Subgraph, query: int, key: int, inside: Array, weight: Array) -> int:
    """weight * tanh(inside * (query + key)), summed along the features: (T, S)."""
    (t, d), (s, e) = graph.shapes[query], graph.shapes[key]
    if d != e:
        raise graph.refusal(f"is given queries of {d} features and keys of {e}")
    pairs = graph.pair(np.add, graph.reshape(query, (t, 1, d)), graph.reshape(key, (1, s, d)))
    if inside is not ONE:
        pairs = graph.with_numbers(np.multiply, pairs, inside)
    pairs = graph.unary(pairs, TANH)
    if weight is not ONE:
        pairs = graph.with_numbers(np.multiply, pairs, weight)
    return graph.reduce("sum", pairs, (3,), keepdims=False)


def _counts(graph: Subgraph, k: int, *, as_query: bool) -> int:
    """1 where a step of the value k counts, and 0 where it does not: (T, 1) of a query, (1, S) of others."""
    counts = graph.add(MaskedBy(name=graph.options.name, zeroed=True), graph.ones(k, 2), k)
    return counts if as_query else graph.permute(counts, 2, 1)


def _weights(graph: Subgraph, scores: int, counts: Sequence[int]) -> int:
    """The softmax of scores (..., T, S) over those keys that count in all of `counts`, and by the causal mask."""
    kept = counts[0]
    for other in counts[1:]:
        kept = graph.pair(np.multiply, kept, other)
    shape = graph.shapes[scores]
    if graph.options.take("use_causal_mask", bool, default=False):
        rows, columns = shape[-2:]
        if rows is None or columns is None:
            raise graph.refusal("has a causal mask over a sequence whose length is not known: say timesteps in a card")
        kept = _causal(graph, kept, rows, columns)
    if len(shape) > 2:
        kept = graph.reshape(kept, (1, *graph.shapes[kept]))
    left_out = graph.with_numbers(np.multiply, graph.with_numbers(np.subtract, kept, 1), LEFT_OUT)
    return graph.unary(graph.pair(np.add, scores, left_out), SOFTMAX)


def _causal(graph: Subgraph, kept: int, rows: int, columns: int) -> int:
    """`kept`, and 0 of keys after the query: (T, S), made of a number for each row and column.

    An array of all pairs is many times what a file holds. Of a key that counts n - column is 1 and more above
    n - 1 - row up to the query's own place, where n is the longer of the two; of any other it is 0.
    """
    n = max(rows, columns)
    from_end = graph.with_numbers(np.multiply, kept, np.arange(n, n - columns, -1, dtype=np.float32))
    above = graph.with_numbers(np.subtract, from_end, np.arange(n - 1, n - 1 - rows, -1, dtype=np.float32)[:, None])
    return graph.with_numbers(np.minimum, graph.with_numbers(np.maximum, above, 0), 1)


def multi_head(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """MultiHeadAttention and GroupQueryAttention, of query, value and, where it is another, key.

    Kernels (features, heads, width) of query, key and value, and (heads, width, units) of the output, each with a bias
    where it has one. In the second, several heads of the query share one of keys and values.
    """
    options = graph.options
    grouped = options.class_name != "MultiHeadAttention"
    query, value, key = _given(graph)
    heads = options.size("num_query_heads" if grouped else "num_heads")
    shared = options.size("num_key_value_heads") if grouped else heads
    width = options.size("head_dim" if grouped else "key_dim")
    value_width = width if grouped else options.size("value_dim", width)
    units = options.size("output_shape", graph.shapes[query][-1])
    options.refuse_unless("attention_axes", expected=[1], why="it works along time")
    for name, expected in (("use_gate", False), ("sliding_window", None), ("flash_attention", None)):
        options.refuse_unless(name, expected=expected, why="it is not implemented")
    options.ignore("dropout", "query_shape", "key_shape", "value_shape")
    if heads % shared:
        raise graph.refusal(f"has {heads} heads of queries for {shared} of keys")
    features = [graph.shapes[k][-1] or 0 for k in (query, key, value)]
    bias = options.take("use_bias", bool, default=True)
    shapes = {
        "query": (features[0], heads, width),
        "key": (features[1], shared, width),
        "value": (features[2], shared, value_width),
        "output": (heads, value_width, units),
    }
    wanted: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        wanted[name] = shape
        if bias:
            wanted[f"{name}_bias"] = shape[1:] if name != "output" else (units,)
    given = dict(zip(wanted, expect(options, arrays, **wanted), strict=True))

    def projected(name: str, k: int, size: int, *dims: int) -> int:
        """A value, (T, features), as its heads have it: (heads, T, size), or with its axes in another order.

        Heads of keys and values are as many as are shared.
        """
        kernel, offset = given[name], given.get(f"{name}_bias")
        count = kernel.shape[1]
        kernel = kernel.reshape(len(kernel), count * size)
        offset = None if offset is None else offset.reshape(count * size)
        apart = graph.reshape(_dense(graph, name, k, kernel, offset), (graph.shapes[k][0], count, size))
        return graph.permute(apart, *dims)

    def multiplied(a: int, b: int) -> int:
        """A product of arrays (heads, ...) and (shared, ...): one of the second with each head that shares it."""
        if shared == heads:
            return graph.matmul(a, b)
        a = graph.reshape(a, (shared, heads // shared, *graph.shapes[a][1:]))
        product = graph.matmul(a, graph.reshape(b, (shared, 1, *graph.shapes[b][1:])))
        return graph.reshape(product, (heads, *graph.shapes[product][2:]))

    queries = graph.with_numbers(np.multiply, projected("query", query, width, 2, 1, 3), 1 / math.sqrt(width))
    scores = multiplied(queries, projected("key", key, width, 2, 3, 1))
    counts = [_counts(graph, query, as_query=True), _counts(graph, value, as_query=False)]
    if key != value:
        counts.append(_counts(graph, key, as_query=False))
    weights = _weights(graph, scores, counts)
    y = graph.permute(multiplied(weights, projected("value", value, value_width, 2, 1, 3)), 2, 1, 3)
    joined = graph.reshape(y, (graph.shapes[query][0], heads * value_width))
    y = _dense(graph, "output", joined, given["output"].reshape(heads * value_width, units), given.get("output_bias"))
    graph.add(MaskedBy(name=options.name, zeroed=False), y, query)


def _dense(graph: Subgraph, name: str, k: int, kernel: Array, bias: Array | None) -> int:
    named = f"{graph.options.name}/{name}"
    return graph.add(Dense(name=named, kernel=kernel, bias=bias, activation=LINEAR), k)


def dot(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """Dot: a product of two inputs summed along an axis of each, (..., over `axes`)."""
    options = graph.options
    expect(options, arrays)
    if graph.given_count != 2:
        raise graph.refusal(f"has {graph.given_count} inputs, where two are supported")
    axes = options.integers("axes")
    if len(axes) not in {1, 2}:
        raise graph.refusal(f"has axes = {axes}, where one was expected, or one for each input")
    first, second = (graph.axis(axes[k], len(graph.shapes[k]) + 1) for k in (0, -1))
    ranks = [len(shape) for shape in graph.shapes[:2]]
    if max(ranks) > 2:
        raise graph.refusal(f"is given the shapes {str(graph.shapes)[:100]}; at most two axes are supported")
    values = [0, 1]
    if options.take("normalize", bool, default=False):
        epsilon = 1e-14 if options.keras.major >= 3 else 1e-12
        values = [graph.normalized(k, (axis,), epsilon) for k, axis in zip(values, (first, second), strict=True)]
    a, b = values
    if ranks[0] == 1:
        a, first = graph.reshape(a, (1, *graph.shapes[a])), 2
    elif first == 1:
        a = graph.permute(a, 2, 1)
    if ranks[1] == 1:
        b = graph.reshape(b, (*graph.shapes[b], 1))
    elif second == 2:
        b = graph.permute(b, 2, 1)
    y = graph.matmul(a, b)
    rows, columns = graph.shapes[y]
    if ranks != [2, 2]:
        graph.reshape(y, [size for size, rank in zip((rows, columns), ranks, strict=True) if rank == 2] or [1])
