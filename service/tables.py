"""Answers written down: a readable table, or a .npy, .csv or .json file. Chunk by chunk, never all at once."""

import csv
import io
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
import orjson

from service.answers import answers
from service.engine.model import Model
from service.errors import SettingsError
from service.predictions import Chunk, predictions
from service.series import Sequences


def show(model: Model, sequences: Sequences, out: TextIO) -> None:
    """Write a table for people: number, label, and the probabilities with four digits, or the values.

    A sequence of outputs has a line for each of its steps.
    """
    labels = model.about.classes
    if labels is not None:
        out.writelines(f"class {k}: {label}\n" for k, label in enumerate(labels))
    margin = max(len(sequences.noun), len(str(sequences.numbers[-1])))
    room = max(map(len, ("class", *(labels or ()))))
    # Where the table itself goes to the terminal, it shows how far the work is.
    for chunk in predictions(model, sequences, progress=not out.isatty()):
        width = chunk.y.shape[-1]
        if chunk.numbers[0] == sequences.numbers[0]:
            columns = ["values"]
            if model.kind != "values":
                headings = ["probability"] if model.kind == "binary" else [str(k) for k in range(width)]
                columns = [f"{'class':<{room}}", *(f"{heading:>6}" for heading in headings)]
            out.write("  ".join([f"{sequences.noun:>{margin}}", *columns]) + "\n")
        for number, row, answer in zip(chunk.numbers, chunk.y, answers(model, chunk.y), strict=True):
            if model.kind == "values":
                out.writelines(
                    "  ".join([f"{number:>{margin}}", *(f"{value:<12.6g}" for value in step)]).rstrip() + "\n"
                    for step in row.reshape(-1, width)
                )
            else:
                label = answer["predicted_class"] if labels is None else answer["label"]
                cells = [f"{label:<{room}}", *(f"{value:>6.4f}" for value in row)]
                out.write("  ".join([f"{number:>{margin}}", *cells]) + "\n")


def writes(path: str) -> bool:
    """Whether there is a format for this path's ending."""
    return Path(path).suffix in WRITERS


def write(model: Model, sequences: Sequences, path: str) -> None:
    """Write the answers to a file, in the format that its ending names. It appears whole, or not at all.

    Raises SettingsError where it cannot be written.
    """
    with _appearing(Path(path)) as file:
        WRITERS[Path(path).suffix](model, sequences, predictions(model, sequences, progress=True), file)


@contextmanager
def _appearing(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its place once it is whole, and is gone where that fails."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with beside.open("xb") as file:
            try:
                yield file
                file.close()
                beside.replace(path)
            except BaseException:
                beside.unlink()
                raise
    except OSError as error:
        raise SettingsError(f"{str(path)[:200]}: cannot be written: {error.strerror}") from None


def _npy(_: Model, sequences: Sequences, chunks: Iterable[Chunk], file: BinaryIO) -> None:
    """The raw outputs, float32 (n, *output_shape)."""
    for k, chunk in enumerate(chunks):
        if k == 0:
            shape = (len(sequences.x), *chunk.y.shape[1:])
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.write(chunk.y.astype("<f4").tobytes())


def _csv(model: Model, sequences: Sequences, chunks: Iterable[Chunk], file: BinaryIO) -> None:
    """A header, and a line for each answer: its number, label and class, and each number of the output."""
    classified = model.kind != "values"
    for k, chunk in enumerate(chunks):
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        if k == 0:
            start = [sequences.noun, "label", "predicted_class"] if classified else [sequences.noun]
            lines.writerow([*start, *_columns(model, chunk.y.shape[1:])])
        for number, row, answer in zip(chunk.numbers, chunk.y, answers(model, chunk.y), strict=True):
            said = [answer["label"], answer["predicted_class"]] if classified else []
            # As NumPy writes a float32: the fewest digits that read back as the same number.
            lines.writerow([number, *said, *map(str, row.ravel())])
        file.write(text.getvalue().encode())


def _columns(model: Model, shape: tuple[int, ...]) -> Sequence[str]:
    if model.kind == "binary":
        return ["probability"]
    if model.kind == "classes":
        return model.about.classes or [f"class_{k}" for k in range(shape[0])]
    return [f"value_{'_'.join(map(str, index))}" for index in np.ndindex(shape)]


def _json(model: Model, _: Sequences, chunks: Iterable[Chunk], file: BinaryIO) -> None:
    """{"predictions": [...]}, each as it is answered over HTTP."""
    file.write(b'{"predictions":[')
    for k, chunk in enumerate(chunks):
        listed = orjson.dumps(answers(model, chunk.y), option=orjson.OPT_SERIALIZE_NUMPY)
        file.write((b"," if k else b"") + listed[1:-1])
    file.write(b"]}\n")


WRITERS: dict[str, Callable[[Model, Sequences, Iterable[Chunk], BinaryIO], None]] = {
    ".npy": _npy,
    ".csv": _csv,
    ".json": _json,
}
