"""A CSV file's columns, matched to a model's features."""

import csv
import io
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from service.errors import InvalidInput, Problem

# The first row lies within so many characters, or it is no row.
FIRST_ROW = 1 << 20


class Table(NamedTuple):
    """values (rows, columns), the columns' names where there are any, and what a person should know of the reading."""

    values: npt.NDArray[Any]
    names: tuple[str, ...] | None
    notes: tuple[str, ...]


class _Row(NamedTuple):
    line: int
    cells: list[str]


def read(data: bytes, features: Sequence[str] | None, width: int | None) -> Table:
    """The columns of the features, in their order: float64 (rows, width).

    `features` are the names that the columns should have, `width` how many there should be; None where it is free.
    A header is a first row with a cell that is no number. Raises InvalidInput with the row and the column.
    """
    text = _text(data)
    rows = _rows(text, _delimiter(text, features, width))
    first = next(rows, None)
    if first is None:
        raise _invalid("has no rows")
    if _is_header(first.cells, features):
        picked, notes = _from_header([cell.strip() for cell in first.cells], features, width)
        names: tuple[str, ...] | None = tuple(first.cells[k].strip() for k in picked)
        ahead = None
    else:
        picked, notes, ahead = list(range(len(first.cells))), (), first
        if width is not None and len(picked) != width:
            raise _invalid(
                f"has {len(picked)} columns and no header; expected {width}, one a feature. "
                "With a header, further columns are left out"
            )
        names = None if features is None else tuple(features)
    values, count = array("d"), len(first.cells)
    number = 0
    for number, row in enumerate(rows if ahead is None else _chain(ahead, rows), start=1):
        if len(row.cells) != count:
            raise _invalid(f"row {number} (line {row.line}) has {len(row.cells)} cells, and the first has {count}")
        cells = [row.cells[k] for k in picked]
        try:
            values.extend(map(_number, cells))
        except ValueError:
            k = next(k for k, cell in enumerate(cells) if not _is_number(cell))
            column = f"column {picked[k] + 1}" if names is None else f"column {names[k][:60]!r}"
            came = f"{cells[k][:40]!r}, which is no number" if cells[k].strip() else "nothing"
            raise _invalid(f"row {number} (line {row.line}), {column} holds {came}") from None
    if not number:
        raise _invalid("has a header and no rows under it")
    return Table(np.frombuffer(values).reshape(number, len(picked)), names, notes)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _invalid("is neither .npy, .npz, JSON nor CSV in UTF-8") from None


def _delimiter(text: str, features: Sequence[str] | None, width: int | None) -> str:
    """Comma, semicolon or tab: the one that finds the features in the first row, or else enough or most cells there."""

    def fit(mark: str) -> tuple[bool, bool, int]:
        try:
            first = next(_rows(text[:FIRST_ROW], mark), None)
        except InvalidInput:
            first = None
        cells = [] if first is None else [cell.strip() for cell in first.cells]
        return features is not None and {*features} <= {*cells}, len(cells) == width, len(cells)

    return max(",;\t", key=fit)


def _rows(text: str, delimiter: str) -> Iterator[_Row]:
    """The rows, each with the number of its line. Empty ones may come before the first and after the last."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    started, empty = False, 0
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                empty = empty or reader.line_num
                continue
            if started and empty:
                raise _invalid(f"line {empty} is empty, and more rows come after it")
            started, empty = True, 0
            yield _Row(reader.line_num, cells)
    except csv.Error as error:
        raise _invalid(f"is not CSV from line {reader.line_num} on: {error}") from None


def _chain(first: _Row, rows: Iterator[_Row]) -> Iterator[_Row]:
    yield first
    yield from rows


def _number(cell: str) -> float:
    # Python's own 1_000 is nobody's number in a CSV file.
    if "_" in cell:
        raise ValueError
    return float(cell)


def _is_number(cell: str) -> bool:
    try:
        _number(cell)
    except ValueError:
        return False
    return True


def _is_header(cells: Sequence[str], features: Sequence[str] | None) -> bool:
    # An empty cell may be a missing value as well as a missing name; a name may be a number, as in 0,1,2.
    if any(cell.strip() and not _is_number(cell) for cell in cells):
        return True
    return features is not None and {*features} <= {cell.strip() for cell in cells}


def _from_header(
    header: list[str], features: Sequence[str] | None, width: int | None
) -> tuple[list[int], tuple[str, ...]]:
    """Where the features' columns are in a header, and what to say of it."""
    if features is None:
        if width is not None and len(header) != width:
            raise _invalid(
                f"has {len(header)} columns, and the model has {width} features. "
                "Name the features in the model's card, and they are found by the header"
            )
        return list(range(len(header))), (
            f"the model's card names no features, so the {len(header)} columns are taken in their order",
        )
    missing = [name for name in features if name not in header]
    if missing:
        raise _invalid(
            f"lacks the {_columns(missing)}, which the model needs. Its header has {len(header)} columns: "
            f"{_listed(header)}"
        )
    twice = [name for name in features if header.count(name) > 1]
    if twice:
        raise _invalid(f"has the {_columns(twice)} more than once")
    left_out = [name for name in header if name not in features]
    notes = (f"left out the {_columns(left_out)}, no feature of the model",) if left_out else ()
    return [header.index(name) for name in features], notes


def _columns(names: Sequence[str]) -> str:
    return f"column{'s' if len(names) > 1 else ''} {_listed(names)}"


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(name if name and name.isprintable() else repr(name) for name in names)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _invalid(detail: str) -> InvalidInput:
    return InvalidInput([Problem((), detail)])
