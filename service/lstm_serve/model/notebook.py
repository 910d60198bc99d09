"""A model as a notebook shows it: its name, what it takes and answers, its layers. Names in it stay text."""

from html import escape
from typing import TYPE_CHECKING

from lstm_serve.engine.types import Shape

if TYPE_CHECKING:
    from lstm_serve.model.model import Model


def html(model: "Model") -> str:
    """A heading and the table of `inspect`'s LAYERS, as HTML; all that comes out of a file is escaped."""
    about, origin = model.about, model.origin
    rows = [("(input)", "InputLayer", _shape(model.input_shape), "0")]
    for node, shape in zip(model.nodes, model.shapes, strict=True):
        parameters = sum(array.size for array in node.operation.weights.values())
        rows.append((node.operation.name, node.operation.keras_class, _shape(shape), f"{parameters:,}"))
    rows.append(("total", "", "", f"{model.parameters:,}"))
    verified = f"verified by {origin.golden_rows} golden predictions" if origin.verified else "not verified"
    head = f"{about.name}, version {about.version}: {model.kind}, {_shape(model.input_shape)} to "
    head += f"{_shape(model.output_shape)}, {verified}"
    titles = ("layer", "class", "output shape", "parameters")
    table = [_row("th", titles), *(_row("td", row) for row in rows)]
    return f"<p>{escape(head)}</p><table>{''.join(table)}</table>"


def _row(tag: str, cells: tuple[str, ...]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _shape(shape: Shape) -> str:
    return str((None, *shape))
