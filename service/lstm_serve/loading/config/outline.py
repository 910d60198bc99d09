"""A model of a config before anything is called: its members by their names, its inputs, and where its graph ends."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lstm_serve.engine.types import Shape
from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.loading.config.inbound_nodes import KerasTensor, of_model
from lstm_serve.loading.config.options import MAX_SIZE

# Of a model or of one call of a layer: many times what is trained, and names are compared, shapes checked for each.
MAX_ENDS = 1000
AT_MOST = f"at most {MAX_ENDS} are supported"


class GivenInput(NamedTuple):
    """An input: its name, and its shape without the batch axis, None where the file does not tell it."""

    name: str
    shape: Shape | None


class Member(NamedTuple):
    """An entry of a model's list: a layer by its index, a model, or neither, which is an InputLayer."""

    layer: int | None
    model: "Outline | None"
    # What each call of it is made on; unused in a Sequential.
    calls: tuple[tuple[KerasTensor, ...], ...]
    input_shape: Shape | None
    keras_3: bool = False
    # The name of the TimeDistributed that holds the model, or nothing.
    each_step: str = ""


class FunctionalGraph(NamedTuple):
    """Where a functional model begins and ends, and for each model inside it the number of the first call.

    `outputs` are numbered as the layers' references to each other are.
    """

    inputs: tuple[str, ...]
    outputs: tuple[KerasTensor, ...]
    first_calls: dict[str, int]


class Outline(NamedTuple):
    """A model before anything is called; `graph` is None for a Sequential."""

    members: dict[str, Member]
    graph: FunctionalGraph | None
    inputs: tuple[GivenInput, ...]
    output_names: tuple[str, ...]


def _first_calls(members: Mapping[str, Member], outputs: Sequence[KerasTensor]) -> dict[str, int]:
    """For each model inside, the number of its first call, as layers refer to it.

    Keras 1 and 2 called it once while it was made, and count that call, unless it is a Sequential whose input's shape
    came later: of all calls that a file lists, some layer or output refers to the first. Keras 3 counts from 0.
    """
    first: dict[str, int] = {}
    sources = (source for member in members.values() for call in member.calls for source in call)
    for source in (*sources, *outputs):
        target = members.get(source.layer)
        if target is not None and target.model is not None:
            first[source.layer] = 0 if target.keras_3 else min(first.get(source.layer, 1), source.call)
    return first


def graph_of(config: Mapping[str, Any], members: Mapping[str, Member]) -> FunctionalGraph:
    """Where the functional model of a config begins and ends."""
    inputs = [tensor for _, tensor in of_model(config.get("input_layers"))]
    outputs = [tensor for _, tensor in of_model(config.get("output_layers"))]
    if not inputs or not outputs:
        raise Unsupported(f"the model has no {'outputs' if inputs else 'inputs'}: its config names none")
    if (most := max((len(inputs), "inputs"), (len(outputs), "outputs")))[0] > MAX_ENDS:
        raise Unsupported(f"the model has {most[0]} {most[1]}; {AT_MOST}")
    sources = [members.get(given.layer) for given in inputs]
    if any(source is None or source.layer is not None or source.model is not None for source in sources) or any(
        output.layer not in members for output in outputs
    ):
        raise UnreadableFile("an input of the model is no InputLayer, or an output of it is none of its layers")
    names = tuple(given.layer for given in inputs)
    if len(set(names)) < len(names):
        raise UnreadableFile("an input of the model is listed twice")
    # Keras 3 counts the calls of a functional model inside from 1 here, and from 0 elsewhere: node_reindexing_map and
    # serialize_node of keras/src/models/functional.py.
    ends = [output._replace(call=output.call - 1) if members[output.layer].keras_3 else output for output in outputs]
    return FunctionalGraph(names, tuple(ends), _first_calls(members, ends))


def class_in(config: Mapping[str, Any]) -> str:
    """The class of the layer that a wrapper holds, or nothing."""
    layer = config.get("layer")
    return str(layer.get("class_name")) if isinstance(layer, dict) else ""


def as_dict(value: Any, what: str) -> dict[str, Any]:  # noqa: ANN401 - JSON is anything
    """An object of JSON."""
    if not isinstance(value, dict):
        raise UnreadableFile(f"{what} is {str(value)[:40]!r} in the file, where an object was expected")
    return value


def input_shape_of(config: Mapping[str, Any]) -> Shape | None:
    """What a layer's config tells of its input, the batch axis left out; or its Bidirectional layer's does."""
    given = config.get("batch_input_shape") or config.get("batch_shape")
    layer = config.get("layer")
    if given is None and "merge_mode" in config and isinstance(layer, dict) and isinstance(layer.get("config"), dict):
        given = layer["config"].get("batch_input_shape")
    return shape_of(given)


def shape_of(batch_shape: Any) -> Shape | None:  # noqa: ANN401 - JSON is anything
    """A shape without its batch axis; None where there is none."""
    if batch_shape is None:
        return None
    if not isinstance(batch_shape, list) or not batch_shape:
        raise UnreadableFile(f"the input shape is {str(batch_shape)[:40]!r}, where a list was expected")
    for size in batch_shape[1:]:
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or not 0 < size < MAX_SIZE):
            raise UnreadableFile(f"the input shape {str(batch_shape)[:40]!r} has an axis that is no size")
    return tuple(batch_shape[1:])
