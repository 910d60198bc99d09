"""An architecture and its arrays, made into the nodes of a Model."""

import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.operations.temporal import Embedding
from lstm_serve.engine.types import Array, Shape
from lstm_serve.errors import MissingFact, UnreadableFile, Unsupported
from lstm_serve.loading.config.architecture import Architecture, GivenInput
from lstm_serve.loading.config.keras_version import KerasVersion
from lstm_serve.loading.config.options import ACTIVATION_LAYERS, Options, precision
from lstm_serve.loading.layers import between
from lstm_serve.loading.layers.checks import MAX_AXES, MAX_ROW
from lstm_serve.loading.layers.registry import RECURRENT, lower
from lstm_serve.loading.layers.steps import Step
from lstm_serve.loading.refusals import OPERATION
from lstm_serve.model import graph
from lstm_serve.model.graph import INPUT, Node, Source
from lstm_serve.model.metadata import TOLERANCE

# Models of a half-precision policy are computed in float32, and were not by Keras.
HALF_TOLERANCE = 5e-3
# Four of the largest outputs of a layer. Each is kept until the last layer that needs it.
MAX_LIVE = 4 * MAX_ROW
# Many times what a layer is in the mean: each layer may be several operations, and be called often.
MAX_NODES = 20_000
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
    assumed: list[str] = []
    shapes: list[Shape] = [*given]
    # Where each value comes from: the inputs, then what each call gives. An operation between layers may be many nodes.
    sources = [Source(INPUT, k) for k in range(len(given))]
    built: dict[int, list[Step]] = {}
    called_on: dict[int, list[Shape]] = {}
    nodes: list[Node] = []
    half = False
    for call in architecture.calls:
        spec = architecture.layers[call.layer]
        inputs = [shapes[k] for k in call.inputs]
        options = Options(spec.class_name, spec.config | {"name": spec.name}, keras, assumed)
        made = built.get(call.layer)
        if spec.class_name.startswith(OPERATION):
            options = options.with_config({"name": spec.name})
            made = between.lower(options, spec.config, inputs)
        elif made is None:
            made = built[call.layer] = lower(options, arrays[call.layer], inputs)
            called_on[call.layer] = inputs
            # A layer without weights, such as a Dropout, says its dtype too, and computes next to nothing in it.
            half = half or (bool(arrays[call.layer]) and precision(spec.config.get("dtype"), str(options)) in HALF)
        elif called_on[call.layer] != inputs and not _same(lower(options, arrays[call.layer], inputs), made):
            raise Unsupported(f"the layer {spec.name[:100]!r} is called on inputs of different shapes")
        if isinstance(made[-1].operation, Embedding) and max(call.inputs) >= len(given):
            raise Unsupported(f"the Embedding {spec.name[:100]!r} is not the first layer; its ids must be the input")
        added, given_shapes = _wired(made, [sources[k] for k in call.inputs], inputs, len(nodes))
        nodes += added
        sources += [Source(len(nodes) - 1, k) for k in range(len(given_shapes))]
        shapes += given_shapes
        if len(given_shapes) != call.outputs:
            raise UnreadableFile(f"the layer {spec.name[:100]!r} gives {len(given_shapes)} outputs, not {call.outputs}")
        if len(nodes) > MAX_NODES:
            raise Unsupported(f"the model's layers are more than {MAX_NODES} operations")
    _refuse_arithmetic_of_ids(nodes, len(given))
    outputs = tuple((name, sources[value]) for name, value in architecture.outputs)
    if (live := graph.live_floats(nodes, given, [source for _, source in outputs])) > MAX_LIVE:
        raise Unsupported(
            f"one row needs {live} numbers in memory at once between layers, more than {MAX_LIVE}: its widest layers "
            "are too many, or used too late"
        )
    return Assembled(
        nodes=tuple(nodes),
        inputs=tuple((each.name, shape) for each, shape in zip(architecture.inputs, given, strict=True)),
        outputs=outputs,
        tolerance=HALF_TOLERANCE if half else TOLERANCE,
        assumed=tuple(dict.fromkeys(assumed)),
    )


def _wired(
    steps: Sequence[Step], given: Sequence[Source], shapes: Sequence[Shape], first: int
) -> tuple[list[Node], tuple[Shape, ...]]:
    """The nodes of the steps, the first of them of that number, and the shapes of what the last one gives."""
    nodes: list[Node] = []
    values, known = [*given], [*shapes]
    last: tuple[Shape, ...] = ()
    for operation, taken in steps:
        last = operation.output_shapes([known[k] for k in taken])
        nodes.append(Node(operation, tuple(values[k] for k in taken)))
        values.append(Source(first + len(nodes) - 1))
        known.append(last[0])
    return nodes, last


def _refuse_arithmetic_of_ids(nodes: Sequence[Node], inputs: int) -> None:
    """Refuse operations on ids: Keras computes them with integers."""
    for k in range(inputs):
        of_input = [node.operation for node in nodes if Source(INPUT, k) in node.inputs]
        others = [operation for operation in of_input if not isinstance(operation, Embedding)]
        if len(others) < len(of_input) and (named := [op for op in others if op.keras_class in between.TABLE]):
            raise Unsupported(f"the operation {named[0].name[:100]!r} is called on ids, which is not supported")


def _same(one: Any, other: Any) -> bool:  # noqa: ANN401 - what an operation's field holds
    """Whether two operations, or what is in their fields, compute the same."""
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
