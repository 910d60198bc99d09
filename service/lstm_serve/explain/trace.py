"""The values along the way from one sequence to its answer, so that a port of the arrays can be held against them."""

from typing import Any

import numpy as np

from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.masks import begins_mask
from lstm_serve.engine.operations.wrappers import Bidirectional, Stacked
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.engine.types import Array
from lstm_serve.errors import SettingsError
from lstm_serve.explain.describe.description import axes
from lstm_serve.formats.text import shown
from lstm_serve.model.answers import answers
from lstm_serve.model.model import Model
from lstm_serve.scoring.inputs import Sequences

# So many numbers of a vector are printed, from its start: what fits a line.
NUMBERS = 8


def report(model: Model, sequences: Sequences, step: int | None = None, *, loading: str) -> str:
    """What each layer computed on the first sequence at a time step, counted from 1; None is the last.

    `loading` is the Python that loads the model. Raises SettingsError where the sequence has no such step.
    """
    x = sequences.parts[0].x[:1]
    has_time = x.ndim > 2 or model.id_limit is not None
    steps = x.shape[1] if has_time else 1
    if step is not None and not has_time:
        raise SettingsError("--step means nothing here: the model has no time steps")
    if step is not None and step > steps:
        raise SettingsError(f"--step {step} is beyond the sequence, which has {steps} steps")
    (y,), traced = model.traced(x)
    at = steps if step is None else step
    first = sequences.parts[0].numbers[0]
    which = f"rows {first - steps + 1} to {first} of the series" if sequences.noun == "row" else "sequence 1"
    if key := sequences.parts[0].key:
        which = f"the rows of {shown(', '.join(key))} up to row {first}"
    lines = [
        f"TRACE of {which}{f', step {at} of {steps}' if has_time else ''}",
        f"  Each with its shape, its least and its greatest number, and its first {NUMBERS}. All of them, in Python:",
        f"  lstm_serve.{loading}.trace(x)",
        *_vector("x", "", x[0, at - 1] if x.ndim > 2 else x[0]),
    ]
    if any(begins_mask(layer) for layer, _ in model.nodes):
        lines.insert(3, "  At a masked step the states stay as they are, and the gates shown have no effect.")
    for (layer, _), arrays in zip(model.nodes, traced, strict=True):
        lines.append(f"  {shown(layer.name)} ({layer.keras_class})")
        if isinstance(layer, Recurrent | Stacked) and layer.go_backwards:
            lines.append("    goes backwards, so its first step is at the last row")
        for name, values in arrays.items():
            part = values[0]
            if part.ndim == 1:
                lines += _vector(name, f"after step {steps}" * has_time, part)
                continue
            # A layer that shortens the sequence has fewer rows than the input, and each direction has its own order.
            turned = name.startswith(_turned(layer))
            row = max(len(part) - at, 0) if turned else min(at, len(part)) - 1
            note = f"its own step {row + 1}" if turned else f"row {row + 1} of {len(part)}" * (len(part) != steps)
            lines += _vector(name, note, part[row])
    (answer,) = answers(model, y)
    title = "answer"
    if model.kind == "steps":
        row = min(at, len(answer["steps"]))
        title, answer = f"answer to step {row}", answer["steps"][row - 1]
    lines += [f"  {title}", *(f"    {key}: {_said(value)}" for key, value in answer.items() if value is not None)]
    return "\n".join([*lines, ""])


def _turned(layer: Operation) -> tuple[str, ...]:
    """How the names of what is computed from the last step to the first begin, within a layer of both directions."""
    if not isinstance(layer, Bidirectional):
        return ()
    parts = (("forward/", layer.forward), ("backward/", layer.backward))
    return tuple(prefix for prefix, part in parts if part.go_backwards)


def _vector(name: str, note: str, values: Array) -> list[str]:
    flat = values.ravel()
    title = f"{name}, {note}" if note else name
    numbers = "".join(f"{value:>12.6g}" for value in flat[:NUMBERS])
    return [f"    {title}  {axes(values.shape)}  {flat.min():.6g} to {flat.max():.6g}", f"  {numbers}"]


def _said(value: Any) -> str:  # noqa: ANN401 - an answer holds numbers, text and arrays
    if isinstance(value, np.ndarray):
        return np.array2string(value, precision=6, max_line_width=90, threshold=50, prefix=" " * 20)
    return f"{value:.6g}" if isinstance(value, np.floating) else str(value)
