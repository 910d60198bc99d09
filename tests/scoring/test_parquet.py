"""Parquet holds the table that a CSV file does: the same columns, the same answers, the same errors."""

import builtins
import csv
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import ROOT
from small_models import classes, dense, lstm, model, numbers

from lstm_serve import load_model
from lstm_serve.cli.main import main
from lstm_serve.engine.activations import SIGMOID, SOFTMAX
from lstm_serve.errors import InvalidInput, SettingsError
from lstm_serve.formats import parquet
from lstm_serve.model.metadata import About, Feature
from lstm_serve.model.model import Model
from lstm_serve.scoring import evaluate, inputs, labelled, outputs

arrow = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ABOUT = About(name="m", classes=("low", "high"), features=tuple(Feature(name=name) for name in "abc"))
NAMED = classes(about=ABOUT)
X = numbers(30, 3, seed=4)
UNITS = [f"unit {k // 10}" for k in range(30)]
LABELS = [("low", "high")[k % 2] for k in range(30)]
COLUMNS: dict[str, Any] = {"c": X[:, 2], "unit": UNITS, "a": X[:, 0], "b": X[:, 1], "label of it": LABELS}


def written(path: Path, columns: dict[str, Any], **options: Any) -> str:
    if path.suffix == ".parquet":
        pq.write_table(arrow.table(columns), path, **options)
    else:
        with path.open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(columns)
            lines.writerows(zip(*columns.values(), strict=True))
    return str(path)


@pytest.mark.parametrize("by", [(), ("unit",), ("unit", "label of it")])
@pytest.mark.parametrize("stride", [1, 3])
def test_the_windows_are_those_of_a_csv_file(
    tmp_path: Path, by: tuple[str, ...], stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "ROWS_AT_ONCE", 7)
    columns = {f" {name} ": values for name, values in COLUMNS.items()}  # as some tools leave them
    found, wanted = (
        inputs.read(written(tmp_path / name, columns), NAMED, stride, by) for name in ("x.parquet", "x.csv")
    )
    assert (found.noun, found.by, found.notes, found.mixed) == (wanted.noun, wanted.by, wanted.notes, wanted.mixed)
    assert (found.mixed is None) == bool(by)
    for one, other in zip(found.parts, wanted.parts, strict=True):
        assert (one.key, [*one.numbers]) == (other.key, [*other.numbers])
        assert one.x.dtype == np.float32
        np.testing.assert_array_equal(one.x, other.x.astype(np.float32))


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_spaces_around_a_name_on_the_card_are_none_of_it(tmp_path: Path, ending: str) -> None:
    spaced = classes(about=replace(ABOUT, features=tuple(Feature(name=f" {name} ") for name in "abc")))
    for columns in (COLUMNS, {f" {name} ": values for name, values in COLUMNS.items()}):
        path = written(tmp_path / f"x.{ending}", columns)
        (found,), (wanted,) = (inputs.read(path, on).parts for on in (spaced, NAMED))
        np.testing.assert_array_equal(found.x, wanted.x)


def test_of_the_files_of_a_pattern_the_10th_comes_after_the_2nd(tmp_path: Path) -> None:
    written(tmp_path / "whole.parquet", COLUMNS)
    for name, rows in (("2-1", slice(0, 4)), ("2-9", slice(4, 15)), ("02-10", slice(15, 20)), ("10-1", slice(20, 30))):
        written(tmp_path / f"part-{name}.parquet", {name: cells[rows] for name, cells in COLUMNS.items()})
    (found,), (wanted,) = (inputs.read(str(tmp_path / name), NAMED).parts for name in ("part-*", "whole.parquet"))
    np.testing.assert_array_equal(found.x, wanted.x)


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(written(tmp_path / "x.parquet", COLUMNS))
    with path.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        (found,) = inputs.read("-", NAMED).parts
    np.testing.assert_array_equal(found.x[-1], X[-4:])


def test_several_files_are_one_table(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole.parquet", COLUMNS)
    for k, rows in enumerate((slice(0, 4), slice(4, 15), slice(15, 30))):
        written(tmp_path / f"part-{k}.parquet", {name: cells[rows] for name, cells in COLUMNS.items()})
    found, wanted = (inputs.read(str(tmp_path / name), NAMED, 1, ["unit"]) for name in ("part-*", "whole.parquet"))
    for one, other in zip(found.parts, wanted.parts, strict=True):
        assert (one.key, [*one.numbers]) == (other.key, [*other.numbers])
        np.testing.assert_array_equal(one.x, other.x)
    assert whole
    no_hint = {name: cells for name, cells in COLUMNS.items() if name != "unit"}
    for k in range(3):
        written(tmp_path / f"part-{k}.parquet", no_hint)
    assert "may hold rows of two" in (inputs.read(str(tmp_path / "part-*"), NAMED).mixed or "")


@pytest.mark.parametrize("first", [np.int64, np.float32])
def test_a_column_of_whole_numbers_in_one_file_may_have_others_in_the_next(tmp_path: Path, first: type) -> None:
    parts: list[Any] = [numbers(8, 3, seed=5).round().astype(first), numbers(8, 3, seed=6).astype(np.float64)]
    for k, rows in enumerate(parts):
        written(tmp_path / f"part-{k}.parquet", dict(zip("abc", rows.T, strict=True)))
    (found,) = inputs.read(str(tmp_path / "part-*"), NAMED).parts
    np.testing.assert_array_equal(found.x[0], parts[0][:4])
    np.testing.assert_array_equal(found.x[-1], parts[1][-4:])


def test_labels_of_parquet(tmp_path: Path) -> None:
    gaps = [None if k in {4, 17} else label for k, label in enumerate(LABELS)]
    reports = []
    for name, cells in (("x.parquet", gaps), ("x.csv", [label or "" for label in gaps])):
        path = written(tmp_path / name, {**COLUMNS, "label of it": cells})
        reports.append(evaluate.judge(NAMED, labelled.read(path, NAMED, ["label of it"], ["unit"])))
    assert reports[0] == reports[1]
    indices = {**COLUMNS, "label of it": [LABELS.index(label) for label in LABELS]}
    found = labelled.read(written(tmp_path / "i.parquet", indices), NAMED, ["label of it"])
    assert found.parts[0].truth is not None


@pytest.mark.parametrize(
    "of",
    [
        NAMED,
        classes(),
        model([lstm(3, 5), dense(5, 1, SIGMOID)]),
        model([lstm(3, 5), dense(5, 2, SIGMOID)], about=About(name="m", classes=("hot", "loud"))),
        model([lstm(3, 5), dense(5, 2)]),
        model([lstm(3, 5, return_sequences=True), dense(5, 2)]),
        model([lstm(3, 5, return_sequences=True), dense(5, 2, SOFTMAX)], about=ABOUT),
    ],
    ids=["classes", "unnamed", "binary", "labels", "values", "sequence", "steps"],
)
def test_answers_are_the_cells_of_a_csv_file(tmp_path: Path, of: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS_AT_ONCE", 7)
    sequences = inputs.read(
        written(tmp_path / "x.csv", {name: COLUMNS[name] for name in ("a", "b", "c", "unit")}), of, 1, ["unit"]
    )
    outputs.write(of, sequences, str(tmp_path / "y.csv"))
    outputs.write(of, sequences, str(tmp_path / "y.parquet"))
    with (tmp_path / "y.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    table = pq.read_table(tmp_path / "y.parquet")
    assert table.column_names == header
    for column, cells in zip(table.columns, zip(*rows, strict=True), strict=True):
        if column.type == arrow.float32():
            np.testing.assert_array_equal(column.to_numpy(), np.array(cells, np.float32))
        else:
            assert ["" if cell is None else str(cell) for cell in column.to_pylist()] == [*cells]


@pytest.mark.parametrize("units", [[*range(3)], arrow.array(["a", "b", "c"]).dictionary_encode()], ids=["int", "coded"])
def test_columns_of_other_types_that_name_units_are_told_of(tmp_path: Path, units: Any) -> None:
    cells = [units[k // 10] for k in range(30)] if isinstance(units, list) else units.take([k // 10 for k in range(30)])
    found = inputs.read(written(tmp_path / "x.parquet", {**COLUMNS, "unit": cells}), NAMED)
    assert "the column unit, left out, looks as if it told units apart" in (found.mixed or "")


def test_decimals_are_numbers(tmp_path: Path) -> None:
    columns = {name: [Decimal(f"{value:.4f}") for value in COLUMNS[name]] for name in "abc"}
    (found,) = inputs.read(written(tmp_path / "x.parquet", columns), NAMED).parts
    np.testing.assert_allclose(found.x[-1], X[-4:], atol=5.1e-5)


@pytest.mark.parametrize(("most", "groups"), [(1 << 16, 1), (1000, 3)])
def test_few_groups_of_rows(tmp_path: Path, most: int, groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS_AT_ONCE", most)
    x = numbers(3000, 3)
    path = written(tmp_path / "x.parquet", {name: x[:, k] for k, name in enumerate("abc")})
    outputs.write(NAMED, inputs.read(path, NAMED), str(tmp_path / "y.parquet"))
    assert pq.ParquetFile(tmp_path / "y.parquet").num_row_groups == groups
    assert pq.read_table(tmp_path / "y.parquet")["row"].to_pylist() == [*range(4, 3001)]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"a": X[:, 0], "b": X[:, 1]}, "lacks the column c, which the model needs"),
        ({"a": X[:, 0], "b": X[:, 1], "c": ["x"] * 30}, "column 'c' holds string, where numbers were expected"),
        ({"a": X[:, 0], "b": X[:, 1], "c": [True] * 30}, "column 'c' holds bool, where numbers were expected"),
        ({"a": X[:, 0], "b": X[:, 1], "c": [*X[:29, 2].tolist(), None]}, "row 30, column 'c' holds nothing"),
        ({"a": X[:, 0], "b": X[:, 1], "c": [*X[:29, 2].tolist(), np.nan]}, "row 30, column 'c' holds nan"),
        ({"a": X[:0, 0], "b": X[:0, 1], "c": X[:0, 2]}, "has columns and no rows"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, columns: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "ROWS_AT_ONCE", 7)
    path = written(tmp_path / "x.parquet", columns)
    with pytest.raises(InvalidInput, match=rf"x\.parquet: {re.escape(said)}"):
        inputs.read(path, NAMED)


def test_a_key_that_is_empty(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet", {**COLUMNS, "unit": [*UNITS[:29], None]})
    with pytest.raises(InvalidInput, match="row 30, column 'unit' holds nothing"):
        inputs.read(path, NAMED, 1, ["unit"])


def raw(kind: Any, values: Sequence[int]) -> Any:
    """A column of a type that counts, of these counts, of which Python may have none."""
    counts = np.array(values, np.int32 if kind.bit_width == 32 else np.int64)
    return arrow.Array.from_buffers(kind, len(counts), [None, arrow.py_buffer(counts.tobytes())])


@pytest.mark.parametrize(
    ("kind", "count", "cell"),
    [
        (arrow.timestamp("ns"), 1764315216123456789, "2025-11-28 07:33:36.123456789"),
        (arrow.timestamp("us"), 1764315216000000, "2025-11-28 07:33:36"),
        (arrow.timestamp("ns", "UTC"), 1764315216500000000, "2025-11-28 07:33:36.5Z"),
        (arrow.time64("ns"), 123456789, "00:00:00.123456789"),
        (arrow.date32(), 20420, "2025-11-28"),
    ],
    ids=str,
)
def test_times_name_units_and_classes(tmp_path: Path, kind: Any, count: int, cell: str) -> None:
    cells = raw(kind, [count] * 30)
    for column in (cells, cells.dictionary_encode()):
        path = written(tmp_path / "x.parquet", {**COLUMNS, "unit": column})
        assert [part.key for part in inputs.read(path, NAMED, 1, ["unit"]).parts] == [(cell,)]
    of = replace(NAMED, about=replace(ABOUT, classes=(cell, "other")))
    (part,) = labelled.read(path, of, ["unit"]).parts
    assert part.truth is not None
    assert not part.truth.any()


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (raw(arrow.timestamp("ms"), [*range(29), 10**17]), "row 30, column 'unit' holds a timestamp[ms] that is no"),
        (raw(arrow.date32(), [*range(29), 2**31 - 1]), "row 30, column 'unit' holds a date32[day] that is no time"),
        (raw(arrow.duration("ns"), range(30)), "column 'unit' holds duration[ns], where a text, a number or a time"),
        (arrow.array([[1]] * 30), "column 'unit' holds list<"),
        (arrow.array([b"a", b"\xff"] * 15).view(arrow.string()), "column 'unit' holds text that is not UTF-8"),
        (arrow.array([b"a", b"\xff"] * 15), "column 'unit' holds text that is not UTF-8"),
        (arrow.array([b"a", b"\xff"] * 15, arrow.binary(1)), "column 'unit' holds text that is not UTF-8"),
    ],
    ids=["timestamp", "date", "duration", "list", "text", "bytes", "bytes of one length"],
)
def test_what_names_nothing_is_refused(tmp_path: Path, column: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS_AT_ONCE", 7)
    path = written(tmp_path / "x.parquet", {**COLUMNS, "unit": column})
    with pytest.raises(InvalidInput, match=re.escape(f"x.parquet: {said}")):
        inputs.read(path, NAMED, 1, ["unit"])
    with pytest.raises(InvalidInput, match=re.escape(f"x.parquet: {said}")):
        labelled.read(path, NAMED, ["unit"])


@pytest.mark.parametrize("kind", [arrow.binary(), arrow.large_binary(), arrow.binary(6)], ids=str)
def test_bytes_name_units_as_text_does(tmp_path: Path, kind: Any) -> None:
    cells = arrow.array([unit.encode() for unit in UNITS], kind)
    for column in (cells, cells.dictionary_encode()):
        path = written(tmp_path / "x.parquet", {**COLUMNS, "unit": column})
        found = inputs.read(path, NAMED, 1, ["unit"])
        assert [part.key for part in found.parts] == [("unit 0",), ("unit 1",), ("unit 2",)]


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    def write(name: str, *more: str) -> None:
        columns = [*X.T, *(UNITS for _ in more)]
        table = arrow.Table.from_arrays([arrow.array(each) for each in columns], [*"abc", *more])
        pq.write_table(table, tmp_path / name)

    write("1.parquet", "left", "left")
    (part,) = inputs.read(str(tmp_path / "1.parquet"), NAMED).parts
    np.testing.assert_array_equal(part.x[-1], X[-4:])
    path = tmp_path / "x.parquet"
    pq.write_table(arrow.Table.from_arrays([arrow.array(each) for each in X.T], [*"aab"]), path)
    with pytest.raises(InvalidInput, match=r"x\.parquet: has the column 'a' more than once"):
        inputs.read(str(path), classes())
    write("2.parquet", "unit")
    write("3.parquet", "unit", "unit")
    with pytest.raises(InvalidInput, match=r"3\.parquet, has the column 'unit' more than once"):
        inputs.read(str(tmp_path / "[23].parquet"), NAMED, 1, ["unit"])


def test_a_damaged_file(tmp_path: Path) -> None:
    path = Path(written(tmp_path / "x.parquet", COLUMNS))
    data = path.read_bytes()
    for damaged in (data[:-1], data[:40], data[:4], data[: len(data) // 2] + bytes(200) + data[len(data) // 2 + 200 :]):
        path.write_bytes(damaged)
        with pytest.raises(InvalidInput, match=r"x\.parquet: "):
            inputs.read(str(path), NAMED, 1, ["unit"])


@pytest.mark.parametrize("said", [29, 31])
def test_a_file_that_has_other_rows_than_it_says(tmp_path: Path, said: int) -> None:
    path = Path(written(tmp_path / "x.parquet", COLUMNS))
    # In the last part of the file, before the list of its groups of rows, in Thrift's compact form.
    before, after = path.read_bytes().split(b"\x16%c\x19\x1c" % (2 * 30))
    path.write_bytes(before + b"\x16%c\x19\x1c" % (2 * said) + after)
    with pytest.raises(InvalidInput, match=f"says {said} rows, and has others"):
        inputs.read(str(path), NAMED)


def test_more_than_fits_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MAX_BYTES", 30 * 3 * 4 - 1)
    with pytest.raises(InvalidInput, match="has 30 rows of 3 columns, more than 0 GiB of memory"):
        inputs.read(written(tmp_path / "x.parquet", COLUMNS), NAMED)


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    written(tmp_path / "1.parquet", COLUMNS)
    written(tmp_path / "2.parquet", {name: COLUMNS[name] for name in "ab"})
    with pytest.raises(InvalidInput, match=r"2\.parquet, lacks the column 'c'"):
        inputs.read(str(tmp_path / "*.parquet"), NAMED)
    written(tmp_path / "2.csv", COLUMNS)
    with pytest.raises(InvalidInput, match=r"has 2\.csv among 3 files, which is no Parquet"):
        inputs.read(str(tmp_path / "*"), NAMED)
    written(tmp_path / "1.csv", COLUMNS)
    (tmp_path / "3.parquet").mkdir()
    with pytest.raises(InvalidInput, match=r"3\.parquet cannot be read: Is a directory"):
        inputs.read(str(tmp_path / "*.parquet"), NAMED)
    with pytest.raises(InvalidInput, match="says 2 files, and several are read of Parquet alone"):
        inputs.read(str(tmp_path / "*.csv"), NAMED)
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        inputs.read(str(tmp_path / "*.npy"), NAMED)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "x.parquet", COLUMNS)
    imported = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError
        return imported(name, *rest)

    sequences = inputs.read(path, NAMED)
    monkeypatch.setattr(builtins, "__import__", without)
    for use in (lambda: inputs.read(path, NAMED), lambda: outputs.write(NAMED, sequences, str(tmp_path / "y.parquet"))):
        with pytest.raises(SettingsError, match=r"pip install 'lstm-serve\[parquet\]'"):
            use()
    assert not (tmp_path / "y.parquet").exists()
    assert [*tmp_path.glob(".*")] == []


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    golden = np.load(ROOT / "models/turbofan.golden.npz")
    of = load_model(ROOT / "models/turbofan.h5")
    features = of.about.features
    assert features is not None
    for k, series in enumerate(golden["x"][:2]):
        columns = {feature.name: series[:, n].astype(np.float64) for n, feature in enumerate(features)}
        written(tmp_path / f"part-{k}.parquet", {**columns, "unit": [f"u{k}"] * 20})
    assert main(["predict", str(ROOT / "models/turbofan.h5"), "part-*.parquet", "--by", "unit", "-o", "y.parquet"]) == 0
    table = pq.read_table("y.parquet").to_pydict()
    assert table["unit"] == ["u0", "u1"]
    assert table["row"] == [20, 40]
    assert table["predicted_class"] == golden["y"][:2].argmax(axis=1).tolist()


def test_no_file_of_a_pattern_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("part-1", "part-2"):
        (tmp_path / f"{name}.parquet").write_bytes(parquet.MAGIC)
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(ROOT / "models/turbofan.h5"), "part-*.parquet", "-o", "./part-2.parquet"])
    assert (tmp_path / "part-2.parquet").read_bytes() == parquet.MAGIC
