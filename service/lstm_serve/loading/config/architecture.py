"""A Keras model's JSON, as far as its wiring goes: which layers there are, and what is called on what.

A model inside a model is laid open: its layers stand in a row with the others. Whatever a config asks to import or to
run is a word here, to be refused by its name.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lstm_serve.engine.types import Shape
from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.loading.config import graph_operations
from lstm_serve.loading.config.explicit_masks import check_masks, is_operation
from lstm_serve.loading.config.inbound_nodes import Tensor, calls_of, masks_given, refuse_states, tensors_in
from lstm_serve.loading.config.options import MAX_LAYERS, MAX_SIZE, MODELS
from lstm_serve.loading.layers.registry import check_call, check_class
from lstm_serve.loading.refusals import OPERATION, OTHER_MODEL, one_output, several


class LayerSpec(NamedTuple):
    """A layer as its file describes it.

    `path` is the names of the models inside the model that it is in, and its own; `models` are those models' classes.
    """

    class_name: str
    path: tuple[str, ...]
    config: dict[str, Any]
    models: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The layer's own name, after those of the models inside the model that it is in."""
        return "/".join(self.path)


class Call(NamedTuple):
    """A layer, by its index, and what it is called on by number: 0 is the input, k the call k - 1."""

    layer: int
    inputs: tuple[int, ...]


class Architecture(NamedTuple):
    """`layers` in Keras' own order, which is that of the weights; `calls` in the order of their computation.

    `input_shape` is without the batch axis, and None where the file does not tell. `build_input_shape` says whether
    a Sequential's config has that key; None in a functional model.
    """

    input_shape: Shape | None
    layers: tuple[LayerSpec, ...]
    calls: tuple[Call, ...]
    input_name: str
    output_name: str
    build_input_shape: bool | None


Modernize = Callable[[str, dict[str, Any]], tuple[str, dict[str, Any]]]


def read(model: Any, modernize: Modernize | None = None) -> Architecture:  # noqa: ANN401 - JSON is anything
    """The architecture in a parsed `model_config`. `modernize` brings an old Keras' layer into today's names."""
    reader = _Reader(modernize)
    outline = reader.outline(_dict(model, "the model"), (), ())
    output = reader.call(outline, 0)
    if not reader.calls:
        raise UnreadableFile("the model's config lists no layers")
    if output != len(reader.calls):
        raise UnreadableFile("the model's output is its input")
    config = model.get("config")
    return Architecture(
        input_shape=outline.input_shape,
        layers=tuple(reader.layers),
        calls=tuple(reader.calls),
        input_name=outline.input_name,
        output_name=outline.output_name,
        build_input_shape="build_input_shape" in config if outline.graph is None and isinstance(config, dict) else None,
    )


class _Member(NamedTuple):
    """An entry of a model's list: a layer by its index, a model, or neither, which is an InputLayer."""

    layer: int | None
    model: "_Outline | None"
    # What each call of it is made on; unused in a Sequential.
    calls: tuple[tuple[Tensor, ...], ...]
    input_shape: Shape | None


class _Graph(NamedTuple):
    """Where a functional model begins and ends, and for each model inside it the number of the first call.

    `output` is numbered as the layers' references to each other are.
    """

    input: str
    output: Tensor
    first_calls: dict[str, int]


class _Outline(NamedTuple):
    """A model before anything is called; `graph` is None for a Sequential."""

    members: dict[str, _Member]
    graph: _Graph | None
    input_shape: Shape | None
    input_name: str
    output_name: str


# What all calls of layers and of models may be made on, together.
MAX_INPUTS = 100 * MAX_LAYERS


class _Reader:
    """Collects the layers of a model and of the models in it, and then their calls."""

    def __init__(self, modernize: Modernize | None) -> None:
        self.layers: list[LayerSpec] = []
        self.calls: list[Call] = []
        self._inputs = 0
        self._modernize = modernize
        self._other_numbers: str | None = None

    def outline(self, model: Mapping[str, Any], path: tuple[str, ...], models: tuple[str, ...]) -> _Outline:
        """Keras before 2.2.3 lists a Sequential's layers as `config` itself, later ones as `config["layers"]`."""
        class_name = str(model.get("class_name"))
        if class_name not in MODELS:
            raise Unsupported(f"the model is of the class {class_name[:40]!r}; {OTHER_MODEL}")
        config = model.get("config")
        entries = config.get("layers") if isinstance(config, dict) else config
        if not isinstance(entries, list) or not entries:
            raise UnreadableFile("the model's config lists no layers")
        members: dict[str, _Member] = {}
        masked: list[tuple[str, Tensor]] = []
        shape = _shape(config.get("build_input_shape")) if isinstance(config, dict) else None
        input_name = output_name = ""
        for k, item in enumerate(entries):
            entry = _dict(item, "a layer")
            name, member, called_with_mask = self._member(entry, k, path, models)
            if name in members:
                raise UnreadableFile(f"two layers have the name {name[:100]!r}")
            members[name] = member
            masked += called_with_mask
            if k == 0:
                shape = member.input_shape or shape
                input_name = name if member.layer is None and not member.model else f"{name}_input"
            output_name = name
            if len(self.layers) > MAX_LAYERS:
                raise UnreadableFile(f"the model has more than {MAX_LAYERS} layers")
        if class_name == "Sequential":
            return _Outline(members, None, shape, input_name, output_name)
        graph = _graph(_dict(config, "the model's config"), members)
        check_masks(masked, entries)
        return _Outline(members, graph, members[graph.input].input_shape, graph.input, graph.output.layer)

    def _member(
        self, entry: Mapping[str, Any], k: int, path: tuple[str, ...], models: tuple[str, ...]
    ) -> tuple[str, _Member, list[tuple[str, Tensor]]]:
        """An entry's name, itself, and the masks that its calls are given."""
        class_name, config = str(entry.get("class_name"))[:100], entry.get("config")
        settings: dict[str, Any] = config if isinstance(config, dict) else {}
        name = entry.get("name") or settings.get("name") or f"layer_{k}"
        if not isinstance(name, str) or not name.isprintable():
            raise UnreadableFile(f"a layer has the name {ascii(name)[:40]}, which is not one")
        if class_name in MODELS:
            inner = self.outline(entry, (*path, name), (*models, class_name))
            return name, _Member(None, inner, _calls(entry), inner.input_shape), masks_given(entry, name)
        if not isinstance(config, dict):
            raise UnreadableFile(f"the layer {name[:100]!r} has no config")
        if class_name == "InputLayer":
            if config.get("sparse") or config.get("ragged"):
                raise Unsupported(f"the input {name[:100]!r} is sparse or ragged, which is not supported")
            dtype = config.get("dtype")
            if isinstance(dtype, str) and dtype not in graph_operations.FLOATS:
                self._other_numbers = dtype[:40]
            return name, _Member(None, None, (), _input_shape(config)), []
        if is_operation(entry):
            # Masks are passed along by operations too: one that is reached is refused where it is called.
            written = graph_operations.read(entry)
            inputs = written.inputs
            settings = written._asdict()
            self.layers.append(LayerSpec(OPERATION + written.function, (*path, name), settings, models))
            for tensor in inputs:
                refuse_states(tensor)
            return name, _Member(len(self.layers) - 1, None, (inputs,), None), []
        if self._modernize is not None:
            class_name, settings = self._modernize(class_name, settings)
        check_class(class_name, "/".join((*path, name)), settings)
        self.layers.append(LayerSpec(class_name, (*path, name), settings, models))
        member = _Member(len(self.layers) - 1, None, _calls(entry), _input_shape(settings))
        return name, member, masks_given(entry, name)

    def call(self, model: _Outline, value: int) -> int:
        """Call a model on a value; its output's value."""
        if model.graph is None:
            for member in model.members.values():
                value = self._call(member, (value,))
            return value
        return self._call_graph(model, model.graph, value)

    def _call(self, member: _Member, inputs: tuple[int, ...]) -> int:
        # A model inside may be called often and hold no layer.
        self._inputs += len(inputs) + (0 if member.model is None else len(member.model.members))
        if self._inputs > MAX_INPUTS:
            raise UnreadableFile(f"the model's layers are called on more than {MAX_INPUTS} inputs")
        if member.model is not None:
            if len(inputs) != 1:
                raise Unsupported(f"a model inside the model has {len(inputs)} inputs, where one is supported")
            return self.call(member.model, inputs[0])
        if member.layer is None:
            return inputs[0]
        spec = self.layers[member.layer]
        check_call(spec.class_name, spec.name, len(inputs))
        if spec.class_name.startswith(OPERATION) and 0 in inputs and self._other_numbers is not None:
            raise Unsupported(
                f"the operation {spec.name[:100]!r} is called on {self._other_numbers} inputs, which is not supported"
            )
        self.calls.append(Call(member.layer, inputs))
        if len(self.calls) > MAX_LAYERS:
            raise UnreadableFile(f"the model calls more than {MAX_LAYERS} layers")
        return len(self.calls)

    def _call_graph(self, model: _Outline, graph: _Graph, value: int) -> int:
        """From the output back to the input, and then each call once what it is made on has been."""
        values: dict[tuple[str, int], int] = {(graph.input, 0): value}
        met: set[tuple[str, int]] = set()
        waiting = [graph.output]
        while waiting:
            tensor = waiting[-1]
            key = tensor.layer, tensor.call
            if key in values:
                waiting.pop()
                continue
            member = model.members.get(tensor.layer)
            number = tensor.call - graph.first_calls.get(tensor.layer, 0)
            if member is None or not 0 <= number < len(member.calls):
                raise UnreadableFile(
                    f"the graph leads to {tensor.layer[:100]!r}, call {tensor.call}, which is not there"
                )
            inputs = member.calls[number]
            missing = [source for source in inputs if (source.layer, source.call) not in values]
            if not missing:
                values[key] = self._call(member, tuple(values[source.layer, source.call] for source in inputs))
                waiting.pop()
            elif key in met:
                raise UnreadableFile(f"the graph runs in a circle at {tensor.layer[:100]!r}")
            else:
                met.add(key)
                waiting += missing
        return values[graph.output.layer, graph.output.call]


def _calls(entry: Mapping[str, Any]) -> tuple[tuple[Tensor, ...], ...]:
    calls = calls_of(entry)
    for tensor in (tensor for call in calls for tensor in call):
        refuse_states(tensor)
    return calls


def _first_calls(members: Mapping[str, _Member]) -> dict[str, int]:
    """For each model inside that another layer is called on, the number of its first call, as the others refer to it.

    Keras 1 and 2 called it once while it was made, and count that call, unless it is a Sequential whose input's shape
    came later; Keras 3 counts from 0. All calls that a file lists lead to its one output, so the first one is referred
    to, or is the output's.
    """
    first: dict[str, int] = {}
    for member in members.values():
        for source in (source for call in member.calls for source in call):
            target = members.get(source.layer)
            if target is not None and target.model is not None:
                first[source.layer] = min(first.get(source.layer, source.call), source.call)
    return first


def _graph(config: Mapping[str, Any], members: Mapping[str, _Member]) -> _Graph:
    inputs, outputs = list(tensors_in(config.get("input_layers"))), list(tensors_in(config.get("output_layers")))
    if len(inputs) != 1:
        raise Unsupported(several("input", [tensor.layer for tensor in inputs]))
    if len(outputs) != 1:
        names = [tensor.layer for tensor in outputs]
        layers = len({*names}) == len(names) and all(n in members and members[n].layer is not None for n in names)
        raise Unsupported(f"{several('output', names)}{'. ' if names else ''}{one_output(names, layers=layers)}")
    (given,), (output,) = inputs, outputs
    source = members.get(given.layer)
    if source is None or source.layer is not None or source.model is not None or output.layer not in members:
        raise UnreadableFile("the model's input is no InputLayer, or its output is none of its layers")
    refuse_states(output)
    first_calls = _first_calls(members)
    return _Graph(given.layer, _renumbered(output, members[output.layer], first_calls), first_calls)


def _renumbered(output: Tensor, member: _Member, first_calls: Mapping[str, int]) -> Tensor:
    """The model's output as layers would refer to it; of a model inside, it is the last call.

    All other calls of that model lead to it. Keras 3 counts the calls of a functional model from 1 here, and from 0
    elsewhere: node_reindexing_map and serialize_node of keras/src/models/functional.py.
    """
    last = len(member.calls) - 1
    if member.model is None or output.call not in {last, last + 1}:
        return output
    return output._replace(call=first_calls.get(output.layer, 0) + last)


def _dict(value: Any, what: str) -> dict[str, Any]:  # noqa: ANN401 - JSON is anything
    if not isinstance(value, dict):
        raise UnreadableFile(f"{what} is {str(value)[:40]!r} in the file, where an object was expected")
    return value


def _input_shape(config: Mapping[str, Any]) -> Shape | None:
    """What a layer's config tells of its input, the batch axis left out; or its Bidirectional layer's does."""
    given = config.get("batch_input_shape") or config.get("batch_shape")
    layer = config.get("layer")
    if given is None and "merge_mode" in config and isinstance(layer, dict) and isinstance(layer.get("config"), dict):
        given = layer["config"].get("batch_input_shape")
    return _shape(given)


def _shape(batch_shape: Any) -> Shape | None:  # noqa: ANN401 - JSON is anything
    """A shape without its batch axis; None where there is none."""
    if batch_shape is None:
        return None
    if not isinstance(batch_shape, list) or not batch_shape:
        raise UnreadableFile(f"the input shape is {str(batch_shape)[:40]!r}, where a list was expected")
    for size in batch_shape[1:]:
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or not 0 < size < MAX_SIZE):
            raise UnreadableFile(f"the input shape {str(batch_shape)[:40]!r} has an axis that is no size")
    return tuple(batch_shape[1:])
