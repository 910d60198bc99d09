"""How a config refers to the outputs of layers: what each layer is called on, in the graphs of each Keras."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.loading.config.options import MAX_SIZE


class KerasTensor(NamedTuple):
    """An output of a layer's call, as configs refer to it."""

    layer: str
    call: int
    output: int = 0


def calls_of(entry: Mapping[str, Any], names: Sequence[str] = ()) -> tuple[tuple[KerasTensor, ...], ...]:
    """What each call of a layer is made on; of a model, whose inputs have `names`, in the order of those.

    Keras 1 and 2 write a call as [[name, call, tensor, arguments], ...], Keras 3 as {"args": ..., "kwargs": ...}. A
    model may be called on an object by the names of its inputs too.
    """
    return tuple(tuple(tensors_in(_in_order(_given(node), names))) for node in _nodes(entry))


def _given(node: Any) -> Any:  # noqa: ANN401 - JSON is anything
    if not isinstance(node, dict) or "args" not in node:
        return node
    args = node["args"]
    return args[0] if isinstance(args, list) and len(args) == 1 else args


def _in_order(given: Any, names: Sequence[str]) -> Any:  # noqa: ANN401 - JSON is anything
    if not isinstance(given, dict) or not names or not given.keys() >= set(names):
        return given
    return [given[name] for name in names]


INITIAL_STATE = "initial_state"


class GivenMasks(NamedTuple):
    """The masks that a layer's call, counted from 0, is given as an argument, and whether it is given states too."""

    layer: str
    call: int
    masks: tuple[KerasTensor, ...]
    with_states: bool


def calls_with_states(entry: Mapping[str, Any]) -> tuple[tuple[KerasTensor, ...], ...]:
    """What each call of a recurrent layer is made on, and then the states that it begins with, where it is given any.

    Keras 2 has them among the inputs, Keras 3 among the named arguments.
    """
    calls = []
    for node, call in zip(_nodes(entry), calls_of(entry), strict=True):
        kwargs = node.get("kwargs") if isinstance(node, dict) else None
        states = kwargs.get(INITIAL_STATE) if isinstance(kwargs, dict) else None
        calls.append((*call, *tensors_in(states)))
    return tuple(calls)


def is_keras_3(entry: Mapping[str, Any]) -> bool:
    """Whether a layer's calls are written as Keras 3 does."""
    return any(isinstance(node, dict) and "args" in node for node in _nodes(entry))


def masks_given(entry: Mapping[str, Any], name: str, besides: str | None = None) -> list[GivenMasks]:
    """The masks that the calls of a layer are given. Refuses any other argument of a call, but the one `besides`."""
    given = []
    for number, node in enumerate(_nodes(entry)):
        of_keras_3 = isinstance(node, dict) and "args" in node
        arguments = [node.get("kwargs")] if of_keras_3 else [ref[3] for ref in _references(node) if ref[3:]]
        states = None
        if of_keras_3 and isinstance(kwargs := node.get("kwargs"), dict):
            states = kwargs.get(INITIAL_STATE)
            arguments = [{key: value for key, value in kwargs.items() if key != besides}]
        masks = tuple(dict.fromkeys(mask for argument in arguments for mask in _mask_argument(name, argument)))
        if masks:
            given.append(GivenMasks(name, number, masks, bool(states)))
    return given


def _nodes(entry: Mapping[str, Any]) -> list[Any]:
    nodes = entry.get("inbound_nodes")
    return nodes if isinstance(nodes, list) else []


def _mask_argument(name: str, arguments: Any) -> Iterator[KerasTensor]:  # noqa: ANN401 - JSON is anything
    for key, value in arguments.items() if isinstance(arguments, dict) else ():
        if value is None or (key == "training" and isinstance(value, bool)):
            continue
        # Keras 3 gives a model a list of masks, null where there is none; what Keras 2 gives was said by a person.
        listed = isinstance(value, list) and all(item is None or isinstance(item, dict) for item in value)
        of_keras_2 = isinstance(value, list) and len(value) == 3 and isinstance(value[0], str)
        if key != "mask" or not (listed or of_keras_2 or isinstance(value, dict)):
            raise Unsupported(f"the layer {name[:100]!r} is called with {str(key)[:40]}, which is not supported")
        yield from tensors_in(value)


def of_model(value: Any) -> Iterator[tuple[str | None, KerasTensor]]:  # noqa: ANN401 - JSON is anything
    """The references to a model's inputs or outputs, in Keras' order, each with its name where they are an object."""
    if isinstance(value, dict):
        for key in sorted(value):
            named = [(key, tensor) for tensor in tensors_in(value[key])]
            yield from named if len(named) == 1 else [(None, tensor) for _, tensor in named]
    else:
        yield from ((None, tensor) for tensor in tensors_in(value))


def tensors_in(value: Any) -> Iterator[KerasTensor]:  # noqa: ANN401 - JSON is anything
    """Every reference to a layer's output in `value`, in Keras' order: by their keys where they are an object's."""
    for reference in _references(value):
        layer, call, index = reference[:3]
        if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < MAX_SIZE for n in (call, index)):
            raise UnreadableFile(f"the graph has the reference {str(reference)[:60]}, which is not one")
        yield KerasTensor(layer, call, index)


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
            for key in sorted(value):
                yield from _references(value[key])
