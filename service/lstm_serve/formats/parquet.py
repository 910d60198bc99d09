"""Parquet files as the table that a CSV file gives, read batch by batch; and columns, written in groups of rows.

It is read and written by pyarrow, the extra `parquet`, which is imported when a file is one.
"""

import glob
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from lstm_serve.engine.types import AnyArray
from lstm_serve.errors import InvalidInput, SettingsError
from lstm_serve.formats.csv_layout import CsvRow, Layout, NamedColumns, bare, in_header
from lstm_serve.formats.csv_table import Table
from lstm_serve.formats.units import LeftOutColumn, mixed

MAGIC = b"PAR1"
ROWS_AT_ONCE = 1 << 16
# Of the columns that are read, as arrays: a file of repeated values may be a thousandth of that.
MAX_BYTES = 4 << 30
# What Arrow writes for a time that it cannot tell.
OUT_OF_RANGE = "<value out of range"
# After the seconds of a time, and before its zone.
ZEROS = re.compile(r"(?:\.0+|(\.\d*[1-9])0+)(?=[Z+-]|$)")

PathOrFile = Path | BinaryIO
# A column to write: text, or numbers.
Cells = list[str | None] | AnyArray


class _File(NamedTuple):
    """A file of several, its name where there are several, and how many rows it says that it has."""

    source: PathOrFile
    name: str
    rows: int


def matching(source: str) -> list[Path]:
    """The files that a path or a pattern says, by their names, whatever they hold; the 2nd comes before the 10th."""
    path = Path(source)
    if path.exists():
        return [path]
    return [Path(found) for found in sorted(glob.glob(source), key=_counted)]  # noqa: PTH207 - from anywhere


def _counted(name: str) -> tuple[list[str | int], str]:
    """By what names are put in order: the numbers in them by their size, not as text."""
    return [int(part) if k % 2 else part for k, part in enumerate(re.split("([0-9]+)", name))], name


def files(source: str) -> list[Path]:
    """The Parquet files that a path or a pattern says, by their names; none, where it says no Parquet.

    Raises InvalidInput where files of a pattern are something else, or cannot be read.
    """
    named = matching(source)
    if len(named) == 1 and not named[0].is_file():  # what is read of a pipe is gone
        return []
    beginnings = []
    for each in named:
        try:
            with each.open("rb") as file:
                beginnings.append(file.read(len(MAGIC)))
        except OSError as error:
            if len(named) == 1:
                return []  # whoever reads it says so
            raise InvalidInput.at(f"{each.name} cannot be read: {error.strerror}") from None
    odd = [each.name for each, start in zip(named, beginnings, strict=True) if start != MAGIC]
    if len(odd) < len(named) and odd:
        raise InvalidInput.at(f"has {odd[0]} among {len(named)} files, which is no Parquet")
    if len(named) > 1 and odd:
        raise InvalidInput.at(f"says {len(named)} files, and several are read of Parquet alone")
    return [] if odd else named


def read(
    sources: Sequence[PathOrFile],
    features: Sequence[str] | None,
    width: int | None,
    named: NamedColumns = NamedColumns(),  # noqa: B008 - it is immutable
) -> Table:
    """The columns of the features of one or more files, one below the other, as `csv_table.read` gives them.

    The values have the type of the columns, so that float32 takes half of the memory of a CSV file's. Raises
    InvalidInput with the row, counted over all files, and the column; SettingsError where there is no pyarrow.
    """
    pyarrow = _pyarrow()
    try:
        return _read(pyarrow, sources, features, width, named)
    except (pyarrow.ArrowException, OSError, EOFError) as error:
        said = str(error).partition("\n")[0][:200]
        raise InvalidInput.at(f"cannot be read as Parquet: {said}") from None


def _read(
    pyarrow: Any,  # noqa: ANN401 - it has no type hints
    sources: Sequence[PathOrFile],
    features: Sequence[str] | None,
    width: int | None,
    named: NamedColumns,
) -> Table:
    parts, schemas = [], []
    for source in sources:
        with pyarrow.parquet.ParquetFile(source) as file:
            name = f"{source.name}, " if len(sources) > 1 else ""
            parts.append(_File(source, name, file.metadata.num_rows))
            schemas.append(file.schema_arrow)
    header = [*schemas[0].names]
    places = in_header(CsvRow(1, header), bare(features), width, named, str)
    names = [header[k] for k in places.features]
    count = sum(part.rows for part in parts)
    of_files = [*zip(parts, schemas, strict=True)]
    dtype = np.result_type(*{_dtype(pyarrow, schema, name, part.name) for part, schema in of_files for name in names})
    if not count:
        raise InvalidInput.at("has columns and no rows")
    if count * len(names) * dtype.itemsize > MAX_BYTES:
        raise InvalidInput.at(
            f"has {count} rows of {len(names)} columns, more than {MAX_BYTES >> 30} GiB of memory; predict it in parts"
        )
    values = np.empty((count, len(names)), dtype)
    beside = _Beside(pyarrow, named, [header[k] for k in (*places.keys, *places.labels)])
    left_out = [
        header[k]
        for k in places.left_out
        if not named.by and header.count(header[k]) == 1 and _may_name(pyarrow, schemas[0].field(k).type)
    ]
    watches = [LeftOutColumn(name.strip()) for name in left_out]
    row = 0
    for batch in _batches(pyarrow, parts, [*dict.fromkeys([*names, *beside.columns, *left_out])]):
        for k, name in enumerate(names):
            values[row : row + len(batch), k] = _numbers(pyarrow, batch.column(name), name, row)
        beside.add(batch, row)
        for watch, name in zip(watches, left_out, strict=True):
            for cell in _cells(pyarrow, batch.column(name), name, row):
                watch.see(cell)
        row += len(batch)
    names = [name.strip() for name in names]
    keys = beside.keys if named.by else None
    truth = np.array(beside.truth, np.float64) if named.labels else None
    of_units = mixed(watches) or _of_several(parts, named)
    return Table(values, (*names,), places.notes, keys=keys, mixed=of_units, truth=truth)


class _Beside:
    """What is in the columns beside the features: the keys, and what is right for each row."""

    def __init__(self, pyarrow: Any, named: NamedColumns, columns: Sequence[str]) -> None:  # noqa: ANN401 - no type hints
        """No row has been read yet."""
        self.columns = columns
        self.keys: list[tuple[str, ...]] = []
        self.truth: list[list[float]] = []
        self._pyarrow = pyarrow
        self._known: dict[tuple[str, ...], tuple[str, ...]] = {}  # each key once
        # They are read as a row of CSV is that has no other cells.
        keys, labels = [*range(len(named.by))], [*range(len(named.by), len(self.columns))]
        self._layout = Layout("", len(self.columns), True, [], keys, labels, [], None, (), named, str)

    def add(self, batch: Any, before: int) -> None:  # noqa: ANN401 - no type hints
        """Take the rows of a batch, with so many before them. Raises InvalidInput."""
        if not self.columns:
            return
        columns = [_cells(self._pyarrow, batch.column(name), name, before) for name in self.columns]
        for number, cells in enumerate(zip(*columns, strict=True), before + 1):
            where = f"row {number}"
            key = self._layout.key(cells, where)
            self.keys.append(self._known.setdefault(key, key))
            self.truth.append(self._layout.truth(cells, where))


def _batches(pyarrow: Any, parts: Sequence[_File], columns: list[str]) -> Iterator[Any]:  # noqa: ANN401 - no type hints
    """The rows of all files, so many at once, with these columns alone. Raises InvalidInput where one lacks them."""
    for part in parts:
        rows = 0
        with pyarrow.parquet.ParquetFile(part.source) as file:
            for name in columns:
                _expect_once(file.schema_arrow, name, part.name)
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
                rows += len(batch)
                if rows > part.rows:
                    break
                yield batch
        if rows != part.rows:
            raise InvalidInput.at(f"{part.name}says {part.rows} rows, and has others")


def _of_several(parts: Sequence[_File], named: NamedColumns) -> str | None:
    """What to say where windows slide from one file into the next."""
    if len(parts) == 1 or named.by:
        return None
    return (
        f"the {len(parts)} files are read as one series, in the order of their names, and a window here may hold "
        "rows of two. --by COLUMN, of a column that names the unit, makes each a series of its own"
    )


def _expect_once(schema: Any, name: str, file: str) -> None:  # noqa: ANN401 - no type hints
    """Raise InvalidInput unless a file has one column of this name."""
    count = schema.names.count(name)
    if count != 1:
        has = "has" if count else "lacks"
        raise InvalidInput.at(f"{file}{has} the column {name[:60]!r}{' more than once' if count else ''}")


def _dtype(pyarrow: Any, schema: Any, name: str, file: str) -> np.dtype[Any]:  # noqa: ANN401 - no type hints
    """The NumPy type of a column of numbers. Raises InvalidInput where it is none."""
    _expect_once(schema, name, file)
    arrow_type, types = schema.field(name).type, pyarrow.types
    if types.is_decimal(arrow_type):
        return np.dtype(np.float64)
    if not (types.is_integer(arrow_type) or types.is_floating(arrow_type)):
        raise InvalidInput.at(f"column {name[:60]!r} holds {arrow_type}, where numbers were expected")
    dtype: np.dtype[Any] = np.dtype(arrow_type.to_pandas_dtype())
    return dtype


def _numbers(pyarrow: Any, column: Any, name: str, before: int) -> AnyArray:  # noqa: ANN401 - no type hints
    """The numbers of a column, of a batch with so many rows before it. Raises InvalidInput at an empty cell."""
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise InvalidInput.at(f"row {before + row + 1}, column {name[:60]!r} holds nothing")
    if pyarrow.types.is_decimal(column.type):
        column = column.cast(pyarrow.float64())
    numbers: AnyArray = column.to_numpy(zero_copy_only=False)
    return numbers


def _cells(pyarrow: Any, column: Any, name: str, before: int) -> list[str]:  # noqa: ANN401 - no type hints
    """The cells of a column as CSV would have them, of a batch with so many rows before it; "" where nothing is.

    A time has as many digits after its seconds as it needs, so that it is the same in whatever unit a file counts.
    Raises InvalidInput.
    """
    types = pyarrow.types
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    arrow_type = column.type
    # A duration would be a number of whatever unit.
    if types.is_nested(arrow_type) or types.is_duration(arrow_type) or types.is_interval(arrow_type):
        raise InvalidInput.at(f"column {name[:60]!r} holds {arrow_type}, where a text, a number or a time was expected")
    as_text = (types.is_temporal, types.is_binary, types.is_large_binary, types.is_fixed_size_binary)
    try:
        # Python's own times end at microseconds, and at the year 9999.
        if any(is_one(arrow_type) for is_one in as_text):
            column = column.cast(pyarrow.string())
        cells = ["" if cell is None else str(cell).strip() for cell in column.to_pylist()]
    except (UnicodeDecodeError, pyarrow.ArrowInvalid):
        raise InvalidInput.at(f"column {name[:60]!r} holds text that is not UTF-8") from None
    if types.is_temporal(arrow_type):
        row = next((k for k, cell in enumerate(cells, before + 1) if cell.startswith(OUT_OF_RANGE)), None)
        if row is not None:
            raise InvalidInput.at(
                f"row {row}, column {name[:60]!r} holds a {arrow_type} that is no time of any calendar"
            )
        cells = [ZEROS.sub(r"\1", cell) for cell in cells]
    return cells


def _may_name(pyarrow: Any, arrow_type: Any) -> bool:  # noqa: ANN401 - no type hints
    """Whether a column of this type may name units, or count their steps."""
    types = pyarrow.types
    return any(
        is_one(arrow_type) for is_one in (types.is_integer, types.is_string, types.is_large_string, types.is_dictionary)
    )


@contextmanager
def writing(file: BinaryIO) -> Iterator[Callable[[Sequence[tuple[str, Cells]]], None]]:
    """What writes columns of rows, the same each time, to a Parquet file; it is whole after the block.

    Raises SettingsError where there is no pyarrow.
    """
    pyarrow = _pyarrow()
    waiting: list[Any] = []
    writer = None

    def flush() -> None:
        nonlocal writer
        if waiting:
            table = pyarrow.concat_tables(waiting)
            waiting.clear()
            writer = writer or pyarrow.parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)

    def write(columns: Sequence[tuple[str, Cells]]) -> None:
        arrays = [pyarrow.array(cells, pyarrow.string() if isinstance(cells, list) else None) for _, cells in columns]
        waiting.append(pyarrow.Table.from_arrays(arrays, names=[name for name, _ in columns]))
        # A group of rows for each chunk would make a file of little but descriptions.
        if sum(map(len, waiting)) >= ROWS_AT_ONCE:
            flush()

    try:
        yield write
        flush()
    finally:
        if writer is not None:
            writer.close()


def _pyarrow() -> Any:  # noqa: ANN401 - it has no type hints
    try:
        import pyarrow.parquet  # noqa: PLC0415 - an extra that only these files need
    except ImportError:
        raise SettingsError("for Parquet the package pyarrow is needed: pip install 'lstm-serve[parquet]'") from None
    return pyarrow
