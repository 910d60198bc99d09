"""What a person hands in on the command line: a series, one row a time step, or ready sequences; read from any file.

A series longer than the model's timesteps becomes windows: views of it, never copies of all.
"""

import io
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from lstm_serve.engine.types import AnyArray
from lstm_serve.errors import InvalidInput, UnreadableFile
from lstm_serve.formats import csv_table, parquet, zip_file
from lstm_serve.formats.csv_layout import NamedColumns, Shown
from lstm_serve.formats.npy import MAX_BYTES, NPY_MAGIC, read_npy, read_npz
from lstm_serve.formats.text import without_mark
from lstm_serve.formats.units import Units
from lstm_serve.loading.files.foreign import PACKED
from lstm_serve.loading.sidecars.golden import array_names
from lstm_serve.model.inputs import fits, wanted
from lstm_serve.model.model import Model
from lstm_serve.model.windows import last_rows, units, windows


class UnitSequences(NamedTuple):
    """x (n, *input_shape), numbers from 1 that a person knows each by, and the key of the unit that they are of.

    `truth` is what is right for each, where that is known: (n, T, columns), of each row of a sequence, as it is read.
    """

    x: AnyArray
    numbers: Sequence[int]
    key: tuple[str, ...] = ()
    truth: AnyArray | None = None


class Sequences(NamedTuple):
    """What is to be answered, in order, and what its numbers number.

    That is the last `row` of a window of a series, or else the `sequence`. `by` names the columns whose cells are the
    keys: each unit is a part. `notes` is what to tell of the reading, `mixed` of windows that may hold rows of two
    units, and `units` those, where a column names them.
    """

    parts: tuple[UnitSequences, ...]
    noun: str
    by: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    mixed: str | None = None
    units: Units | None = None

    @property
    def told(self) -> tuple[str, ...]:
        """All that a person should know before the answers are believed."""
        return self.notes if self.mixed is None else (*self.notes, self.mixed)


def read(source: str, model: Model, stride: int = 1, by: Sequence[str] = ()) -> Sequences:
    """The sequences in a .npy, .npz, JSON, CSV or Parquet file, which its content tells apart; `-` is standard input.

    An array with an axis less than a batch is a series: a window for each `timesteps` rows, `stride` rows apart, or
    one sequence where the time axis is free. With `by`, columns of a table, the rows of each unit are such a series.
    Raises InvalidInput, with the source and what was expected and came.
    """
    model.expect_one("a file of inputs")
    by = tuple(dict.fromkeys(by))
    with naming_source(source):
        return sequences(decoded(content(source), model, NamedColumns(by)), model, stride, by)


@contextmanager
def naming_source(source: str) -> Iterator[None]:
    """Say in what is wrong with an input which it is."""
    try:
        yield
    except InvalidInput as error:
        name = "standard input" if source == "-" else source
        raise InvalidInput.at(f"{name[:200]}: {error}") from None


def content(source: str) -> bytes | list[Path]:
    """The bytes of a file, or of standard input; of Parquet, which is read in parts, its files. Raises InvalidInput."""
    if source != "-" and (files := parquet.files(source)):
        return files
    try:
        if source == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(source).open("rb") as file:
                data = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise InvalidInput.at("is a folder: name a file in it, or its Parquet files as 'FOLDER/*.parquet'") from None
    except OSError as error:
        raise InvalidInput.at(f"cannot be read: {error.strerror}") from None
    if not data.strip():
        raise InvalidInput.at("is empty")
    if len(data) > MAX_BYTES:
        raise InvalidInput.at(f"is larger than {MAX_BYTES >> 20} MiB; predict it in parts")
    return data


def read_csv(data: bytes, model: Model, stride: int, by: Sequence[str]) -> Sequences:
    """The windows of the series in a CSV file, as `read` has them, for whom nothing of it may be repeated in an error.

    The arrays are float32 where the model takes that. Raises InvalidInput.
    """
    by = tuple(dict.fromkeys(by))
    table = csv_table.read(data, feature_names(model), _width(model), NamedColumns(by, by_flag=None), _unseen)
    if model.input_dtype == np.float32:
        with np.errstate(over="ignore"):
            table = table._replace(values=table.values.astype(np.float32))
    return sequences(table, model, stride, by, _unseen)


def _unseen(_: str) -> str:
    return "(not shown)"


def feature_names(model: Model) -> tuple[str, ...] | None:
    """The names of the columns, where the model's card has them."""
    # A card's feature is a column, but of a model of ids it is what all columns are.
    features = model.about.features if model.id_limit is None else None
    return None if features is None else tuple(feature.name for feature in features)


def _width(model: Model) -> int | None:
    return model.input_shape[-1] if model.id_limit is None else None


def decoded(data: bytes | list[Path], model: Model, columns: NamedColumns) -> csv_table.Table:
    """What `content` gives, whichever form it has; with the named columns of CSV or Parquet. Raises InvalidInput."""
    names = feature_names(model)
    if isinstance(data, list) or data.startswith(parquet.MAGIC):
        _expect_a_table(model, "is Parquet, and it does not hold")
        return parquet.read(data if isinstance(data, list) else [io.BytesIO(data)], names, _width(model), columns)
    if b"'|O'" in data[:128]:
        raise InvalidInput.at(
            "holds Python objects, and reading those could run any code. "
            "Save numbers: np.save('x.npy', np.asarray(x, np.float32))"
        )
    if data.startswith((NPY_MAGIC, zip_file.MAGIC)):
        try:
            if data.startswith(NPY_MAGIC):
                array = read_npy(io.BytesIO(data))
            else:
                arrays = read_npz(io.BytesIO(data))
                ((called,), _) = array_names(model)
                array = arrays[only_one(arrays, called)]
        except UnreadableFile as error:
            wrong = "is a workbook, as of Excel: save it as CSV" if b"[Content_Types].xml" in data else str(error)
            raise InvalidInput.at(wrong) from None
        return csv_table.Table(array, names)
    if data.startswith(b"\x1f\x8b"):
        raise InvalidInput.at(PACKED.format("gzip", "gunzip"))
    if without_mark(data).lstrip()[:1] in {b"{", b"["}:
        return csv_table.Table(_json(without_mark(data), model), names)
    _expect_a_table(model, "is no .npy, .npz or JSON file, and no other holds")
    return csv_table.read(data, names, _width(model), columns)


def _expect_a_table(model: Model, otherwise: str) -> None:
    """Raise InvalidInput where no table of rows is an input to the model."""
    if len(model.input_shape) > 2:
        raise InvalidInput.at(f"{otherwise} what this model takes, {model.expects}")


def only_one(names: Collection[str], called: Sequence[str] = ("x",)) -> str:
    """Which of several named arrays is the input: the one that is called so, or the only one. Raises InvalidInput."""
    if found := [name for name in called if name in names]:
        return found[0]
    if len(names) != 1:
        raise InvalidInput.at(f"should hold one array, or one named x; it has {', '.join(names)[:200] or 'none'}")
    return next(iter(names))


def _json(data: bytes, model: Model) -> AnyArray:
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidInput.at(f"begins as JSON and is not valid: {error}") from None
    ndim = None
    if isinstance(parsed, dict):
        if len(parsed) != 1 or not {"sequence", "sequences"} & parsed.keys():
            raise InvalidInput.at(
                f'should be {{"sequence": ...}} or {{"sequences": ...}}; it has {", ".join(parsed)[:200]!r}'
            )
        ((key, parsed),) = parsed.items()
        ndim = len(model.input_shape) + (key == "sequences")
    # NumPy takes true for 1, and no text but these two words has these letters: other strings are refused below.
    if b"true" in data or b"false" in data:
        raise InvalidInput.at("holds true or false, where numbers were expected")
    try:
        array = np.asarray(parsed)
    except ValueError:
        raise InvalidInput.at("holds rows of different lengths") from None
    if array.dtype.kind not in "fiu":
        raise InvalidInput.at(f"holds {_odd(array)}, where numbers were expected")
    if ndim is not None and data.count(b'"') != 2:
        raise InvalidInput.at(f'holds "{key}" more than once')
    if ndim is not None and array.ndim != ndim:
        raise InvalidInput.at(f'holds lists {array.ndim} deep as "{key}", where {ndim} were expected')
    return array


def _odd(array: AnyArray) -> str:
    """What an array of JSON values that is none of numbers holds."""
    if array.dtype.kind == "U":
        return "text"
    return "null" if None in array.ravel().tolist() else "objects"


def sequences(
    table: csv_table.Table, model: Model, stride: int = 1, by: tuple[str, ...] = (), shown: Shown = str
) -> Sequences:
    """The sequences that a table is, or is cut into, each with what is right for it. Raises InvalidInput."""
    array = table.values
    timesteps, *rest = model.input_shape
    if array.dtype.kind not in "fiu":
        raise InvalidInput.at(f"holds {array.dtype}, where numbers were expected")
    rows = f"rows of {', '.join(map(str, rest))} features"
    if array.ndim == len(model.input_shape) + 1:
        expected, came = model.input_shape, array.shape[1:]
        wanted = f"{model.expects}, or a series, {rows}," if rest else model.expects
    else:
        expected, came = (None, *rest) if rest else model.input_shape, array.shape
        wanted = f"{rows}, or {model.expects}" if rest else model.expects
    if table.names is not None and model.id_limit is not None and timesteps is not None and not rest:
        _expect_no_more(table.names, timesteps)
    if len(came) != len(expected) or any(want not in {None, got} for want, got in zip(expected, came, strict=True)):
        hint = model.hint(array.shape)
        raise InvalidInput.at(f"holds an array of shape {array.shape}, where {wanted} was expected{hint}")
    if 0 in array.shape:
        raise InvalidInput.at(f"holds an empty array, of shape {array.shape}")
    _refuse(table, model.id_limit, shown)
    if array.ndim == len(model.input_shape) and rest:
        return _units(table, timesteps, stride, by) if by else _series(table, timesteps, stride)
    if stride != 1:
        raise InvalidInput.at(f"is no series to be cut into windows, so a stride of {stride} means nothing")
    if by:
        raise InvalidInput.at("is no series to be cut into windows, so --by means nothing")
    x = array if array.ndim == len(model.input_shape) + 1 else array[np.newaxis]
    truth = None if table.truth is None else table.truth[:, np.newaxis]
    return Sequences((UnitSequences(x, range(1, len(x) + 1), truth=truth),), "sequence", notes=table.notes)


def _expect_no_more(names: Sequence[str], ids: int) -> None:
    """Raise InvalidInput where a header has more columns than a row has ids: one may say what is right for it."""
    if len(names) > ids:
        beyond = ", ".join(dict.fromkeys(names[ids:]))[:200]  # once, where none may be shown
        raise InvalidInput.at(
            f"has {len(names)} columns, and the model takes {ids} ids a row; after the first {ids} its header has "
            f"{beyond}. Take away what is no id"
        )


def _series(table: csv_table.Table, timesteps: int | None, stride: int) -> Sequences:
    rows = table.values
    if timesteps is None and stride != 1:
        raise InvalidInput.at(
            f"is one sequence to this model, not cut into windows, so a stride of {stride} means nothing"
        )
    if timesteps is not None and len(rows) < timesteps:
        raise InvalidInput.at(f"has {len(rows)} rows, and the model needs {timesteps} for an answer")
    last = last_rows(len(rows), timesteps, stride)
    truth = None if table.truth is None else windows(table.truth, timesteps, stride)
    part = UnitSequences(windows(rows, timesteps, stride), range(last.start + 1, last.stop + 1, stride), truth=truth)
    # A single window slides over nothing.
    mixed = (table.mixed, table.units) if len(rows) != timesteps else ()
    return Sequences((part,), "row", (), table.notes, *mixed)


def _units(table: csv_table.Table, timesteps: int | None, stride: int, by: tuple[str, ...]) -> Sequences:
    if table.keys is None:
        raise InvalidInput.at("has no columns with names; --by takes those of a CSV file or Parquet")
    if timesteps is None and stride != 1:
        raise InvalidInput.at(f"has one sequence a unit to this model, so a stride of {stride} means nothing")
    parts, short, found = [], [], units(table.keys)
    for key, places in found.items():
        if timesteps is not None and len(places) < timesteps:
            short.append(f"{', '.join(key)} ({len(places)})")
            continue
        # Where the rows stand together, they are a view.
        together = places[-1] - places[0] == len(places) - 1
        of_unit: Any = slice(places[0], places[-1] + 1) if together else places
        truth = None if table.truth is None else windows(table.truth[of_unit], timesteps, stride)
        last = places[last_rows(len(places), timesteps, stride)] + 1
        parts.append(UnitSequences(windows(table.values[of_unit], timesteps, stride), last.tolist(), key, truth))
    if not parts:
        longest = max(map(len, found.values()))
        raise InvalidInput.at(
            f"has no unit with the {timesteps} rows that the model needs for an answer: the longest has {longest}"
        )
    notes = table.notes
    if short:
        more = "" if len(short) <= 10 else f" and {len(short) - 10} more"
        told = (
            f"no answer for {len(short)} of {len(short) + len(parts)} units, of fewer rows than the {timesteps} that "
            f"the model needs: {'; '.join(short[:10])}{more}"
        )
        notes += (told,)
    return Sequences(tuple(parts), "row", by, notes)


def _refuse(table: csv_table.Table, id_limit: int | None, shown: Shown) -> None:
    """Raise InvalidInput with the place of the first value that is no finite float32, or no id."""
    array = table.values
    good = fits(array, id_limit)
    if good.all():
        return
    place = tuple(int(k) for k in np.argwhere(~good)[0])
    if array.ndim == 2:
        where = table.place(*place)
    elif array.ndim == 3:
        where = f"sequence {place[0] + 1}, {csv_table.Table(array[place[0]], table.names).place(*place[1:])}"
    else:
        where = f"place {', '.join(str(k + 1) for k in place)}"
    raise InvalidInput.at(f"{where} holds {shown(str(array[place]))}, and {wanted(id_limit)} was expected")
