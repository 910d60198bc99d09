"""The activation `glu` of Keras 3, which gives one half of its features times the sigmoid of the other half."""

from typing import Any

import numpy as np

from lstm_serve.engine.activations import SIGMOID
from lstm_serve.engine.operations.merging import MaskedBy
from lstm_serve.loading.config.options import Options
from lstm_serve.loading.layers.subgraph import Subgraph


def is_gated(options: Options) -> bool:
    """Whether a layer ends in `glu`."""
    value: Any = options.config.get("activation")
    if isinstance(value, dict):
        value = value.get("config")
    return bool(value == "glu")


def ungated(options: Options) -> Options:
    """The layer without it."""
    return options.with_config({**options.config, "activation": "linear"})


def gate(graph: Subgraph) -> None:
    """The last value's first half times the sigmoid of its second, along the last axis; with its mask."""
    k = len(graph.shapes) - 1
    axis, size = len(graph.shapes[k]), graph.shapes[k][-1]
    if size is None or size % 2:
        raise graph.refusal(f"ends in glu, which halves the features, and has {size}")
    first, second = (graph.slice(k, axis, half) for half in (slice(0, size // 2), slice(size // 2, None)))
    y = graph.pair(np.multiply, first, graph.unary(second, SIGMOID))
    graph.add(MaskedBy(name=graph.options.name, zeroed=False), y, k)
