"""Keras 3: a `.keras` file that it opens, predicts the same with and trains on, from a model of any Keras.

The format is a zip of metadata.json, config.json and model.weights.h5, as keras/src/saving/saving_lib.py of 3.15 reads
it. A layer's arrays are under its class in snake case, numbered where there are several, in the order of model.layers.
"""

import importlib.util
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lstm_serve.engine.activations import HARD_SIGMOID_KERAS_2, Activation
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.merging import Concatenate, MaskRule, Merge
from lstm_serve.engine.operations.pointwise import (
    Activate,
    BatchNormalization,
    Dense,
    Identity,
    LayerNormalization,
    Normalization,
    PReLU,
    Rescaling,
    Scaling,
    Unscaling,
)
from lstm_serve.engine.operations.temporal import Embedding, GlobalPooling1D, Masking
from lstm_serve.engine.operations.wrappers import Bidirectional, Stacked, TimeDistributed
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.engine.types import Array, Shape
from lstm_serve.export.artifact import Golden, Numbers, header, npz, plain, scaled_by_card
from lstm_serve.export.keras_layers import ACTIVATIONS, RATIO, TABLE, TITLE, Layer, layer_of, numbered
from lstm_serve.export.operation import Target, Value, refuse, walk
from lstm_serve.model.files import GOLDEN
from lstm_serve.model.model import Model

VERSION = "3.15.1"  # whose functions and format these are
HARD_SIGMOID_NOTE = (
    "This model was made with the hard_sigmoid of Keras 1 and 2, clip(0.2 x + 0.5, 0, 1), where Keras 3 computes "
    "clip(x / 6 + 0.5, 0, 1): what leads to it, such as the gates' kernels and biases, is 1.2 times the source's."
)


# Masks: which are there, and who sees what is under them.

POINTWISE = (
    *(Identity, Dense, Activate, PReLU, Normalization, Rescaling, BatchNormalization, LayerNormalization),
    *(Scaling, Unscaling),
)
THROUGH_TIME = (Recurrent, Stacked, Bidirectional)


def _mask(op: Operation, xs: Sequence[Value], name: str) -> str | None:
    """The name of the output's mask: that of the layer that made it."""
    if isinstance(op, Masking) or (isinstance(op, Embedding) and op.mask_zero):
        return name
    if isinstance(op, Merge | Concatenate):
        masks = {x.mask for x in xs}
        return xs[0].mask if len(masks) == 1 else None if op.mask_rule is MaskRule.ANY and None in masks else name
    if isinstance(op, Normalization | Rescaling):
        return xs[0].mask if op.keeps_mask else None
    if isinstance(op, Bidirectional):
        return xs[0].mask if op.forward.return_sequences else None
    if isinstance(op, Recurrent | Stacked):
        return xs[0].mask if op.return_sequences else None
    return xs[0].mask if isinstance(op, (*POINTWISE, TimeDistributed)) else None


def _check_mask(model: Model, op: Operation, masked: bool) -> None:  # noqa: FBT001 - whether it is
    """Refuse an operation that Keras 3 would compute otherwise because its input is masked."""
    if not masked:
        return
    if isinstance(op, Normalization | Rescaling) and not op.keeps_mask:
        refuse(TITLE, op, "the Keras that saved it dropped the mask here, and Keras 3 passes it on")
    if not isinstance(op, Bidirectional):
        return
    zeroed = {_zeroed(part) for part in (op.forward, op.backward)}
    if op.forward.return_sequences and zeroed != {True} and _seen(model, op):
        refuse(
            TITLE,
            op,
            "at masked steps its Keras held the last output, Keras 3 gives 0, and a later layer sees that",
        )
    if not op.forward.return_sequences and zeroed != {False}:
        refuse(TITLE, op, "its Keras gave 0 where the last step is masked, and Keras 3 gives the last output")


def _check_units(model: Model, op: Operation) -> None:
    """Refuse directions of different units before another layer: Keras 3 takes the wrong width for it."""
    if not isinstance(op, Bidirectional) or model.nodes[-1].operation is op:
        return
    if len({(part.layers[-1] if isinstance(part, Stacked) else part).units for part in (op.forward, op.backward)}) > 1:
        refuse(TITLE, op, "its two directions have different units, which Keras 3 takes to be the same")


def _zeroed(op: Recurrent | Stacked) -> bool:
    return (op.layers[-1] if isinstance(op, Stacked) else op).zero_output_for_mask


def _seen(model: Model, op: Operation) -> bool:
    """Whether what an operation gives at masked steps reaches the model's output."""
    for k, node in enumerate(model.nodes):
        if node.operation is not op:
            continue
        users = [user.operation for user in model.nodes if any(source.node == k for source in user.inputs)]
        if k == len(model.nodes) - 1:
            return True
        for user in users:
            skips = isinstance(user, THROUGH_TIME) or (isinstance(user, GlobalPooling1D) and user.average)
            passes = isinstance(user, (*POINTWISE, TimeDistributed))
            if not skips and (not passes or _seen(model, user)):
                return True
    return False


# The file.


@dataclass
class _Graph:
    """The layers as they are called; a layer that is called twice is there once."""

    model: Model
    layers: dict[str, Layer] = field(default_factory=dict)
    calls: dict[str, list[list[tuple[str, int]]]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)  # by the operation's id

    def call(self, op: Operation, xs: Sequence[Value]) -> Value:
        """A call of an operation's layer, after the Rescaling that it may need."""
        masked = any(x.mask is not None for x in xs)
        _check_mask(self.model, op, masked)
        _check_units(self.model, op)
        if isinstance(op, Activate) and op.activation is HARD_SIGMOID_KERAS_2:
            before = Rescaling(name=f"{op.name}_times_{RATIO}", scale=np.float32(RATIO), offset=np.float32(0))  # type: ignore[arg-type]
            xs = [self._called(before, xs, id(op) + 1)]
        return self._called(op, xs, id(op))

    def _called(self, op: Operation, xs: Sequence[Value], key: int) -> Value:
        if key not in self.names:
            name = self.names[key] = self.free_name(op.name)
            layer = layer_of(op, xs)
            self.layers[name] = layer._replace(config={**layer.config, "name": name})
        name = self.names[key]
        calls = self.calls.setdefault(name, [])
        calls.append([_call_of(x.name) for x in xs])
        (shape,) = op.output_shapes([x.shape for x in xs])
        return Value(f"{name}/{len(calls) - 1}", shape, _mask(op, xs, f"{name}/{len(calls) - 1}"))

    def free_name(self, wanted: str) -> str:
        """A name that Keras takes, which has no /, and that no other layer has."""
        name = wanted.replace("/", "_") or "layer"
        k = 1
        while name in self.layers:
            k, name = k + 1, f"{wanted.replace('/', '_')}_{k}"
        return name

    def ordered(self, output: Value) -> list[str]:
        """The layers that lead to the output, in the order of Keras' model.layers.

        By depth, the input first, and within one depth in the order in which a walk from the output meets them: as
        map_graph of keras/src/ops/function.py has it.
        """
        met: dict[str, int] = {}
        finished: dict[tuple[str, int], None] = {}
        # A walk without recursion: a chain may be a thousand layers long.
        stack = [(_call_of(output.name), False)]
        while stack:
            call, left = stack.pop()
            if left:
                finished.setdefault(call)
            elif call not in finished:
                met.setdefault(call[0], len(met))
                stack.append((call, True))
                stack += [(source, False) for source in reversed(self.calls[call[0]][call[1]])]
        depths: dict[str, int] = {}
        of_call: dict[tuple[str, int], int] = {}
        for call in reversed(finished):
            depth = depths[call[0]] = of_call[call] = max(of_call.get(call, 0), depths.get(call[0], 0))
            for source in self.calls[call[0]][call[1]]:
                of_call[source] = max(of_call.get(source, 0), depth + 1)
        return sorted(met, key=lambda name: (-depths[name], met[name]))


def _call_of(name: str) -> tuple[str, int]:
    layer, _, number = name.rpartition("/")
    return layer, int(number)


def build(model: Model, golden: Golden) -> dict[str, bytes]:
    """The file, and its golden predictions beside it."""
    dtype = "float64" if scaled_by_card(model) else np.dtype(model.input_dtype).name
    graph = _Graph(model)
    start = graph.free_name(model.inputs[0].name or "sequences")
    graph.layers[start] = Layer(
        "InputLayer", {"batch_shape": [None, *model.input_shape], "dtype": dtype, "name": start}
    )
    graph.calls[start] = [[]]
    output = walk(model, Value(f"{start}/0", model.input_shape), graph.call)
    order = graph.ordered(output)
    if start not in order:
        order.insert(0, start)
    config = _config(graph, order, start, output, plain(model.about.name).replace("/", "_"))
    notes = header(model)
    if any(HARD_SIGMOID_KERAS_2 in _activations(node.operation) for node in model.nodes):
        notes.append(HARD_SIGMOID_NOTE)
    metadata = {"keras_version": VERSION, "description": "\n".join(notes)}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in {
            "metadata.json": json.dumps(metadata).encode(),
            "config.json": json.dumps(config, allow_nan=False).encode(),
            "model.weights.h5": _weights(graph, order),
        }.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # of a date of its own, the same each time
    beside = "{name}.made.npz" if golden.made else f"{{stem}}{GOLDEN}"  # as this package looks for Keras' own
    return {"{name}": file.getvalue(), beside: npz(x=golden.x, y=golden.y)}


def _activations(op: Operation) -> set[Activation]:
    """Those of an operation and of what it holds."""
    parts = [op]
    if isinstance(op, Stacked):
        parts = [*op.layers]
    elif isinstance(op, Bidirectional):
        parts = [op.forward, op.backward]
    elif isinstance(op, TimeDistributed):
        parts = [node.operation for node in op.nodes]
    if parts != [op]:
        return set().union(*map(_activations, parts))
    names = ("activation", "recurrent_activation")
    return {found for name in names if (found := getattr(op, name, None)) is not None}


def _config(graph: _Graph, order: Sequence[str], start: str, output: Value, name: str) -> dict[str, Any]:
    shapes = {start: (None, *graph.model.input_shape)}
    layers = []
    for layer in order:
        nodes = [_node(call, shapes) for call in graph.calls[layer] if call]
        layers.append({**graph.layers[layer].serialized(), "name": layer, "inbound_nodes": nodes})
    last, number = _call_of(output.name)
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {
            "name": name,
            "trainable": True,
            "layers": layers,
            "input_layers": [start, 0, 0],
            "output_layers": [last, number, 0],
        },
        "registered_name": None,
    }


def _node(call: Sequence[tuple[str, int]], shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """A call of a layer. Keras looks a tensor up by its history; the shape and dtype here are not looked at."""
    tensors = [
        {
            "class_name": "__keras_tensor__",
            "config": {"shape": [*shapes.get(name, (None,))], "dtype": "float32", "keras_history": [name, number, 0]},
        }
        for name, number in call
    ]
    return {"args": tensors if len(tensors) == 1 else [tensors], "kwargs": {}}


def _weights(graph: _Graph, order: Sequence[str]) -> bytes:
    file = io.BytesIO()
    used: dict[str, int] = {}
    with h5py.File(file, "w") as opened:
        for name in order:
            layer = graph.layers[name]
            group = f"layers/{numbered(layer.class_name, used)}"
            for path, arrays in {"": (), **layer.arrays}.items():
                variables = opened.require_group("/".join([part for part in (group, path, "vars") if part]))
                for k, array in enumerate(arrays):
                    variables.create_dataset(str(k), data=array, track_times=False)
    return file.getvalue()


def run(path: Path, x: Numbers) -> Array | str:
    """What Keras 3 answers with the file, where it is installed."""
    if importlib.util.find_spec("keras") is None:
        return "Keras is not installed here"
    import keras  # noqa: PLC0415 - it may not be there, and takes seconds

    y: Array = np.asarray(keras.saving.load_model(path, compile=False).predict(x, verbose=0))
    return y


TARGET = Target(TITLE, is_folder=False, suffix=".keras", table=TABLE, activations=ACTIVATIONS, build=build, run=run)
