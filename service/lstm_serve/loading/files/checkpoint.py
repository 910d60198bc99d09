"""Checkpoints of a model, as TensorFlow 2.0 and later write them: the layers in order, each with its arrays.

A checkpoint holds the model's objects as a graph with named edges, and its arrays under keys. TensorFlow names an array
by the shortest way to it, which differs from release to release and from one form of saving to another: no key can be
made up, and each array is reached over the edges.
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from lstm_serve.engine.types import Array
from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.formats.folder import Folder
from lstm_serve.formats.protobuf import Message
from lstm_serve.formats.tensor_bundle import Bundle
from lstm_serve.loading.config.keras_version import UNKNOWN
from lstm_serve.loading.config.options import MAX_LAYERS
from lstm_serve.loading.contents import Contents
from lstm_serve.loading.layers.registry import HEADS
from lstm_serve.loading.weights import assign as weights

# 34 KB were seen.
MAX_GRAPH_BYTES = 4 << 20
# A model in a model in a wrapper; and the edges that are looked at on all ways down: some 30 a layer.
MAX_NESTING = 16
MAX_EDGES = 50_000

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
# The arrays of a plain layer or a cell, by Keras' attribute, in the order of `get_weights()`.
ARRAYS = (
    *("depthwise_kernel", "pointwise_kernel", "kernel", "recurrent_kernel", "embeddings", "alpha", "gamma", "beta"),
    "bias",
    *("moving_mean", "moving_variance", "mean", "variance", "count", "scale", "concat_score_weight"),
)


class Variable(NamedTuple):
    """An array in a checkpoint: its key, and the name that it had in TensorFlow."""

    key: str
    full_name: str


class Leaf(NamedTuple):
    """A layer that is no model: the edges from the model to it, and its arrays in the order of `get_weights()`."""

    edges: tuple[str, ...]
    variables: tuple[Variable, ...]


class ObjectGraph:
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

    def variables(self, number: int) -> list[Variable]:
        """The array that an object of a checkpoint is, if it is one."""
        attributes = [attribute for attribute in self.node(number).messages(2) if attribute.text(1) == "VARIABLE_VALUE"]
        return [Variable(attribute.text(3), attribute.text(2)) for attribute in attributes]

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


def read(folder: Folder, name: str) -> Contents:
    """Read the checkpoint `name`.index, as `model.save_weights` or `tf.train.Checkpoint(model=model)` wrote it.

    It holds no configuration: it is to be combined with the model's JSON.
    """
    bundle = Bundle(folder, name)
    graph = object_graph(bundle)
    return of_model(bundle, graph, _model_in(graph))


def of_model(bundle: Bundle, graph: ObjectGraph, model: int) -> Contents:
    """A model whose layers are in order and have no names of their own; models inside it lie open."""
    found = leaves(graph, model)
    stack = [(_name(leaf), [bundle.array(variable.key) for variable in leaf.variables]) for leaf in found]
    arrays = [array for _, layer in stack for array in layer]
    # Of a layer without arrays nothing tells what it is.
    plain = all(leaf.variables for leaf in found)
    assign = partial(weights.in_order, arrays=arrays)
    return Contents("TensorFlow checkpoint", None, UNKNOWN, assign, stack if plain else None)


def _name(leaf: Leaf) -> str | None:
    """The first part of what TensorFlow calls all arrays of a layer; None where that is no name of one layer."""
    names = {variable.full_name.rpartition("/")[0].split("/")[0] for variable in leaf.variables}
    return names.pop() or None if len(names) == 1 else None


def exported(bundle: Bundle, graph: ObjectGraph) -> list[Array] | None:
    """All arrays, as `model.get_weights()` gives them, where `model.export` wrote them; or None."""
    if "variables" not in graph.children(0):
        return None
    variables = [
        variable
        for _, number in graph.numbered(graph.children(0)["variables"], "")
        for variable in graph.variables(number)
        # Keras 3 lists the states of its random numbers among them.
        if not variable.full_name.endswith("seed_generator_state")
    ]
    return [bundle.array(variable.key) for variable in variables]


def _model_in(graph: ObjectGraph) -> int:
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


def object_graph(bundle: Bundle) -> ObjectGraph:
    """The objects of a checkpoint. Raises Unsupported for one of TensorFlow 1, which has none."""
    if OBJECT_GRAPH not in bundle:
        raise Unsupported(
            f"{bundle.index} is a checkpoint of TensorFlow 1 (tf.train.Saver), which has names and no layers. "
            "Load it into the Keras model, and save that with model.save()"
        )
    return ObjectGraph(bundle.text(OBJECT_GRAPH), bundle.index)


def leaves(graph: ObjectGraph, model: int) -> list[Leaf]:
    """The layers of a model in a checkpoint, in the model's order, weightless ones among them."""
    found = list(_Walk(graph).below(model, ()))
    if len(found) > MAX_LAYERS or not found[0].edges:
        raise UnreadableFile(f"{graph.what} has {len(found)} layers, or none; at most {MAX_LAYERS} are read")
    return found


class _Walk:
    """Down the edges of a graph that may be a circle, or lead to one object in very many ways."""

    def __init__(self, graph: ObjectGraph) -> None:
        self._graph = graph
        self._met = 0

    def below(self, layer: int, edges: tuple[str, ...], depth: int = 0) -> Iterator[Leaf]:
        """The leaves below a layer that `edges` lead to: those of a model, or else the layer itself."""
        children = self._graph.children(layer)
        self._met += 1 + len(children)
        if depth > MAX_NESTING or self._met > MAX_EDGES:
            raise UnreadableFile(f"{self._graph.what} is damaged: its layers are nested too deeply, or in a circle")
        if inside := list(self._graph.numbered(layer, "layer-")):
            for edge, child in inside:
                yield from self.below(child, (*edges, edge), depth + 1)
            return
        variables: list[Variable] = []
        for part in _parts(self._graph, layer):
            found = list(self.below(part, (), depth + 1))
            if found and found[0].edges:  # a TimeDistributed, and the layers of the model that it holds
                yield from (Leaf((*edges, "layer", *leaf.edges), leaf.variables) for leaf in found)
                return
            variables += [variable for leaf in found for variable in leaf.variables]
        for name in ARRAYS:
            if name in children:
                variables += self._graph.variables(children[name])
        yield Leaf(edges, tuple(variables))


def _parts(graph: ObjectGraph, layer: int) -> list[int]:
    """The objects in a wrapper or a recurrent layer that hold its arrays."""
    children = graph.children(layer)
    # A Bidirectional has its forward layer as `layer` too.
    heads = [f"_{part}_dense" for part in HEADS]
    for parts in (["forward_layer", "backward_layer"], ["cell"], ["layer"], heads):
        if all(part in children for part in parts):
            return [children[part] for part in parts]
    return [cell for _, cell in graph.numbered(children["cells"], "")] if "cells" in children else []
