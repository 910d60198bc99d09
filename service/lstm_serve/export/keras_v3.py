"""Keras 3: a `.keras` file that it opens, predicts the same with and trains on, from a model of any Keras.

The format is a zip of metadata.json, config.json and model.weights.h5, as keras/src/saving/saving_lib.py of 3.15 reads
it. A layer's arrays are under its class in snake case, numbered where there are several, in the order of model.layers.
"""

import importlib.util
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lstm_serve.engine.activations import HARD_SIGMOID_KERAS_2, Activation
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.wrappers import Bidirectional, Stacked, TimeDistributed
from lstm_serve.engine.types import AnyArray, Array
from lstm_serve.export.artifact import Golden, header, npz, plain
from lstm_serve.export.keras_config import ACTIVATIONS, TITLE
from lstm_serve.export.keras_graph import KerasGraph, tensor_of
from lstm_serve.export.keras_layers import TABLE, numbered
from lstm_serve.export.operation import Target, Value, walk
from lstm_serve.model.files import GOLDEN
from lstm_serve.model.model import Model

VERSION = "3.15.1"  # whose functions and format these are
HARD_SIGMOID_NOTE = (
    "This model was made with the hard_sigmoid of Keras 1 and 2, clip(0.2 x + 0.5, 0, 1), where Keras 3 computes "
    "clip(x / 6 + 0.5, 0, 1): what leads to it, such as the gates' kernels and biases, is 1.2 times the source's."
)


def build(model: Model, golden: Golden) -> dict[str, bytes]:
    """The file, and its golden predictions beside it."""
    graph = KerasGraph(model)
    given = [graph.start(spec.name or "sequences", spec.shape, spec.dtype.name) for spec in model.inputs]
    outputs = walk(model.nodes, given, model.results, graph.call)
    order = graph.ordered(outputs)
    order = [*(start for x in given if (start := tensor_of(x.name).layer) not in order), *order]
    notes = header(model)
    if any(HARD_SIGMOID_KERAS_2 in _activations(node.operation) for node in model.nodes):
        notes.append(HARD_SIGMOID_NOTE)
    metadata = {"keras_version": VERSION, "description": "\n".join(notes)}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in {
            "metadata.json": json.dumps(metadata).encode(),
            "config.json": json.dumps(_config(graph, order, given, outputs), allow_nan=False).encode(),
            "model.weights.h5": _weights(graph, order),
        }.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # of a date of its own, the same each time
    beside = "{name}.made.npz" if golden.made else f"{{stem}}{GOLDEN}"  # as this package looks for Keras' own
    return {"{name}": file.getvalue(), beside: npz(**golden.arrays)}


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


def _config(
    graph: KerasGraph, order: Sequence[str], given: Sequence[Value], outputs: Sequence[Value]
) -> dict[str, Any]:
    starts, ends = ([[*tensor_of(value.name)] for value in values] for values in (given, outputs))
    named = dict(zip(map(str, graph.model.output_names), ends, strict=True))
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {
            "name": plain(graph.model.about.name).replace("/", "_"),
            "trainable": True,
            "layers": graph.written(order),
            "input_layers": starts if len(starts) > 1 else starts[0],
            "output_layers": named if graph.model.origin.answers_dict else ends if len(ends) > 1 else ends[0],
        },
        "registered_name": None,
    }


def _weights(graph: KerasGraph, order: Sequence[str]) -> bytes:
    file = io.BytesIO()
    used: dict[str, int] = {}
    with h5py.File(file, "w") as opened:
        for name in order:
            layer = graph.layers[name]
            if not layer.is_layer:
                continue
            group = f"layers/{numbered(layer.class_name, used)}"
            for path, arrays in {"": (), **layer.arrays}.items():
                variables = opened.require_group("/".join([part for part in (group, path, "vars") if part]))
                for k, array in enumerate(arrays):
                    variables.create_dataset(str(k), data=array, track_times=False)
    return file.getvalue()


def run(path: Path, xs: Sequence[AnyArray]) -> list[Array] | str:
    """What Keras 3 answers with the file, where it is installed."""
    if importlib.util.find_spec("keras") is None:
        return "Keras is not installed here"
    import keras  # noqa: PLC0415 - it may not be there, and takes seconds

    y = keras.saving.load_model(path, compile=False).predict(list(xs) if len(xs) > 1 else xs[0], verbose=0)
    if isinstance(y, dict):
        with zipfile.ZipFile(path) as archive:
            y = [y[name] for name in json.loads(archive.read("config.json"))["config"]["output_layers"]]
    return [np.asarray(each) for each in (y if isinstance(y, list) else [y])]


TARGET = Target(TITLE, is_folder=False, suffix=".keras", table=TABLE, activations=ACTIVATIONS, build=build, run=run)
