"""The table that a CSV file holds, its columns matched to a model's features."""

import re
from array import array
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from lstm_serve.engine.types import AnyArray, Floats
from lstm_serve.errors import InvalidInput
from lstm_serve.formats.csv_layout import NamedColumns, Shown, column_of, layout, rows
from lstm_serve.formats.text import decode, is_text, not_utf8, without_mark
from lstm_serve.formats.units import LeftOutColumn, Units, mixed, told_apart

# What Export-Csv of PowerShell 5 writes before the header, unless -NoTypeInformation.
OF_POWERSHELL = re.compile(rb"\A#TYPE [^\r\n]*")


class Table(NamedTuple):
    """values (rows, columns), the columns' names where there are any, and what a person should know of the reading.

    `lines` has for each row the number of its line, where it came from one, and `keys` its cells in the key columns.
    `mixed` is what to say where windows slide over the rows of what may be several units, and `units` those. `truth`
    (rows, columns) is what is right for each row, where columns hold it; NaN where a cell is empty.
    """

    values: AnyArray
    names: tuple[str, ...] | None
    notes: tuple[str, ...] = ()
    lines: Sequence[int] | None = None
    keys: Sequence[tuple[str, ...]] | None = None
    mixed: str | None = None
    truth: Floats | None = None
    units: Units | None = None

    def place(self, row: int, column: int) -> str:
        """Where a value is, as a person counts."""
        line = "" if self.lines is None else f" (line {self.lines[row]})"
        return f"row {row + 1}{line}, {column_of(self.names, column)}"


def read(
    data: bytes,
    features: Sequence[str] | None,
    width: int | None,
    named: NamedColumns = NamedColumns(),  # noqa: B008 - it is immutable
    shown: Shown = str,
) -> Table:
    """The columns of the features, in their order: float64 (rows, width); the keys, as text; the labels, as numbers.

    `features` are the names that the columns should have, `width` how many there should be; None where it is free.
    A header is a first row with a cell that is no number, or any where columns are named. Raises InvalidInput with the
    row and the column, in which `shown` says how what stands in the file is shown.
    """
    text = _text(data)
    found = layout(text, features, width, named, shown)
    lines_in = rows(text, found.delimiter)
    first = next(lines_in)
    watches = {} if named.by else {k: LeftOutColumn(first.cells[k].strip()) for k in found.left_out}
    values, lines, truth, keys = array("d"), array("q"), array("d"), []
    number, known = 0, dict[tuple[str, ...], tuple[str, ...]]()  # each key once
    for number, row in enumerate(lines_in if found.has_header else chain([first], lines_in), start=1):
        where = f"row {number} (line {row.line})"
        values.extend(found.numbers(row.cells, where))
        lines.append(row.line)
        if found.keys:
            key = found.key(row.cells, where)
            keys.append(known.setdefault(key, key))
        truth.extend(found.truth(row.cells, where))
        for k, watch in watches.items():
            watch.see(row.cells[k].strip())
    if not number:
        raise InvalidInput.at("has a header and no rows under it")
    table = np.frombuffer(values).reshape(number, len(found.features))
    right = np.frombuffer(truth).reshape(number, len(found.labels)) if found.labels else None
    by = keys if named.by else None
    of_units = [*watches.values()]
    return Table(table, found.names, found.notes, lines, by, mixed(of_units), right, told_apart(of_units))


def _text(data: bytes) -> bytes:
    """The bytes of a text in UTF-8: as `str`, and read as one, they are up to six times as many at once."""
    try:
        decode(data)
        return OF_POWERSHELL.sub(b"", without_mark(data))
    except UnicodeDecodeError:
        wrong = not_utf8(data) if is_text(data) else "is neither .npy, .npz, JSON, Parquet nor CSV in UTF-8"
        raise InvalidInput.at(wrong) from None
