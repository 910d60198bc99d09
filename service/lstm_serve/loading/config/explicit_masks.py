"""The masks that Keras 3 writes into its graphs as operations, which the engine passes along by itself."""

from collections.abc import Mapping, Sequence
from typing import Any

from lstm_serve.errors import Unsupported
from lstm_serve.loading.config.graph_operations import CALLED_WITH, LAMBDAS
from lstm_serve.loading.config.inbound_nodes import KerasTensor, calls_of


def check_written_masks(masked: Sequence[tuple[str, KerasTensor]], entries: Sequence[Mapping[str, Any]]) -> None:
    """Keras 3 writes the masks that it passes along as operations; follow them to the layers that made them.

    The engine passes masks along by itself, so these are left out, once it is known that they are no others.
    """
    inbound = {str(entry.get("name")): entry for entry in entries}
    known: dict[str, bool] = {}
    for name in dict.fromkeys(name for name, _ in masked):
        if not _carries_mask(inbound.get(name, {}), inbound, known):
            raise Unsupported(f"the layer {name[:100]!r} is given a mask that its input does not have")
    made = {
        tensor
        for entry in entries
        if str(entry.get("class_name")) in {"Masking", "Embedding"}
        for call in calls_of(entry)
        for tensor in call
    }
    seen: set[KerasTensor] = set()
    waiting = [mask for _, mask in masked]
    while waiting:
        tensor = waiting.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        entry = inbound.get(tensor.layer, {})
        calls = calls_of(entry)
        operation = str(entry.get("class_name")) if is_operation(entry) else None
        sources = calls[0] if calls else ()
        if operation == "NotEqual" and set(sources) <= made:
            continue
        if (
            operation in {"Any", "All", "ExpandDims", "LogicalOr", "LogicalAnd", "Concatenate", "ConvertToTensor"}
            and sources
        ):
            waiting += sources
        elif operation not in {"ZerosLike", "OnesLike"}:
            raise Unsupported(
                f"a layer is given a mask that neither Masking nor Embedding made: {tensor.layer[:100]!r}"
            )


# Classes whose output has no mask, whatever their input has.
MASKLESS = frozenset({"InputLayer", "Flatten", "Reshape", "Permute", "RepeatVector", "Dot"}) | {
    f"{before}{axes}D{after}"
    for before, after in (
        *(("Conv", ""), ("DepthwiseConv", ""), ("SeparableConv", ""), ("Conv", "Transpose")),
        *((f"{kind}Pooling", "") for kind in ("Max", "Average", "GlobalMax", "GlobalAverage")),
        *(("ZeroPadding", ""), ("Cropping", ""), ("UpSampling", "")),
    )
    for axes in (1, 2, 3)
}


def _carries_mask(entry: Mapping[str, Any], inbound: Mapping[str, Mapping[str, Any]], known: dict[str, bool]) -> bool:
    """Whether a mask reaches a layer by the way that masks take by themselves."""
    reached = False
    count = 1 if str(entry.get("class_name")) in CALLED_WITH else None  # of attention the query's alone
    for tensor in (tensor for call in calls_of(entry) for tensor in call[:count]):
        if tensor.layer not in known:
            known[tensor.layer] = False  # in case of a circle
            source = inbound.get(tensor.layer, {})
            config = source.get("config")
            wrapped = config.get("layer") if isinstance(config, dict) else None
            settings = wrapped.get("config") if isinstance(wrapped, dict) else config
            last_step = isinstance(settings, dict) and settings.get("return_sequences") is False
            class_name = str(source.get("class_name"))
            known[tensor.layer] = class_name in {"Masking", "Embedding"} or (
                class_name not in MASKLESS
                and not last_step
                and not is_operation(source)
                and _carries_mask(source, inbound, known)
            )
        reached = reached or known[tensor.layer]
    return reached


def is_operation(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of a graph is no layer; in HDF5 of Keras 3, where no module says so, by its config."""
    if str(entry.get("class_name")) in LAMBDAS:
        return True
    nodes, config = entry.get("inbound_nodes"), entry.get("config")
    if "module" in entry:
        return str(entry["module"]).startswith("keras.src.ops")
    called = isinstance(nodes, list) and bool(nodes) and isinstance(nodes[0], dict)
    if not called or not isinstance(config, dict) or str(entry.get("class_name")) in WITHOUT_TRAINABLE:
        return False
    return "trainable" not in config and "layers" not in config


# The layers whose config leaves `trainable` out, as an operation's does: get_config in keras/src/layers, 3.15.
WITHOUT_TRAINABLE = frozenset(
    {
        *("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"),
        *("Discretization", "HashedCrossing", "FeatureSpace", "Pipeline"),
    }
)
