"""What `inspect` prints of a model: what is known of it, its layers, its arrays, and how they lead to the answers.

Plain text, at most about 100 columns wide, the same each time. What is to be said of a class of layers is in `describe`
"""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, assert_never

from lstm_serve.engine.activations import LINEAR
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.pointwise import Scaling
from lstm_serve.errors import ModelError, WrongNumbers
from lstm_serve.explain import hdf5_paths, numpy_program
from lstm_serve.explain.describe import registry
from lstm_serve.explain.describe.description import axes
from lstm_serve.formats.text import shown
from lstm_serve.loading.sidecars.golden import savez_lines
from lstm_serve.model.files import ModelFiles, look_alikes
from lstm_serve.model.graph import INPUT, Source
from lstm_serve.model.inputs import Input
from lstm_serve.model.metadata import TOLERANCE
from lstm_serve.model.model import Model

WIDTH = 98


def report(model: Model, path: Path, missed: ModelError | None = None, told: Mapping[str, Any] | None = None) -> str:
    """The whole report on a model loaded from `path`, with `told` besides, the keyword arguments of load_model.

    `missed` says why its golden predictions were not reproduced.
    """
    found = hdf5_paths.array_paths(path, (node.operation for node in model.nodes))
    sections = [
        ("MODEL", _known(model, path, missed)),
        ("LAYERS", _layers(model)),
        ("ARRAYS", _arrays(model, found)),
        ("FROM INPUT TO ANSWER", _way(model)),
        ("EASILY MISTAKEN", _pitfalls(model)),
        ("THE SAME IN NUMPY", numpy_program.lines(model, path, found, loading(path, told or {}))),
    ]
    return "\n".join("\n".join([title, *lines, ""]) for title, lines in sections)


def head(model: Model, path: Path, missed: ModelError | None = None) -> str:
    """The beginning of a trace: which model it is, and whether its numbers are right."""
    lines = [*_fact("file", shown(str(path), 200)), *_fact("saved by", _saved_by(model))]
    return "\n".join(["MODEL", *lines, *_verified(model, path, missed), ""])


def loading(path: Path, told: Mapping[str, Any]) -> str:
    """The call that loads the model, in Python."""
    return f"load_model({', '.join([repr(str(path)), *(f'{name}={value!r}' for name, value in told.items())])})"


def _known(model: Model, path: Path, missed: ModelError | None) -> list[str]:
    origin, about = model.origin, model.about
    files = ModelFiles.of(path)
    facts = [
        ("file", shown(str(path), 200)),
        ("format", origin.format),
        ("saved by", _saved_by(model)),
        ("sha256", origin.sha256),
        *([] if origin.told_sha256 is None else [("digest", f"{origin.digest}, with what the card or a file says")]),
        ("card", _beside(files, files.card)),
        ("name", f"{about.name}, version {about.version}"),
        *([] if about.description is None else [("about", shown(about.description, 1000))]),
    ]
    for given, spec in zip(model.takes, model.inputs, strict=True):
        name = _called(spec.name, spec.in_file) if len(model.inputs) > 1 or spec.in_file else ""
        facts.append(("input", f"{name}{axes((None, *given.shape))}, the first axis being the batch; {_input(given)}"))
        if given.features is not None:
            columns = [f.name if f.unit is None else f"{f.name} [{f.unit}]" for f in given.features]
            facts.append(("features", ", ".join(shown(column) for column in columns)))
    for called, head in model.heads.items():
        name = _called(called, None) if len(model.heads) > 1 else ""
        facts.append(("output", f"{name}{axes((None, *head.output_shape))}: {_output(head)}"))
        labels = head.about.classes
        if labels is not None:
            facts.append(("classes", ", ".join(f"{k} = {shown(label)}" for k, label in enumerate(labels))))
    facts.append(("assumed", "; ".join(origin.assumed) or "nothing: the file says all that the numbers depend on"))
    if origin.rounding is not None:
        keras = f"Keras' own float32 answers are up to {origin.rounding:.2g} from those of float64"
        facts.append(("precision", f"ill-conditioned: {keras}, so it is held to {origin.tolerance:.2g} of them"))
    elif origin.tolerance != TOLERANCE:
        facts.append(("precision", f"computed in float32, held to {origin.tolerance:g} of what Keras answers"))
    lines = [line for name, text in facts for line in _fact(name, text)]
    return lines + _verified(model, path, missed)


def _beside(files: ModelFiles, meant: Path) -> str:
    """One of the files beside a model, or that it is not there, and what may have been meant as it."""
    name = shown(meant.name, 200)
    if meant.exists():
        return name
    others = ", ".join(shown(other.name, 200) for other in look_alikes(files, meant))
    return f"none: there is no file {name}{others and f' (there is {others}, which is not read)'}"


def _saved_by(model: Model) -> str:
    keras = model.origin.keras
    return "a Keras whose version the file does not tell" if keras is None else f"Keras {keras}"


def _verified(model: Model, path: Path, missed: ModelError | None) -> list[str]:
    origin, beside = model.origin, shown(ModelFiles.of(path).golden.name, 200)
    if missed is not None:
        gave = "THIS MODEL DOES NOT GIVE WHAT KERAS GAVE"
        why = gave if isinstance(missed, WrongNumbers) else "ITS GOLDEN PREDICTIONS CANNOT BE READ"
        return [
            *_fact("verified", f"*** NO: {why} ***"),
            *_fact("", shown(str(missed), 1000)),
            *_fact("", "It is not served, and nothing that it answers should be believed."),
        ]
    if origin.verified:
        return _fact(
            "verified",
            f"yes: it reproduces the {origin.golden_rows} predictions of Keras in {beside}; the worst difference is "
            f"{origin.golden_difference:.2g}, and {origin.tolerance:.2g} is allowed",
        )
    return [
        *_fact(
            "verified",
            f"not verified: there is no {beside} beside it. Where its Keras runs, with inputs x (some 32 rows), "
            "these lines make it:",
        ),
        *(f"{'':16}{line}" for line in savez_lines(model, f'"{beside}"')),
    ]


def _fact(name: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"  {name:<12}", subsequent_indent=" " * 14)


def _called(name: str | None, in_file: str | None) -> str:
    return f"{shown(str(name))}{(in_file and f', {shown(in_file)} in the file,') or ''} "


def _input(given: Input) -> str:
    if not given.has_time_axis:
        return f"each row is {' x '.join(map(str, given.shape)) or 'one'} number{'s' * (given.shape not in {(), (1,)})}"
    timesteps = given.shape[0]
    steps = f"{'any number of' if timesteps is None else timesteps} time steps"
    if given.id_limit is not None:
        return f"{steps} of one id each, an integer from 0 to {given.id_limit - 1}"
    if len(given.shape) != 2:
        return f"{steps} of an array {axes(given.shape[1:])} each"
    return f"{steps} of {given.shape[1]} features each"


def _output(model: Model) -> str:
    probabilities = f"the probabilities of {model.output_shape[-1]} classes"
    match model.kind:
        case "classes":
            return f"{probabilities}, which add up to 1"
        case "binary":
            return "the probability of class 1, against class 0"
        case "labels":
            return f"{probabilities}, each by itself"
        case "steps":
            return f"for each step {probabilities}, which add up to 1"
        case "values":
            return "values, not probabilities"
        case _:
            assert_never(model.kind)


def _layers(model: Model) -> list[str]:
    """What Keras' model.summary() shows; what a layer is fed with only where that is not the layer above."""
    rows: list[tuple[str, ...]] = [("layer", "class", "output shape", "parameters")]
    several = len(model.inputs) > 1
    for spec in model.inputs:
        name = f"({shown(str(spec.name), 28)})" if several else "(input)"
        rows.append((name, "InputLayer", axes((None, *spec.shape)), "0"))
    for node, shape in zip(model.nodes, model.shapes, strict=True):
        parameters = sum(array.size for array in node.operation.weights.values())
        rows.append(
            (shown(node.operation.name, 30), node.operation.keras_class, axes((None, *shape)), f"{parameters:,}")
        )
    rows.append(("total", "", "", f"{model.parameters:,}"))
    if not _is_chain(model):
        fed = [shown(", ".join(_feeder(model, source) for source in node.inputs), 40) for node in model.nodes]
        none = [""] * len(model.inputs)
        rows = [(*row, source) for row, source in zip(rows, ("fed by", *none, *fed, ""), strict=True)]
    lines = _columns(rows, right=3)
    size = 4 * model.parameters
    return [*lines, f"  {model.parameters:,} parameters, {size:,} bytes as float32"]


def _feeder(model: Model, source: Source) -> str:
    if source.node != INPUT:
        return shown(model.nodes[source.node].operation.name, 30)
    return "(input)" if len(model.inputs) == 1 else f"({shown(str(model.inputs[source.output].name), 28)})"


def _may_be_keras_1(model: Model) -> bool:
    """Keras 1.0 wrote no version."""
    return (model.origin.keras or "1.").startswith("1.")


def _has_gates(layer: Operation) -> bool:
    return any(name.endswith("recurrent_kernel") and a.shape[1] > a.shape[0] for name, a in layer.weights.items())


def _arrays(model: Model, found: Mapping[str, Sequence[str]]) -> list[str]:
    lines = []
    keras_1 = _may_be_keras_1(model)
    for node, shape in zip(model.nodes, numpy_program.inputs(model), strict=True):
        layer = node.operation
        name = f"  {shown(layer.name)} ({layer.keras_class})"
        if not layer.weights:
            lines.append(f"{name}: none")
            continue
        roles = registry.describe(layer, shape).roles
        apart = (
            ", each gate's side by side:" if keras_1 and _has_gates(layer) else ", in the order of its get_weights():"
        )
        lines.append(f"{name}{apart}")
        rows = _columns(
            [
                (f"  [{k}] {array}", axes(values.shape), roles.get(array, ""))
                for k, (array, values) in enumerate(layer.weights.items())
            ]
        )
        # By its path in the file, under each.
        paths = found.get(layer.name, [])
        for row, path in itertools.zip_longest(rows, paths):
            lines += [row] if path is None else [row, f"        {shown(path, 90)}"]
    return lines


def _way(model: Model) -> list[str]:
    given = [
        f"{shown(str(spec.name), 30)} {axes(spec.shape)}" if len(model.inputs) > 1 else axes(spec.shape)
        for spec in model.inputs
    ]
    inputs = f"x is one input, {given[0]}" if len(given) == 1 else f"The inputs are {', '.join(given)}"
    lines = [f"  {inputs}; @ is the matrix product, all else goes element by element."]
    shapes = numpy_program.inputs(model)
    for k, (node, shape, output) in enumerate(zip(model.nodes, shapes, model.shapes, strict=True), start=1):
        source = ", ".join(
            numpy_program.source_name(model, of).replace("the input", "the model's input")
            if of.node == INPUT
            else f"the output of {numpy_program.source_name(model, of)}"
            for of in node.inputs
        )
        lines += [
            f"  {k}. {shown(node.operation.name)} ({node.operation.keras_class}): x {axes(shape)} is {source}",
            *(f"       {line}" for line in registry.describe(node.operation, shape).equations),
            f"       so y is {axes(output)}",
        ]
    for (name, head), end in zip(model.heads.items(), model.results, strict=True):
        if len(model.heads) == 1:
            lines.append(f"  {_end(head)}")
        else:
            said = _end(head).replace("The last y", f"The y of {numpy_program.source_name(model, end)}")
            lines.append(f"  Of {shown(str(name))}: {said}")
    # Long names and many inputs make long lines.
    return [
        part for line in lines for part in textwrap.wrap(line, WIDTH, subsequent_indent=" " * 9, break_on_hyphens=False)
    ]


def _end(model: Model) -> str:
    threshold = f"{model.about.threshold:g}"
    match model.kind:
        case "classes":
            answered = "The class answered is the place of the largest, counted from 0."
        case "binary":
            return f"The last y is the probability of class 1; from {threshold} on the class answered is 1, else 0."
        case "labels":
            answered = f"The classes from {threshold} on are those answered."
        case "steps":
            answered = "The class answered for a step is the place of its largest, counted from 0."
        case "values":
            return "The last y are the values answered."
        case _:
            assert_never(model.kind)
    return f"The last y are the probabilities. {answered}"


def _pitfalls(model: Model) -> list[str]:
    own = [node.operation for node in model.nodes if not isinstance(node.operation, Scaling)]
    counted = [(layer, len(layer.weights)) for layer in own if layer.weights]
    pitfalls = []
    alone = len(model.heads) == 1
    if alone and model.last_activation is LINEAR and model.output_shape[-1:] != (1,) and not model.added:
        pitfalls.append("If the loss had from_logits=True, say output_activation in the card.")
    if counted:
        total = sum(count for _, count in counted)
        parts = ", ".join(
            f"{count} of {shown(layer.name, 30)} ({', '.join(layer.weights)})" for layer, count in counted
        )
        apart = _may_be_keras_1(model) and any(_has_gates(layer) for layer, _ in counted)
        gates = " Keras 1's own get_weights() has those of each gate apart: of an LSTM 12 arrays, of a GRU 9." * apart
        pitfalls.append(f"The arrays are {total}{' here' * apart}: {parts}. An input layer has none.{gates}")
    for node, shape in zip(model.nodes, numpy_program.inputs(model), strict=True):
        pitfalls += registry.describe(node.operation, shape).pitfalls
    if len(own) > 1:
        pitfalls.append(
            f"[model.get_weights() for layer in model.layers] gives the whole list {len(own)} times; "
            "[layer.get_weights() for layer in model.layers] gives each layer's."
        )
    return [
        line
        for pitfall in dict.fromkeys(pitfalls)
        for line in textwrap.wrap(
            pitfall, WIDTH, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False
        )
    ]


def _is_chain(model: Model) -> bool:
    return all(node.inputs == (Source(k - 1),) for k, node in enumerate(model.nodes))


def _columns(rows: Sequence[Sequence[str]], right: int | None = None) -> list[str]:
    """Rows as aligned columns; the column `right` to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "   ".join(
            cell.rjust(width) if k == right else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
