"""SavedModel folders, as `model.save(folder)` wrote them with TensorFlow 2.0 to 2.15, and tf_keras still does.

The folder holds the objects of the model (`object_graph_def` in saved_model.pb), what Keras says of each (in
keras_metadata.pb, before 2.5 in saved_model.pb itself), and the objects again with their arrays (in variables/). The
two graphs number the objects each in its own way, but have the same edges: over them a layer's arrays find its name.
The graph of operations is never read, let alone run.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from service.engine.activations import Array
from service.errors import MissingFact, UnreadableFile, Unsupported
from service.loading import checkpoint
from service.loading.folder import Folder
from service.loading.keras_json import KerasVersion, parse
from service.loading.protobuf import Message
from service.loading.tensor_bundle import Bundle

# Most of it is the graph of operations: 3 MB were seen.
MAX_MODEL_BYTES = 64 << 20
MAX_METADATA_BYTES = 16 << 20
MAX_TEXT_BYTES = 4 << 20
# Of JSON, lists in lists: some ten were seen.
MAX_DEPTH = 100
# Tuples, since what JSON has in such a place may be unhashable. "Model" is what "Functional" was before 2.3.
MODELS = ("Sequential", "Functional", "Model")
WRAPPERS = ("__tuple__", "TensorShape")


class SavedModel(NamedTuple):
    """What a whole model says.

    `config` is what an .h5 has as its model_config, parsed. `arrays` are those of each layer, in the order of
    `get_weights()`, by its name after the names of the models inside the model that it is in.
    """

    config: dict[str, Any]
    arrays: dict[tuple[str, ...], list[Array]]
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
    objects = checkpoint.Graph(model.octets(7), "saved_model.pb")
    described = _descriptions(folder, objects)
    if described is None:
        raise MissingFact(
            f"the folder was written by model.export() or tf.saved_model.save(), with TensorFlow {tensorflow or '?'}: "
            "it holds weights and operations, and no description of the layers. Use model.save() instead"
        )
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
        _by_name(bundle, objects, described),
        KerasVersion.parse(str(root.get("keras_version"))),
        tensorflow,
    )


class Descriptions:
    """What Keras says of the objects, by their number."""

    def __init__(self, text: Callable[[int], str], what: str) -> None:
        """`text` gives the JSON of an object, or "" for what Keras says nothing of."""
        self.what = what
        self._text = text

    def of(self, number: int) -> dict[str, Any]:
        """The description of an object; an empty one for what is no layer."""
        text = self._text(number) or "{}"
        if len(text) > MAX_TEXT_BYTES:
            raise UnreadableFile(f"a description in {self.what} is longer than {MAX_TEXT_BYTES >> 20} MiB")
        description = parse(text, f"a description in {self.what}")
        if not isinstance(description, dict):
            raise UnreadableFile(f"a description in {self.what} is no object: the file is damaged")
        return description


def _descriptions(folder: Folder, objects: checkpoint.Graph) -> Descriptions | None:
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


def _by_name(bundle: Bundle, objects: checkpoint.Graph, described: Descriptions) -> dict[tuple[str, ...], list[Array]]:
    """The arrays of each layer, by the names at the same edges in the model's own graph."""
    stored = checkpoint.leaves(checkpoint.object_graph(bundle), 0)
    if [leaf.edges for leaf in stored] != [leaf.edges for leaf in checkpoint.leaves(objects, 0)]:
        raise UnreadableFile(
            "variables/ has other layers than saved_model.pb: the files are not of one save. "
            "Save the model again, into an empty folder"
        )
    names: dict[int, Any] = {}
    arrays: dict[tuple[str, ...], list[Array]] = {}
    for leaf in stored:
        path: list[Any] = []
        number = 0
        for edge in leaf.edges:
            number = objects.children(number)[edge]
            if number not in names:
                names[number] = described.of(number).get("name")
            path.append(names[number])
        if not all(isinstance(name, str) for name in path) or tuple(path) in arrays:
            raise UnreadableFile(f"{described.what} is damaged: {'/'.join(leaf.edges)[:100]} has no name of its own")
        arrays[tuple(path)] = [bundle.array(variable.key) for variable in leaf.variables]
    return arrays
