"""Inputs with what is right for each: columns of a CSV file, or the y of a .npz file, made into numbers of one form.

That is float64 (n, ..., L): of the kinds `classes`, `steps` and `binary` the index of the class, L = 1; of `labels` a 0
or a 1 for each class; of `values` the target for each. NaN is what nobody knows.
"""

import io
from collections.abc import Sequence
from typing import assert_never

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.types import AnyArray, Floats
from lstm_serve.errors import InvalidInput, UnreadableFile
from lstm_serve.formats import csv_layout, csv_table, zip_file
from lstm_serve.formats.npy import read_npz
from lstm_serve.loading.sidecars.golden import array_names
from lstm_serve.model.inputs import fits, wanted
from lstm_serve.model.kinds import has_one_class
from lstm_serve.model.model import Model
from lstm_serve.scoring import inputs
from lstm_serve.scoring.inputs import Sequences, UnitSequences

# Truth values as pandas and Parquet write them, where there are two classes.
TRUTH = {"false": 0, "true": 1}
TARGET = f"{wanted(None)}, or NaN where it is not known,"


def read(source: str, model: Model, label: Sequence[str], by: Sequence[str] = ()) -> Sequences:
    """The sequences of a CSV file whose columns `label` say what is right, or of a .npz file with x and y.

    A window's label is that of its last row; where the model answers each step, each row's counts. Raises InvalidInput.
    """
    model.expect_one("an evaluation")
    label, by = tuple(dict.fromkeys(label)), tuple(dict.fromkeys(by))
    with inputs.naming_source(source):
        data = inputs.content(source)
        if isinstance(data, bytes) and data.startswith(zip_file.MAGIC):
            if label or by:
                raise InvalidInput.at("is a .npz file, whose y says what is right: leave --label and --by out")
            return _of_arrays(data, model)
        _expect_columns(model, label)
        cells = _Cells(model)
        table = inputs.decoded(data, model, csv_layout.NamedColumns(by, label, cells.number))
        if table.truth is None:
            raise InvalidInput.at(
                "has no columns with names; --label takes those of a CSV file or Parquet, or give a .npz with x and y"
            )
        truth = _targets(table, label) if model.kind == "values" else cells.classes(table, label)
        found = inputs.sequences(table._replace(truth=truth), model, 1, by)
        return found._replace(parts=tuple(_as_answered(part, model) for part in found.parts))


def _of_arrays(data: bytes, model: Model) -> Sequences:
    try:
        arrays = read_npz(io.BytesIO(data))
    except UnreadableFile as error:
        raise InvalidInput.at(str(error)) from None
    (called_x,), (called_y,) = array_names(model)
    x, y = (next((arrays[name] for name in called if name in arrays), None) for called in (called_x, called_y))
    if x is None or y is None:
        raise InvalidInput.at(
            f"should hold x and y, as model.evaluate(x, y) takes them; it has {', '.join(arrays)[:200] or 'none'}"
        )
    return of_arrays(model, x, y)


def of_arrays(model: Model, x: npt.ArrayLike, y: npt.ArrayLike) -> Sequences:
    """x (n, *input_shape), and for each what is right: an index, a one-hot row, or targets. Raises InvalidInput."""
    model.expect_one("an evaluation")
    given = model.checked(x)
    truth = _truth(model, np.asarray(y), (len(given), *model.output_shapes_for(given.shape[1:])[0]))
    return Sequences((UnitSequences(given, range(1, len(given) + 1), truth=truth),), "sequence")


def _truth(model: Model, y: AnyArray, shape: tuple[int | None, ...]) -> Floats:
    """Return y in the one form, for an output of this shape."""
    if y.dtype.kind not in "fiub":
        raise InvalidInput.at(f"has a y of {y.dtype}, where numbers were expected")
    count = _count(model)
    if not has_one_class(model.kind):
        if y.shape == shape[:-1] and shape[-1] == 1:
            y = y[..., np.newaxis]
        if y.shape != shape:
            raise InvalidInput.at(f"has a y of shape {y.shape}, and the model answers {shape}")
        _expect_numbers(y, count)
        return y.astype(np.float64)
    if y.shape == shape[:-1]:
        y = y[..., np.newaxis]
    if y.shape == (*shape[:-1], 1):
        _expect_numbers(y, count)
        return y.astype(np.float64)
    if y.shape != shape:
        raise InvalidInput.at(f"has a y of shape {y.shape}; expected indices, {shape[:-1]}, or one-hot, {shape}")
    return _of_one_hot(y)


def _of_one_hot(y: AnyArray) -> Floats:
    """The indices (..., 1) of one-hot rows; NaN of a row of NaN. Raises InvalidInput."""
    unknown = np.isnan(y).all(axis=-1)
    if not (unknown | (((y == 0) | (y == 1)).all(axis=-1) & (y.sum(axis=-1) == 1))).all():
        raise InvalidInput.at(
            f"has a y of shape {y.shape} that is no one-hot: a 1 in each row, else 0, or a row of NaN, was expected"
            f"{_of_predictions(y)}"
        )
    index: Floats = np.where(unknown, np.nan, y.argmax(axis=-1))
    return index[..., np.newaxis]


def _expect_numbers(y: AnyArray, count: int | None) -> None:
    """Raise InvalidInput unless y has indices below the count, or targets where there is none."""
    if count is not None:
        _expect_indices(y, count)
    elif (place := _first_beyond(y)) is not None:
        raise InvalidInput.at(f"has {y[place]} at {', '.join(map(str, place))} of y, where {TARGET} was expected")


def _targets(table: csv_table.Table, columns: Sequence[str]) -> Floats:
    """The targets of a table. Raises InvalidInput where one is not finite."""
    truth = table.truth
    assert truth is not None  # noqa: S101 - it was read
    if (place := _first_beyond(truth)) is not None:
        where = _of_labels(table, columns).place(*place)
        raise InvalidInput.at(f"{where} holds {truth[place]}, where {TARGET} was expected")
    return truth


def _first_beyond(targets: AnyArray) -> tuple[int, ...] | None:
    """The place of the first target that no answer can be, or None; NaN is what nobody knows."""
    wrong = ~(fits(targets, None) | np.isnan(targets))
    return tuple(map(int, np.argwhere(wrong)[0])) if wrong.any() else None


def _of_labels(table: csv_table.Table, columns: Sequence[str]) -> csv_table.Table:
    """What says where in a table its labels are."""
    return csv_table.Table(np.empty(0), tuple(columns), lines=table.lines)


def _of_predictions(y: AnyArray) -> str:
    """A hint where what should be classes are fractions between 0 and 1."""
    known = y[~np.isnan(y)]
    fractions = ((known >= 0) & (known <= 1)).all() and (known != np.floor(known)).any()
    return ". These look like predictions; y should be labels" if fractions else ""


def _expect_indices(y: AnyArray, count: int) -> None:
    wrong = ~(np.isnan(y) | ((y >= 0) & (y < count) & (y == np.floor(y))))
    if wrong.any():
        place = np.argwhere(wrong)[0]
        where = ", ".join(map(str, place))
        raise InvalidInput.at(
            f"has {y[tuple(place)]} at {where} of y, where an integer from 0 to {count - 1} was expected"
            f"{_of_predictions(y)}"
        )


def _count(model: Model) -> int | None:
    """How many values a label may have: that of a class, or of labels of which each is true or not; None of targets."""
    match model.kind:
        case "classes" | "steps":
            return model.output_shape[-1] or 0
        case "binary" | "labels":
            return 2
        case "values":
            return None
        case _:
            assert_never(model.kind)


def _expect_columns(model: Model, label: Sequence[str]) -> None:
    """Raise InvalidInput unless there is a column for each number of the truth, and a row of the table has it."""
    count = 1 if has_one_class(model.kind) else model.output_shape[-1] if model.output_shape else None
    if len(model.output_shape) > 2:
        raise InvalidInput.at(
            f"is no .npz with x and y, and no other holds what is right for outputs of {model.output_shape}"
        )
    if not label:
        raise InvalidInput.at("is to be held against what is right: name the column that says it with --label")
    if len(label) != count:
        each = ": a 0 or a 1 for each class, in their order" if model.kind == "labels" else ""
        raise InvalidInput.at(f"is given {len(label)} --label columns, and the model's answers take {count}{each}")


def _as_answered(part: UnitSequences, model: Model) -> UnitSequences:
    """The part, its truth (n, T, L) cut to what is answered: each step, or after the last."""
    truth = part.truth
    assert truth is not None  # noqa: S101 - the table had it
    (shape,) = model.output_shapes_for(part.x.shape[1:])
    if len(shape) == 1:
        return part._replace(truth=truth[:, -1])
    if truth.shape[1] != shape[0]:
        raise InvalidInput.at(
            f"says what is right for {truth.shape[1]} steps, and the model answers {shape[0]}: give a .npz"
        )
    return part


class _Cells:
    """The labels of a CSV file: names of classes, or all of them indices. Which, only the whole file tells."""

    def __init__(self, model: Model) -> None:
        """No cell has been read yet."""
        self.number = csv_layout.to_number if model.kind == "values" else self._code
        self._names = model.about.classes if has_one_class(model.kind) else None
        self._count = _count(model) or 0
        self._codes: dict[str, int] = {}

    def _code(self, cell: str) -> float:
        return self._codes.setdefault(cell, len(self._codes))

    def classes(self, table: csv_table.Table, columns: Sequence[str]) -> Floats:
        """The index of each label of a table that was read with `number`. Raises InvalidInput at the first unknown."""
        codes, names = table.truth, self._names or ()
        assert codes is not None  # noqa: S101 - it was read
        by_name = [names.index(cell) if cell in names else None for cell in self._codes]
        by_index = [self._index(cell) for cell in self._codes]
        # All of one form: the one that fits more of them, so that a slip is what is told.
        indices = min(by_name, by_index, key=lambda found: found.count(None))
        wrong = np.isin(codes, [k for k, index in enumerate(indices) if index is None])
        if wrong.any():
            row, column = (int(k) for k in np.argwhere(wrong)[0])
            cell = [*self._codes][int(codes[row, column])]
            known = f"an index from 0 to {self._count - 1}"
            if names:
                known = f"one of the classes, {'; '.join(names)[:300]}, or in all rows {known}"
            where = _of_labels(table, columns).place(row, column)
            raise InvalidInput.at(f"{where} holds {cell[:60]!r}, where {known} was expected")
        made = np.array([*indices, np.nan], np.float64)
        return made[np.where(np.isnan(codes), len(indices), codes).astype(np.int64)]

    def _index(self, cell: str) -> int | None:
        if self._count == len(TRUTH) and (truth := TRUTH.get(cell.lower())) is not None:
            return truth
        try:
            value = csv_layout.to_number(cell)
        except ValueError:
            return None
        return int(value) if value in range(self._count) else None
