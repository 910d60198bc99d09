import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from small_models import classes, dense, lstm, model, numbers

from lstm_serve.engine.activations import SIGMOID, SOFTMAX
from lstm_serve.engine.types import Array
from lstm_serve.errors import InvalidInput, NotFinite, SettingsError
from lstm_serve.model.answers import answers
from lstm_serve.model.metadata import About
from lstm_serve.model.model import Model
from lstm_serve.scoring import outputs, predict
from lstm_serve.scoring.inputs import Sequences, UnitSequences
from lstm_serve.scoring.predict import predictions as predicted

LABELLED = classes(about=About(name="m", classes=("low", "very, very high")))
BINARY = model([lstm(3, 5), dense(5, 1, SIGMOID)])
LABELS = model([lstm(3, 5), dense(5, 2, SIGMOID)], about=About(name="m", classes=("hot", "loud")))
VALUES = model([lstm(3, 5), dense(5, 2)])
STEPS = model([lstm(3, 5, return_sequences=True), dense(5, 2)])
EACH_STEP = model([lstm(3, 5, return_sequences=True), dense(5, 2, SOFTMAX)], about=About(name="m", classes=("a", "b")))
X = numbers(6, 4, 3, seed=9)
WINDOWS = Sequences((UnitSequences(X, range(4, 10)),), "row")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(on: Model, sequences: Sequences = WINDOWS) -> list[str]:
    out = io.StringIO()
    outputs.show(on, sequences, out)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("size", [1, 4, 1024])
def test_a_table_of_classes_has_the_row_the_label_and_each_probability(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "SEQUENCES_AT_ONCE", size)
    lines = shown(LABELLED)
    assert lines[:2] == ["class 0: low", "class 1: very, very high"]
    assert lines[2].split() == ["row", "class", "0", "1"]
    y = LABELLED.predict(X)
    for k, line in enumerate(lines[3:]):
        label = ("low", "very, very high")[int(y[k].argmax())]
        assert line == f"{k + 4:>3}  {label:<15}  {y[k, 0]:.4f}  {y[k, 1]:.4f}"


def test_a_table_without_labels_has_the_numbers_of_the_classes() -> None:
    lines = shown(classes(), Sequences((UnitSequences(X, range(1, 7)),), "sequence"))
    assert lines[0].split() == ["sequence", "class", "0", "1"]
    assert [line.split()[1] for line in lines[1:]] == [str(k) for k in classes().predict(X).argmax(axis=1)]


def test_a_table_of_a_binary_model_has_the_probability() -> None:
    lines = shown(BINARY)
    y = BINARY.predict(X)
    assert lines[0].split() == ["row", "class", "probability"]
    assert lines[1].split() == ["4", str(int(y[0, 0] >= 0.5)), f"{y[0, 0]:.4f}"]


def test_a_table_of_values_has_a_line_a_step() -> None:
    assert shown(VALUES)[1].split() == ["4", *(f"{value:.6g}" for value in VALUES.predict(X)[0])]
    lines = shown(STEPS)
    assert len(lines) == 1 + 6 * 4
    assert lines[4].split() == ["4", *(f"{value:.6g}" for value in STEPS.predict(X)[0, 3])]


@pytest.mark.parametrize("on", [LABELLED, BINARY, VALUES, STEPS])
@pytest.mark.parametrize("size", [1, 4, 1024])
def test_npy_is_the_raw_output(tmp_path: Path, on: Model, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "SEQUENCES_AT_ONCE", size)
    out = tmp_path / "out.npy"
    outputs.write(on, WINDOWS, str(out))
    written: Array = np.load(out)
    assert written.dtype == np.float32
    np.testing.assert_allclose(written, on.predict(X), atol=1e-6)


@pytest.mark.parametrize("size", [1, 4, 1024])
def test_csv_has_a_header_and_numbers_that_read_back(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "SEQUENCES_AT_ONCE", size)
    out = tmp_path / "out.csv"
    outputs.write(LABELLED, WINDOWS, str(out))
    header, *rows = list(csv.reader(out.read_text("utf-8").splitlines()))
    assert header == ["row", "label", "predicted_class", "low", "very, very high"]
    assert [row[0] for row in rows] == ["4", "5", "6", "7", "8", "9"]
    y = LABELLED.predict(X)
    assert [row[2] for row in rows] == [str(k) for k in y.argmax(axis=1)]
    np.testing.assert_allclose(np.array([row[3:] for row in rows], np.float32), y, atol=1e-6)


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        (classes(), "row,label,predicted_class,class_0,class_1"),
        (BINARY, "row,label,predicted_class,probability"),
        (VALUES, "row,value_0,value_1"),
        (STEPS, "row,value_0_0,value_0_1,value_1_0,value_1_1,value_2_0,value_2_1,value_3_0,value_3_1"),
    ],
)
def test_csv_columns_of_each_kind(tmp_path: Path, on: Model, expected: str) -> None:
    out = tmp_path / "out.csv"
    outputs.write(on, WINDOWS, str(out))
    header, first, *_ = out.read_text("utf-8").splitlines()
    assert header == expected
    assert len(first.split(",")) == len(expected.split(","))


@pytest.mark.parametrize(
    "value",
    [0.1, 1e-4, 9.9999e-5, 1.5e-5, -2.5e-7, 1e-45, 999999.94, 1e6, 1.6777216e7, -1.5e13, 1e16, 3.4e38, 1.0, 0.0, -0.0],
)
def test_csv_values_have_the_fewest_digits_and_an_exponent_where_python_gives_one(value: float) -> None:
    y = np.full((1, 2), value, np.float32)
    fewest = repr(float(np.format_float_scientific(y[0, 0], unique=True)))
    assert outputs.csv_lines(VALUES, [()], [1], y) == f"1,{fewest},{fewest}\n"


@pytest.mark.parametrize("size", [1, 4, 1024])
def test_json_is_what_http_answers(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "SEQUENCES_AT_ONCE", size)
    out = tmp_path / "out.json"
    outputs.write(LABELLED, WINDOWS, str(out))
    parsed = json.loads(out.read_bytes())
    assert list(parsed) == ["predictions"]
    y = LABELLED.predict(X)
    for row, answer in zip(y, parsed["predictions"], strict=True):
        k = int(row.argmax())
        assert list(answer) == ["probabilities", "predicted_class", "label"]
        assert answer["predicted_class"] == k
        assert answer["label"] == ("low", "very, very high")[k]
        np.testing.assert_allclose(answer["probabilities"], row, atol=1e-6)
    outputs.write(BINARY, WINDOWS, str(out))
    assert json.loads(out.read_bytes())["predictions"][0]["label"] is None


def test_an_ending_decides_what_is_written() -> None:
    assert [outputs.writes(f"x{ending}") for ending in (".npy", ".csv", ".json", ".txt", "")] == [True] * 3 + [
        False
    ] * 2


@pytest.fixture
def overflowing() -> Model:
    return model([dense(3, 2)], (3,))


def test_an_output_that_is_not_finite_names_its_row_and_leaves_no_file(tmp_path: Path, overflowing: Model) -> None:
    x = np.ones((5, 3), np.float32)
    x[3] = 3e38
    out = tmp_path / "out.json"
    out.write_text("before")
    # The sum of three such numbers may cancel, so all of them are made to count.
    overflowing.nodes[0].operation.weights["kernel"][:] = 2
    with pytest.raises(NotFinite, match="the answer for row 4 is not finite"):
        outputs.write(overflowing, Sequences((UnitSequences(x, range(1, 6)),), "row"), str(out))
    assert out.read_text() == "before"
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_that_cannot_be_written_is_an_error_of_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be written: No such file"):
        outputs.write(VALUES, WINDOWS, str(tmp_path / "none" / "out.npy"))
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(SettingsError, match="cannot be written: Is a directory"):
        outputs.write(VALUES, WINDOWS, str(tmp_path / "folder.npy"))
    assert [path.name for path in tmp_path.iterdir()] == ["folder.npy"]


@pytest.mark.parametrize("letter", ["a", "計", "𝄞"])
def test_a_name_as_long_as_a_file_may_have(tmp_path: Path, letter: str) -> None:
    name = f"{letter * (251 // len(letter.encode()))}.npy"
    outputs.write(VALUES, WINDOWS, str(tmp_path / name))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_the_model_refuses_is_told_with_its_place_in_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "SEQUENCES_AT_ONCE", 4)
    bad = X.copy()
    bad[5] = np.nan
    with pytest.raises(InvalidInput, match=r"^among rows 8 to 9: expected finite float32 numbers, got another at "):
        list(predicted(VALUES, WINDOWS._replace(parts=(UnitSequences(bad, range(4, 10)),)), progress=False))


@pytest.mark.parametrize(("progress", "shows"), [(True, True), (False, False)])
def test_a_bar_shows_on_a_terminal_where_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, *, progress: bool, shows: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    list(predicted(VALUES, WINDOWS, progress=progress))
    assert terminal.getvalue() == ""
    monkeypatch.setattr(predict, "PATIENCE", 0)
    list(predicted(VALUES, WINDOWS, progress=progress))
    assert ("predict" in terminal.getvalue()) is shows


def test_no_bar_where_standard_error_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    monkeypatch.setattr(predict, "PATIENCE", 0)
    list(predicted(VALUES, WINDOWS, progress=True))
    assert file.getvalue() == ""


# Units

UNITS = Sequences(
    (UnitSequences(X[:2], [4, 5], ("a", "left")), UnitSequences(X[2:5], [12, 14, 16], ("bb", "right"))),
    "row",
    ("unit", "side"),
)
KEYS = [("a", "left")] * 2 + [("bb", "right")] * 3


def test_a_table_has_the_keys_in_front() -> None:
    lines = shown(classes(), UNITS)
    assert lines[0] == "unit  side   row  class       0       1"
    assert [tuple(line.split()[:3]) for line in lines[1:]] == [
        (*key, str(number)) for key, number in zip(KEYS, (4, 5, 12, 14, 16), strict=True)
    ]
    assert [line.split()[:3] for line in shown(STEPS, UNITS)[1:5]] == [["a", "left", "4"]] * 4
    assert shown(VALUES, UNITS)[0].split() == ["unit", "side", "row", "values"]


@pytest.mark.parametrize("on", [LABELLED, BINARY, VALUES, STEPS])
@pytest.mark.parametrize("size", [1, 4, 1024])
def test_keys_are_in_every_file(tmp_path: Path, on: Model, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "SEQUENCES_AT_ONCE", size)
    expected = on.predict(X[:5])
    outputs.write(on, UNITS, str(tmp_path / "out.csv"))
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:3] == ["unit", "side", "row"]
    outputs.write(on, UNITS, str(tmp_path / "out.json"))
    listed = json.loads((tmp_path / "out.json").read_bytes())["predictions"]
    outputs.write(on, UNITS, str(tmp_path / "out.npy"))
    records = np.load(tmp_path / "out.npy", allow_pickle=False)
    assert records.dtype.names == ("unit", "side", "row", "y")
    for found in (rows, listed, records):
        assert [(each["unit"], each["side"]) for each in found] == KEYS
        assert [int(each["row"]) for each in found] == [4, 5, 12, 14, 16]
    np.testing.assert_allclose(records["y"], expected, atol=1e-6)
    assert [{*each} - {"unit", "side", "row"} for each in listed] == [{*answer} for answer in answers(on, expected)]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_each_step_has_a_line_with_its_number_and_its_keys(tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"out{ending}"
    outputs.write(EACH_STEP, UNITS, str(out))
    if ending == ".csv":
        rows = list(csv.DictReader(out.read_text("utf-8").splitlines()))
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(out).to_pylist()
    y = EACH_STEP.predict(X[:5])
    expected = [
        (*key, number, k + 1, "ab"[row[k].argmax()], *map(float, row[k]))
        for key, number, row in zip(KEYS, (4, 5, 12, 14, 16), y, strict=True)
        for k in range(4)
    ]
    assert [
        (row["unit"], row["side"], int(row["row"]), int(row["step"]), row["label"], *map(float, (row["a"], row["b"])))
        for row in rows
    ] == [(*each[:5], *(pytest.approx(value, abs=1e-6) for value in each[5:])) for each in expected]


NAMES_IN_ANSWERS = {
    name
    for on in (LABELLED, BINARY, LABELS, VALUES, EACH_STEP)
    for answer in answers(on, on.predict(X[:1]))
    for name in ("row", "step", "y", *answer)
}


@pytest.mark.parametrize("name", sorted(NAMES_IN_ANSWERS))
def test_a_key_column_that_is_called_as_a_part_of_an_answer_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=f"--by {name}: the answers have something of that name themselves"):
        outputs.write(LABELLED, UNITS._replace(by=("unit", name)), str(tmp_path / "out.json"))


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize(("on", "name"), [(LABELLED, "low"), (VALUES, "value_0")])
def test_no_column_of_a_table_stands_there_twice(tmp_path: Path, on: Model, name: str, ending: str) -> None:
    named = UNITS._replace(by=("unit", name))
    with pytest.raises(SettingsError, match=f"--by {name}: the answers have something of that name themselves"):
        outputs.write(on, named, str(tmp_path / f"out{ending}"))
    assert list(tmp_path.iterdir()) == []
    outputs.write(on, named, str(tmp_path / "out.json"))


def test_a_link_to_a_table_stays_one(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    link, table = tmp_path / "out.csv", tmp_path / "kept" / "table"
    link.symlink_to(Path("kept", "table"))
    for before in (None, "old"):
        if before is not None:
            table.write_text(before)
        outputs.write(LABELLED, WINDOWS, str(link))
        assert (link.is_symlink(), [*(tmp_path / "kept").iterdir()]) == (True, [table])
        assert table.read_text("utf-8").startswith("row,label,")


@pytest.mark.parametrize("name", ["", "電機"])
def test_a_column_that_is_no_field_of_numpys_goes_to_csv(tmp_path: Path, name: str) -> None:
    named = UNITS._replace(by=("unit", name))
    with pytest.raises(SettingsError, match=f"--by '{name}': a .npy file has no form for a column of that name"):
        outputs.write(LABELLED, named, str(tmp_path / "out.npy"))
    assert list(tmp_path.iterdir()) == []
    outputs.write(LABELLED, named, str(tmp_path / "out.csv"))
    assert (tmp_path / "out.csv").read_text("utf-8").startswith(f"unit,{name},")


def test_answers_of_different_lengths_go_to_json_alone(tmp_path: Path) -> None:
    free = model([lstm(3, 5, return_sequences=True), dense(5, 2)], (None, 3))
    ragged = UNITS._replace(parts=(UnitSequences(X[:1, :2], [2], ("a", "b")), UnitSequences(X[:1], [6], ("c", "d"))))
    for ending in (".csv", ".npy"):
        with pytest.raises(SettingsError, match="of different lengths"):
            outputs.write(free, ragged, str(tmp_path / f"out{ending}"))
    assert list(tmp_path.iterdir()) == []
    outputs.write(free, ragged, str(tmp_path / "out.json"))
    listed = json.loads((tmp_path / "out.json").read_bytes())["predictions"]
    assert [len(each["values"]) for each in listed] == [2, 4]
