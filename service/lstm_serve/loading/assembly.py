"""An architecture and its arrays, made into the nodes of a Model."""

import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.operations import wiring
from lstm_serve.engine.operations.wiring import INPUT, Node, Source
from lstm_serve.engine.operations.wrappers import TimeDistributed, tables
from lstm_serve.engine.types import Array, Shape
from lstm_serve.errors import MissingFact, UnreadableFile, Unsupported
from lstm_serve.loading.config.architecture import Architecture
from lstm_serve.loading.config.calls import Call, EachStep
from lstm_serve.loading.config.keras_version import KerasVersion
from lstm_serve.loading.config.options import ACTIVATION_LAYERS, Options, precision
from lstm_serve.loading.config.outline import GivenInput
from lstm_serve.loading.layers import between
from lstm_serve.loading.layers.checks import MAX_AXES, MAX_ROW, check_output
from lstm_serve.loading.layers.encoding import ids_of
from lstm_serve.loading.layers.registry import CONV_LSTM, RECURRENT, lower
from lstm_serve.loading.layers.subgraph import Part
from lstm_serve.loading.mask_flow import check_masks
from lstm_serve.loading.refusals import OPERATION
from lstm_serve.model.metadata import TOLERANCE

# Models of a half-precision policy are computed in float32, and were not by Keras.
HALF_TOLERANCE = 5e-3
# Four of the largest outputs of a layer. Each is kept until the last layer that needs it.
MAX_LIVE = 4 * MAX_ROW
# Many times what a layer is in the mean: each layer may be several operations, and be called often.
MAX_NODES = 20_000
# Of one row, a free time axis being 1: some seconds. A wide LSTM takes a tenth of it over a thousand steps.
MAX_PRODUCTS = 1 << 38
# Of inputs that one layer is called on: each may need operations of its own.
MAX_FORMS = 8
HALF = frozenset({"float16", "mixed_float16", "bfloat16", "mixed_bfloat16"})


class Assembled(NamedTuple):
    """The nodes, the inputs and outputs by their names, how close they come, what was assumed, in words."""

    nodes: tuple[Node, ...]
    inputs: tuple[tuple[str, Shape], ...]
    outputs: tuple[tuple[str, Source], ...]
    tolerance: float
    assumed: tuple[str, ...]


def assemble(
    architecture: Architecture, arrays: Sequence[Sequence[Array]], keras: KerasVersion, timesteps: int | None
) -> Assembled:
    """Build each layer with its arrays; `timesteps` is the card's, and fills a free time axis."""
    given = _input_shapes(architecture, arrays, timesteps)
    assembly = _Assembly(architecture, arrays, keras)
    wired = assembly.wired(architecture.calls, given, ids=True)
    outputs = tuple((name, wired.sources[value]) for name, value in architecture.outputs)
    for name, value in architecture.outputs:
        if wired.types[value] == between.BOOL:
            raise Unsupported(f"the output {name[:100]!r} is a comparison: give it as numbers, cast to float32")
    check_masks(wired.nodes, keras)
    _check_live(wired.nodes, given, [source for _, source in outputs])
    if (made := sum(wiring.products(wired.nodes, given))) > MAX_PRODUCTS:
        raise Unsupported(f"one row takes {made} multiplications, more than {MAX_PRODUCTS}")
    return Assembled(
        nodes=tuple(wired.nodes),
        inputs=tuple((each.name, shape) for each, shape in zip(architecture.inputs, given, strict=True)),
        outputs=outputs,
        tolerance=HALF_TOLERANCE if assembly.half else TOLERANCE,
        assumed=tuple(dict.fromkeys(assembly.assumed)),
    )


class _Wired(NamedTuple):
    """The nodes that calls come to; of each value, inputs first and then what calls give, source, shape and type."""

    nodes: list[Node]
    sources: list[Source]
    shapes: list[Shape]
    types: list[str]


class _Assembly:
    """Makes nodes of calls. A layer that is called twice is one operation, or the same ones where its inputs allow."""

    def __init__(self, architecture: Architecture, arrays: Sequence[Sequence[Array]], keras: KerasVersion) -> None:
        self.architecture = architecture
        self.arrays = arrays
        self.keras = keras
        self.assumed: list[str] = []
        self.half = False
        self._built: dict[int, list[tuple[list[Shape], list[Part]]]] = {}
        self._count = 0

    def wired(self, calls: Sequence[Call], given: Sequence[Shape], *, ids: bool) -> _Wired:
        """The nodes of calls on inputs of these shapes; `ids` says whether these may be what a client sends."""
        found = _Wired([], [Source(INPUT, k) for k in range(len(given))], [*given], [between.FLOAT] * len(given))
        limits: dict[int, int] = {}  # of values that are ids by a layer's doing, how many there are
        for call in calls:
            shapes, types = [found.shapes[k] for k in call.inputs], [found.types[k] for k in call.inputs]
            from_client, type_ = ids and max(call.inputs) < len(given), between.FLOAT
            spec = self.architecture.layers[call.layer]
            name = spec.name if call.each_step is None else call.each_step.name
            operation = call.each_step is None and spec.class_name.startswith(OPERATION)
            if not operation and set(types) != {between.FLOAT}:
                raise Unsupported(f"the layer {name[:100]!r} is called on {types[0]} numbers: cast them to float32")
            if call.each_step is not None:
                made = [Part(self._for_each_step(call.each_step, shapes[0], ids=from_client), (0,))]
            elif operation:
                options = Options(spec.class_name, {"name": name}, self.keras, self.assumed)
                count = self._count_ids(calls, call.inputs) if from_client else None
                made, type_ = between.lower(options, spec.config, shapes, types, count)
            else:
                made = self._parts(call.layer, shapes)
                if (count := ids_of(spec.class_name, spec.config)) is not None:
                    limits[len(found.sources)] = count
            if not from_client:
                _check_ids(name, made, limits.get(call.inputs[0], 0))
            wired = _wired(made, [found.sources[k] for k in call.inputs], shapes, len(found.nodes), call.outputs)
            if len(wired.sources) != call.outputs:
                raise UnreadableFile(f"the layer {name[:100]!r} gives {len(wired.sources)} outputs, not {call.outputs}")
            found.nodes.extend(wired.nodes)
            found.sources.extend(wired.sources)
            found.shapes.extend(wired.shapes)
            found.types.extend([type_] * call.outputs)
            self._count += len(wired.nodes)
            if self._count > MAX_NODES:
                raise Unsupported(f"the model's layers are more than {MAX_NODES} operations")
        _refuse_arithmetic_of_ids(found.nodes, len(given))
        return found

    def _count_ids(self, calls: Sequence[Call], inputs: tuple[int, ...]) -> int | None:
        """How many ids there are of an input that is looked up; None of one that is not."""
        return min(
            (
                len(self.arrays[call.layer][0])
                for call in calls
                if call.each_step is None
                and call.inputs == inputs
                and self.architecture.layers[call.layer].class_name == "Embedding"
                and self.arrays[call.layer]
            ),
            default=None,
        )

    def _parts(self, layer: int, shapes: Sequence[Shape]) -> list[Part]:
        """The operations of a layer on inputs of these shapes."""
        spec, arrays = self.architecture.layers[layer], self.arrays[layer]
        options = Options(
            spec.class_name,
            spec.config | {"name": spec.name},
            self.keras,
            self.assumed,
            masked_with_states=spec.masked_with_states,
        )
        forms = self._built.setdefault(layer, [])
        for called_on, parts in forms:
            if called_on == [*shapes]:
                return parts
        if len(forms) == MAX_FORMS:
            raise Unsupported(f"the layer {spec.name[:100]!r} is called on inputs of more than {MAX_FORMS} shapes")
        made = lower(options, arrays, shapes)
        # A layer without weights, such as a Dropout, says its dtype too, and computes next to nothing in it.
        self.half = self.half or (bool(arrays) and precision(spec.config.get("dtype"), str(options)) in HALF)
        for _, parts in forms:
            if _same([part.operation for part in made], [part.operation for part in parts]):
                made = [part._replace(inputs=again.inputs) for part, again in zip(parts, made, strict=True)]
        forms.append(([*shapes], made))
        return made

    def _for_each_step(self, called: EachStep, shape: Shape, *, ids: bool) -> TimeDistributed:
        """A model for each time step of an input of this shape."""
        if len(shape) < 2:
            raise UnreadableFile(f"the layer {called.name[:100]!r} is given the shape {shape} without time steps")
        inside = self.wired(called.calls, [shape[1:]], ids=ids)
        end = inside.sources[called.output]
        operation = TimeDistributed(name=called.name, keras_class="TimeDistributed", nodes=tuple(inside.nodes), end=end)
        check_output(Options("TimeDistributed", {"name": called.name}, self.keras, []), operation, [shape])
        return operation


def _check_ids(name: str, parts: Sequence[Part], count: int) -> None:
    """Refuse to look up in a table what no client sends, unless it is one of so many ids that are in it."""
    for part in parts:
        if any(len(table.embeddings) < count or not count for table in tables(part.operation)):
            raise Unsupported(f"the Embedding {name[:100]!r} is not the first layer; its ids must be the input")


def _check_live(nodes: Sequence[Node], given: Sequence[Shape], ends: Sequence[Source]) -> None:
    """Refuse what needs too many numbers in memory at once, for a row or for a time step of one."""
    if (live := wiring.live_floats(nodes, given, ends)) > MAX_LIVE:
        raise Unsupported(
            f"one row needs {live} numbers in memory at once between layers, more than {MAX_LIVE}: its widest layers "
            "are too many, or used too late"
        )
    shapes = wiring.shapes_of(nodes, given)
    for operation, (source, *_) in nodes:
        if isinstance(operation, TimeDistributed):
            _check_live(operation.nodes, [shapes[source.node + 1][source.output][1:]], [operation.end])


def _wired(parts: Sequence[Part], given: Sequence[Source], shapes: Sequence[Shape], first: int, count: int) -> _Wired:
    """The nodes of the parts, numbered from `first` on, and so many outputs, the last values of all."""
    nodes: list[Node] = []
    values, known = [*given], [*shapes]
    for operation, taken in parts:
        made = operation.output_shapes([known[k] for k in taken])
        values += [Source(first + len(nodes), k) for k in range(len(made))]
        known += made
        nodes.append(Node(operation, tuple(values[k] for k in taken)))
    return _Wired(nodes, values[len(given) :][-count:], known[len(shapes) :][-count:], [])


def _refuse_arithmetic_of_ids(nodes: Sequence[Node], inputs: int) -> None:
    """Refuse operations on ids: Keras computes them with integers."""
    for k in range(inputs):
        of_input = [node.operation for node in nodes if Source(INPUT, k) in node.inputs]
        others = [operation for operation in of_input if not tables(operation)]
        if len(others) < len(of_input) and (named := [op for op in others if op.keras_class in between.TABLE]):
            raise Unsupported(f"the operation {named[0].name[:100]!r} is called on ids, which is not supported")


def _same(one: Any, other: Any) -> bool:  # noqa: ANN401 - what an operation's field holds
    """Whether two operations, or what is in their fields, compute the same."""
    if one is other:
        return True
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and np.array_equal(one, other)
    if isinstance(one, tuple | list):
        return isinstance(other, tuple | list) and len(one) == len(other) and all(map(_same, one, other))
    if is_dataclass(one) and not isinstance(one, type | Activation):
        names = [field.name for field in fields(one)]
        return type(one) is type(other) and all(_same(getattr(one, name), getattr(other, name)) for name in names)
    return bool(one == other)


def _input_shapes(architecture: Architecture, arrays: Sequence[Sequence[Array]], timesteps: int | None) -> list[Shape]:
    """The inputs' shapes; where no file tells it, what the first layer's weights say, with a free time axis."""
    if timesteps is not None and len(architecture.inputs) > 1:
        raise UnreadableFile(
            f"its card says timesteps, and the model has {len(architecture.inputs)} inputs: the file says the shape "
            "of each"
        )
    return [_input_shape(given, architecture, arrays, timesteps) for given in architecture.inputs]


def _input_shape(
    given: GivenInput, architecture: Architecture, arrays: Sequence[Sequence[Array]], timesteps: int | None
) -> Shape:
    shape, which = given.shape, "the input"
    if len(architecture.inputs) > 1:
        which += f" {given.name[:100]!r}"
    elif shape is None or shape == ():
        shape = _shape_from_weights(architecture, arrays)
    if shape is None:
        raise MissingFact(
            f"the file does not tell {which}'s shape: the model was saved before it was built. "
            "Call it once on data, and save it again"
        )
    if timesteps is not None:
        if not shape or shape[0] not in {None, timesteps}:
            raise UnreadableFile(
                f"its card says timesteps = {timesteps}, the file says {shape[0] if shape else 'none'}"
            )
        shape = (timesteps, *shape[1:])
    if len(shape) > MAX_AXES:
        raise Unsupported(f"{which} has {len(shape)} axes; at most {MAX_AXES} are supported")
    if math.prod(size or 1 for size in shape) > MAX_ROW:
        raise Unsupported(f"{which}'s shape is {str(shape)[:100]}, more than {MAX_ROW} numbers for one row")
    return shape


def _shape_from_weights(architecture: Architecture, arrays: Sequence[Sequence[Array]]) -> Shape | None:
    """(timesteps, features) where the first layers' weights tell it: up to the one that needs time steps."""
    timesteps: int | None = None
    features: int | None = None
    for k, call in enumerate(architecture.calls):
        if call.each_step is not None or architecture.layers[call.layer].class_name in CONV_LSTM:
            break
        spec, (kernel, *_) = architecture.layers[call.layer], [*arrays[call.layer], np.zeros(0, np.float32)]
        class_name, config = spec.class_name, spec.config
        if call.inputs != (k,):
            break
        if class_name == "Embedding" and k == 0:
            return (None,)
        if class_name == "Bidirectional" or class_name in RECURRENT | {"Conv1D"}:
            if kernel.ndim < 2:
                break
            return (timesteps, features or kernel.shape[-2])
        if class_name in {"Dense", "TimeDistributed"} and kernel.ndim == 2:
            features = features or kernel.shape[0]
        elif class_name == "BatchNormalization" and config.get("axis", -1) in (1, [1]) and kernel.ndim == 1:
            timesteps = kernel.shape[0]
        elif class_name not in KEEP_SHAPE:
            break
    return None


# Layers before which and after which the shape is the same.
KEEP_SHAPE = frozenset(
    {
        *("Masking", "Activation", *ACTIVATION_LAYERS, "PReLU", "BatchNormalization", "LayerNormalization"),
        *("GroupNormalization", "RMSNormalization", "UnitNormalization"),
        *("Dropout", "Identity", "SpatialDropout1D", "GaussianNoise", "GaussianDropout", "AlphaDropout"),
        *("ActivityRegularization", "Rescaling"),
    }
)
