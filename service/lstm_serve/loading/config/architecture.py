"""A Keras model's JSON, as far as its wiring goes: which layers there are, and what is called on what.

A model inside a model is laid open: its layers stand in a row with the others. Whatever a config asks to import or to
run is a word here, to be refused by its name.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.loading.config import graph_operations
from lstm_serve.loading.config.calls import Call, EachStep, distinct, needed
from lstm_serve.loading.config.explicit_masks import given_by_hand, is_operation
from lstm_serve.loading.config.inbound_nodes import (
    INITIAL_STATE,
    GivenMasks,
    KerasTensor,
    calls_of,
    calls_with_states,
    is_keras_3,
    masks_given,
    of_model,
)
from lstm_serve.loading.config.options import MAX_LAYERS, MODELS, WITHOUT_EFFECT
from lstm_serve.loading.config.outline import (
    AT_MOST,
    MAX_ENDS,
    FunctionalGraph,
    GivenInput,
    Member,
    Outline,
    as_dict,
    class_in,
    graph_of,
    input_shape_of,
    shape_of,
)
from lstm_serve.loading.layers import between
from lstm_serve.loading.layers.registry import RECURRENT, check_call, check_class, count_outputs
from lstm_serve.loading.refusals import OPERATION, OTHER_MODEL, STATES


class LayerSpec(NamedTuple):
    """A layer as its file describes it.

    `path` is the names of the models inside the model that it is in, and its own; `models` are those models' classes.
    `masked_with_states` says that its calls are given both a mask and states.
    """

    class_name: str
    path: tuple[str, ...]
    config: dict[str, Any]
    models: tuple[str, ...] = ()
    masked_with_states: bool = False

    @property
    def name(self) -> str:
        """The layer's own name, after those of the models inside the model that it is in."""
        return "/".join(self.path)


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
    outline = reader.outline(as_dict(model, "the model"), (), ())
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
        by_key=outline.graph is not None
        and all(key for key, _ in of_model(as_dict(config, "it").get("output_layers"))),
    )


# What all calls of layers and of models may be made on, together.
MAX_INPUTS = 100 * MAX_LAYERS


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

    def outline(self, model: Mapping[str, Any], path: tuple[str, ...], models: tuple[str, ...]) -> Outline:
        """Keras before 2.2.3 lists a Sequential's layers as `config` itself, later ones as `config["layers"]`."""
        class_name = str(model.get("class_name"))
        if class_name not in MODELS:
            raise Unsupported(f"the model is of the class {class_name[:40]!r}; {OTHER_MODEL}")
        config = model.get("config")
        entries = config.get("layers") if isinstance(config, dict) else config
        if not isinstance(entries, list) or not entries:
            raise UnreadableFile("the model's config lists no layers")
        members: dict[str, Member] = {}
        masked: list[GivenMasks] = []
        shape = shape_of(config.get("build_input_shape")) if isinstance(config, dict) else None
        input_name = output_name = ""
        for k, item in enumerate(entries):
            entry = as_dict(item, "a layer")
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
            return Outline(members, None, (GivenInput(input_name, shape),), (output_name,))
        settings = as_dict(config, "the model's config")
        graph = graph_of(settings, members)
        for tensor in (
            *graph.outputs,
            *(source for each in members.values() for call in each.calls for source in call),
        ):
            self._note_use(members.get(tensor.layer), tensor.output)
        for given in given_by_hand(masked, entries):
            self._give_mask(members, given, (*path, given.layer), models)
        inputs = [
            GivenInput(key or tensor.layer, members[tensor.layer].input_shape)
            for key, tensor in of_model(settings.get("input_layers"))
        ]
        names = [key or tensor.layer for key, tensor in of_model(settings.get("output_layers"))]
        return Outline(members, graph, tuple(inputs), tuple(names))

    def _note_use(self, member: Member | None, output: int) -> None:
        """Put on record, of an operation, how many outputs the graph refers to: some files tell no number of them."""
        spec = None if member is None or member.layer is None else self.layers[member.layer]
        if spec is not None and spec.class_name.startswith(OPERATION):
            spec.config["used"] = max(spec.config["used"], output + 1)

    def _member(
        self, entry: Mapping[str, Any], k: int, path: tuple[str, ...], models: tuple[str, ...]
    ) -> tuple[str, Member, list[GivenMasks]]:
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
            return name, Member(None, inner, calls, inner.inputs[0].shape, keras_3), masks_given(entry, name)
        if not isinstance(config, dict):
            raise UnreadableFile(f"the layer {name[:100]!r} has no config")
        if class_name == "TimeDistributed" and class_in(config) in MODELS:
            return self._model_for_each_step(entry, (*path, name), models, settings)
        if class_name == "InputLayer":
            if config.get("sparse") or config.get("ragged"):
                raise Unsupported(f"the input {name[:100]!r} is sparse or ragged, which is not supported")
            dtype = config.get("dtype")
            if isinstance(dtype, str) and dtype not in graph_operations.FLOATS:
                self._other_numbers["/".join((*path, name))] = dtype[:40]
            return name, Member(None, None, (), input_shape_of(config)), []
        if is_operation(entry):
            # Masks are passed along by operations too: one that is reached is refused where it is called.
            written = graph_operations.read(entry)
            self.layers.append(LayerSpec(OPERATION + written.function, (*path, name), written._asdict(), models))
            return name, Member(len(self.layers) - 1, None, (written.inputs,), None), []
        return self._layer(entry, (*path, name), models, settings)

    def _model_for_each_step(
        self, entry: Mapping[str, Any], path: tuple[str, ...], models: tuple[str, ...], settings: dict[str, Any]
    ) -> tuple[str, Member, list[GivenMasks]]:
        """A TimeDistributed around a model: the model's layers are in the list, and its calls in one of their own."""
        name, held = path[-1], settings["layer"]
        if unknown := sorted(settings.keys() - WITHOUT_EFFECT - {"layer"}):
            raise Unsupported(
                f"the layer {name[:100]!r} has options that are not supported: {', '.join(unknown)[:200]}"
            )
        config = held.get("config")
        inner_name = config.get("name", name) if isinstance(config, dict) else held.get("name", name)
        inner = self.outline(held, (*path, str(inner_name)), (*models, "TimeDistributed", held["class_name"]))
        masked = masks_given(entry, name)
        if masked:
            raise Unsupported(
                f"the layer {name[:100]!r} gives a model for each time step a mask, which is not supported"
            )
        member = Member(None, inner, calls_of(entry), input_shape_of(settings), each_step="/".join(path))
        return name, member, []

    def _layer(
        self, entry: Mapping[str, Any], path: tuple[str, ...], models: tuple[str, ...], settings: dict[str, Any]
    ) -> tuple[str, Member, list[GivenMasks]]:
        name, class_name = path[-1], str(entry.get("class_name"))[:100]
        if self._modernize is not None:
            class_name, settings = self._modernize(class_name, settings)
        check_class(class_name, "/".join(path), settings)
        if class_name in graph_operations.CALLED_WITH:
            calls, said = graph_operations.attention_calls(entry, name)
            self.layers.append(LayerSpec(class_name, path, settings | said, models))
            return name, Member(len(self.layers) - 1, None, calls, None), []
        states = class_name in RECURRENT | {"Bidirectional"}
        calls = calls_with_states(entry) if states else calls_of(entry)
        masked = masks_given(entry, name, besides=INITIAL_STATE if states else None)
        both = {given.call for given in masked if given.with_states}
        if both and both != {k for k, call in enumerate(calls_of(entry)) if call != calls[k]}:
            # Keras 3 then heeds the mask, and else none where there are states.
            raise Unsupported(
                f"the layer {name[:100]!r} is called on states with a mask given, and on states without one, which is "
                "not supported"
            )
        self.layers.append(LayerSpec(class_name, path, settings, models, masked_with_states=bool(both)))
        return name, Member(len(self.layers) - 1, None, calls, input_shape_of(settings)), masked

    def _give_mask(
        self, members: dict[str, Member], given: GivenMasks, path: tuple[str, ...], models: tuple[str, ...]
    ) -> None:
        """Give what a layer is called on the mask that the call is given, by an operation of its own before it."""
        member, name = members[given.layer], f"{given.layer}/mask {given.call}"
        first, *others = member.calls[given.call] or (None,)
        if first is None or member.layer is None or name in members:
            raise UnreadableFile(f"the layer {given.layer[:100]!r} is given a mask of nothing")
        written = graph_operations.mask_of(self.layers[member.layer].class_name, first, *given.masks)
        self.layers.append(LayerSpec(OPERATION + written.function, (*path[:-1], name), written._asdict(), models))
        members[name] = Member(len(self.layers) - 1, None, (written.inputs,), None)
        calls = [*member.calls]
        calls[given.call] = (KerasTensor(name, 0, 0), *others)
        members[given.layer] = member._replace(calls=tuple(calls))

    def call(self, model: Outline, values: tuple[int, ...]) -> tuple[int, ...]:
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

    def _call(self, member: Member, inputs: tuple[int, ...]) -> tuple[int, ...]:
        # A model inside may be called often and hold no layer.
        self._called_on += len(inputs) + (0 if member.model is None else len(member.model.members))
        if self._called_on > MAX_INPUTS:
            raise UnreadableFile(f"the model's layers are called on more than {MAX_INPUTS} inputs")
        if member.each_step:
            return self._call_for_each_step(member, inputs)
        if member.model is not None:
            return self.call(member.model, inputs)
        if member.layer is None:
            return inputs
        spec = self.layers[member.layer]
        if len(inputs) > MAX_ENDS:
            raise Unsupported(f"the layer {spec.name[:100]!r} is called on {len(inputs)} inputs; {AT_MOST}")
        check_call(spec.class_name, spec.name, len(inputs))
        if spec.class_name.startswith(OPERATION):
            self._refuse_other_numbers(spec, inputs)
        count, first = count_outputs(spec.class_name, spec.config), len(self.inputs) + self._values
        self.calls.append(Call(member.layer, inputs, count))
        self._values += count
        if len(self.calls) > MAX_LAYERS:
            raise UnreadableFile(f"the model calls more than {MAX_LAYERS} layers")
        return tuple(range(first, first + count))

    def _call_for_each_step(self, member: Member, inputs: tuple[int, ...]) -> tuple[int, ...]:
        """Call a model on a time step of its own: the calls that it makes are one of the model around it."""
        if member.model is None or len(inputs) != 1:
            raise UnreadableFile(f"the layer {member.each_step[:100]!r} is called on {len(inputs)} inputs, not one")
        outside = self.calls, self._values, self.inputs
        self.calls, self._values, self.inputs = [], 0, [""]
        outputs = self.call(member.model, (0,))
        calls, outputs = needed(self.calls, outputs, 1)
        self.calls, self._values, self.inputs = outside
        if len(outputs) != 1 or outputs[0] == 0:
            raise Unsupported(
                f"the model for each time step in {member.each_step[:100]!r} has {len(outputs)} outputs, or its output "
                "is its input, which is not supported"
            )
        self.calls.append(Call(-1, inputs, 1, EachStep(member.each_step, calls, outputs[0])))
        self._values += 1
        return (len(self.inputs) + self._values - 1,)

    def _refuse_other_numbers(self, spec: LayerSpec, inputs: Sequence[int]) -> None:
        """Refuse an operation on an input that is not of floats, or is not to a model that it is in."""
        around = {"/".join(spec.path[:k]) for k in range(1, len(spec.path))}
        taken = spec.class_name.removeprefix(OPERATION) in between.OF_INTEGERS
        inside = [dtype for path, dtype in self._other_numbers.items() if path.rpartition("/")[0] in around]
        for k in inputs:
            name = self.inputs[k] if k < len(self.inputs) else None
            other = None if name is None else self._other_numbers.get(name)
            other = next(iter(inside), None) if name is not None and (taken or other is None) else other
            if other is not None:
                raise Unsupported(
                    f"the operation {spec.name[:100]!r} is called on {other} inputs, which is not supported"
                )

    def _call_graph(self, model: Outline, graph: FunctionalGraph, values: tuple[int, ...]) -> tuple[int, ...]:
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


def _value(known: Mapping[tuple[str, int], tuple[int, ...]], tensor: KerasTensor) -> int:
    """The value of an output of what was called. What a layer gives besides its first is a state."""
    values = known[tensor.layer, tensor.call]
    if tensor.output >= len(values):
        raise Unsupported(
            f"a state of the layer {tensor.layer[:100]!r} is used (return_state), which is not supported. {STATES}"
        )
    return values[tensor.output]
