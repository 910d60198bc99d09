"""A model as Python and a notebook show it: its name, what it takes and answers, its layers. Names in it stay text."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from lstm_serve.engine.types import Shape
from lstm_serve.formats.text import shown

if TYPE_CHECKING:
    from lstm_serve.model.model import Model

MOST = 10  # inputs and outputs that are told on a line


def html(model: "Model") -> str:
    """A heading and the table of `inspect`'s LAYERS, as HTML; all that comes out of a file is escaped."""
    several = len(model.inputs) > 1
    rows = [
        (f"({spec.name})" if several else "(input)", "InputLayer", _shape(spec.shape), "0") for spec in model.inputs
    ]
    for node, shape in zip(model.nodes, model.shapes, strict=True):
        parameters = sum(array.size for array in node.operation.weights.values())
        rows.append((node.operation.name, node.operation.keras_class, _shape(shape), f"{parameters:,}"))
    rows.append(("total", "", "", f"{model.parameters:,}"))
    titles = ("layer", "class", "output shape", "parameters")
    table = [_row("th", titles), *(_row("td", row) for row in rows)]
    return f"<p>{escape(summary(model))}</p><table>{''.join(table)}</table>"


def summary(model: "Model") -> str:
    """A model's name, version, kind, shapes and whether it is verified, on a line; of several outputs each kind."""
    about, origin = model.about, model.origin
    verified = f"verified by {origin.golden_rows} golden predictions" if origin.verified else "not verified"
    return f"{about.name}, version {about.version}: {shapes(model)}, {verified}"


def shapes(model: "Model") -> str:
    """What is answered, what is taken, and into what it is made: of several each by its name, with its kind."""
    named = [_named(str(spec.name), spec.shape) for spec in model.inputs]
    takes = _shape(model.input_shape) if len(named) == 1 else _listed(named)
    if len(model.outputs) == 1:
        return f"{model.kind}, {takes} to {_shape(model.output_shape)}"
    return f"{takes} to {_listed([f'{_named(str(spec.name), spec.shape)} {spec.kind}' for spec in model.outputs])}"


def _named(name: str, shape: Shape) -> str:
    return f"{shown(name, 30)} {_shape(shape)}"


def _listed(parts: Sequence[str]) -> str:
    rest = f" and {len(parts) - MOST} more" if len(parts) > MOST else ""
    return f"{', '.join(parts[:MOST])}{rest}"


def _row(tag: str, cells: tuple[str, ...]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _shape(shape: Shape) -> str:
    return str((None, *shape))
