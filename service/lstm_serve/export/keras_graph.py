"""The layers of a model as Keras 3 calls them, and their order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lstm_serve.engine.activations import HARD_SIGMOID_KERAS_2
from lstm_serve.engine.functions import FUNCTIONS
from lstm_serve.engine.operations.arithmetic import Binary, Reduce
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.masks import begins_mask
from lstm_serve.engine.operations.merging import Concatenate, MaskedBy
from lstm_serve.engine.operations.pointwise import Activate, Rescaling
from lstm_serve.engine.operations.temporal import Embedding, Masking
from lstm_serve.engine.operations.wrappers import Bidirectional, TimeDistributed
from lstm_serve.engine.types import Shape
from lstm_serve.export.keras_config import RATIO, TITLE, Layer
from lstm_serve.export.keras_layers import MASKED, layer_of
from lstm_serve.export.keras_masks import check_mask, is_end, is_looked_at, is_seen, last_layer, mask_of
from lstm_serve.export.operation import Value, refuse, write_inside
from lstm_serve.loading.config.inbound_nodes import KerasTensor
from lstm_serve.model.model import Model

LARGE = 3e38  # makes 1 and more of any number that is not 0


def tensor_of(name: str) -> KerasTensor:
    """The output of a layer's call that `_name_of` calls so."""
    layer, call, output = name.rsplit("/", 2)
    return KerasTensor(layer, int(call), int(output))


def _name_of(tensor: KerasTensor) -> str:
    """How it is called here; no layer has a / in its name."""
    return "/".join(map(str, tensor))


@dataclass
class KerasGraph:
    """The layers as they are called; a layer that is called twice is there once."""

    model: Model
    layers: dict[str, Layer] = field(default_factory=dict)
    calls: dict[str, list[list[KerasTensor]]] = field(default_factory=dict)
    shapes: dict[KerasTensor, Shape] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)  # by the operation's id
    masks: dict[str, tuple[Operation, Value]] = field(default_factory=dict)  # what made each, and of what
    counts: dict[str, Value] = field(default_factory=dict)
    steps: dict[int, TimeDistributed] = field(default_factory=dict)  # by the id of what is done at each
    made: list[Operation] = field(default_factory=list)  # here, for what Keras has no layer for

    def start(self, name: str, shape: Shape, dtype: str) -> Value:
        """An input of the model."""
        layer = self.free_name(name)
        self.layers[layer] = Layer("InputLayer", {"batch_shape": [None, *shape], "dtype": dtype, "name": layer})
        self.calls[layer] = [[]]
        return self._value(KerasTensor(layer, 0), shape)

    def _value(self, tensor: KerasTensor, shape: Shape, mask: str | None = None) -> Value:
        self.shapes[tensor] = shape
        return Value(_name_of(tensor), shape, mask)

    def call(self, op: Operation, xs: Sequence[Value]) -> Value:
        """A call of an operation's layer, after what it may need before it."""
        check_mask(self.model, op, xs)
        _check_units(self.model, op)
        if isinstance(op, TimeDistributed) and (op.layer is None or isinstance(op.layer, Activate)):
            return self._at_each_step(op, xs[0])
        if isinstance(op, Activate) and op.activation is HARD_SIGMOID_KERAS_2:
            before = Rescaling(name=f"{op.name}_times_{RATIO}", scale=np.array(RATIO), offset=np.array(0.0))
            return self._called(op, [self._made(before, *xs)], id(op))
        return self._masked_by(op, *xs) if isinstance(op, MaskedBy) else self._called(op, xs, id(op))

    def _at_each_step(self, op: TimeDistributed, x: Value) -> Value:
        """What is done to each step, one after the other: in a TimeDistributed each, which a function does not need."""
        if any(begins_mask(inner) or [source.output for source in inputs] != [0] for inner, inputs in op.nodes):
            refuse(TITLE, op, "it masks something at each step, or joins several")

        def write(inner: Operation, xs: Sequence[Value]) -> Value:
            if isinstance(inner, Activate):
                return self.call(inner, xs)
            return self.call(self.steps.setdefault(id(inner), TimeDistributed.of(inner, name=inner.name)), xs)

        return write_inside(op, x, write)

    def _made(self, op: Operation, *xs: Value) -> Value:
        """A call of a layer that is here for another's sake."""
        self.made.append(op)
        return self._called(op, xs, id(op))

    def _called(self, op: Operation, xs: Sequence[Value], key: int) -> Value:
        if key not in self.names:
            # Keras joins the masks by operations that it calls concatenate, concatenate_1, ...
            masked = isinstance(op, Concatenate) and any(x.mask is not None for x in xs)
            name = self.names[key] = self.free_name(f"{op.name}_of_masked" if masked else op.name)
            layer = layer_of(op, xs)
            self.layers[name] = layer._replace(config={**layer.config, "name": name})
        name = self.names[key]
        calls = self.calls.setdefault(name, [])
        calls.append([tensor_of(x.name) for x in xs])
        first = KerasTensor(name, len(calls) - 1)
        shape, *others = op.output_shapes([x.shape for x in xs])
        if begins_mask(op):
            self.masks[_name_of(first)] = op, xs[0]
        states = tuple(self._value(first._replace(output=k), each) for k, each in enumerate(others, 1))
        return self._value(first, shape, mask_of(op, xs, _name_of(first)))._replace(states=states)

    def _masked_by(self, op: MaskedBy, x: Value, other: Value) -> Value:
        """x with the mask of another. No layer of Keras gives a tensor a mask: Masking does, where it finds MASKED."""
        looked_at = is_looked_at(self.model, op)
        if other.mask is None or not (op.zeroed or looked_at):
            return x._replace(mask=None)
        if not op.zeroed and is_seen(self.model, op):
            refuse(TITLE, op, "it passes a mask on, and a later layer sees masked steps")
        if other.mask not in self.masks or len(x.shape) != 2:
            refuse(TITLE, op, "its mask is joined of several, or not of a sequence of rows")
        counts = self._counts(other.mask)
        y = self._numbers(op, np.multiply, x, counts)
        if not looked_at:
            return y
        offset = self._numbers(op, np.multiply, self._numbers(op, np.subtract, counts, 1), -MASKED)
        y = self._called(op, [self._numbers(op, np.add, y, offset)], id(op))
        return y._replace(mask=other.mask)

    def _numbers(self, op: Operation, function: np.ufunc, x: Value, other: Value | float) -> Value:
        constant = None if isinstance(other, Value) else np.array(other, np.float32)
        made = Binary(name=f"{op.name}_{function.__name__}", function=function, constant=constant)
        return self._made(made, *((x, other) if isinstance(other, Value) else (x,)))

    def _counts(self, mask: str) -> Value:
        """(T, 1), 1 where a step counts and 0 where it does not."""
        if mask in self.counts:
            return self.counts[mask]
        op, y = self.masks[mask]
        if isinstance(op, Embedding):
            table = np.ones((len(op.embeddings), 1), np.float32)
            table[0] = 0
            y = self._made(Embedding(name=f"{op.name}_counts", embeddings=table, mask_zero=False), y)
            self.layers[tensor_of(y.name).layer].config["trainable"] = False
        elif isinstance(op, Masking):
            y = self._numbers(op, np.subtract, y, op.mask_value)
            y = self._made(Activate(name=f"{op.name}_absolute", activation=FUNCTIONS["absolute"]), y)
            y = self._made(Reduce(name=f"{op.name}_max", function="max", axes=(2,), keepdims=True), y)
            y = self._numbers(op, np.minimum, self._numbers(op, np.multiply, y, LARGE), 1)
        self.counts[mask] = y
        return y

    def free_name(self, wanted: str) -> str:
        """A name that Keras takes, which has no /, and that no other layer has."""
        plain = name = wanted.replace("/", "_") or "layer"
        k = 1
        while name in self.layers:
            k, name = k + 1, f"{plain}_{k}"
        return name

    def ordered(self, outputs: Sequence[Value]) -> list[str]:
        """The layers that lead to the outputs, in the order of Keras' model.layers.

        By depth, the input first, and within one depth in the order in which a walk from the outputs meets them: as
        map_graph of keras/src/ops/function.py has it.
        """
        met: dict[str, int] = {}
        finished: dict[tuple[str, int], None] = {}
        # A walk without recursion: a chain may be a thousand layers long.
        stack = [(tensor_of(output.name)[:2], False) for output in reversed(outputs)]
        while stack:
            call, left = stack.pop()
            if left:
                finished.setdefault(call)
            elif call not in finished:
                met.setdefault(call[0], len(met))
                stack.append((call, True))
                stack += [(source[:2], False) for source in reversed(self.calls[call[0]][call[1]])]
        depths: dict[str, int] = {}
        of_call: dict[tuple[str, int], int] = {}
        for call in reversed(finished):
            depth = depths[call[0]] = of_call[call] = max(of_call.get(call, 0), depths.get(call[0], 0))
            for source in self.calls[call[0]][call[1]]:
                of_call[source[:2]] = max(of_call.get(source[:2], 0), depth + 1)
        return sorted(met, key=lambda name: (-depths[name], met[name]))

    def written(self, order: Sequence[str]) -> list[dict[str, Any]]:
        """The layers with their calls, as they stand in the model's config."""
        return [
            {
                **self.layers[name].serialized(),
                "name": name,
                "inbound_nodes": [self._node(self.layers[name], call) for call in self.calls[name] if call],
            }
            for name in order
        ]

    def _node(self, layer: Layer, call: Sequence[KerasTensor]) -> Mapping[str, Any]:
        """A call of a layer. Keras looks a tensor up by its history; the shape and dtype here are not looked at."""
        tensors = [
            {
                "class_name": "__keras_tensor__",
                "config": {
                    "shape": [None, *self.shapes[tensor]],
                    "dtype": "float32",
                    "keras_history": [*tensor],
                },
            }
            for tensor in call
        ]
        positional, named = layer.call(tensors)
        return {"args": positional, "kwargs": named}


def _check_units(model: Model, op: Operation) -> None:
    """Refuse directions of different units before another layer: Keras 3 takes the wrong width for it."""
    if not isinstance(op, Bidirectional) or is_end(model, op):
        return
    if last_layer(op.forward).units != last_layer(op.backward).units:
        refuse(TITLE, op, "its two directions have different units, which Keras 3 takes to be the same")
