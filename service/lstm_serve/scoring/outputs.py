"""Answers written down: a readable table, or .npy, .csv, .json or .parquet. Chunk by chunk, never all at once."""

import csv
import io
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO, assert_never

import numpy as np
import orjson

from lstm_serve.engine.types import Array
from lstm_serve.errors import SettingsError
from lstm_serve.formats import parquet
from lstm_serve.formats.text import shown
from lstm_serve.formats.whole_files import write_whole
from lstm_serve.model.answers import answers, predicted_classes
from lstm_serve.model.kinds import Kind
from lstm_serve.model.model import Model
from lstm_serve.scoring.inputs import Sequences
from lstm_serve.scoring.predict import Chunk, predictions

# What an answer holds, in one format or another.
OWN = frozenset(
    {"row", "step", "steps", "y", "label", "labels", "predicted_class", "probability", "probabilities", "values"}
)


def show(model: Model, sequences: Sequences, out: TextIO) -> None:
    """Write a table for people: unit, number, label, and the probabilities with four digits, or the values.

    A sequence of outputs has a line for each of its steps.
    """
    labels = model.about.classes
    if labels is not None:
        out.writelines(f"class {k}: {label}\n" for k, label in enumerate(labels))
    margin = max(len(sequences.noun), *(len(str(part.numbers[-1])) for part in sequences.parts))
    margins = [
        max(len(_cut(name)), *(len(_cut(part.key[k])) for part in sequences.parts))
        for k, name in enumerate(sequences.by)
    ]
    room = max(map(len, ("class", *(labels or ()))))

    def start(key: Sequence[str], number: int | str) -> list[str]:
        return [*(f"{_cut(cell):<{wide}}" for cell, wide in zip(key, margins, strict=True)), f"{number:>{margin}}"]

    # Where the table itself goes to the terminal, it shows how far the work is.
    for n, chunk in enumerate(predictions(model, sequences, progress=not out.isatty())):
        if n == 0:
            width = chunk.y.shape[-1]
            out.write("  ".join([*start(sequences.by, sequences.noun), *_headings(model.kind, width, room)]) + "\n")
        for key, number, row, answer in zip(chunk.keys, chunk.numbers, chunk.y, answers(model, chunk.y), strict=True):
            out.writelines(
                "  ".join([*start(key, number), *cells]).rstrip() + "\n" for cells in _cells(model, row, answer, room)
            )


def _headings(kind: Kind, width: int, room: int) -> list[str]:
    """What stands above the cells after the number."""
    probabilities, label = [f"{k:>6}" for k in range(width)], f"{'class':<{room}}"
    match kind:
        case "values":
            return ["values"]
        case "labels":
            return [*probabilities, "labels"]
        case "steps":
            return ["step", label, *probabilities]
        case "classes":
            return [label, *probabilities]
        case "binary":
            return [label, "probability"]
        case _:
            assert_never(kind)


def _cells(model: Model, row: Array, answer: dict[str, Any], room: int) -> Iterator[list[str]]:
    """The cells after the number, for each line of an answer; the label is made as wide as `room`."""
    match model.kind:
        case "values":
            for step in row.reshape(-1, row.shape[-1]):
                yield [f"{value:<12.6g}" for value in step]
        case "labels":
            yield [*(f"{value:>6.4f}" for value in row), ", ".join(answer["labels"])]
        case "steps":
            for k, (step, each) in enumerate(zip(row, answer["steps"], strict=True), start=1):
                yield [f"{k:>4}", f"{_label(each):<{room}}", *(f"{value:>6.4f}" for value in step)]
        case "classes" | "binary":
            yield [f"{_label(answer):<{room}}", *(f"{value:>6.4f}" for value in row)]
        case _:
            assert_never(model.kind)


def _label(answer: dict[str, Any]) -> str:
    return str(answer["predicted_class"] if answer["label"] is None else answer["label"])


def _cut(cell: str) -> str:
    """A cell out of a file, fit for a terminal."""
    return shown(cell, 40)


def writes(path: str) -> bool:
    """Whether there is a format for this path's ending."""
    return Path(path).suffix in WRITERS


def write(model: Model, sequences: Sequences, path: str) -> None:
    """Write the answers to a file, in the format that its ending names. It appears whole, or not at all.

    Raises SettingsError where it cannot be written.
    """
    expect_apart(sequences.by)
    write_format = WRITERS[Path(path).suffix]
    _write(Path(path), lambda file: write_format(model, sequences, predictions(model, sequences, progress=True), file))


def expect_apart(by: Iterable[str], own: Collection[str] = OWN) -> None:
    """Raise SettingsError where a key column has the name of something in an answer."""
    for name in by:
        if name in own:
            raise SettingsError(f"--by {name}: the answers have something of that name themselves; rename the column")


def write_report(report: dict[str, Any], path: str) -> None:
    """Write a report as JSON. Raises SettingsError where it cannot be written."""
    write_bytes(orjson.dumps(report, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_INDENT_2) + b"\n", path)


def write_bytes(content: bytes, path: str) -> None:
    """Write a file, whole or not at all. Raises SettingsError where it cannot be written."""
    _write(Path(path), lambda file: file.write(content))


def _write(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    try:
        write_whole({path: fill})
    except OSError as error:
        raise SettingsError(f"{str(path)[:200]}: cannot be written: {error.strerror}") from None


def _npy(_: Model, sequences: Sequences, chunks: Iterable[Chunk], file: BinaryIO) -> None:
    """The raw outputs, float32 (n, *output_shape).

    With keys, records (n,): each key column as text, the `row`, and the output as `y`.
    """
    count = sum(len(part.x) for part in sequences.parts)
    shape: tuple[int, ...] = ()
    for k, chunk in enumerate(chunks):
        if k == 0:
            shape = chunk.y.shape[1:]
            _expect_fields(sequences.by)
            widths = [max(len(part.key[k]) for part in sequences.parts) for k in range(len(sequences.by))]
            keys = [(name, f"<U{width}") for name, width in zip(sequences.by, widths, strict=True)]
            record = np.dtype([*keys, (sequences.noun, "<i8"), ("y", "<f4", shape)])
            form: Any = record.descr if keys else "<f4"
            described = {"descr": form, "fortran_order": False, "shape": (count,) if keys else (count, *shape)}
            np.lib.format.write_array_header_1_0(file, described)
        _expect_shape(chunk, shape, "a .npy file")
        if not sequences.by:
            file.write(chunk.y.astype("<f4").tobytes())
            continue
        records = np.empty(len(chunk.y), record)
        for column, cells in zip(sequences.by, zip(*chunk.keys, strict=True), strict=True):
            records[column] = cells
        records[sequences.noun], records["y"] = chunk.numbers, chunk.y
        file.write(records.tobytes())


def _csv(model: Model, sequences: Sequences, chunks: Iterable[Chunk], file: BinaryIO) -> None:
    """A header, and a line for each answer: its keys, its number, what is predicted, each number of the output.

    Where each step has an answer, it has a line. Several labels are in one cell, with semicolons between them.
    """
    shape: tuple[int, ...] = ()
    for k, chunk in enumerate(chunks):
        if k == 0:
            shape = chunk.y.shape[1:]
            file.write(csv_header(model, sequences.by, sequences.noun, shape).encode())
        if model.kind != "steps":
            _expect_shape(chunk, shape, "a .csv file")
        file.write(csv_lines(model, chunk.keys, chunk.numbers, chunk.y).encode())


def _parquet(model: Model, sequences: Sequences, chunks: Iterable[Chunk], file: BinaryIO) -> None:
    """The columns of a CSV file: keys and labels are text, numbers and classes integers, the values float32."""
    shape: tuple[int, ...] = ()
    with parquet.writing(file) as write:
        for k, chunk in enumerate(chunks):
            shape = shape if k else chunk.y.shape[1:]
            if model.kind != "steps":
                _expect_shape(chunk, shape, "a .parquet file")
            said, values = _said(model, chunk.y), _values(model, chunk.y)
            steps = len(values) // len(chunk.y)
            keys = [[key[n] for key in chunk.keys for _ in range(steps)] for n in range(len(sequences.by))]
            columns: list[parquet.Cells] = [
                *(list[str | None](cells) for cells in keys),
                np.repeat(np.asarray(chunk.numbers, np.int64), steps),
                *(_typed(name, [cells[n] for cells in said]) for n, name in enumerate(SAID[model.kind])),
                *values.T,
            ]
            header = _header(model, sequences.by, sequences.noun, shape)
            write([*zip(header, columns, strict=True)])


def _typed(name: str, cells: list[Any]) -> parquet.Cells:
    return cells if name in {"label", "labels"} else np.array(cells, np.int32)


def csv_header(model: Model, by: Sequence[str], noun: str, shape: Sequence[int]) -> str:
    """The line with the names of the columns, for outputs of this shape."""
    return _csv_line(_header(model, by, noun, shape))


def _header(model: Model, by: Sequence[str], noun: str, shape: Sequence[int]) -> list[str]:
    own = [noun, *SAID[model.kind], *_columns(model, shape)]
    expect_apart(by, own)
    return [*by, *own]


def csv_lines(model: Model, keys: Iterable[Sequence[str]], numbers: Iterable[int], y: Array) -> str:
    """The lines of the answers y (n, *output_shape), which are finite.

    Few keys and labels are written often, and what is made once for each of them is most of what a line costs.
    """
    cells = cache(_cells_before)
    lines = zip(_said(model, y), _written(_values(model, y)), strict=True)
    steps = y.shape[1] if model.kind == "steps" else 1
    return "".join(
        f"{cells(key)}{number},{cells(said)}{written}\n"
        for key, number in zip(map(tuple, keys), numbers, strict=True)
        for said, written in islice(lines, steps)
    )


def _cells_before(cells: tuple[Any, ...]) -> str:
    """Cells of CSV, with the comma after each."""
    return _csv_line([*cells, "."])[: -len(".\n")]


def _csv_line(cells: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _written(values: Array) -> list[str]:
    """Each line of the values (lines, columns), with commas, in the fewest digits that read back as the same float32.

    A number is written as Python writes it. NumPy takes three times as long for those digits, while no other thread
    computes, and its versions do not agree on exponents. Nor do orjson's, so what may have one is written by Python.
    """
    lines = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].decode().split("],[")
    size = np.abs(values)
    for k, column in np.argwhere((size >= 1e6) | ((size < 1e-4) & (size > 0))).tolist():
        cells = lines[k].split(",")
        cells[column] = repr(float(cells[column]))
        lines[k] = ",".join(cells)
    return lines


def _values(model: Model, y: Array) -> Array:
    """The values of each line of the answers: of each answer, or of each of its steps."""
    lines = math.prod(y.shape[:2]) if model.kind == "steps" else len(y)
    return np.ascontiguousarray(y).reshape(lines, -1)


# What stands between the number of an answer and its values, by the kind of the model.
SAID: dict[Kind, list[str]] = {
    "classes": ["label", "predicted_class"],
    "binary": ["label", "predicted_class"],
    "labels": ["labels"],
    "steps": ["step", "label", "predicted_class"],
    "values": [],
}


def _said(model: Model, y: Array) -> list[tuple[Any, ...]]:
    """What `SAID` names, for each line of the answers."""
    names = model.about.classes
    found: Any = predicted_classes(model, y)
    match model.kind:
        case "values":
            return [()] * len(y)
        case "labels":
            assert names is not None  # noqa: S101 - it is what makes the kind
            return [("; ".join(names[k] for k in classes),) for classes in found]
        case "steps":
            return [(n, names and names[k], k) for classes in found for n, k in enumerate(classes, start=1)]
        case "classes" | "binary":
            return [(names and names[k], k) for k in found]
        case _:
            assert_never(model.kind)


def _expect_fields(names: Iterable[str]) -> None:
    """Raise SettingsError where a key column's name is none of a field of NumPy's, whose files have them in Latin-1."""
    for name in names:
        if not name or max(name) > "\xff":
            raise SettingsError(f"--by {name!r}: a .npy file has no form for a column of that name; -o to .csv")


def _expect_shape(chunk: Chunk, shape: tuple[int, ...], what: str) -> None:
    """Raise SettingsError where the units of a model that answers each step have series of different lengths."""
    if chunk.y.shape[1:] != shape:
        raise SettingsError(f"the units' answers are of different lengths, which {what} has no form for; -o to .json")


def _columns(model: Model, shape: Sequence[int]) -> Sequence[str]:
    match model.kind:
        case "binary":
            return ["probability"]
        case "values":
            return [f"value_{'_'.join(map(str, index))}" for index in np.ndindex(*shape)]
        case "classes" | "labels" | "steps":
            return model.about.classes or [f"class_{k}" for k in range(shape[-1])]
        case _:
            assert_never(model.kind)


def _json(model: Model, sequences: Sequences, chunks: Iterable[Chunk], file: BinaryIO) -> None:
    """{"predictions": [...]}, each as it is answered over HTTP; with keys, they and the row come first in each."""
    file.write(b'{"predictions":[')
    for k, chunk in enumerate(chunks):
        listed = answers(model, chunk.y)
        if sequences.by:
            listed = [
                json_object(sequences.by, key, sequences.noun, number, answer)
                for key, number, answer in zip(chunk.keys, chunk.numbers, listed, strict=True)
            ]
        file.write((b"," if k else b"") + orjson.dumps(listed, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1])
    file.write(b"]}\n")


def json_object(
    by: Sequence[str], key: Sequence[str], noun: str, number: int, answer: dict[str, Any]
) -> dict[str, Any]:
    """An answer with its keys and its number before it."""
    return {**dict(zip(by, key, strict=True)), noun: number, **answer}


def json_line(by: Sequence[str], key: Sequence[str], noun: str, number: int, answer: dict[str, Any]) -> str:
    """The same as a line of text."""
    told = json_object(by, key, noun, number, answer)
    return orjson.dumps(told, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE).decode()


WRITERS: dict[str, Callable[[Model, Sequences, Iterable[Chunk], BinaryIO], None]] = {
    ".npy": _npy,
    ".csv": _csv,
    ".json": _json,
    ".parquet": _parquet,
}
