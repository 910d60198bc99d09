"""An explanation, told to a person, or written as CSV: what spoke most, with signs, names and units."""

import csv
import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from lstm_serve.engine.types import Array
from lstm_serve.explain.methods import Method
from lstm_serve.formats.text import shown
from lstm_serve.model.metadata import column_names
from lstm_serve.model.model import Model

# So many cells are told; -o has them all.
SHOWN = 10

# What the numbers of each method say, and how far they are to be believed.
SAID: dict[Method, str] = {
    "integrated-gradients": "  What each part adds to it on the way from {origin}, to this sequence,\n"
    "  by integrated gradients. The sum misses the difference of the two by {error:.1g}.",
    "occlusion": "  By how much that drops where a part is replaced by {origin}.",
}


def text(model: Model, x: Array, found: dict[str, Any], title: str, first: int) -> str:
    """What spoke most for the answer to x (*input_shape), whose first step has the number `first`."""
    label = "" if found["label"] is None else f" ({shown(found['label'])})"
    what = "value" if model.kind == "values" else "class"
    values = np.asarray(found["baseline"]["values"])
    lines = [
        f"EXPLANATION of {title}: {what} {found['class']}{label}, {found['score']:.4g}",
        *_how(found),
    ]
    names = _names(model)
    if found["by_feature"] is not None:
        lines += ["", "  feature"]
        for k in np.argsort(-np.abs(found["by_feature"]), kind="stable"):
            lines.append(f"    {names[k]:<24} {found['by_feature'][k]:>+10.4f}")
    if found["by_step"] is not None:
        lines += ["", "  step"]
        lines += [f"    {first + k:<24} {drop:>+10.4f}" for k, drop in enumerate(found["by_step"])]
    if found["attribution"] is not None:
        cells = np.asarray(found["attribution"])
        lines += ["", f"  the {min(SHOWN, cells.size)} cells that spoke most, their values, and those of the baseline"]
        for at in np.argsort(-np.abs(cells), axis=None, kind="stable")[:SHOWN]:
            step, k = (int(n) for n in np.unravel_index(at, cells.shape))
            part = f"    step {first + step:<6} {names[k]:<24} {cells[step, k]:>+10.4f}"
            lines.append(f"{part}  {x[step, k]:>10.6g} {values[k]:>10.6g}")
    return "\n".join([*lines, ""])


def _how(found: dict[str, Any]) -> list[str]:
    """What the numbers say, by their method."""
    method: Method = found["method"]
    return SAID[method].format(origin=found["baseline"]["from"], error=found["completeness_error"]).splitlines()


def table(model: Model, x: Array, found: dict[str, Any], first: int) -> str:
    """A CSV file with a line for each part: its step, its feature, its value, and what it adds to the score."""
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(["step", "feature", "value", "attribution"])
    lines.writerows(_parts(model, x, found, first))
    return out.getvalue()


def _parts(model: Model, x: Array, found: dict[str, Any], first: int) -> Iterator[list[object]]:
    names = column_names(model.about.features, x.shape[-1])
    for k, drop in enumerate(found["by_step"] if found["by_step"] is not None else ()):
        yield [first + k, "", x[k] if x.ndim == 1 else "", drop]
    for k, drop in enumerate(found["by_feature"] if found["by_feature"] is not None else ()):
        yield ["", names[k], x[k] if x.ndim == 1 else "", drop]
    for (step, k), drop in np.ndenumerate(
        found["attribution"] if found["attribution"] is not None else np.empty((0, 0))
    ):
        yield [first + step, names[k], x[step, k], drop]


def _names(model: Model) -> list[str]:
    names = column_names(model.about.features, model.input_shape[-1] or 0)
    units = [feature.unit for feature in model.about.features or ()] or [None] * len(names)
    return [shown(name if unit is None else f"{name} [{unit}]", 24) for name, unit in zip(names, units, strict=True)]
