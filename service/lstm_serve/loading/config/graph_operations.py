"""What a graph writes between its layers: the call of a function on outputs of layers and on plain values.

Keras 2 has a layer around each (TFOpLambda, SlicingOpLambda), with what it is called on in the graph's node:
["lstm", 0, 0, {"y": ["dense", 0, 0]}], or ["_CONSTANT_VALUE", -1, 1.0, {...}] where a number comes first. Keras 3
has positional arguments and others in the node, and the function's options in its config.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from lstm_serve.errors import Unsupported
from lstm_serve.loading.config.inbound_nodes import KerasTensor, tensors_in

LAMBDAS = frozenset({"TFOpLambda", "SlicingOpLambda"})
# Half precision is computed in float32, as all is.
FLOATS = frozenset({"float32", "float64", "float16", "bfloat16"})


class TensorArgument(NamedTuple):
    """An argument that is an output of a layer: the number of it among the call's inputs."""

    number: int


class Written(NamedTuple):
    """A call as the file has it, its tensors replaced by `TensorArgument`.

    `calls` counts how often the function is called, `types` are the types of the inputs' numbers, None where the file
    says none. `used` is how many outputs the graph refers to, which is for who reads the graph to say.
    """

    function: str
    positional: tuple[Any, ...]
    named: dict[str, Any]
    inputs: tuple[KerasTensor, ...]
    calls: int
    types: tuple[str | None, ...]
    used: int = 1


def read(entry: Mapping[str, Any]) -> Written:
    """The call of an entry of a graph that is no layer."""
    config = entry.get("config")
    settings: dict[str, Any] = config if isinstance(config, dict) else {}
    nodes = entry.get("inbound_nodes")
    listed = nodes if isinstance(nodes, list) else []
    arguments = _Arguments()
    positional, named = arguments.of(listed[0] if listed else None)
    function = str(entry.get("class_name"))
    if function in LAMBDAS:
        function = str(settings.get("function"))
    else:
        named = {key: value for key, value in settings.items() if key != "name"} | named
    return Written(function[:100], positional, named, tuple(arguments.inputs), len(listed), tuple(arguments.types))


# What gives a value a mask, and what besides lowers it far where it is masked, as is done before a softmax.
MASKED, LOWERED = "with a mask", "lowered by a mask"


def mask_of(class_name: str, value: KerasTensor, mask: KerasTensor) -> Written:
    """The call that gives what a layer of a class is called on the mask that the layer is given."""
    function = LOWERED if class_name == "Softmax" else MASKED
    return Written(function, (TensorArgument(0), TensorArgument(1)), {}, (value, mask), 1, (None, None))


# The last is what an HDF5 file of Keras 3 calls the second.
MULTI_HEAD = ("MultiHeadAttention", "GroupQueryAttention", "GroupedQueryAttention")
# The inputs of layers that are called with more than inputs, by their names, where they have names.
CALLED_WITH: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Attention", "AdditiveAttention"), ()),
    **dict.fromkeys(MULTI_HEAD, ("query", "value", "key")),
}
SAYING_NOTHING = {"training": (None, True, False), "return_attention_scores": (None, False), "mask": (None,)}


class AttentionCalls(NamedTuple):
    """What each call of a layer of attention is made on, in the order of its arguments, and the others' values."""

    inputs: tuple[tuple[KerasTensor, ...], ...]
    options: dict[str, Any]


def attention_calls(entry: Mapping[str, Any], name: str) -> AttentionCalls:
    """The calls of a layer whose class is in `CALLED_WITH`. Raises Unsupported for arguments that are not supported."""
    names = CALLED_WITH[str(entry.get("class_name"))]
    nodes = entry.get("inbound_nodes")
    calls: list[tuple[KerasTensor, ...]] = []
    options: dict[str, Any] = {}
    for node in nodes if isinstance(nodes, list) else []:
        arguments = _Arguments()
        positional, named = arguments.of(node)
        options = {"use_causal_mask": named.pop("use_causal_mask", False)}
        if calls and options["use_causal_mask"] is not False:
            raise Unsupported(f"the layer {name[:100]!r} is called several times with use_causal_mask")
        named = {key: value for key, value in named.items() if value is not None}
        for key, values in SAYING_NOTHING.items():
            if any(named.get(key) is value for value in values):
                named.pop(key, None)
        # Keras 3 has the inputs of Attention, and Keras 2 all that is called first, in a list.
        listed = len(positional) == 1 and isinstance(positional[0], list)
        given = [*positional[0]] if listed else [*positional]
        given += [named.pop(key) for key in names[len(given) :] if key in named]
        if named or not given or not all(isinstance(value, TensorArgument) for value in given):
            said = f"with {', '.join(named)[:100]}" if named else "on something else than layers' outputs"
            raise Unsupported(f"the layer {name[:100]!r} is called {said}, which is not supported")
        calls.append(tuple(arguments.inputs[value.number] for value in given))
    return AttentionCalls(tuple(calls), options)


class _Arguments:
    """Collects the tensors among arguments."""

    def __init__(self) -> None:
        self.inputs: list[KerasTensor] = []
        self.types: list[str | None] = []

    def _given(self, reference: Any, dtype: object = None) -> TensorArgument:  # noqa: ANN401 - JSON is anything
        (tensor,) = tensors_in(reference)
        self.inputs.append(tensor)
        self.types.append(None if dtype is None else str(dtype)[:40])
        return TensorArgument(len(self.inputs) - 1)

    def of(self, node: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:  # noqa: ANN401 - JSON is anything
        """The positional and the named arguments of a call, as each Keras writes it."""
        if not isinstance(node, dict):
            return self.of_lambda(node)
        args, kwargs = node.get("args"), node.get("kwargs")
        positional = tuple(self.of_keras_3(arg) for arg in (args if isinstance(args, list) else []))
        named = {key: self.of_keras_3(value) for key, value in (kwargs.items() if isinstance(kwargs, dict) else ())}
        return positional, named

    def of_keras_3(self, value: Any) -> Any:  # noqa: ANN401 - JSON is anything
        """A value with `TensorArgument` for each tensor in it."""
        if isinstance(value, list):
            return [self.of_keras_3(item) for item in value]
        if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            config = value.get("config")
            dtype = config.get("dtype") if isinstance(config, dict) else None
            found = list(tensors_in(value))
            return self._given(value, dtype) if len(found) == 1 else value
        return value

    def of_lambda(self, node: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:  # noqa: ANN401 - JSON is anything
        """The first argument, a tensor, a number or a list of tensors, and the others by name."""
        if not isinstance(node, list) or not node:
            return (), {}
        alone = isinstance(node[0], str)
        entries = [node] if alone else node
        if not all(isinstance(item, list) and len(item) >= 3 and isinstance(item[0], str) for item in entries):
            return (node,), {}
        firsts = [item[2] if item[0] == "_CONSTANT_VALUE" else self._given(item[:3]) for item in entries]
        others = entries[0][3] if len(entries[0]) > 3 and isinstance(entries[0][3], dict) else {}
        named = {key: self._of_keras_2(value) for key, value in others.items()}
        return (firsts[0] if alone else firsts,), named

    def _of_keras_2(self, value: Any) -> Any:  # noqa: ANN401 - JSON is anything
        if not isinstance(value, list):
            return value
        if len(value) == 3 and isinstance(value[0], str):
            return self._given(value)
        return [self._of_keras_2(item) for item in value]
