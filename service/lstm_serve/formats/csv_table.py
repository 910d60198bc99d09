"""A CSV file's columns, matched to a model's features."""

import csv
import io
import math
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lstm_serve.errors import InvalidInput, Problem
from lstm_serve.formats.text import decode, is_text, not_utf8, without_mark
from lstm_serve.formats.units import Watch, mixed

# The first row lies within so many characters, or it is no row.
FIRST_ROW = 1 << 20
# What Export-Csv of PowerShell 5 writes before the header, unless -NoTypeInformation.
OF_POWERSHELL = re.compile(rb"\A#TYPE [^\r\n]*")


Shown = Callable[[str], str]


class Table(NamedTuple):
    """values (rows, columns), the columns' names where there are any, and what a person should know of the reading.

    `lines` has for each row the number of its line, where it came from one, and `keys` its cells in the key columns.
    `mixed` is what to say where windows slide over the rows of what may be several units. `truth` (rows, columns) is
    what is right for each row, where columns hold it; NaN where a cell is empty.
    """

    values: npt.NDArray[Any]
    names: tuple[str, ...] | None
    notes: tuple[str, ...] = ()
    lines: Sequence[int] | None = None
    keys: Sequence[tuple[str, ...]] | None = None
    mixed: str | None = None
    truth: npt.NDArray[np.float64] | None = None

    def place(self, row: int, column: int) -> str:
        """Where a value is, as a person counts."""
        line = "" if self.lines is None else f" (line {self.lines[row]})"
        return f"row {row + 1}{line}, column {column + 1 if self.names is None else repr(self.names[column][:60])}"


class Named(NamedTuple):
    """Columns beside the features, by name: those that tell units apart, and those that hold what is right for a row.

    `number` makes a number of a cell of the latter, or raises ValueError.
    """

    by: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    number: Callable[[str], float] = float


class _Row(NamedTuple):
    line: int
    cells: list[str]


class _Header(NamedTuple):
    """Where in a header the columns are: those of the features, in their order, the keys', the labels', the others."""

    features: list[int]
    keys: list[int]
    labels: list[int]
    left_out: list[int]
    notes: tuple[str, ...]


def read(
    data: bytes,
    features: Sequence[str] | None,
    width: int | None,
    named: Named = Named(),  # noqa: B008 - it is immutable
    shown: Shown = str,
) -> Table:
    """The columns of the features, in their order: float64 (rows, width); the keys, as text; the labels, as numbers.

    `features` are the names that the columns should have, `width` how many there should be; None where it is free.
    A header is a first row with a cell that is no number, or any where columns are named. Raises InvalidInput with the
    row and the column, in which `shown` says how what stands in the file is shown.
    """
    text, besides = _text(data), (*named.by, *named.labels)
    rows = _rows(text, _delimiter(text, (*(features or ()), *besides) or None, None if besides else width))
    first = next(rows, None)
    if first is None:
        raise _invalid("has no rows")
    keys_at: list[int] = []
    labels_at: list[int] = []
    watches: dict[int, Watch] = {}
    if besides or _is_header(first.cells, features, width):
        picked, keys_at, labels_at, left_out, notes = _from_header(first, features, width, named, shown)
        say = shown if features is None else str
        names: tuple[str, ...] | None = tuple(say(first.cells[k].strip()) for k in picked)
        watches = {} if named.by else {k: Watch(first.cells[k].strip()) for k in left_out}
        ahead = None
    else:
        picked, notes, ahead = list(range(len(first.cells))), (), first
        if width is not None and len(picked) != width:
            raise _invalid(
                f"has {_count(len(picked))} and no header, and the model takes {width}{_apart(first)}. "
                "With a header, further columns are left out"
            )
        names = None if features is None else tuple(features)
    values, lines, truth, keys, count = array("d"), array("q"), array("d"), [], len(first.cells)
    number, known = 0, dict[tuple[str, ...], tuple[str, ...]]()  # each key once
    for number, row in enumerate(rows if ahead is None else _chain(ahead, rows), start=1):
        if len(row.cells) != count:
            raise _invalid(f"row {number} (line {row.line}) has {len(row.cells)} cells, and the first has {count}")
        cells = [row.cells[k] for k in picked]
        lines.append(row.line)
        try:
            values.extend(map(to_number, cells))
        except ValueError:
            k = next(k for k, cell in enumerate(cells) if not _is_number(cell))
            came = f"{shown(repr(cells[k][:40]))}, which is no number" if cells[k].strip() else "nothing"
            hint = ": write it with a point" if _has_decimal_comma(cells[k]) else ""
            place = Table(np.empty(0), names, lines=lines).place(number - 1, k if names else picked[k])
            raise _invalid(f"{place} holds {came}{hint}") from None
        if keys_at:
            key = _key(row, number, keys_at, named.by, shown)
            keys.append(known.setdefault(key, key))
        truth.extend(_truth(row, number, labels_at, named))
        for k, watch in watches.items():
            watch.see(row.cells[k].strip())
    if not number:
        raise _invalid("has a header and no rows under it")
    table = np.frombuffer(values).reshape(number, len(picked))
    right = np.frombuffer(truth).reshape(number, len(labels_at)) if labels_at else None
    return Table(table, names, notes, lines, keys if named.by else None, mixed([*watches.values()]), right)


def _key(row: _Row, number: int, places: Sequence[int], by: Sequence[str], shown: Shown) -> tuple[str, ...]:
    """The cells that name a row's unit."""
    key = tuple(row.cells[k].strip() for k in places)
    if not all(key):
        raise _invalid(
            f"row {number} (line {row.line}), column {shown(repr(by[key.index('')][:60]))} holds nothing, "
            "and the rows are told apart by it"
        )
    return key


def _truth(row: _Row, number: int, places: Sequence[int], named: Named) -> list[float]:
    """What is right for a row, as numbers; NaN where a cell is empty."""
    cells = [row.cells[k].strip() for k in places]
    try:
        return [named.number(cell) if cell else math.nan for cell in cells]
    except ValueError:
        k = next(k for k, cell in enumerate(cells) if cell and not _is_number(cell))
        place = f"row {number} (line {row.line}), column {named.labels[k][:60]!r}"
        raise _invalid(f"{place} holds {cells[k][:40]!r}, which is no number") from None


def _text(data: bytes) -> bytes:
    """The bytes of a text in UTF-8: as `str`, and read as one, they are up to six times as many at once."""
    try:
        decode(data)
        return OF_POWERSHELL.sub(b"", without_mark(data))
    except UnicodeDecodeError:
        wrong = not_utf8(data) if is_text(data) else "is neither .npy, .npz, JSON nor CSV in UTF-8"
        raise _invalid(wrong) from None


def _delimiter(text: bytes, features: Sequence[str] | None, width: int | None) -> str:
    """Comma, semicolon or tab: the one that finds the features in the first row, or else enough or most cells there."""

    def fit(mark: str) -> tuple[bool, bool, int]:
        try:
            first = next(_rows(text[:FIRST_ROW], mark), None)
        except InvalidInput:
            first = None
        cells = [] if first is None else [cell.strip() for cell in first.cells]
        return features is not None and {*features} <= {*cells}, len(cells) == width, len(cells)

    return max(",;\t", key=fit)


def _rows(text: bytes, delimiter: str) -> Iterator[_Row]:
    """The rows, each with the number of its line. Empty ones may come before the first and after the last."""
    # Where a beginning is cut inside a character, that is left out.
    lines = io.TextIOWrapper(io.BytesIO(text), "utf-8", "ignore", newline="")
    reader = csv.reader(lines, delimiter=delimiter)
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


def to_number(cell: str) -> float:
    """The number that a cell holds. Raises ValueError."""
    # Python's own 1_000 is nobody's number in a CSV file; digits of other scripts no service takes either.
    if "_" in cell or not cell.isascii():
        raise ValueError
    return float(cell)


def _is_number(cell: str) -> bool:
    try:
        to_number(cell)
    except ValueError:
        return False
    return True


def _has_decimal_comma(cell: str) -> bool:
    return cell.count(",") == 1 and _is_number(cell.replace(",", "."))


def _is_header(cells: Sequence[str], features: Sequence[str] | None, width: int | None) -> bool:
    # An empty cell may be a missing value as well as a missing name; a name may be a number, as in 0,1,2.
    if any(cell.strip() and not _is_number(cell) and not _has_decimal_comma(cell) for cell in cells):
        return True
    names = [cell.strip() for cell in cells]
    if features is None:
        # What pandas calls columns that have no names.
        return len(names) > 1 and len(names) == width and names == [str(k) for k in range(len(names))]
    return {*features} <= {*names}


def _from_header(first: _Row, features: Sequence[str] | None, width: int | None, named: Named, shown: Shown) -> _Header:
    """Where the columns are in a header, and what to say of it."""
    header = [cell.strip() for cell in first.cells]
    _expect(named.by, header, "which --by names", first, (shown, shown))
    _expect(named.labels, header, "which --label names", first, (shown, shown))
    keys, labels = [header.index(name) for name in named.by], [header.index(name) for name in named.labels]
    if features is None:
        rest = [k for k in range(len(header)) if k not in {*keys, *labels}]
        if width is not None and len(rest) != width:
            besides = f" besides {shown(_listed([*named.by, *named.labels]))}" if keys or labels else ""
            raise _invalid(
                f"has {_count(len(rest))}{besides}, and the model takes {width}{_apart(first)}. "
                "Name the features in the model's card, and they are found by the header"
            )
        note = f"the model's card does not name its columns, so the {_count(len(rest))} are taken in their order"
        return _Header(rest, keys, labels, [], (note,))
    _expect(features, header, "which the model needs", first, (str, shown))
    left_out = [k for k, name in enumerate(header) if name not in features and k not in {*keys, *labels}]
    names = [header[k] for k in left_out]
    notes = (f"left out the {_columns(names)}, no feature of the model",) if names else ()
    return _Header([header.index(name) for name in features], keys, labels, left_out, notes)


def _expect(names: Sequence[str], header: Sequence[str], why: str, first: _Row, shown: tuple[Shown, Shown]) -> None:
    """Raise InvalidInput unless the header has each name once; `shown` is for the names, and for the header."""
    of_names, of_header = shown
    missing = [name for name in names if name not in header]
    if missing:
        near = _in_other_case(missing, header) if of_header is str else ""
        raise _invalid(
            f"lacks the {_columns(missing, of_names)}, {why}{_apart(first)}. "
            f"Its header has {_count(len(header))}: {of_header(_listed(header))}{near}"
        )
    twice = [name for name in names if header.count(name) > 1]
    if twice:
        raise _invalid(f"has the {_columns(twice, of_names)} more than once")


def _in_other_case(missing: Sequence[str], header: Sequence[str]) -> str:
    folded = {name.casefold(): name for name in header}
    near = [f"{folded[name.casefold()]} for {name}" for name in missing if name.casefold() in folded]
    return f". The names differ in case: {_listed(near)}" if near else ""


def _apart(first: _Row) -> str:
    """A hint where all of a row became one cell."""
    if len(first.cells) == 1 and len(first.cells[0].split()) > 1:
        return " (are its columns parted by spaces? Commas, semicolons and tabs are read)"
    return ""


def _count(columns: int) -> str:
    return f"{columns} column{'s' if columns != 1 else ''}"


def _columns(names: Sequence[str], shown: Shown = str) -> str:
    return f"column{'s' if len(names) > 1 else ''} {shown(_listed(names))}"


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(name if name and name.isprintable() else repr(name) for name in names)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _invalid(detail: str) -> InvalidInput:
    return InvalidInput([Problem((), detail)])
