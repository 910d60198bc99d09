"""Checkpoints of a model, as TensorFlow 2.0 and later write them: the layers in order, each with its arrays.

A checkpoint holds the model's objects as a graph with named edges, and its arrays under keys. TensorFlow names an array
by the shortest way to it, which differs from release to release and from one form of saving to another: no key can be
made up, and each array is reached over the edges.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from service.engine.activations import Array
from service.errors import UnreadableFile, Unsupported
from service.loading.folder import Folder
from service.loading.keras_json import MAX_LAYERS
from service.loading.protobuf import Message
from service.loading.tensor_bundle import Bundle

# 34 KB were seen.
MAX_GRAPH_BYTES = 4 << 20
# A model in a model in a wrapper; and the edges that are looked at on all ways down: some 30 a layer.
MAX_NESTING = 16
MAX_EDGES = 50_000

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
# The arrays of a plain layer or a cell, by Keras' attribute, in the order of `get_weights()`.
ARRAYS = (
    *("kernel", "recurrent_kernel", "embeddings", "alpha", "gamma", "beta", "bias"),
    *("moving_mean", "moving_variance", "mean", "variance", "count"),
)


def read(prefix: Path) -> list[tuple[str, list[Array]]]:
    """The layers of `prefix.index`, as `model.save_weights(prefix)` or `tf.train.Checkpoint(model=model)` wrote them.

    Of each layer that has arrays, in the model's order, what its arrays were called, and they in the order of
    `get_weights()`. A model inside the model is laid open. There is no configuration in such a file: it is to be
    combined with the model's JSON, by the order of the layers that have weights.
    """
    bundle = Bundle(Folder(prefix.parent), prefix.name)
    graph = object_graph(bundle)
    return [
        (_name(leaf), [bundle.array(variable.key) for variable in leaf.variables])
        for leaf in leaves(graph, _model_in(graph))
        if leaf.variables
    ]


def _name(leaf: "Leaf") -> str:
    """The first part of what TensorFlow calls all arrays of a layer, or else the edge to it."""
    names = {variable.full_name.rpartition("/")[0].split("/")[0] for variable in leaf.variables}
    return names.pop() if len(names) == 1 and "" not in names else leaf.edges[-1]


class Graph:
    """Objects and the named edges between them. Nothing is read of an object before it is asked for."""

    def __init__(self, data: bytes | memoryview, what: str) -> None:
        """Find the objects of a SavedObjectGraph or a TrackableObjectGraph: their edges are alike."""
        if len(data) > MAX_GRAPH_BYTES:
            raise UnreadableFile(f"the object graph in {what} is larger than {MAX_GRAPH_BYTES >> 20} MiB")
        self.what = what
        self._nodes = Message(data, what).repeated(1)
        self._children: dict[int, dict[str, int]] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def node(self, number: int) -> Message:
        """The object `number`; 0 is the root."""
        if not 0 <= number < len(self._nodes):
            raise UnreadableFile(f"{self.what} is damaged: it has no object {number}")
        return Message(self._nodes[number], self.what)

    def children(self, number: int) -> dict[str, int]:
        """The objects that an object has, by the edge's name."""
        if number not in self._children:
            children: dict[str, int] = {}
            for edge in self.node(number).messages(1):
                name = edge.text(2)
                if name in children:
                    raise UnreadableFile(f"{self.what} is damaged: an object has two parts named {name[:40]!r}")
                children[name] = edge.integer(1)
            self._children[number] = children
        return self._children[number]

    def numbered(self, number: int, prefix: str) -> Iterator[tuple[str, int]]:
        """The edges `prefix0`, `prefix1`, ... of an object in their order, and where they lead."""
        found = [
            (int(match[1]), name, child)
            for name, child in self.children(number).items()
            if (match := re.fullmatch(rf"{prefix}(\d{{1,6}})", name, re.ASCII))
        ]
        return ((name, child) for _, name, child in sorted(found))


def _model_in(graph: Graph) -> int:
    """The number of the model in a checkpoint: the root, or the one part of it that is a model."""
    models = [0, *graph.children(0).values()]
    models = [number for number in dict.fromkeys(models) if "layer-0" in graph.children(number)]
    if 0 in models:
        return 0
    if len(models) != 1:
        parts = ", ".join(name[:40] for name in graph.children(0))[:200] or "nothing"
        raise Unsupported(
            f"the checkpoint holds {len(models)} models where one was expected: its parts are {parts}. "
            "A subclassed model cannot be told from a checkpoint: build it as Sequential or functional model"
        )
    return models[0]


def object_graph(bundle: Bundle) -> Graph:
    """The objects of a checkpoint. Raises Unsupported for one of TensorFlow 1, which has none."""
    if OBJECT_GRAPH not in bundle:
        raise Unsupported(
            f"{bundle.index} is a checkpoint of TensorFlow 1 (tf.train.Saver), which has names and no layers. "
            "Load it into the Keras model, and save that with model.save()"
        )
    return Graph(bundle.text(OBJECT_GRAPH), bundle.index)


class Variable(NamedTuple):
    """An array in a checkpoint: its key, and the name that it had in TensorFlow."""

    key: str
    full_name: str


class Leaf(NamedTuple):
    """A layer that is no model: the edges from the model to it, and its arrays in the order of `get_weights()`."""

    edges: tuple[str, ...]
    variables: tuple[Variable, ...]


def leaves(graph: Graph, model: int) -> list[Leaf]:
    """The layers of a model in a checkpoint, in the model's order, weightless ones among them."""
    edges_seen = 0

    def below(layer: int, edges: tuple[str, ...], depth: int) -> Iterator[Leaf]:
        nonlocal edges_seen
        children = graph.children(layer)
        edges_seen += 1 + len(children)
        if depth > MAX_NESTING or edges_seen > MAX_EDGES:
            raise UnreadableFile(f"{graph.what} is damaged: its layers are nested too deeply, or in a circle")
        if layers := list(graph.numbered(layer, "layer-")):
            for edge, child in layers:
                yield from below(child, (*edges, edge), depth + 1)
            return
        variables: list[Variable] = []
        for part in _parts(graph, layer):
            for leaf in below(part, (), depth + 1):
                if leaf.edges:
                    raise Unsupported(f"{'/'.join(edges)[:100]} is a wrapper around a model, which is not supported")
                variables += leaf.variables
        variables += [
            Variable(attribute.text(3), attribute.text(2))
            for name in ARRAYS
            if name in children
            for attribute in graph.node(children[name]).messages(2)
            if attribute.text(1) == "VARIABLE_VALUE"
        ]
        yield Leaf(edges, tuple(variables))

    found = list(below(model, (), 0))
    if len(found) > MAX_LAYERS or not found[0].edges:
        raise UnreadableFile(f"{graph.what} has {len(found)} layers, or none; at most {MAX_LAYERS} are read")
    return found


def _parts(graph: Graph, layer: int) -> list[int]:
    """The objects in a wrapper or a recurrent layer that hold its arrays."""
    children = graph.children(layer)
    # A Bidirectional has its forward layer as `layer` too.
    for parts in (["forward_layer", "backward_layer"], ["cell"], ["layer"]):
        if all(part in children for part in parts):
            return [children[part] for part in parts]
    return [cell for _, cell in graph.numbered(children["cells"], "")] if "cells" in children else []
