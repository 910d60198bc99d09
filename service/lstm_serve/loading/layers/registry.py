"""A layer of a file, made into a layer of the engine: one function a class, and the table of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.merging import MaskedBy
from lstm_serve.engine.operations.wiring import Node, Source
from lstm_serve.engine.operations.wrappers import Bidirectional, Stacked, TimeDistributed
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.engine.types import Array, Shape
from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.loading.config import graph_operations
from lstm_serve.loading.config.options import ACTIVATION_LAYERS, MODELS, Options
from lstm_serve.loading.layers import (
    attention,
    between,
    einsum,
    encoding,
    gating,
    lowering,
    mask_rules,
    merging,
    normalizing,
    pointwise,
    resizing,
    temporal,
    windows,
)
from lstm_serve.loading.layers.checks import check_output
from lstm_serve.loading.layers.recurrent import CELLS, recurrent, rnn, several_cells
from lstm_serve.loading.layers.subgraph import Lowering, Part, Subgraph
from lstm_serve.loading.refusals import OPERATION, unsupported

Builder = Callable[[Options, Sequence[Array], Sequence[Shape]], Operation]


class LayerClass(NamedTuple):
    """A class of Keras' layers: what builds it, and its arrays in the order of `get_weights()`.

    A name such as "bias?use_bias" is there where that option is not false. `several` gives what lowers it where its
    options, and how many inputs there are, make several operations of it.
    """

    build: Builder
    arrays: tuple[str, ...] = ()
    several: Callable[[Options, int], Lowering | None] = lambda *_: None


class Lowered(NamedTuple):
    """A class of Keras' layers that is several operations: what makes them, and its arrays, as in `LayerClass`."""

    lowering: Lowering
    arrays: tuple[str, ...] = ()


def lower(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> list[Part]:
    """The operations of a layer, of which most are one. Raises as `build` does."""
    entry = TABLE.get(options.class_name)
    lowering = entry.several(options, len(shapes)) if isinstance(entry, LayerClass) else entry and entry.lowering
    if lowering is None:
        return [Part(build(options, arrays, shapes), tuple(range(len(shapes))))]
    graph = Subgraph(options, shapes)
    lowering(graph, arrays)
    return graph.finished(options.class_name)


def _if_gated(options: Options, _: int) -> Lowering | None:
    """What lowers a layer that ends in `glu`; None of any other."""
    return _gated if gating.is_gated(options) else None


def _gated(graph: Subgraph, arrays: Sequence[Array]) -> None:
    options = graph.options
    graph.follow(lower(gating.ungated(options), arrays, graph.shapes[: graph.given_count]))
    options.ignore(*options.config)
    gating.gate(graph)


def _einsum(graph: Subgraph, arrays: Sequence[Array]) -> None:
    (_gated if gating.is_gated(graph.options) else einsum.dense)(graph, arrays)


def build(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    """The engine's layer for a Keras layer.

    `arrays` in the order of `get_weights()`, `shapes` of the inputs without the batch axis.
    Raises Unsupported, by name, for a class or an option that is not implemented.
    """
    check_class(options.class_name, options.name, options.config)
    check_call(options.class_name, options.name, len(shapes))
    entry = TABLE[options.class_name]
    assert isinstance(entry, LayerClass)  # noqa: S101 - of what holds a layer, check_class has refused others
    built = entry.build(options, arrays, shapes)
    layer: Operation = replace(cast("Any", built), keras_class=options.class_name)
    options.finish()
    check_output(options, layer, shapes)
    return layer


def check_class(class_name: str, name: str, config: Mapping[str, Any]) -> None:
    """Refuse a class of layers that is not implemented, or that of a layer which one holds where it is not."""
    if class_name not in TABLE:
        raise unsupported(class_name, name, TABLE)
    for held, inner in _held(class_name, config):
        what = f"the {class_name} layer {name[:100]!r} holds a {held[:100]}"
        if class_name in HOLDING and held in NOT_EACH_STEP:
            raise Unsupported(f"{what}, which is not supported for each time step by itself")
        if class_name == "Bidirectional" and held not in RECURRENT:
            raise Unsupported(f"{what}, where one of {', '.join(sorted(RECURRENT))} is supported")
        if class_name != "RNN":
            check_class(held, str(inner.get("name", name)), inner)
        elif held.removesuffix("Cell") not in CELLS:
            raise Unsupported(f"{what}, where a cell of {', '.join(sorted(CELLS))} is supported")


def _held(class_name: str, config: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The class and config of each layer, or of each cell, that a layer holds."""
    keys = {"Bidirectional": ("layer", "backward_layer"), "RNN": ("cell",)} | dict.fromkeys(HOLDING, ("layer",))
    held = [layer for key in keys.get(class_name, ()) if (layer := layer_in(config, key)) is not None]
    return cells_of(held[0][1]) if held and held[0][0] == "StackedRNNCells" else held


def check_call(class_name: str, name: str, inputs: int) -> None:
    """Refuse a number of inputs that the layers of a class do not take."""
    if class_name.startswith(OPERATION) and class_name.removeprefix(OPERATION) not in between.TABLE:
        raise unsupported(class_name, name, TABLE)
    if inputs == 0:
        raise UnreadableFile(f"the {class_name} layer {name[:100]!r} has no input")
    several = class_name in MERGING | RECURRENT | {"Bidirectional"} or class_name.startswith(OPERATION)
    if inputs != 1 and not several:
        raise Unsupported(f"the {class_name} layer {name[:100]!r} has {inputs} inputs, where one is supported")


def count_outputs(class_name: str, config: Mapping[str, Any]) -> int:
    """How many outputs a layer has: with return_state its states too, of each direction; or a call of a function."""
    if class_name.startswith(OPERATION):
        return between.count_outputs(class_name.removeprefix(OPERATION), config)
    directions = 1
    if _is_unmerged(class_name, config):
        return 2
    if class_name == "Bidirectional":
        layer = layer_in(config, "layer")
        if layer is None:
            return 1
        directions, (class_name, config) = 2, layer
    if class_name not in RECURRENT or config.get("return_state") is not True:
        return 1
    cells = [held for held, _ in _held(class_name, config)] if class_name == "RNN" else [class_name]
    return 1 + directions * sum(2 if "LSTM" in cell else 1 for cell in cells)


def array_names(class_name: str, config: Mapping[str, Any]) -> list[str]:
    """The names of a layer's arrays, in the order of `get_weights()`, as far as its config tells."""

    def inside(key: str, prefix: str = "") -> list[str]:
        layer = layer_in(config, key)
        return [] if layer is None else [prefix + name for name in array_names(*layer)]

    if class_name == "Bidirectional":
        return inside("layer", "forward/") + (inside("backward_layer", "backward/") or inside("layer", "backward/"))
    if class_name in {*HOLDING, "RNN"}:
        own = ["vector_u"] if class_name == "SpectralNormalization" else []
        return inside("cell" if class_name == "RNN" else "layer") + own
    if class_name == "StackedRNNCells":
        listed = [array_names(*cell) for cell in cells_of(config)]
        return [f"{k}/{name}" for k, names in enumerate(listed) for name in names]
    if class_name == "Normalization" and config.get("mean") is not None:
        return []
    if class_name in KERAS_1_GATES and config.get("consume_less", "gpu") != "gpu":
        return [f"{name}_{gate}" for gate in KERAS_1_GATES[class_name] for name in "WUb"]
    entry = TABLE.get(class_name.removesuffix("Cell"))
    names = [name.partition("?") for name in entry.arrays] if entry else []
    return [name for name, _, option in names if _has(config, option)]


def _has(config: Mapping[str, Any], option: str) -> bool:
    """Whether an option is not false; of "key=value" and "+key", whether it is that, and whether it is true."""
    key, _, value = option.partition("=")
    if value:
        return config.get(key) == value
    return bool(config.get(key[1:])) if key.startswith("+") else bool(config.get(key, True))


def layer_in(config: Mapping[str, Any], key: str) -> tuple[str, dict[str, Any]] | None:
    """The class and config of the layer that an option holds; None where it holds none."""
    layer = config.get(key)
    if not isinstance(layer, dict) or not isinstance(layer.get("config"), dict):
        return None
    return str(layer.get("class_name")), layer["config"]


def cells_of(config: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The class and config of each cell in a StackedRNNCells' config."""
    cells = config.get("cells")
    return [
        (str(cell.get("class_name")), cell["config"])
        for cell in (cells if isinstance(cells, list) else [])
        if isinstance(cell, dict) and isinstance(cell.get("config"), dict)
    ]


# Keras 1 keeps the gates apart, unless it was told to consume less memory of a GPU.
KERAS_1_GATES = {"LSTM": "icfo", "GRU": "zrh"}

# Arrays that no training step changes: in a nested model they come after all that one does.
NOT_TRAINED = frozenset({"moving_mean", "moving_variance", "mean", "variance", "count", "vector_u"})


def _directions(options: Options) -> tuple[Options, Options]:
    """The layers of a Bidirectional, of which the second may be the first turned round."""
    forward, backward = options.inner("layer"), options.inner("backward_layer")
    if forward is None:
        raise UnreadableFile(f"the {options} holds no layer")
    if backward is None:
        turned = {**forward.config, "go_backwards": not forward.config.get("go_backwards", False)}
        backward = forward.with_config(turned)
    return forward, backward


def _bidirectional(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    merge_mode = options.choice("merge_mode", ("concat", "sum", "mul", "ave"), "concat")
    forward, backward = _directions(options)
    options.ignore("return_sequences", "return_state", "stateful", "input_dim", "input_length")
    half = len(array_names(forward.class_name, forward.config))
    built: list[Recurrent | Stacked] = []
    states = len(shapes) // 2
    for inner, part, given in (
        (forward, arrays[:half], shapes[1 : 1 + states]),
        (backward, arrays[half:], shapes[1 + states :]),
    ):
        layer = cast("Recurrent | Stacked", build(inner, part, [*shapes[:1], *given]))
        built.append(_with_zeros(layer, zeros=mask_rules.zeroed(inner)))
    if built[0].return_sequences != built[1].return_sequences or built[0].go_backwards == built[1].go_backwards:
        raise UnreadableFile(f"the two directions of the {options} do not fit together")
    merged = Bidirectional(name=options.name, forward=built[0], backward=built[1], merge_mode=cast("Any", merge_mode))
    if merge_mode != "concat" and built[0].output_shapes(shapes[:1]) != built[1].output_shapes(shapes[:1]):
        raise UnreadableFile(f"the two directions of the {options} have different units")
    return merged


def _is_unmerged(class_name: str, config: Mapping[str, Any]) -> bool:
    """Whether the two directions of a Bidirectional are outputs of their own."""
    return class_name == "Bidirectional" and "merge_mode" in config and config["merge_mode"] is None


def _several_directions(options: Options, _: int) -> Lowering | None:
    """What lowers a Bidirectional of pictures, or without merge_mode; None of any other."""
    held = layer_in(options.config, "layer")
    if held is not None and held[0] in CONV_LSTM:
        return _both_of_pictures
    return _unmerged if _is_unmerged(options.class_name, options.config) else None


def _both_of_pictures(graph: Subgraph, arrays: Sequence[Array]) -> None:
    half = len(arrays) // 2
    parts = zip(_directions(graph.options), (arrays[:half], arrays[half:]), strict=True)
    windows.both_directions(graph, *(build(inner, part, [*graph.shapes]) for inner, part in parts))


def _unmerged(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """The two directions, which are concatenated, each by itself; with their mask."""
    options = graph.options
    both = build(options.with_config({**options.config, "merge_mode": "concat"}), arrays, [*graph.shapes])
    options.ignore(*options.config)
    shapes = both.output_shapes(graph.shapes)
    if len(shapes) > 1:
        raise graph.refusal('has merge_mode None and return_state, which is not supported: build it with "concat"')
    y = graph.add(both, *range(graph.given_count))
    units, axis = cast("Bidirectional", both).forward.output_shapes(graph.shapes[:1])[0][-1], len(shapes[0])
    halves = [graph.slice(y, axis, part) for part in (slice(None, units), slice(units, None))]
    for half in halves:
        graph.add(MaskedBy(name=graph.options.name, zeroed=False), half, y)


def _with_zeros(layer: Recurrent | Stacked, *, zeros: bool) -> Recurrent | Stacked:
    if isinstance(layer, Stacked):
        return replace(layer, layers=(*layer.layers[:-1], replace(layer.layers[-1], zero_output_for_mask=zeros)))
    return replace(layer, zero_output_for_mask=zeros)


def _time_distributed(graph: Subgraph, arrays: Sequence[Array]) -> None:
    options = graph.options
    inner = options.inner("layer")
    options.ignore("input_dim", "input_length")
    (shape,) = graph.shapes
    if inner is None or len(shape) < 2:
        raise UnreadableFile(f"the {options} holds no layer, or is given the shape {shape} without time steps")
    if inner.class_name in {"Dense", "Dropout", "Activation"}:  # these work on the last axis of any shape
        graph.follow(lower(inner.renamed(options.name), arrays, graph.shapes[:1]))
        return
    if inner.config.get("mask_zero"):
        raise inner.refusal("masks ids for each time step by itself, which is not supported")
    inside = lower(inner, arrays, [shape[1:]])
    nodes = [Node(part.operation, tuple(Source(k - 1) for k in part.inputs)) for part in inside]
    graph.add(TimeDistributed(name=options.name, nodes=tuple(nodes), end=Source(len(nodes) - 1)), 0)


def _spectral_normalization(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """A layer whose kernel was normalized while it was trained: the file has it as it is then."""
    options = graph.options
    inner = options.inner("layer")
    options.ignore("power_iterations")
    if inner is None or not arrays:
        raise UnreadableFile(f"the {options} holds no layer, or has no vector")
    graph.follow(lower(inner.renamed(options.name), arrays[:-1], graph.shapes[: graph.given_count]))


WITH_BIAS = ("kernel", "bias?use_bias")
GATED = ("kernel", "recurrent_kernel", "bias?use_bias")
CONV_LSTM = ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
SCALED = ("gamma?scale", "beta?center")

# The parts of a layer of several heads, in the order of their arrays.
HEADS = ("query", "key", "value", "output")
PROJECTED = tuple(f"{name}_{array}" for name in HEADS for array in ("kernel", "bias?use_bias"))
SEPARABLE = ("depthwise_kernel", "pointwise_kernel", "bias?use_bias")

TABLE: dict[str, LayerClass | Lowered] = {
    **dict.fromkeys(CELLS, LayerClass(recurrent, GATED)),
    "RNN": LayerClass(rnn, several=several_cells),
    "Bidirectional": LayerClass(_bidirectional, several=_several_directions),
    "TimeDistributed": Lowered(_time_distributed),
    "Dense": LayerClass(pointwise.dense, WITH_BIAS, _if_gated),
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), LayerClass(windows.convolution, WITH_BIAS, _if_gated)),
    **dict.fromkeys(
        ("DepthwiseConv1D", "DepthwiseConv2D"), LayerClass(windows.depthwise, ("depthwise_kernel", "bias?use_bias"))
    ),
    **dict.fromkeys(CONV_LSTM, LayerClass(windows.conv_lstm, GATED)),
    "Embedding": LayerClass(temporal.embedding, ("embeddings",)),
    "Masking": LayerClass(temporal.masking),
    **{f"{how}Pooling{n}D": LayerClass(windows.pooling) for n in (1, 2, 3) for how in ("Max", "Average")},
    "GlobalMaxPooling1D": LayerClass(temporal.global_pooling),
    "GlobalAveragePooling1D": LayerClass(temporal.global_pooling),
    "Flatten": LayerClass(temporal.reshape),
    "Reshape": LayerClass(temporal.reshape),
    "Permute": LayerClass(temporal.permute),
    "RepeatVector": LayerClass(temporal.repeat_vector),
    **dict.fromkeys(
        # The last two are TensorFlow 1's and 2.0's names of it.
        ("BatchNormalization", "BatchNormalizationV1", "BatchNormalizationV2"),
        LayerClass(pointwise.batch_normalization, (*SCALED, "moving_mean", "moving_variance")),
    ),
    "LayerNormalization": Lowered(normalizing.layer, SCALED),
    "Normalization": LayerClass(pointwise.normalization, ("mean", "variance", "count")),
    "Rescaling": LayerClass(pointwise.rescaling),
    "PReLU": LayerClass(pointwise.prelu, ("alpha",)),
    "Activation": LayerClass(pointwise.activation, several=_if_gated),
    **dict.fromkeys(ACTIVATION_LAYERS, LayerClass(pointwise.activation_layer)),
    "Softmax": Lowered(lowering.softmax),  # over other axes than the last too
    "Concatenate": LayerClass(merging.concatenate),
    **dict.fromkeys(merging.JOINS, LayerClass(merging.merge)),
    # Nothing is left of these at inference.
    "Dropout": LayerClass(pointwise.identity),
    "Identity": LayerClass(pointwise.identity),
    **{f"SpatialDropout{n}D": LayerClass(pointwise.identity) for n in (1, 2, 3)},
    "GaussianNoise": LayerClass(pointwise.identity),
    "GaussianDropout": LayerClass(pointwise.identity),
    "AlphaDropout": LayerClass(pointwise.identity),
    "ActivityRegularization": LayerClass(pointwise.identity),
    "Attention": Lowered(attention.attention, ("scale?+use_scale", "concat_score_weight?score_mode=concat")),
    "AdditiveAttention": Lowered(attention.attention, ("scale?use_scale",)),
    **dict.fromkeys(
        graph_operations.MULTI_HEAD,
        Lowered(attention.multi_head, PROJECTED),
    ),
    "Dot": Lowered(attention.dot),
    "GroupNormalization": Lowered(normalizing.group, SCALED),
    "RMSNormalization": Lowered(normalizing.root_mean_square, ("scale",)),
    "UnitNormalization": Lowered(normalizing.unit),
    **{f"SeparableConv{n}D": Lowered(windows.separable, SEPARABLE) for n in (1, 2)},
    **{f"Conv{n}DTranspose": Lowered(windows.transposed, WITH_BIAS) for n in (1, 2, 3)},
    **{f"Global{how}Pooling{n}D": Lowered(windows.global_pooling) for n in (2, 3) for how in ("Max", "Average")},
    "Discretization": Lowered(encoding.discretization),
    "CategoryEncoding": Lowered(encoding.category),
    "IntegerLookup": Lowered(encoding.integer_lookup),
    "EinsumDense": Lowered(_einsum, ("kernel", "bias?+bias_axes")),
    "SpectralNormalization": Lowered(_spectral_normalization),
    **{f"ZeroPadding{n}D": Lowered(resizing.padding) for n in (1, 2, 3)},
    **{f"Cropping{n}D": Lowered(resizing.cropping) for n in (1, 2, 3)},
    **{f"UpSampling{n}D": Lowered(resizing.upsampling) for n in (1, 2, 3)},
}
# What holds one layer that takes what it is given, or a time step of it.
HOLDING = ("TimeDistributed", "SpectralNormalization")
RECURRENT = frozenset({*CELLS, *CONV_LSTM, "RNN"})
MERGING = frozenset({*merging.JOINS, "Concatenate", "Dot", *graph_operations.CALLED_WITH})
# What takes several inputs, or makes masks, and what a reader of architectures takes apart.
NOT_EACH_STEP = MERGING | {"Masking", *MODELS}
