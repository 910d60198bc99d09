"""Rows of series as text, one a line, as a device or a broker sends them: CSV, or JSON lines."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from lstm_serve.engine.types import AnyArray
from lstm_serve.errors import InvalidInput, Problem
from lstm_serve.formats import csv_layout
from lstm_serve.formats.csv_layout import Layout, NamedColumns
from lstm_serve.formats.csv_table import OF_POWERSHELL
from lstm_serve.formats.text import decode, not_utf8, without_mark
from lstm_serve.formats.units import LeftOutColumn, mixed
from lstm_serve.model.inputs import fits, wanted
from lstm_serve.model.model import Model
from lstm_serve.scoring.inputs import feature_names

# A longer line is no row; what is read at once of a stream.
MAX_LINE = 1 << 20
READ_AT_ONCE = 1 << 16
# The cells that name a unit have at most so many characters.
MAX_KEY = 1024


class Line(NamedTuple):
    """A line, without its end, and its number from 1; None where it was longer than any row."""

    number: int
    text: bytes | None


class Row(NamedTuple):
    """The key of a unit, and a row of its series: float64 (*features)."""

    key: tuple[str, ...]
    values: AnyArray


def arriving(read: Callable[[int], bytes]) -> Iterator[list[Line]]:
    """The lines of a stream, at once those that are there; of one that has not ended at most `MAX_LINE` bytes are kept.

    `read` gives what is there, at most so many bytes, and waits where nothing is; at the end it gives b"".
    """
    rest, number, too_long = b"", 0, False
    while data := read(READ_AT_ONCE):
        *whole, rest = (rest + data).split(b"\n")
        lines = []
        for text in whole:
            number += 1
            lines.append(Line(number, None if too_long or len(text) > MAX_LINE else text))
            too_long = False
        if len(rest) > MAX_LINE:
            rest, too_long = b"", True
        if lines:
            yield lines
    if rest or too_long:
        yield [Line(number + 1, None if too_long else rest)]


class RowReader:
    """Makes rows of lines. The first line that is not empty says whether they are CSV or JSON."""

    def __init__(self, model: Model, by: Sequence[str], note: Callable[[str], None]) -> None:
        """`by` names what tells units apart; `note` is told what a person should know of the reading."""
        self._names, self._id_limit = feature_names(model), model.id_limit
        self._shape = [size for size in model.input_shape[1:] if size is not None]
        self._width = model.input_shape[1] if len(model.input_shape) > 1 else 1
        self._by, self._note = tuple(by), note
        self.begun = False  # once a line came that is not empty
        self._layout: Layout | None = None
        self._watches: dict[int | str, LeftOutColumn] = {}  # of what is left out, until something is told of it

    def row(self, line: Line) -> Row | None:
        """The row of a line; None of an empty one and of a header. Raises InvalidInput with the line's number."""
        where = f"line {line.number}"
        if line.text is None:
            raise InvalidInput.at(f"{where} has more than {MAX_LINE} bytes")
        try:
            text = decode(line.text).removesuffix("\r")  # a tab at its end parts a cell
        except UnicodeDecodeError:
            raise InvalidInput.at(f"{where} {not_utf8(without_mark(line.text))}") from None
        if not text.strip() or (not self.begun and OF_POWERSHELL.match(text.encode())):
            return None
        if not self.begun and text.lstrip()[0] not in "{[":
            self._layout = self._from_first(text, where)
        first, self.begun = not self.begun, True
        if self._layout is not None:
            if first and self._layout.has_header:
                return None
            key, numbers = self._of_csv(self._layout, text, where)
        else:
            key, numbers = self._of_json(text, where, first=first)
        if sum(map(len, key)) > MAX_KEY:
            raise InvalidInput.at(f"{where} names its unit with more than {MAX_KEY} characters")
        values = np.array(numbers, np.float64)
        good = fits(values, self._id_limit)
        if not good.all():
            k = int(np.argmin(good))
            names = self._names if self._layout is None else self._layout.names
            column = csv_layout.column_of(names, k)
            raise InvalidInput.at(f"{where}, {column} holds {values[k]}, and {wanted(self._id_limit)} was expected")
        return Row(key, values.reshape(self._shape))

    def _from_first(self, text: str, where: str) -> Layout:
        """How the lines are read, from the first. Raises InvalidInput: nothing that follows can be read then."""
        try:
            layout = csv_layout.layout(text.encode(), self._names, self._width, NamedColumns(self._by))
            if sum(1 for _ in csv_layout.rows(text.encode(), layout.delimiter)) > 1:
                raise InvalidInput.at(
                    "holds several rows: the lines end in CR alone, and LF should end each; tr '\\r' '\\n' makes it so"
                )
        except InvalidInput as error:
            raise Unreadable([Problem((), f"{where} {error}")]) from None
        for note in layout.notes:
            self._note(note)
        if layout.has_header and not self._by:
            header = next(csv_layout.rows(text.encode(), layout.delimiter))
            self._watches = {k: LeftOutColumn(header.cells[k].strip()) for k in layout.left_out}
        return layout

    def _see(self, cell: Callable[[Any], object]) -> None:
        """Look, with a row's cells, whether what is left out tells units apart; that is told once."""
        for k, watch in self._watches.items():
            found = cell(k)
            watch.see("" if found is None else str(found).strip()[:MAX_KEY])
        if note := mixed([*self._watches.values()]):
            self._watches = {}
            self._note(note)

    def _of_csv(self, layout: Layout, text: str, where: str) -> tuple[tuple[str, ...], list[float]]:
        try:
            (row,) = csv_layout.rows(text.encode(), layout.delimiter)
        except (InvalidInput, ValueError):
            raise InvalidInput.at(f"{where} is no row of CSV") from None
        numbers = layout.numbers(row.cells, where)
        self._see(row.cells.__getitem__)
        return layout.key(row.cells, where), numbers

    def _of_json(self, text: str, where: str, *, first: bool) -> tuple[tuple[str, ...], list[float]]:
        try:
            found = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise InvalidInput.at(f"{where} is no valid JSON") from None
        key: tuple[str, ...] = ()
        listed: Sequence[Any]
        if isinstance(found, dict):
            key, listed = self._of_object(found, where, first=first)
        elif isinstance(found, list):
            if self._by:
                raise InvalidInput.at(f"{where} is a list, which has no {', '.join(self._by)[:200]!r}: send objects")
            listed = found
        else:
            raise InvalidInput.at(f"{where} is neither a list nor an object")
        if len(listed) != self._width:
            raise InvalidInput.at(f"{where} has {len(listed)} numbers, and the model takes {self._width}")
        for k, value in enumerate(listed):
            if type(value) not in {int, float}:
                raise InvalidInput.at(f"{where}, {csv_layout.column_of(self._names, k)} holds no number")
        try:
            return key, [*map(float, listed)]
        except OverflowError:
            raise InvalidInput.at(f"{where} holds a number that is too large") from None

    def _of_object(self, found: dict[str, Any], where: str, *, first: bool) -> tuple[tuple[str, ...], list[Any]]:
        if self._names is None:
            raise InvalidInput.at(
                f"{where} is an object, and the model's card does not name its features: send lists, or name them there"
            )
        missing = [name for name in (*self._by, *self._names) if name not in found]
        if missing:
            raise InvalidInput.at(f"{where} lacks {', '.join(missing)[:200]}")
        more = [name for name in found if name not in self._names and name not in self._by]
        if first and more:
            self._note(f"left out {', '.join(more)[:200]}, no feature of the model")
            self._watches = {} if self._by else {name: LeftOutColumn(name) for name in more}
        self._see(found.get)
        key = [found[name] for name in self._by]
        if not all(type(cell) is int or (type(cell) is str and _is_text(cell)) for cell in key):
            raise InvalidInput.at(f"{where} names its unit with something else than a text or a whole number")
        return tuple(str(cell).strip() for cell in key), [found[name] for name in self._names]


class Unreadable(InvalidInput):
    """Nothing of a stream can be read."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError where a name is there twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _is_text(cell: str) -> bool:
    # JSON can write half a pair of UTF-16, which is in no text.
    return bool(cell.strip()) and not any("\ud800" <= char <= "\udfff" for char in cell)


def _no_constant(_: str) -> NoReturn:
    raise ValueError
