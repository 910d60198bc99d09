"""Where a CSV file's columns are, matched to a model's features, and what the cells of a row hold."""

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from lstm_serve.errors import InvalidInput

# The first row lies within so many characters, or it is no row.
FIRST_ROW = 1 << 20

Shown = Callable[[str], str]


class NamedColumns(NamedTuple):
    """Columns beside the features, by name: those that tell units apart, and those that hold what is right for a row.

    `number` makes a number of a cell of the latter, or raises ValueError. `by_flag` is what a command takes the former
    with; None where it is no command that asks.
    """

    by: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    number: Callable[[str], float] = float
    by_flag: str | None = "--by"


class CsvRow(NamedTuple):
    """The cells of a row, and the number of its line."""

    line: int
    cells: list[str]


class ColumnPlaces(NamedTuple):
    """Where in a header the columns are: those of the features, in their order, the keys', the labels', the others."""

    features: list[int]
    keys: list[int]
    labels: list[int]
    left_out: list[int]
    notes: tuple[str, ...]


class Layout(NamedTuple):
    """How the rows of a file are read: what parts their cells, how many there are, and which are which.

    `names` are those of the features' columns, where there are any; `left_out` the columns that are none of what is
    read; `notes` what a person should know of it. `has_header` says whether the first row is one.
    """

    delimiter: str
    columns: int
    has_header: bool
    features: list[int]
    keys: list[int]
    labels: list[int]
    left_out: list[int]
    names: tuple[str, ...] | None
    notes: tuple[str, ...]
    named: NamedColumns
    shown: Shown

    def numbers(self, cells: Sequence[str], where: str) -> list[float]:
        """The features of a row. Raises InvalidInput that says `where` it is."""
        if len(cells) != self.columns:
            raise InvalidInput.at(f"{where} has {len(cells)} cells, and the first has {self.columns}")
        picked = [cells[k] for k in self.features]
        try:
            return [*map(to_number, picked)]
        except ValueError:
            k = next(k for k, cell in enumerate(picked) if not _is_number(cell))
            came = f"{self.shown(repr(picked[k][:40]))}, which is no number" if picked[k].strip() else "nothing"
            hint = ": write it with a point" if _has_decimal_comma(picked[k]) else ""
            column = column_of(self.names, k) if self.names else f"column {self.features[k] + 1}"
            raise InvalidInput.at(f"{where}, {column} holds {came}{hint}") from None

    def key(self, cells: Sequence[str], where: str) -> tuple[str, ...]:
        """The cells that name a row's unit. Raises InvalidInput."""
        key = tuple(cells[k].strip() for k in self.keys)
        if not all(key):
            raise InvalidInput.at(
                f"{where}, column {self.shown(repr(self.named.by[key.index('')][:60]))} holds nothing, "
                "and the rows are told apart by it"
            )
        return key

    def truth(self, cells: Sequence[str], where: str) -> list[float]:
        """What is right for a row, as numbers; NaN where a cell is empty. Raises InvalidInput."""
        found = [cells[k].strip() for k in self.labels]
        try:
            return [self.named.number(cell) if cell else math.nan for cell in found]
        except ValueError:
            k = next(k for k, cell in enumerate(found) if cell and not _is_number(cell))
            column = f"column {self.named.labels[k][:60]!r}"
            raise InvalidInput.at(f"{where}, {column} holds {found[k][:40]!r}, which is no number") from None


def layout(
    text: bytes,
    features: Sequence[str] | None,
    width: int | None,
    named: NamedColumns = NamedColumns(),  # noqa: B008 - it is immutable
    shown: Shown = str,
) -> Layout:
    """How the rows of a text in UTF-8 are read, which its first row says; see `csv_table.read`. Raises InvalidInput."""
    besides, features = (*named.by, *named.labels), bare(features)
    delimiter = _delimiter(text, (*(features or ()), *besides) or None, None if besides else width)
    first = next(rows(text, delimiter), None)
    if first is None:
        raise InvalidInput.at("has no rows")
    count = len(first.cells)
    if besides or _is_header(first.cells, features, width):
        picked, keys, labels, left_out, notes = in_header(first, features, width, named, shown)
        say = shown if features is None else str
        names = tuple(say(first.cells[k].strip()) for k in picked)
        return Layout(delimiter, count, True, picked, keys, labels, left_out, names, notes, named, shown)
    if width is not None and count != width:
        raise InvalidInput.at(
            f"has {_count(count)} and no header, and the model takes {width}{_apart(first)}. "
            "With a header, further columns are left out"
        )
    assumed = None if features is None else tuple(features)
    return Layout(delimiter, count, False, [*range(count)], [], [], [], assumed, (), named, shown)


def bare(features: Sequence[str] | None) -> Sequence[str] | None:
    """Names without the spaces around them, which a header's cells lose too: a card may have them from a table's."""
    return features and [name.strip() for name in features]


def column_of(names: Sequence[str] | None, column: int) -> str:
    """What a person calls a feature's column."""
    return f"column {column + 1 if names is None else repr(names[column][:60])}"


def _delimiter(text: bytes, features: Sequence[str] | None, width: int | None) -> str:
    """Comma, semicolon or tab: the one that finds the features in the first row, or else enough or most cells there."""

    def parted(mark: str) -> list[str]:
        try:
            first = next(rows(text[:FIRST_ROW], mark), None)
        except InvalidInput:
            first = None
        return [] if first is None else [cell.strip() for cell in first.cells]

    def fit(mark: str) -> tuple[bool, bool, int]:
        cells = found[mark]
        return features is not None and {*features} <= {*cells}, len(cells) == width, len(cells)

    found = {mark: parted(mark) for mark in ",;\t"}
    # Any mark that is not there makes one cell, so one is not enough to tell by; but 3,5 is more likely a number.
    if width == 1 and not any(len(cells) == 1 and _has_decimal_comma(cells[0]) for cells in found.values()):
        width = None
    return max(found, key=fit)


def rows(text: bytes, delimiter: str) -> Iterator[CsvRow]:
    """The rows, each with the number of its line. Empty ones may come before the first and after the last."""
    # Where a beginning is cut inside a character, that is left out.
    lines = io.TextIOWrapper(io.BytesIO(text), "utf-8", "ignore", newline="")
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    started, empty, before = False, 0, 0
    try:
        for cells in reader:
            if started and reader.line_num > before + 1:  # two quote marks that are no pair hide the rows between them
                raise InvalidInput.at(f"a cell of line {before + 1} goes on in the next one, in quotation marks")
            before = reader.line_num
            if not any(cell.strip() for cell in cells):
                empty = empty or reader.line_num
                continue
            if started and empty:
                raise InvalidInput.at(f"line {empty} is empty, and more rows come after it")
            started, empty = True, 0
            yield CsvRow(reader.line_num, cells)
    except csv.Error as error:
        raise InvalidInput.at(f"is not CSV from line {reader.line_num} on: {error}") from None


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


def in_header(
    first: CsvRow, features: Sequence[str] | None, width: int | None, named: NamedColumns, shown: Shown
) -> ColumnPlaces:
    """Where the columns are in a header, and what to say of it. Raises InvalidInput where one is missing.

    The features are `bare`.
    """
    header = [cell.strip() for cell in first.cells]
    if named.by_flag is not None:
        _expect_apart(named.by_flag, named.by, header)
    _expect_apart("--label", named.labels, header)
    _expect(named.by, header, "which `by` names", first, (shown, shown))
    _expect(named.labels, header, "which --label names", first, (shown, shown))
    keys, labels = [header.index(name) for name in named.by], [header.index(name) for name in named.labels]
    if features is None:
        rest = [k for k in range(len(header)) if k not in {*keys, *labels}]
        if width is not None and len(rest) != width:
            besides = f" besides {shown(_listed([*named.by, *named.labels]))}" if keys or labels else ""
            raise InvalidInput.at(
                f"has {_count(len(rest))}{besides}, and the model takes {width}{_apart(first)}. "
                "Name the features in the model's card, and they are found by the header"
            )
        note = f"the model's card does not name its columns, so the {_count(len(rest))} are taken in their order"
        return ColumnPlaces(rest, keys, labels, [], (note,))
    _expect(features, header, "which the model needs", first, (str, shown))
    left_out = [k for k, name in enumerate(header) if name not in features and k not in {*keys, *labels}]
    names = [header[k] for k in left_out]
    notes = (f"left out the {_columns(names)}, no feature of the model",) if names else ()
    return ColumnPlaces([header.index(name) for name in features], keys, labels, left_out, notes)


def _expect(names: Sequence[str], header: Sequence[str], why: str, first: CsvRow, shown: tuple[Shown, Shown]) -> None:
    """Raise InvalidInput unless the header has each name once; `shown` is for the names, and for the header."""
    of_names, of_header = shown
    missing = [name for name in names if name not in header]
    if missing:
        near = _in_other_case(missing, header, of_header)
        raise InvalidInput.at(
            f"lacks the {_columns(missing, of_names)}, {why}{_apart(first)}. "
            f"Its header has {_count(len(header))}: {of_header(_listed(header))}{near}"
        )
    twice = [name for name in names if header.count(name) > 1]
    if twice:
        raise InvalidInput.at(f"has the {_columns(twice, of_names)} more than once")


def _expect_apart(flag: str, names: Sequence[str], header: Sequence[str]) -> None:
    """Raise InvalidInput where one name is those of several columns, parted by commas."""
    for name in names:
        parts = [part.strip() for part in name.split(",")]
        if len(parts) > 1 and name not in header and {*parts} <= {*header}:
            each = " ".join(f"{flag} {part}" for part in parts)
            raise InvalidInput.at(f"{flag} {name[:60]!r} names several of its columns: give {each[:200]}")


def _in_other_case(missing: Sequence[str], header: Sequence[str], shown: Shown) -> str:
    folded = {name.casefold(): name for name in header}
    near = [f"{folded[name.casefold()]} for {name}" for name in missing if name.casefold() in folded]
    return f". The names differ in case: {shown(_listed(near))}" if near else ""


def _apart(first: CsvRow) -> str:
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
