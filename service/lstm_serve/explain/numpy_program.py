"""The way from one input to its answer as a program in NumPy, for `inspect` to print."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.types import Shape
from lstm_serve.errors import InvalidInput
from lstm_serve.explain.describe import registry
from lstm_serve.explain.describe.activations import numpy_of
from lstm_serve.explain.describe.description import LayerDescription, axes
from lstm_serve.formats.text import shown
from lstm_serve.model import graph
from lstm_serve.model.graph import INPUT, Source
from lstm_serve.model.model import Model

WIDTH = 98


def inputs(model: Model) -> list[Shape]:
    """The shape of each node's first input, the batch axis left out."""
    shapes = graph.shapes(model.nodes, [spec.shape for spec in model.inputs])
    return [shapes[node.inputs[0].node + 1][node.inputs[0].output] for node in model.nodes]


def source_name(model: Model, source: Source) -> str:
    """What the output of a node is called, or one of the inputs."""
    if source.node == INPUT:
        return (
            "the input" if len(model.inputs) == 1 else f"the input {shown(str(model.inputs[source.output].name), 30)}"
        )
    return shown(model.nodes[source.node].operation.name, 30)


def lines(model: Model, path: Path, found: Mapping[str, Sequence[str]], loading: str) -> list[str]:
    """The program for a model loaded from `path` by `loading`, in Python; `found` has its arrays' paths, by layer.

    Or else which layer it is that has no short form.
    """
    said = [registry.describe(node.operation, shape) for node, shape in zip(model.nodes, inputs(model), strict=True)]
    bodies = [
        each.masked if masked and each.masked is not None else each.numpy
        for each, masked in zip(said, _masked(model), strict=True)
    ]
    activations = {activation: numpy_of(activation) for each in said for activation in each.activations}
    reason = _no_short_form(model, said, activations)
    if not model.is_single:
        reason = "it has several inputs or outputs, and a program is of one layer after the other"
    elif not model.answers_its_last:
        reason = "it answers a state, and a program gives what the last layer does"
    if reason is not None:
        text = f"This model has no short form in NumPy: {reason}."
        if model.is_single:
            text += " `inspect --trace INPUT` shows the values along the way."
        return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    # What a name stands for in one layer after another is said before each.
    again = {
        code
        for activation, code in activations.items()
        if any(other.name == activation.name and activations[other] != code for other in activations)
    }
    imports = [*["import math"] * any("math." in str(code) for code in activations.values()), "import numpy as np"]
    weighted = list(dict.fromkeys(node.operation.name for node in model.nodes if node.operation.weights))
    if all(name in found for name in weighted):
        given = [
            "import h5py",
            *imports,
            "",
            "paths = {",
            *(line for name in weighted for line in _listed(name, found[name])),
            "}",
            f"with h5py.File({str(path)!r}) as file:",
            "    w = {name: [np.asarray(file[path], np.float32) for path in paths[name]] for name in paths}",
        ]
    else:
        given = [
            *imports,
            "from lstm_serve import load_model",
            "",
            f"nodes = {loading}.nodes",
            "w = {node.operation.name: list(node.operation.weights.values()) for node in nodes}",
            "# in Keras 2 and 3: w = {layer.name: layer.get_weights() for layer in model.layers}",
        ]
    return [
        *given,
        *dict.fromkeys(_function(activation, code) for activation, code in activations.items() if code not in again),
        "",
        f"def predict(x):  # one input, {axes(model.input_shape)}",
        f"    y = np.asarray(x, np.{np.dtype(model.input_dtype)})",
        *(
            f"    {line}".replace(" = arrays", f" = w[{node.operation.name!r}]")
            for node, each, body in zip(model.nodes, said, bodies, strict=True)
            for line in (
                *(_function(used, activations[used]) for used in each.activations if activations[used] in again),
                *(body or ()),
            )
        ),
        f"    return y  # {axes(model.output_shape)}",
    ]


def _no_short_form(
    model: Model, said: Sequence[LayerDescription], activations: Mapping[Activation, str | None]
) -> str | None:
    """Which layer it is that has none, and why; None where the whole model has one."""
    titles = [f"{shown(node.operation.name)} ({node.operation.keras_class})" for node in model.nodes]
    apart = [(len(node.inputs) < 2, k) for k, node in enumerate(model.nodes) if node.inputs != (Source(k - 1),)]
    if apart:  # of these rather one that joins
        _, k = min(apart)
        fed = shown(" and ".join(source_name(model, source) for source in model.nodes[k].inputs), 100)
        return f"{titles[k]} takes {fed}, and a program is of one layer after the other"
    named: dict[str, Operation] = {}
    for title, node, each in zip(titles, model.nodes, said, strict=True):
        if each.numpy is None:
            return f"{title} has none"
        if named.setdefault(node.operation.name, node.operation) is not node.operation:
            return f"{title} has the name of another layer"
        for used in each.activations:
            if activations[used] is None:
                return f"{title} has the activation {used.name}, {used.formula}"
            if any(other.name == used.name and activations[other] != activations[used] for other in each.activations):
                return f"{title} has two functions of the name {used.name}"
    return None


def _function(activation: Activation, code: str | None) -> str:
    return f"{activation.name} = lambda x: {code}"


def _masked(model: Model) -> list[bool]:
    """For each layer whether its input comes with a mask: what the layers do with some input tells."""
    with np.errstate(all="ignore"):
        xs = [np.zeros((1, *shape), spec.dtype) for spec, shape in zip(model.inputs, _some_shapes(model), strict=True)]
        _, masks = graph.run(model.nodes, xs, model.results, model.last_uses)
    return [any(masks[k + 1][output] is not None for k, output in node.inputs) for node in model.nodes]


def _some_shapes(model: Model) -> list[tuple[int, ...]]:
    """The shapes of inputs that are long enough for all layers."""
    shapes: list[tuple[int, ...]] = []
    for size in (1, 16, 256, 4096):
        shapes = [tuple(n or size for n in spec.shape) for spec in model.inputs]
        try:
            model.check_free(*shapes)
        except InvalidInput:
            continue
        break
    return shapes


def _listed(name: str, paths: Sequence[str]) -> list[str]:
    return [f"    {name!r}: [", *(f"        {path!r}," for path in paths), "    ],"]
