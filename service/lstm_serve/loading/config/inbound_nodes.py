"""How a config refers to the outputs of layers: what each layer is called on, in the graphs of each Keras."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.loading.config.options import MAX_SIZE
from lstm_serve.loading.refusals import STATES


class Tensor(NamedTuple):
    """An output of a layer's call, as configs refer to it."""

    layer: str
    call: int
    output: int


def calls_of(entry: Mapping[str, Any]) -> tuple[tuple[Tensor, ...], ...]:
    """What each call of a layer is made on.

    Keras 1 and 2 write a call as [[name, call, tensor, arguments], ...], Keras 3 as {"args": ..., "kwargs": ...}.
    """
    return tuple(tuple(tensors_in(node.get("args") if isinstance(node, dict) else node)) for node in _nodes(entry))


def masks_given(entry: Mapping[str, Any], name: str) -> list[tuple[str, Tensor]]:
    """The masks that the calls of a layer are given. Refuses any other argument of a call."""
    masked: list[tuple[str, Tensor]] = []
    for node in _nodes(entry):
        arguments = [node.get("kwargs")] if isinstance(node, dict) else [ref[3] for ref in _references(node) if ref[3:]]
        for argument in arguments:
            masked += [(name, mask) for mask in _mask_argument(name, argument)]
    return masked


def _nodes(entry: Mapping[str, Any]) -> list[Any]:
    nodes = entry.get("inbound_nodes")
    return nodes if isinstance(nodes, list) else []


def _mask_argument(name: str, arguments: Any) -> Iterator[Tensor]:  # noqa: ANN401 - JSON is anything
    for key, value in arguments.items() if isinstance(arguments, dict) else ():
        if value is None or (key == "training" and isinstance(value, bool)):
            continue
        if key != "mask" or not isinstance(value, dict):
            raise Unsupported(f"the layer {name[:100]!r} is called with {str(key)[:40]}, which is not supported")
        yield from tensors_in(value)


def refuse_states(tensor: Tensor) -> None:
    """Refuse an output that is not the first: it is a state."""
    if tensor.output != 0:
        raise Unsupported(
            f"a state of the layer {tensor.layer[:100]!r} is used (return_state), which is not supported. {STATES}"
        )


def tensors_in(value: Any) -> Iterator[Tensor]:  # noqa: ANN401 - JSON is anything
    """Every reference to a layer's output in `value`, in order."""
    for reference in _references(value):
        layer, call, index = reference[:3]
        if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < MAX_SIZE for n in (call, index)):
            raise UnreadableFile(f"the graph has the reference {str(reference)[:60]}, which is not one")
        yield Tensor(layer, call, index)


def _references(value: Any) -> Iterator[list[Any]]:  # noqa: ANN401 - JSON is anything
    """[name, call, tensor, ...], alone, in lists, or as Keras 3's `keras_history`."""
    if isinstance(value, list):
        if len(value) >= 3 and isinstance(value[0], str):
            yield value
        else:
            for item in value:
                yield from _references(item)
    elif isinstance(value, dict):
        config = value.get("config")
        if value.get("class_name") == "__keras_tensor__" and isinstance(config, dict):
            yield from _references(config.get("keras_history"))
        elif "class_name" not in value:
            for item in value.values():
                yield from _references(item)
