"""SavedModel folders, as `model.save(folder)` wrote them with TensorFlow 2.0 to 2.15, and tf_keras still does.

The folder holds the objects of the model (`object_graph_def` in saved_model.pb), what Keras says of each (in
keras_metadata.pb, before 2.5 in saved_model.pb itself), and the objects again with their arrays (in variables/). The
two graphs number the objects each in its own way, but have the same edges: over them a layer's arrays find its name.
The graph of operations is never read, let alone run.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from lstm_serve.engine.types import Array
from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.formats.folder import Folder
from lstm_serve.formats.protobuf import Message
from lstm_serve.formats.tensor_bundle import Bundle
from lstm_serve.formats.text import decode
from lstm_serve.loading.config.architecture import LayerSpec
from lstm_serve.loading.config.keras_version import UNKNOWN, KerasVersion
from lstm_serve.loading.config.options import MODELS
from lstm_serve.loading.config.strict_json import parse
from lstm_serve.loading.contents import Contents
from lstm_serve.loading.files import checkpoint
from lstm_serve.loading.refusals import OTHER_MODEL
from lstm_serve.loading.weights import assign as weights

# Most of it is the graph of operations: 3 MB were seen.
MAX_MODEL_BYTES = 64 << 20
MAX_METADATA_BYTES = 16 << 20
MAX_TEXT_BYTES = 4 << 20
# Of JSON, lists in lists: some ten were seen.
MAX_DEPTH = 100
# A tuple, since what JSON has in such a place may be unhashable.
WRAPPERS = ("__tuple__", "TensorShape")


def read(folder: Folder) -> Contents:
    """Read the folder that `model.save(folder)` wrote; or `model.export` and the like, which leave the JSON out.

    Raises UnreadableFile where it is damaged, Unsupported where the model is Python code.
    """
    graphs = Message(folder.read("saved_model.pb", MAX_MODEL_BYTES), "saved_model.pb").repeated(2)
    if not graphs:
        raise UnreadableFile("saved_model.pb holds no model: it is damaged or cut short. Copy it again")
    model = Message(graphs[0], "saved_model.pb")
    tensorflow = model.message(1).text(5)[:40]
    form = f"SavedModel of TensorFlow {tensorflow}"
    objects = checkpoint.ObjectGraph(model.octets(7), "saved_model.pb")
    described = _descriptions(folder, objects)
    if described is None:
        return _exported(folder, form)
    root = described.of(0)
    class_name, config = root.get("class_name"), _without_wrappers(root.get("config"), described.what)
    layers = config.get("layers") if isinstance(config, dict) else config
    if class_name not in MODELS or not isinstance(layers, list):
        raise Unsupported(
            f"the model is of the class {str(class_name)[:40]!r}, whose wiring is Python code that no file holds; "
            f"{OTHER_MODEL}"
        )
    keras = KerasVersion.parse(str(root.get("keras_version")))
    if keras.text == "2.3.0-tf":  # TensorFlow 2.1 and 2.2 call themselves so, and here we know which it was
        keras = keras.with_wiring(not tensorflow.startswith("2.1"))
    assign = partial(_by_path, arrays=_arrays(folder, objects, described))
    return Contents(form, {"class_name": class_name, "config": config}, keras, assign, None)


def _exported(folder: Folder, form: str) -> Contents:
    """A folder without Keras' descriptions."""
    bundle = Bundle(folder.folder("variables"), "variables")
    stored = checkpoint.object_graph(bundle)
    if "assets" in folder and "saved_model.json" in (assets := folder.folder("assets")):
        # As export_saved_model of TensorFlow 1.13 to 1.15 wrote it.
        what = "assets/saved_model.json"
        try:
            config = parse(decode(assets.read("saved_model.json", MAX_TEXT_BYTES)), what)
        except UnicodeDecodeError:
            raise UnreadableFile(f"{what} is damaged: it is not UTF-8") from None
        if not isinstance(config, dict):
            raise UnreadableFile(f"{what} is no object: the file is damaged")
        keras = KerasVersion.parse(str(config.get("keras_version")))
        return checkpoint.of_model(bundle, stored, 0)._replace(format=form, config=config, keras=keras)
    arrays = checkpoint.exported(bundle, stored)
    if arrays is None:
        raise Unsupported(f"the {form} holds no model of Keras. Save the Keras model with model.save()")
    return Contents(form, None, UNKNOWN, partial(weights.in_order, arrays=arrays), None)


def _by_path(layers: Sequence[LayerSpec], arrays: Mapping[tuple[str, ...], Sequence[Array]]) -> list[list[Array]]:
    return [list(arrays.get(layer.path, ())) for layer in layers]


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


def _descriptions(folder: Folder, objects: checkpoint.ObjectGraph) -> Descriptions | None:
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


def _arrays(
    folder: Folder, objects: checkpoint.ObjectGraph, described: Descriptions
) -> dict[tuple[str, ...], list[Array]]:
    """The arrays of each layer, by the names at the same edges in the model's own graph."""
    bundle = Bundle(folder.folder("variables"), "variables")
    leaves = checkpoint.leaves(checkpoint.object_graph(bundle), 0)
    if [leaf.edges for leaf in leaves] != [leaf.edges for leaf in checkpoint.leaves(objects, 0)]:
        raise UnreadableFile(
            "variables/ has other layers than saved_model.pb: the files are not of one save. "
            "Save the model again, into an empty folder"
        )
    names: dict[int, Any] = {}
    arrays: dict[tuple[str, ...], list[Array]] = {}
    for leaf in leaves:
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
