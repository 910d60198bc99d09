"""The values along the way from one sequence to its answer, so that a port of the arrays can be held against them."""

from typing import Any

import numpy as np

from service import words
from service.answers import answers
from service.engine.activations import Array
from service.engine.model import Model
from service.engine.recurrent import Recurrent
from service.errors import SettingsError
from service.series import Sequences
from service.words import shown

# So many numbers of a vector are printed, from its start.
NUMBERS = 4


def report(model: Model, sequences: Sequences, step: int | None = None) -> str:
    """What each layer computed on the first sequence at a time step, counted from 1; None is the last.

    Raises SettingsError where the sequence has no such step.
    """
    x = sequences.x[:1]
    timesteps = x.shape[1]
    if step is not None and step > timesteps:
        raise SettingsError(f"--step {step} is beyond the sequence, which has {timesteps} steps")
    traced = model.trace(x)
    at = timesteps if step is None else step
    first = sequences.numbers[0]
    which = f"rows {first - timesteps + 1} to {first}" if sequences.noun == "row" else "sequence 1"
    lines = [
        f"TRACE of {which}, step {at} of {timesteps}",
        f"    {'':<8}{'shape':<9}{'least':>13}{'greatest':>13}   first numbers",
        *_vector("x", x, at),
    ]
    for (layer, _), arrays in zip(model.nodes, traced, strict=True):
        lines.append(f"  {shown(layer.name)} ({words.class_of(layer)})")
        if isinstance(layer, Recurrent) and layer.go_backwards:
            lines.append("    goes backwards, so its first step is at the last row")
        for name, values in arrays.items():
            lines += _vector(name, values, at)
    (answer,) = answers(model, traced[-1]["output"])
    lines += ["  answer", *(f"    {key}: {_said(value)}" for key, value in answer.items() if value is not None)]
    return "\n".join([*lines, ""])


def _vector(name: str, values: Array, step: int) -> list[str]:
    """The first sequence's part of values (1, ...), at the step where there are steps."""
    part, note = values[0], ""
    if part.ndim > 1:
        # A layer that shortens the sequence has fewer steps than the input.
        at = min(step, len(part))
        part, note = part[at - 1], "" if at == step else f"  (step {at})"
    flat = part.ravel()
    numbers = "".join(f"{value:>13.6g}" for value in (flat.min(), flat.max(), *flat[:NUMBERS]))
    return [f"    {name:<8}{words.axes(part.shape):<9}{numbers}{note}"]


def _said(value: Any) -> str:  # noqa: ANN401 - an answer holds numbers, text and arrays
    if isinstance(value, np.ndarray):
        return np.array2string(value, precision=6, max_line_width=90, threshold=50, prefix=" " * 20)
    return f"{value:.6g}" if isinstance(value, np.floating) else str(value)
