"""A Keras model's JSON, as far as its wiring goes: which layers there are, and what is called on what.

A model inside a model is laid open: its layers stand in a row with the others. Whatever a config asks to import or to
run is a word here, to be refused by its name.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lstm_serve.engine.types import Shape
from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.loading.config import graph_operations
from lstm_serve.loading.config.calls import Call, distinct, needed
from lstm_serve.loading.config.explicit_masks import check_masks, is_operation
from lstm_serve.loading.config.inbound_nodes import (
    INITIAL_STATE,
    Tensor,
    calls_of,
    calls_with_states,
    is_keras_3,
    masks_given,
    of_model,
)
from lstm_serve.loading.config.options import MAX_LAYERS, MAX_SIZE, MODELS
from lstm_serve.loading.layers.registry import RECURRENT, check_call, check_class, count_outputs
from lstm_serve.loading.refusals import OPERATION, OTHER_MODEL, STATES


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


class GivenInput(NamedTuple):
    """An input: its name, and its shape without the batch axis, None where the file does not tell it."""

    name: str
    shape: Shape | None


class Architecture(NamedTuple):
    """`layers` in Keras' own order, which is that of the weights; `calls` in the order of their computation.

    `outputs` are their names, no two the same, and which values they are, numbered as calls do. `build_input_shape`
    says whether a Sequential's config has that key; None in a functional model. `by_key` says whether the outputs are
    an object by their names, which Keras answers as a dict.
    """

    inputs: tuple[GivenInput, ...]
    layers: tuple[LayerSpec, ...]
    calls: tuple[Call, ...]
    outputs: tuple[tuple[str, int], ...]
    build_input_shape: bool | None
    by_key: bool = False


Modernize = Callable[[str, dict[str, Any]], tuple[str, dict[str, Any]]]


def read(model: Any, modernize: Modernize | None = None) -> Architecture:  # noqa: ANN401 - JSON is anything
    """The architecture in a parsed `model_config`. `modernize` brings an old Keras' layer into today's names."""
    reader = _Reader(modernize)
    outline = reader.outline(_dict(model, "the model"), (), ())
    count = len(outline.inputs)
    reader.inputs = [given.name for given in outline.inputs] if outline.graph is None else outline.graph.inputs
    outputs = reader.call(outline, tuple(range(count)))
    if not reader.calls:
        raise UnreadableFile("the model's config lists no layers")
    if max(outputs) < count:
        raise UnreadableFile("the model's output is its input")
    calls, outputs = needed(reader.calls, outputs, count)
    config = model.get("config")
    return Architecture(
        inputs=outline.inputs,
        layers=tuple(reader.layers),
        calls=calls,
        outputs=tuple(zip(distinct(outline.output_names), outputs, strict=True)),
        build_input_shape="build_input_shape" in config if outline.graph is None and isinstance(config, dict) else None,
        by_key=outline.graph is not None and all(key for key, _ in of_model(_dict(config, "it").get("output_layers"))),
    )


class _Member(NamedTuple):
    """An entry of a model's list: a layer by its index, a model, or neither, which is an InputLayer."""

    layer: int | None
    model: "_Outline | None"
    # What each call of it is made on; unused in a Sequential.
    calls: tuple[tuple[Tensor, ...], ...]
    input_shape: Shape | None
    keras_3: bool = False


class _Graph(NamedTuple):
    """Where a functional model begins and ends, and for each model inside it the number of the first call.

    `outputs` are numbered as the layers' references to each other are.
    """

    inputs: tuple[str, ...]
    outputs: tuple[Tensor, ...]
    first_calls: dict[str, int]


class _Outline(NamedTuple):
    """A model before anything is called; `graph` is None for a Sequential."""

    members: dict[str, _Member]
    graph: _Graph | None
    inputs: tuple[GivenInput, ...]
    output_names: tuple[str, ...]


# What all calls of layers and of models may be made on, together.
MAX_INPUTS = 100 * MAX_LAYERS
# Of a model or of one call of a layer: many times what is trained, and names are compared, shapes checked for each.
MAX_ENDS = 1000
_AT_MOST = f"at most {MAX_ENDS} are supported"


class _Reader:
    """Collects the layers of a model and of the models in it, and then their calls."""

    def __init__(self, modernize: Modernize | None) -> None:
        self.layers: list[LayerSpec] = []
        self.calls: list[Call] = []
        self.inputs: Sequence[str] = ()  # the layers that are the model's own
        self._called_on = 0
        self._values = 0  # what the calls give, together
        self._modernize = modernize
        self._other_numbers: dict[str, str] = {}  # by the path of the InputLayer

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
            return _Outline(members, None, (GivenInput(input_name, shape),), (output_name,))
        settings = _dict(config, "the model's config")
        graph = _graph(settings, members)
        check_masks(masked, entries)
        inputs = [
            GivenInput(key or tensor.layer, members[tensor.layer].input_shape)
            for key, tensor in of_model(settings.get("input_layers"))
        ]
        names = [key or tensor.layer for key, tensor in of_model(settings.get("output_layers"))]
        return _Outline(members, graph, tuple(inputs), tuple(names))

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
            calls = calls_of(entry, [given.name for given in inner.inputs])
            keras_3 = is_keras_3(entry) and class_name != "Sequential"
            return name, _Member(None, inner, calls, inner.inputs[0].shape, keras_3), masks_given(entry, name)
        if not isinstance(config, dict):
            raise UnreadableFile(f"the layer {name[:100]!r} has no config")
        if class_name == "InputLayer":
            if config.get("sparse") or config.get("ragged"):
                raise Unsupported(f"the input {name[:100]!r} is sparse or ragged, which is not supported")
            dtype = config.get("dtype")
            if isinstance(dtype, str) and dtype not in graph_operations.FLOATS:
                self._other_numbers["/".join((*path, name))] = dtype[:40]
            return name, _Member(None, None, (), _input_shape(config)), []
        if is_operation(entry):
            # Masks are passed along by operations too: one that is reached is refused where it is called.
            written = graph_operations.read(entry)
            self.layers.append(LayerSpec(OPERATION + written.function, (*path, name), written._asdict(), models))
            return name, _Member(len(self.layers) - 1, None, (written.inputs,), None), []
        return self._layer(entry, (*path, name), models, settings)

    def _layer(
        self, entry: Mapping[str, Any], path: tuple[str, ...], models: tuple[str, ...], settings: dict[str, Any]
    ) -> tuple[str, _Member, list[tuple[str, Tensor]]]:
        name, class_name = path[-1], str(entry.get("class_name"))[:100]
        if self._modernize is not None:
            class_name, settings = self._modernize(class_name, settings)
        check_class(class_name, "/".join(path), settings)
        if class_name in graph_operations.CALLED_WITH:
            calls, said = graph_operations.attention_calls(entry, name)
            self.layers.append(LayerSpec(class_name, path, settings | said, models))
            return name, _Member(len(self.layers) - 1, None, calls, None), []
        self.layers.append(LayerSpec(class_name, path, settings, models))
        states = class_name in RECURRENT | {"Bidirectional"}
        calls = calls_with_states(entry) if states else calls_of(entry)
        member = _Member(len(self.layers) - 1, None, calls, _input_shape(settings))
        masked = masks_given(entry, name, besides=INITIAL_STATE if states else None)
        if masked and states and is_keras_3(entry) and max(map(len, calls), default=1) > 1:
            raise Unsupported(f"the layer {name[:100]!r} is called with a mask and an initial_state, both given")
        return name, member, masked

    def call(self, model: _Outline, values: tuple[int, ...]) -> tuple[int, ...]:
        """Call a model on values; its outputs' values."""
        if len(values) != len(model.inputs):
            raise UnreadableFile(
                f"a model of {len(model.inputs)} inputs inside the model is called on {len(values)} outputs of layers"
            )
        if model.graph is None:
            for member in model.members.values():
                values = self._call(member, values)
                if len(values) != 1:
                    raise Unsupported("a layer or a model of several outputs inside a Sequential is not supported")
            return values
        return self._call_graph(model, model.graph, values)

    def _call(self, member: _Member, inputs: tuple[int, ...]) -> tuple[int, ...]:
        # A model inside may be called often and hold no layer.
        self._called_on += len(inputs) + (0 if member.model is None else len(member.model.members))
        if self._called_on > MAX_INPUTS:
            raise UnreadableFile(f"the model's layers are called on more than {MAX_INPUTS} inputs")
        if member.model is not None:
            return self.call(member.model, inputs)
        if member.layer is None:
            return inputs
        spec = self.layers[member.layer]
        if len(inputs) > MAX_ENDS:
            raise Unsupported(f"the layer {spec.name[:100]!r} is called on {len(inputs)} inputs; {_AT_MOST}")
        check_call(spec.class_name, spec.name, len(inputs))
        if spec.class_name.startswith(OPERATION):
            self._refuse_other_numbers(spec, inputs)
        count, first = count_outputs(spec.class_name, spec.config), len(self.inputs) + self._values
        self.calls.append(Call(member.layer, inputs, count))
        self._values += count
        if len(self.calls) > MAX_LAYERS:
            raise UnreadableFile(f"the model calls more than {MAX_LAYERS} layers")
        return tuple(range(first, first + count))

    def _refuse_other_numbers(self, spec: LayerSpec, inputs: Sequence[int]) -> None:
        """Refuse an operation on an input that is not of floats, or is not to a model inside."""
        inside = [dtype for path, dtype in self._other_numbers.items() if "/" in path]
        for k in inputs:
            name = self.inputs[k] if k < len(self.inputs) else None
            other = None if name is None else self._other_numbers.get(name, next(iter(inside), None))
            if other is not None:
                raise Unsupported(
                    f"the operation {spec.name[:100]!r} is called on {other} inputs, which is not supported"
                )

    def _call_graph(self, model: _Outline, graph: _Graph, values: tuple[int, ...]) -> tuple[int, ...]:
        """From the outputs back to the inputs, and then each call once what it is made on has been."""
        known: dict[tuple[str, int], tuple[int, ...]] = {
            (name, 0): (value,) for name, value in zip(graph.inputs, values, strict=True)
        }
        met: set[tuple[str, int]] = set()
        waiting = [*reversed(graph.outputs)]
        while waiting:
            tensor = waiting[-1]
            key = tensor.layer, tensor.call
            if key in known:
                waiting.pop()
                continue
            member = model.members.get(tensor.layer)
            number = tensor.call - graph.first_calls.get(tensor.layer, 0)
            if member is None or not 0 <= number < len(member.calls):
                raise UnreadableFile(
                    f"the graph leads to {tensor.layer[:100]!r}, call {tensor.call}, which is not there"
                )
            inputs = member.calls[number]
            missing = [source for source in inputs if (source.layer, source.call) not in known]
            if not missing:
                known[key] = self._call(member, tuple(_value(known, source) for source in inputs))
                waiting.pop()
            elif key in met:
                raise UnreadableFile(f"the graph runs in a circle at {tensor.layer[:100]!r}")
            else:
                met.add(key)
                waiting += missing
        return tuple(_value(known, output) for output in graph.outputs)


def _value(known: Mapping[tuple[str, int], tuple[int, ...]], tensor: Tensor) -> int:
    """The value of an output of what was called. What a layer gives besides its first is a state."""
    values = known[tensor.layer, tensor.call]
    if tensor.output >= len(values):
        raise Unsupported(
            f"a state of the layer {tensor.layer[:100]!r} is used (return_state), which is not supported. {STATES}"
        )
    return values[tensor.output]


def _first_calls(members: Mapping[str, _Member], outputs: Sequence[Tensor]) -> dict[str, int]:
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


def _graph(config: Mapping[str, Any], members: Mapping[str, _Member]) -> _Graph:
    inputs = [tensor for _, tensor in of_model(config.get("input_layers"))]
    outputs = [tensor for _, tensor in of_model(config.get("output_layers"))]
    if not inputs or not outputs:
        raise Unsupported(f"the model has no {'outputs' if inputs else 'inputs'}: its config names none")
    if (most := max((len(inputs), "inputs"), (len(outputs), "outputs")))[0] > MAX_ENDS:
        raise Unsupported(f"the model has {most[0]} {most[1]}; {_AT_MOST}")
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
    return _Graph(names, tuple(ends), _first_calls(members, ends))


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
