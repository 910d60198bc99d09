"""SavedModel folders and the checkpoints of `save_weights`, as TensorFlow 2.0 to 2.18 wrote them; no TensorFlow here.

The folder holds the objects of the model (`object_graph_def` in saved_model.pb), what Keras says of each (in
keras_metadata.pb, before 2.5 in saved_model.pb itself), and the objects again with their arrays (in variables/). A
layer is found by its name in what Keras says, and its arrays at the same edges in the checkpoint's graph: TensorFlow
names an array by the shortest way to it, which differs from release to release, so that no key can be made up. The
graph of operations is never read, let alone run.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from service.engine.activations import Array
from service.errors import MissingFact, UnreadableFile, Unsupported
from service.loading.folder import Folder
from service.loading.keras_json import MAX_LAYERS, KerasVersion, parse
from service.loading.protobuf import Message
from service.loading.tensor_bundle import Bundle

# Most of it is the graph of operations: 3 MB were seen.
MAX_MODEL_BYTES = 64 << 20
MAX_METADATA_BYTES = 16 << 20
MAX_TEXT_BYTES = 4 << 20
# 34 KB were seen.
MAX_GRAPH_BYTES = 4 << 20
# Of JSON, lists in lists: some ten were seen.
MAX_DEPTH = 100
# A model in a model in a wrapper; and the edges that are looked at on all ways down: some 30 a layer.
MAX_NESTING = 16
MAX_EDGES = 50_000

# Tuples, since what JSON has in such a place may be unhashable. "Model" is what "Functional" was before 2.3.
MODELS = ("Sequential", "Functional", "Model")
WRAPPERS = ("__tuple__", "TensorShape")

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
# The arrays of a plain layer or a cell, by Keras' attribute, in the order of `get_weights()`.
TRAINED = ("kernel", "recurrent_kernel", "embeddings", "alpha", "gamma", "beta", "bias")
COUNTED = ("moving_mean", "moving_variance", "mean", "variance", "count")


class SavedModel(NamedTuple):
    """What a whole model says. `model_config` is what an .h5 has under that name, parsed; `arrays` are by layer name.

    The arrays of a layer are in the order of `get_weights()`; a nested model is one layer, as in an .h5.
    """

    model_config: dict[str, Any]
    arrays: dict[str, list[Array]]
    keras: KerasVersion
    tensorflow: str


def read(path: Path) -> SavedModel:
    """Read the folder that `model.save(path)` wrote.

    Raises UnreadableFile where it is damaged, Unsupported or MissingFact where the model cannot be told from it.
    """
    folder = Folder(path)
    graphs = Message(folder.read("saved_model.pb", MAX_MODEL_BYTES), "saved_model.pb").repeated(2)
    if not graphs:
        raise UnreadableFile("saved_model.pb holds no model: it is damaged or cut short. Copy it again")
    model = Message(graphs[0], "saved_model.pb")
    tensorflow = model.message(1).text(5)[:40]
    objects = Graph(model.octets(7), "saved_model.pb")
    described = _descriptions(folder, objects)
    if described is None:
        return _exported(folder, tensorflow)
    root = described.of(0)
    class_name, config = root.get("class_name"), _without_wrappers(root.get("config"), described.what)
    layers = config.get("layers") if isinstance(config, dict) else config
    if class_name not in MODELS or not isinstance(layers, list):
        raise Unsupported(
            f"the model is of the class {str(class_name)[:40]!r}, whose wiring is Python code that no file holds. "
            "Only Sequential and functional models are supported"
        )
    bundle = Bundle(folder.folder("variables"), "variables")
    return SavedModel(
        {"class_name": class_name, "config": config},
        _arrays_by_name(bundle, objects, described),
        KerasVersion.parse(str(root.get("keras_version"))),
        tensorflow,
    )


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


class Descriptions:
    """What Keras says of the objects, by their number."""

    def __init__(self, text: Callable[[int], str], what: str) -> None:
        """`text` gives the JSON of an object, or "" for what Keras says nothing of."""
        self.what = what
        self._text = text
        self._layers: dict[int, tuple[Any, Any]] = {}

    def of(self, number: int) -> dict[str, Any]:
        """The description of an object; an empty one for what is no layer."""
        text = self._text(number) or "{}"
        if len(text) > MAX_TEXT_BYTES:
            raise UnreadableFile(f"a description in {self.what} is longer than {MAX_TEXT_BYTES >> 20} MiB")
        description = parse(text, f"a description in {self.what}")
        if not isinstance(description, dict):
            raise UnreadableFile(f"a description in {self.what} is no object: the file is damaged")
        return description

    def layer(self, number: int) -> tuple[Any, Any]:
        """The `name` and `trainable` of a layer."""
        if number not in self._layers:
            description = self.of(number)
            self._layers[number] = description.get("name"), description.get("trainable")
        return self._layers[number]


def _descriptions(folder: Folder, objects: Graph) -> Descriptions | None:
    """Keras' descriptions, or None where there are none."""

    def inside(number: int) -> str:
        return objects.node(number).message(4).text(3)

    if len(objects) and inside(0):
        # TensorFlow 2.5 wrote them to both places. A keras_metadata.pb of another save may lie beside an older file.
        return Descriptions(inside, "saved_model.pb")
    what = "keras_metadata.pb"
    if what not in folder:
        return None
    beside: dict[int, str] = {}
    for entry in Message(folder.read(what, MAX_METADATA_BYTES), what).messages(1):
        number, identifier = entry.integer(2), entry.text(4)
        if number in beside or objects.node(number).message(4).text(1) != identifier:
            raise UnreadableFile(
                f"{what} does not belong to saved_model.pb: object {number} is a {identifier[:40]!r} in the one only. "
                "It is of another save, or damaged. Save the model again, into an empty folder"
            )
        beside[number] = entry.text(5)
    return Descriptions(lambda number: beside.get(number, ""), what) if beside.get(0) else None


def _without_wrappers(value: Any, what: str, depth: int = 0) -> Any:  # noqa: ANN401 - JSON is anything
    """JSON with plain lists where TensorFlow 2.2 and later say that they were tuples or shapes."""
    if depth > MAX_DEPTH:
        raise UnreadableFile(f"a description in {what} is nested too deeply")
    if isinstance(value, dict):
        if value.get("class_name") in WRAPPERS and "items" in value:
            return _without_wrappers(value["items"], what, depth + 1)
        return {key: _without_wrappers(item, what, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_wrappers(item, what, depth + 1) for item in value]
    return value


def _exported(folder: Folder, tensorflow: str) -> SavedModel:
    """A folder without Keras' descriptions: refused, but for TensorFlow 1's export, which has the model's JSON."""
    if "assets" in folder and "saved_model.json" in (assets := folder.folder("assets")):
        what = "assets/saved_model.json"
        try:
            text = assets.read("saved_model.json", MAX_TEXT_BYTES).decode()
        except UnicodeDecodeError:
            raise UnreadableFile(f"{what} is damaged: it is not UTF-8") from None
        config = parse(text, what)
        if not isinstance(config, dict):
            raise UnreadableFile(f"{what} is no object: the file is damaged")
        keras = KerasVersion.parse(str(config.get("keras_version")))
        weights = checkpoint(folder.path / "variables" / "variables")
        return SavedModel(config, weights, keras, tensorflow)
    raise MissingFact(
        f"the folder was written by model.export() or tf.saved_model.save(), with TensorFlow {tensorflow or '?'}: it "
        "holds weights and operations, and no description of the layers. Save the model with model.save() instead"
    )


def checkpoint(prefix: Path) -> dict[str, list[Array]]:
    """The arrays of `prefix.index`, as `model.save_weights(prefix)` or `tf.train.Checkpoint(model=model)` wrote them.

    Of each layer that has some, in the model's order, by a name that tells it apart: there is no configuration in such
    a file. It is to be combined with the model's JSON, by the order of the layers that have weights.
    """
    bundle = Bundle(Folder(prefix.parent), prefix.name)
    graph = _object_graph(bundle)
    arrays: dict[str, list[Array]] = {}
    walk = Walk(graph, None, None)
    for edge, layer in graph.numbered(_model_in(graph), "layer_with_weights-"):
        variables = walk.variables(layer, None)
        # The layers of a nested model have names of their own there, and some arrays have none.
        names = {variable.full_name.rpartition("/")[0].split("/")[0] for variable in variables}
        name = names.pop() if len(names) == 1 else edge
        arrays[edge if name in {"", *arrays} else name] = [bundle.array(variable.key) for variable in variables]
    return arrays


def _model_in(graph: Graph) -> int:
    """The number of the model in a checkpoint: the root, or the one part of it that is a model."""
    models = [0, *graph.children(0).values()]
    models = [number for number in dict.fromkeys(models) if "layer_with_weights-0" in graph.children(number)]
    if 0 in models:
        return 0
    if len(models) != 1:
        parts = ", ".join(name[:40] for name in graph.children(0))[:200] or "nothing"
        raise Unsupported(
            f"the checkpoint holds {len(models)} models where one was expected: its parts are {parts}. "
            "A subclassed model cannot be told from a checkpoint: build it as Sequential or functional model"
        )
    return models[0]


def _object_graph(bundle: Bundle) -> Graph:
    if OBJECT_GRAPH not in bundle:
        raise Unsupported(
            f"{bundle.index} is a checkpoint of TensorFlow 1 (tf.train.Saver), which has names and no layers. "
            "Load it into the Keras model, and save that with model.save()"
        )
    return Graph(bundle.text(OBJECT_GRAPH), bundle.index)


def _arrays_by_name(bundle: Bundle, objects: Graph, described: Descriptions) -> dict[str, list[Array]]:
    graph = _object_graph(bundle)
    walk = Walk(graph, objects, described)
    arrays: dict[str, list[Array]] = {}
    for edge, number in objects.numbered(0, "layer-"):
        name, _ = described.layer(number)
        layer = graph.children(0).get(edge)
        if len(arrays) == MAX_LAYERS:
            raise UnreadableFile(f"the model has more than {MAX_LAYERS} layers; at most so many are read")
        if not isinstance(name, str) or name in arrays or layer is None:
            raise UnreadableFile(
                f"the layer {str(name)[:40]!r} at {edge} is not in variables/, or is there twice: "
                "the files are not of one save. Save the model again, into an empty folder"
            )
        arrays[name] = [bundle.array(variable.key) for variable in walk.variables(layer, number)]
    return arrays


class Variable(NamedTuple):
    """An array in a checkpoint: its key, the name it had in TensorFlow, and whether it was trained."""

    key: str
    full_name: str
    trained: bool


class Walk:
    """The way from a layer to its arrays, in the checkpoint's graph and, where there is one, the model's beside it."""

    def __init__(self, graph: Graph, objects: Graph | None, described: Descriptions | None) -> None:
        """Start anywhere. The model's own graph tells, by its descriptions, which layers were frozen."""
        self._graph = graph
        self._objects = objects
        self._described = described
        self._edges = 0

    def variables(self, layer: int, twin: int | None) -> list[Variable]:
        """The arrays of a layer, in the order of `get_weights()`; `twin` is the layer in the model's own graph.

        What was trained comes first. Within a plain layer that is so anyway, in a nested model it moves the counted
        ones (and the frozen ones) of all layers to the end.
        """
        found = dict.fromkeys(self._below(layer, twin, trained=True, depth=0))
        return sorted(found, key=lambda variable: not variable.trained)

    def _below(self, layer: int, twin: int | None, *, trained: bool, depth: int) -> Iterator[Variable]:
        children = self._graph.children(layer)
        self._edges += 1 + len(children)
        if depth > MAX_NESTING or self._edges > MAX_EDGES:
            raise UnreadableFile(f"{self._graph.what} is damaged: its layers are nested too deeply, or in a circle")
        nested = [edge for edge, _ in self._graph.numbered(layer, "layer-")]
        trained = bool(nested) or (trained and not self._frozen(twin))
        for edge in nested or _parts(children):
            yield from self._below(children[edge], self._twin(twin, edge), trained=trained, depth=depth + 1)
        if nested or _parts(children):
            return
        if cells := list(self._graph.numbered(layer, "")):
            for edge, cell in cells:
                yield from self._below(cell, self._twin(twin, edge), trained=trained, depth=depth + 1)
            return
        for name in (*TRAINED, *COUNTED):
            if name in children:
                yield from self._variable(children[name], trained=trained and name in TRAINED)

    def _variable(self, number: int, *, trained: bool) -> Iterator[Variable]:
        for attribute in self._graph.node(number).messages(2):
            if attribute.text(1) == "VARIABLE_VALUE":
                yield Variable(attribute.text(3), attribute.text(2), trained)

    def _frozen(self, twin: int | None) -> bool:
        return twin is not None and self._described is not None and self._described.layer(twin)[1] is False

    def _twin(self, twin: int | None, edge: str) -> int | None:
        return None if twin is None or self._objects is None else self._objects.children(twin).get(edge)


def _parts(children: dict[str, int]) -> list[str]:
    """The edges from a wrapper or a recurrent layer to what holds its arrays."""
    # A Bidirectional has its forward layer as `layer` too.
    for parts in (["forward_layer", "backward_layer"], ["cell"], ["cells"], ["layer"]):
        if all(part in children for part in parts):
            return parts
    return []
