"""The masks that graphs give to layers as arguments: those that the engine passes along by itself, and others.

Keras 3 writes both in one way, as operations on what Masking or an Embedding is called on. Keras 2 writes those alone
that a person gave.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lstm_serve.errors import Unsupported
from lstm_serve.loading.config.graph_operations import CALLED_WITH, LAMBDAS
from lstm_serve.loading.config.inbound_nodes import GivenMasks, KerasTensor, calls_of


class Base(NamedTuple):
    """What a mask is made of: whether a value is not this number."""

    value: KerasTensor
    number: float


def given_by_hand(masked: Sequence[GivenMasks], entries: Sequence[Mapping[str, Any]]) -> list[GivenMasks]:
    """Those that are no masks which the engine passes along by itself: made of something else than those would be.

    Raises Unsupported for those that cannot be given to a layer.
    """
    graph = _MaskGraph(masked, entries)
    others = [given for given in masked if not graph.is_passed_along(given)]
    for name, _, masks, _ in others:
        class_name = str(graph.inbound.get(name, {}).get("class_name"))
        if len(masks) != 1 or class_name not in TAKING:
            raise Unsupported(
                f"the {class_name[:100]} {name[:100]!r} is called with a mask that its input does not have, which is "
                "supported of recurrent layers, GlobalAveragePooling1D and Softmax alone"
            )
    return others


# What may be given a mask: those that leave the steps out that do not count.
TAKING = frozenset({"LSTM", "GRU", "SimpleRNN", "CuDNNLSTM", "CuDNNGRU", "RNN", "Bidirectional"}) | {
    "GlobalAveragePooling1D",
    "Softmax",
}


class _MaskGraph:
    """What masks in a graph are made of."""

    def __init__(self, masked: Sequence[GivenMasks], entries: Sequence[Mapping[str, Any]]) -> None:
        self.inbound = {str(entry.get("name")): entry for entry in entries}
        self._given = {(given.layer, given.call): given for given in masked}
        # Of each call that was asked for, what the mask of its output is made of.
        self._carried: dict[tuple[str, int], frozenset[Base] | None] = {}

    def is_passed_along(self, given: GivenMasks) -> bool:
        """Whether a call's masks are those that what it is called on has."""
        written = self._written(given.masks)
        return written is not None and written == self._of(self._inputs(given.layer, given.call))

    def _written(self, masks: Iterable[KerasTensor]) -> frozenset[Base] | None:
        """What masks are made of, as the file has it; None where it is something that no layer makes a mask of."""
        found: set[Base] = set()
        seen: set[KerasTensor] = set()
        waiting = [*masks]
        while waiting:
            tensor = waiting.pop()
            if tensor in seen:
                continue
            seen.add(tensor)
            entry = self.inbound.get(tensor.layer, {})
            operation = str(entry.get("class_name")) if is_operation(entry) else None
            (sources, *_) = (*calls_of(entry), ())
            if operation == "NotEqual" and len(sources) == 1:
                found.add(Base(sources[0], _number(entry)))
            elif operation in PASSING and sources:
                waiting += sources
            elif operation not in {"ZerosLike", "OnesLike"}:
                return None
        return frozenset(found)

    def _inputs(self, layer: str, call: int) -> tuple[KerasTensor, ...]:
        """What a call is made on, as far as it passes masks along."""
        entry = self.inbound.get(layer, {})
        calls = calls_of(entry)
        count = 1 if str(entry.get("class_name")) in CALLED_WITH else None  # of attention the query's alone
        return calls[call][:count] if call < len(calls) else ()

    def _of(self, tensors: Iterable[KerasTensor]) -> frozenset[Base] | None:
        """What the masks that outputs of calls have are made of, together; nothing where they have none."""
        keys = [(tensor.layer, tensor.call) for tensor in tensors]
        met: set[tuple[str, int]] = set()
        waiting = [*keys]
        while waiting:
            key = waiting[-1]
            made, through = (frozenset[Base](), ()) if key in self._carried else self._made(*key)
            missing = [(tensor.layer, tensor.call) for tensor in through]
            missing = [source for source in missing if source not in self._carried and source not in met]
            met.add(key)
            waiting += missing
            if not missing:
                waiting.pop()
                found = [made, *(self._carried.get((tensor.layer, tensor.call), frozenset()) for tensor in through)]
                self._carried.setdefault(key, _together(found))
        return _together([self._carried[key] for key in keys])

    def _made(self, layer: str, call: int) -> tuple[frozenset[Base] | None, tuple[KerasTensor, ...]]:
        """What the mask of a call's output is made of, as far as the call tells it, and whose masks it passes along."""
        entry = self.inbound.get(layer, {})
        class_name, config = str(entry.get("class_name")), entry.get("config")
        settings: dict[str, Any] = config if isinstance(config, dict) else {}
        if class_name in {"Masking", "Embedding"}:
            number = settings.get("mask_value", 0.0) if class_name == "Masking" else 0.0
            begun = class_name == "Masking" or settings.get("mask_zero")
            return frozenset(Base(value, number) for value in (self._inputs(layer, call) if begun else ())), ()
        wrapped = settings.get("layer")
        inner = wrapped.get("config") if isinstance(wrapped, dict) else settings
        last_step = isinstance(inner, dict) and inner.get("return_sequences") is False
        if class_name in MASKLESS or last_step or is_operation(entry):
            return frozenset(), ()
        given = self._given.get((layer, call))
        return (self._written(given.masks), ()) if given else (frozenset(), self._inputs(layer, call))


def _together(found: Sequence[frozenset[Base] | None]) -> frozenset[Base] | None:
    """What several masks are made of; None where nobody knows it of one."""
    known = [each for each in found if each is not None]
    return frozenset().union(*known) if len(known) == len(found) else None


# The operations that masks are made with, of whether values are not a number.
PASSING = frozenset({"Any", "All", "ExpandDims", "LogicalOr", "LogicalAnd", "Concatenate", "ConvertToTensor"})


def _number(entry: Mapping[str, Any]) -> float:
    """What an operation compares with; NaN, which is nothing, where it is no number."""
    nodes = entry.get("inbound_nodes")
    node = nodes[0] if isinstance(nodes, list) and nodes else None
    args = node.get("args") if isinstance(node, dict) else None
    number = args[1] if isinstance(args, list) and len(args) == 2 else None
    return number if isinstance(number, int | float) and not isinstance(number, bool) else float("nan")


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
