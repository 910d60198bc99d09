"""An architecture and its arrays, made into the nodes of a Model."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.temporal import Embedding
from lstm_serve.engine.types import Array, Shape
from lstm_serve.errors import MissingFact, UnreadableFile, Unsupported
from lstm_serve.loading.config.architecture import Architecture
from lstm_serve.loading.config.keras_version import KerasVersion
from lstm_serve.loading.config.options import ACTIVATION_LAYERS, Options, precision
from lstm_serve.loading.layers import between
from lstm_serve.loading.layers.lowering import Step
from lstm_serve.loading.layers.registry import MAX_AXES, MAX_ROW, RECURRENT, build, check_output
from lstm_serve.loading.refusals import OPERATION
from lstm_serve.model import graph
from lstm_serve.model.graph import INPUT, Node, Source
from lstm_serve.model.metadata import TOLERANCE

# Models of a half-precision policy are computed in float32, and were not by Keras.
HALF_TOLERANCE = 5e-3
# Four of the largest outputs of a layer. Each is kept until the last layer that needs it.
MAX_LIVE = 4 * MAX_ROW
HALF = frozenset({"float16", "mixed_float16", "bfloat16", "mixed_bfloat16"})


class Assembled(NamedTuple):
    """The nodes, what they take, how input and output are called, how close they come, what was assumed, in words."""

    nodes: tuple[Node, ...]
    input_shape: Shape
    input_name: str
    output_name: str
    tolerance: float
    assumed: tuple[str, ...]


def assemble(
    architecture: Architecture, arrays: Sequence[Sequence[Array]], keras: KerasVersion, timesteps: int | None
) -> Assembled:
    """Build each layer with its arrays; `timesteps` is the card's, and fills a free time axis."""
    input_shape = _input_shape(architecture, arrays, timesteps)
    assumed: list[str] = []
    shapes: list[Shape] = [input_shape]
    # Where each value comes from: the input, then what each call gives. An operation between layers may be many nodes.
    sources = [Source(INPUT)]
    built: dict[int, Operation] = {}
    called_on: dict[int, list[Shape]] = {}
    nodes: list[Node] = []
    half = False
    for call in architecture.calls:
        spec = architecture.layers[call.layer]
        inputs = [shapes[k] for k in call.inputs]
        if spec.class_name.startswith(OPERATION):
            options = Options(spec.class_name, {"name": spec.name}, keras, assumed)
            made = between.lower(options, spec.config, inputs)
            added, shape = _wired(options, made, [sources[k] for k in call.inputs], inputs, len(nodes))
            nodes += added
            sources.append(Source(len(nodes) - 1))
            shapes.append(shape)
            continue
        layer = built.get(call.layer)
        if layer is None:
            options = Options(spec.class_name, spec.config | {"name": spec.name}, keras, assumed)
            layer = built[call.layer] = build(options, arrays[call.layer], inputs)
            # A layer without weights, such as a Dropout, says its dtype too, and computes next to nothing in it.
            called_on[call.layer] = inputs
            half = half or (bool(layer.weights) and precision(spec.config.get("dtype"), str(options)) in HALF)
        elif called_on[call.layer] != inputs:
            raise Unsupported(f"the layer {spec.name[:100]!r} is called on inputs of different shapes")
        if isinstance(layer, Embedding) and call.inputs != (0,):
            raise Unsupported(f"the Embedding {spec.name[:100]!r} is not the first layer; its ids must be the input")
        nodes.append(Node(layer, tuple(sources[k] for k in call.inputs)))
        sources.append(Source(len(nodes) - 1))
        shapes += layer.output_shapes(inputs)
    _refuse_arithmetic_of_ids(nodes)
    if (live := graph.live_floats(nodes, [input_shape])) > MAX_LIVE:
        raise Unsupported(
            f"one row needs {live} numbers in memory at once between layers, more than {MAX_LIVE}: its widest layers "
            "are too many, or used too late"
        )
    return Assembled(
        nodes=tuple(nodes),
        input_shape=input_shape,
        input_name=architecture.input_name,
        output_name=architecture.output_name,
        tolerance=HALF_TOLERANCE if half else TOLERANCE,
        assumed=tuple(dict.fromkeys(assumed)),
    )


def _wired(
    options: Options, steps: Sequence[Step], given: Sequence[Source], shapes: Sequence[Shape], first: int
) -> tuple[list[Node], Shape]:
    """The nodes of the steps, the first of them of that number, and the shape of what the last one gives."""
    nodes: list[Node] = []
    values, known = [*given], [*shapes]
    for operation, taken in steps:
        of = [known[k] for k in taken]
        check_output(options, operation, of)
        nodes.append(Node(operation, tuple(values[k] for k in taken)))
        values.append(Source(first + len(nodes) - 1))
        known += operation.output_shapes(of)
    return nodes, known[-1]


def _refuse_arithmetic_of_ids(nodes: Sequence[Node]) -> None:
    """Refuse operations on ids: Keras computes them with integers."""
    of_input = [node.operation for node in nodes if Source(INPUT) in node.inputs]
    others = [operation for operation in of_input if not isinstance(operation, Embedding)]
    if len(others) < len(of_input) and (named := [op for op in others if op.keras_class in between.TABLE]):
        raise Unsupported(f"the operation {named[0].name[:100]!r} is called on ids, which is not supported")


def _input_shape(architecture: Architecture, arrays: Sequence[Sequence[Array]], timesteps: int | None) -> Shape:
    """The model's input shape; where no file tells it, what the first layer's weights say, with a free time axis."""
    shape = architecture.input_shape or _shape_from_weights(architecture, arrays)
    if shape is None:
        raise MissingFact(
            "the file does not tell the input's shape: the model was saved before it was built. "
            "Call it once on data, and save it again"
        )
    if timesteps is not None:
        if not shape or shape[0] not in {None, timesteps}:
            raise UnreadableFile(
                f"its card says timesteps = {timesteps}, the file says {shape[0] if shape else 'none'}"
            )
        shape = (timesteps, *shape[1:])
    if len(shape) > MAX_AXES:
        raise Unsupported(f"the input has {len(shape)} axes; at most {MAX_AXES} are supported")
    if math.prod(size or 1 for size in shape) > MAX_ROW:
        raise Unsupported(f"the input's shape is {str(shape)[:100]}, more than {MAX_ROW} numbers for one row")
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
        *("Dropout", "Identity", "SpatialDropout1D", "GaussianNoise", "GaussianDropout", "AlphaDropout"),
        *("ActivityRegularization", "Rescaling"),
    }
)
