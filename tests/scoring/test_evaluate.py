"""Figures of `evaluate`, held against scikit-learn; what it reads, and what it refuses."""

import importlib
import json
import math
import os
import re
import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_models import classes, dense, lstm, model, numbers

import lstm_serve
from lstm_serve.cli.main import main
from lstm_serve.engine.activations import LINEAR, SIGMOID, SOFTMAX
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.pointwise import Unscaling
from lstm_serve.engine.operations.temporal import Embedding
from lstm_serve.errors import InvalidInput, SettingsError
from lstm_serve.formats import csv_table
from lstm_serve.model.metadata import About, Feature
from lstm_serve.model.model import Model
from lstm_serve.scoring import evaluate, evaluation_text, figures, inputs, labelled, predict

# scikit-learn says of float32's probabilities, made float64, that they do not add up to one.
pytestmark = pytest.mark.filterwarnings("ignore:The y_prob values do not sum to one")

Numbers = NDArray[Any]

NAMES = ("alpha", "beta", "gamma")
FEATURES = tuple(Feature(name=name) for name in NAMES)
BANDS = ("low", "middle", "high", "top")
FOUR = model([lstm(3, 5), dense(5, 4, SOFTMAX)], about=About(name="m", classes=BANDS, features=FEATURES))
BINARY = model([lstm(3, 5), dense(5, 1, SIGMOID)], about=About(name="m", threshold=0.45))
LABELS = model([lstm(3, 5), dense(5, 4, SIGMOID)], about=About(name="m", classes=BANDS, features=FEATURES))
STEPS = model(
    [lstm(3, 5, return_sequences=True), dense(5, 4, SOFTMAX)],
    about=About(name="m", classes=BANDS, features=FEATURES),
)
VALUES = model([lstm(3, 5), dense(5, 2)], about=About(name="m", features=FEATURES))
IDS = model(
    [
        Embedding(name="e", keras_class="Embedding", embeddings=numbers(9, 3, seed=7), mask_zero=False),
        lstm(3, 5),
        dense(5, 4, SOFTMAX),
    ],
    (6,),
)


def metrics() -> Any:
    """scikit-learn's, which take seconds to come in: only a worker that runs one of these tests waits for them."""
    return importlib.import_module("sklearn.metrics")


def agree(ours: float | None, theirs: float) -> None:
    assert ours is not None
    assert abs(ours - theirs) <= 1e-9


def drawn(seed: int, rows: int = 400) -> tuple[Numbers, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 3, (rows, 4, 3)).astype(np.float32), rng


def expect_as_sklearn(report: dict[str, Any], right: Numbers, p: Numbers, answer: Numbers, names: Any) -> None:
    """Each figure of one class of several, from the same float64 array p (m, C)."""
    count = p.shape[1]
    agree(report["accuracy"], metrics().accuracy_score(right, answer))
    agree(report["macro_f1"], metrics().f1_score(right, answer, average="macro", zero_division=0))
    agree(report["log_loss"], metrics().log_loss(right, p, labels=range(count)))
    assert report["confusion"] == metrics().confusion_matrix(right, answer, labels=range(count)).tolist()
    precision, recall, f1, rows = metrics().precision_recall_fscore_support(
        right, answer, labels=range(count), zero_division=np.nan
    )
    for k, one in enumerate(report["classes"]):
        assert (one["class"], one["label"], one["rows"]) == (k, names and names[k], rows[k])
        for key, theirs in (("precision", precision[k]), ("recall", recall[k]), ("f1", f1[k])):
            if np.isnan(theirs):
                assert one[key] is None
            else:
                agree(one[key], theirs)
    sure = p[np.arange(len(p)), answer]
    was_right, said = importlib.import_module("sklearn.calibration").calibration_curve(answer == right, sure, n_bins=10)
    table = [one for one in report["calibration"] if one["rows"]]
    sizes = np.array([one["rows"] for one in table])
    assert sizes.sum() == len(right)
    for one, right_of, said_of in zip(table, was_right, said, strict=True):
        agree(one["accuracy"], right_of)
        agree(one["probability"], said_of)
    agree(report["ece"], float((sizes * np.abs(was_right - said)).sum() / len(right)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("form", ["indices", "column", "one-hot"])
def test_the_figures_of_classes_are_those_of_scikit_learn(seed: int, form: str) -> None:
    x, rng = drawn(seed)
    right = rng.integers(0, 3, len(x))  # one class is never right
    y = {"indices": right, "column": right[:, np.newaxis], "one-hot": np.eye(4)[right]}[form]
    report = lstm_serve.evaluate(FOUR, x, y)
    p = FOUR.predict(x).astype(np.float64)
    expect_as_sklearn(report, right, p, p.argmax(axis=1), BANDS)
    agree(report["within_one"], float(np.mean(np.abs(p.argmax(axis=1) - right) <= 1)))
    assert (report["kind"], report["answers"], report["left_out"]) == ("classes", len(x), 0)


@pytest.mark.parametrize("seed", range(3))
def test_the_figures_of_a_binary_model_are_those_of_scikit_learn(seed: int) -> None:
    x, rng = drawn(seed)
    x[::3] = x[0]  # ties of the probability
    right = rng.integers(0, 2, len(x))
    report = lstm_serve.evaluate(BINARY, x, right)
    p = BINARY.predict(x)[:, 0]
    answer = (p >= np.float32(0.45)).astype(int)
    p = p.astype(np.float64)
    expect_as_sklearn(report, right, np.stack([1 - p, p], axis=1), answer, None)
    agree(report["roc_auc"], metrics().roc_auc_score(right, p))
    agree(report["precision"], metrics().precision_score(right, answer))
    agree(report["recall"], metrics().recall_score(right, answer))
    agree(report["specificity"], metrics().recall_score(right, answer, pos_label=0))
    assert report["threshold"] == 0.45
    assert "within_one" not in report


def test_a_bin_of_the_calibration_is_without_its_lower_edge() -> None:
    edges = np.linspace(0, 1, figures.BINS + 1)[6:]  # the probability of the class answered is at least a half
    over = np.nextafter(edges[:-1].astype(np.float32), np.float32(1))
    counted = figures.counter(BINARY)
    for probability in (*edges, *over.astype(np.float64)):
        y: Any = np.array([[probability]])  # of float64, since an edge is no float32
        counted.add(y, np.ones((1, 1)))
    rows = [one["rows"] for one in counted.figures()["calibration"]]
    assert rows == [0, 0, 0, 0, 0, 1, 2, 2, 2, 2]


def test_of_one_class_alone_there_is_no_roc_auc() -> None:
    x, _ = drawn(0, 5)
    report = lstm_serve.evaluate(BINARY, x, np.ones(5))
    assert (report["roc_auc"], report["specificity"]) == (None, None)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=60))
def test_roc_auc_with_ties_is_that_of_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([s / 4 for s, _ in pairs]), np.array([p for _, p in pairs])
    found = figures.roc_auc(scores, positive)
    if positive.all() or not positive.any():
        assert found is None
    else:
        agree(found, metrics().roc_auc_score(positive, scores))


def test_the_figures_of_labels_are_those_of_scikit_learn() -> None:
    x, rng = drawn(4)
    right = rng.integers(0, 2, (len(x), 4))
    report = lstm_serve.evaluate(LABELS, x, right)
    p = LABELS.predict(x)
    answer, p = (p >= 0.5).astype(int), p.astype(np.float64)
    agree(report["accuracy"], metrics().accuracy_score(right, answer))
    agree(report["macro_f1"], metrics().f1_score(right, answer, average="macro"))
    losses = [metrics().log_loss(right[:, k], p[:, k]) for k in range(4)]
    agree(report["log_loss"], float(np.mean(losses)))
    for k, one in enumerate(report["classes"]):
        agree(one["log_loss"], losses[k])
        if answer[:, k].any():
            agree(one["precision"], metrics().precision_score(right[:, k], answer[:, k]))
        else:
            assert one["precision"] is None
        agree(one["recall"], metrics().recall_score(right[:, k], answer[:, k]))


def test_the_figures_of_steps_are_those_of_every_step() -> None:
    x, rng = drawn(5)
    right = rng.integers(0, 4, (len(x), 4))
    report = lstm_serve.evaluate(STEPS, x, right)
    p = STEPS.predict(x).astype(np.float64).reshape(-1, 4)
    expect_as_sklearn(report, right.ravel(), p, p.argmax(axis=1), BANDS)
    assert report["answers"] == 4 * len(x)
    assert lstm_serve.evaluate(STEPS, x, np.eye(4)[right]) == report


@pytest.mark.parametrize("scaled", [False, True])
def test_the_figures_of_values_are_those_of_scikit_learn_in_the_targets_own_units(*, scaled: bool) -> None:
    x, rng = drawn(6, 3000)
    undone = Unscaling(
        name="output_scaling", keras_class="Unscaling", offset=np.array([9e3, -5]), scale=np.array([40.0, 2])
    )
    on = model([lstm(3, 5), dense(5, 2), *([undone] if scaled else [])])
    y = on.predict(x).astype(np.float64)
    right = y + rng.normal(0, 1, y.shape)
    report = lstm_serve.evaluate(on, x, right)
    agree(report["mae"], metrics().mean_absolute_error(right, y))
    agree(report["r2"], metrics().r2_score(right, y))
    agree(report["rmse"], metrics().root_mean_squared_error(right, y))
    for k, one in enumerate(report["outputs"]):
        agree(one["mae"], metrics().mean_absolute_error(right[:, k], y[:, k]))
        agree(one["rmse"], metrics().root_mean_squared_error(right[:, k], y[:, k]))
        agree(one["r2"], metrics().r2_score(right[:, k], y[:, k]))
    constant = lstm_serve.evaluate(on, x, np.zeros_like(y))
    assert constant["r2"] is None


def test_values_of_one_output_may_be_a_list_and_of_several_steps_are_held_against_each() -> None:
    x, rng = drawn(7, 50)
    one = model([lstm(3, 5), dense(5, 1)])
    right = rng.normal(0, 1, 50)
    assert lstm_serve.evaluate(one, x, right) == lstm_serve.evaluate(one, x, right[:, np.newaxis])
    each = model([lstm(3, 5, return_sequences=True), dense(5, 2)])
    targets = rng.normal(0, 1, (50, 4, 2))
    report = lstm_serve.evaluate(each, x, targets)
    y = each.predict(x).astype(np.float64).reshape(-1, 2)
    agree(report["mae"], metrics().mean_absolute_error(targets.reshape(-1, 2), y))


# Files.


@pytest.mark.parametrize("on", [FOUR, BINARY, LABELS, STEPS, VALUES], ids=lambda on: on.kind)
def test_each_figure_has_its_title_and_is_told(on: Model) -> None:
    x, truth = numbers(3, 4, 3), np.zeros((3, 2)) if on is VALUES else np.zeros((3, 4 if on is LABELS else 1))
    counted = figures.counter(on)
    counted.add(on.forward(x).reshape(-1, on.output_shape[-1] or 0)[:3], truth)
    found = counted.figures()
    outputs = found.get("outputs", [])
    single = [key for key, value in found.items() if not isinstance(value, list)]
    for key in {*single, *(key for one in outputs for key in one)}:
        assert key in evaluation_text.TITLES, f"the figure {key} has no title, and is not told"
    head = {"model": "m", "version": "1", "answers": 3, "left_out": 0}
    lines = evaluation_text.of_one({**head, **found}).splitlines()
    for key in single:
        assert any(line.strip().startswith(evaluation_text.TITLES[key].strip()) for line in lines)
    if outputs:
        at = next(
            k for k, line in enumerate(lines) if line.split() == [evaluation_text.TITLES[key] for key in outputs[0]]
        )
        for k, one in enumerate(outputs):
            words = lines[at + 1 + k].split()
            assert words[:2] == ["output", str(k)]
            for word, value in zip(words[2:], one.values(), strict=True):
                assert word == "-" if value is None else float(word) == pytest.approx(value, abs=1e-4)


def table(rows: Numbers, cells: Mapping[str, Any]) -> str:
    lines = [",".join([*NAMES, *cells])]
    lines += [
        ",".join([*map(repr, map(float, row)), *map(str, rest)])
        for row, *rest in zip(rows, *cells.values(), strict=True)
    ]
    return "\n".join(lines) + "\n"


def read(tmp_path: Path, text: str, on: Model, label: Sequence[str] = ("band",), by: Sequence[str] = ()) -> Any:
    path = tmp_path / "labelled.csv"
    path.write_text(text)
    return evaluate.judge(on, labelled.read(str(path), on, label, by), progress=False)


@pytest.mark.parametrize("named", [True, False])
def test_a_windows_label_is_that_of_its_last_row(tmp_path: Path, *, named: bool) -> None:
    rng = np.random.default_rng(8)
    rows, right = rng.normal(0, 3, (60, 3)), rng.integers(0, 4, 60)
    report = read(tmp_path, table(rows, {"band": [BANDS[k] for k in right] if named else list(right)}), FOUR)
    p = FOUR.predict_series(rows).astype(np.float64)
    expect_as_sklearn(report, right[3:], p, p.argmax(axis=1), BANDS)


def test_each_unit_is_a_series_of_its_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    rows, right, unit = rng.normal(0, 3, (60, 3)), rng.integers(0, 4, 60), rng.integers(0, 3, 60)
    report = read(tmp_path, table(rows, {"unit": list(unit), "band": list(right)}), FOUR, by=["unit"])
    expected = []
    for one in dict.fromkeys(unit.tolist()):
        p = FOUR.predict_series(rows[unit == one]).argmax(axis=1)
        expected += list(zip(right[unit == one][3:], p, strict=True))
    assert report["accuracy"] == np.mean([a == b for a, b in expected])
    assert report["answers"] == len(expected) == 60 - 9


def test_an_index_may_be_written_as_a_float_and_a_row_without_a_label_is_left_out(tmp_path: Path) -> None:
    rows = np.random.default_rng(10).normal(0, 3, (10, 3))
    cells = ["", "", "", "1.0", "", "3.0", "0.0", "", "2.0", "1.0"]
    report = read(tmp_path, table(rows, {"band": cells}), FOUR)
    assert (report["answers"], report["left_out"]) == (5, 2)
    p = FOUR.predict_series(rows).argmax(axis=1)
    assert report["accuracy"] == np.mean(p[[0, 2, 3, 5, 6]] == [1, 3, 0, 2, 1])


def test_names_that_are_numbers_are_names_where_all_labels_are_of_them(tmp_path: Path) -> None:
    on = classes(about=About(name="m", classes=("1", "2"), features=FEATURES))
    rows = np.random.default_rng(11).normal(0, 3, (8, 3))
    by_name = read(tmp_path, table(rows, {"band": [1, 2] * 4}), on)
    by_index = read(tmp_path, table(rows, {"band": [0, 1] * 4}), on)
    assert by_name == by_index
    either = classes(about=About(name="m", classes=("1", "0"), features=FEATURES))
    assert read(tmp_path, table(rows, {"band": [1, 0] * 4}), either)["confusion"] == by_index["confusion"]


@pytest.mark.parametrize("written", [("False", "True"), ("false", "true")])
def test_truth_values_are_the_indices_of_two_classes(tmp_path: Path, written: tuple[str, str]) -> None:
    rows, right = np.random.default_rng(15).normal(0, 3, (8, 3)), [0, 1, 1, 0, 1, 0, 0, 1]
    said = [written[k] for k in right]
    assert read(tmp_path, table(rows, {"band": said}), BINARY) == read(tmp_path, table(rows, {"band": right}), BINARY)
    with pytest.raises(InvalidInput, match=f"holds '{said[3]}'"):
        read(tmp_path, table(rows, {"band": said}), FOUR)


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (
            ["low", "low", "high", "lov", "low"],
            "row 4 (line 5), column 'band' holds 'lov', where one of the classes, low;",
        ),
        (["low", "low", "1", "top", "low"], "row 3 (line 4), column 'band' holds '1'"),
        ([0, 1, 2, 3, 4], "row 5 (line 6), column 'band' holds '4', where one of the classes"),
        ([0, 1, -1, 3, 2], "row 3 (line 4), column 'band' holds '-1'"),
        ([0, 1, 1.5, 3, 2], "row 3 (line 4), column 'band' holds '1.5'"),
        ([0, 1, "nan", 3, 2], "row 3 (line 4), column 'band' holds 'nan'"),
    ],
)
def test_an_unknown_label_is_refused_with_its_place(tmp_path: Path, cells: Sequence[object], told: str) -> None:
    rows = np.random.default_rng(12).normal(0, 3, (5, 3))
    with pytest.raises(InvalidInput) as refused:
        read(tmp_path, table(rows, {"band": cells}), FOUR)
    assert told in str(refused.value)


def test_values_steps_and_labels_are_read_from_columns(tmp_path: Path) -> None:
    rng = np.random.default_rng(13)
    rows, targets, bits, right = rng.normal(0, 3, (30, 3)), rng.normal(0, 1, (30, 2)), *rng.integers(0, 2, (2, 30, 4))
    y = VALUES.predict_series(rows).astype(np.float64)
    found = read(tmp_path, table(rows, {"u": targets[:, 0], "v": targets[:, 1]}), VALUES, ["u", "v"])
    agree(found["mae"], metrics().mean_absolute_error(targets[3:], y))
    found = read(tmp_path, table(rows, dict(zip(BANDS, bits.T, strict=True))), LABELS, BANDS)
    agree(found["accuracy"], metrics().accuracy_score(bits[3:], LABELS.predict_series(rows) >= 0.5))
    found = read(tmp_path, table(rows, {"band": right[:, 0]}), STEPS)
    answer = STEPS.predict_series(rows).argmax(axis=-1)
    agree(found["accuracy"], float(np.mean([answer[k] == right[k : k + 4, 0] for k in range(27)])))


def test_a_row_of_ids_is_a_sequence(tmp_path: Path) -> None:
    rng = np.random.default_rng(14)
    x, right = rng.integers(0, 9, (20, 6)), rng.integers(0, 4, 20)
    lines = ["a,b,c,d,e,f,label", *(",".join(map(str, [*row, k])) for row, k in zip(x, right, strict=True))]
    found = read(tmp_path, "\n".join(lines), IDS, ["label"])
    agree(found["accuracy"], float(np.mean(IDS.predict(x).argmax(axis=1) == right)))


@pytest.mark.parametrize(
    ("on", "label", "told"),
    [
        (FOUR, [], "name the column that says it with --label"),
        (FOUR, ["bend"], "lacks the column bend, which --label names"),
        (VALUES, ["band"], "is given 1 --label columns, and the model's answers take 2"),
        (LABELS, ["band"], "a 0 or a 1 for each class, in their order"),
        (model([lstm(3, 5), dense(5, 1)], about=About(name="m", features=FEATURES)), ["band"], "which is no number"),
    ],
)
def test_a_label_column_that_does_not_do_is_refused(tmp_path: Path, on: Model, label: list[str], told: str) -> None:
    text = table(np.ones((6, 3)), {"band": ["low"] * 6})
    with pytest.raises(InvalidInput, match=told):
        read(tmp_path, text, on, label)


def test_where_no_row_has_a_label_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no label for any of the 3 answers"):
        read(tmp_path, table(np.ones((6, 3)), {"band": [""] * 6}), FOUR)


def test_npz_holds_what_keras_evaluate_takes(tmp_path: Path) -> None:
    x, rng = drawn(15, 50)
    y = np.eye(4)[rng.integers(0, 4, 50)].astype(np.bool_)
    path = tmp_path / "test.npz"
    np.savez(path, x=x, y=y)
    sequences = labelled.read(str(path), FOUR, [])
    assert evaluate.judge(FOUR, sequences, progress=False) == lstm_serve.evaluate(FOUR, x, y)
    with pytest.raises(InvalidInput, match="leave --label and --by out"):
        labelled.read(str(path), FOUR, ["y"])
    # As golden predictions may be called.
    np.savez(path, x0=x, y0=y)
    (part,) = labelled.read(str(path), FOUR, []).parts
    assert np.array_equal(part.x, x)
    (part,) = inputs.read(str(path), FOUR).parts
    assert np.array_equal(part.x, x)
    np.savez(path, x=x)
    with pytest.raises(InvalidInput, match="should hold x and y"):
        labelled.read(str(path), FOUR, [])
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(InvalidInput, match="--label takes those of a CSV file"):
        labelled.read(str(tmp_path / "x.npy"), FOUR, ["y"])


@pytest.mark.parametrize(
    ("on", "y", "told"),
    [
        (FOUR, np.full(6, 4), "has 4 at 0, 0 of y, where an integer from 0 to 3"),
        (
            FOUR,
            np.full(6, 0.5),
            r"has 0\.5 at 0, 0 of y, .* was expected\. These look like predictions; y should be labels$",
        ),
        (FOUR, np.zeros((6, 4)), "no one-hot: a 1 in each row, else 0, or a row of NaN, was expected$"),
        (FOUR, np.full((6, 4), 0.25), r"no one-hot.*\. These look like predictions; y should be labels$"),
        (FOUR, [[1, 0, 0, np.nan]] * 6, "no one-hot"),
        (FOUR, np.zeros(5), r"has a y of shape \(5,\); expected indices, \(6,\), or one-hot, \(6, 4\)"),
        (FOUR, np.array(["low"] * 6), "where numbers were expected"),
        (BINARY, np.full(6, 2), "an integer from 0 to 1"),
        (BINARY, np.full((6, 1), 0.513), "was expected. These look like predictions; y should be labels$"),
        (LABELS, np.full((6, 4), 2), "an integer from 0 to 1"),
        (
            VALUES,
            [*[[0, np.nan]] * 5, [0, -np.inf]],
            "has -inf at 5, 1 of y, where a finite float32 number, or NaN where",
        ),
        (VALUES, [*[[0, 1]] * 5, [1e39, 0]], r"has 1e\+39 at 5, 0 of y, where a finite float32 number"),
        (VALUES, np.zeros((6, 3)), r"has a y of shape \(6, 3\), and the model answers \(6, 2\)"),
    ],
)
def test_a_y_that_does_not_fit_is_refused(on: Model, y: Numbers, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        lstm_serve.evaluate(on, drawn(0, 6)[0], y)


@pytest.mark.parametrize("cell", ["inf", "-inf", "1e39"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_target_that_is_not_finite_is_refused_with_its_place(tmp_path: Path, cell: str, suffix: str) -> None:
    path, columns = tmp_path / f"x{suffix}", {**dict.fromkeys(NAMES, [0.5] * 6), "one": [1.0] * 6}
    targets = [0.0, 0.0, math.nan, 0.0, float(cell), 0.0]
    if suffix == ".csv":
        path.write_text(table(np.full((6, 3), 0.5), {"one": [1] * 6, "two": targets}))
    else:
        arrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(arrow.table({**columns, "two": targets}), path)
    line = " (line 6)" if suffix == ".csv" else ""
    told = f"x{suffix}: row 5{line}, column 'two' holds {float(cell)}, where a finite float32 number"
    with pytest.raises(InvalidInput, match=re.escape(told)):
        labelled.read(str(path), VALUES, ["one", "two"])


def test_a_row_of_nan_among_one_hot_is_not_known() -> None:
    x, right = drawn(0, 6)[0], np.array([0, 1, 2, 3, 0, 1])
    y = np.eye(4)[right]
    y[[1, 4]] = np.nan
    assert lstm_serve.evaluate(FOUR, x, y) == lstm_serve.evaluate(FOUR, x, np.where([0, 1, 0, 0, 1, 0], np.nan, right))


def test_an_answer_of_which_a_part_is_not_known_is_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "SEQUENCES_AT_ONCE", 2)
    x, targets = drawn(8, 7)[0], numbers(7, 2, seed=8)
    part = targets.copy()
    part[[1, 4], 0], part[5] = np.nan, np.nan
    known = [0, 2, 3, 6]
    report, expected = (lstm_serve.evaluate(VALUES, *given) for given in ((x, part), (x[known], targets[known])))
    assert (report["answers"], report["left_out"]) == (4, 3)
    for figure in ("mae", "rmse", "r2"):
        agree(report[figure], expected[figure])


# Two models.


def other(on: Model, activation: Any, width: int, input_shape: tuple[int, ...] = (4, 3), seed: int = 20) -> Model:
    layer = replace(dense(5, width, activation), kernel=numbers(5, width, seed=seed))
    layers: list[Operation] = [lstm(3, 5), layer]
    return model(layers, input_shape, on.about)


def two(tmp_path: Path, text: str, old: Model, new: Model, label: Sequence[str], by: Sequence[str] = ()) -> Any:
    path = tmp_path / "labelled.csv"
    path.write_text(text)
    return evaluate.compare(old, new, *(labelled.read(str(path), on, label, by) for on in (old, new)))


def test_two_models_and_where_they_answer_differently(tmp_path: Path) -> None:
    rng = np.random.default_rng(16)
    rows, right = rng.normal(0, 3, (200, 3)), rng.integers(0, 4, 200)
    new = other(FOUR, SOFTMAX, 4)
    report = two(tmp_path, table(rows, {"band": right}), FOUR, new, ["band"])
    assert report["old"] == read(tmp_path, table(rows, {"band": right}), FOUR)
    assert report["new"] == read(tmp_path, table(rows, {"band": right}), new)
    a, b = (on.predict_series(rows).argmax(axis=1) for on in (FOUR, new))
    at, differ = report["differences"]["at"], np.flatnonzero(a != b)
    assert len(differ) == report["differences"]["answers"] > 0
    for key, expected in (("row", differ + 4), ("right", right[3:][differ]), ("old", a[differ]), ("new", b[differ])):
        assert np.array_equal(at[key], expected)
    for key, one in (("old_right", a), ("new_right", b)):
        assert report["differences"][key] == (one[differ] == right[3:][differ]).sum()


@pytest.mark.parametrize("by", [[], ["unit"]])
def test_models_of_other_timesteps_are_judged_where_both_answer(tmp_path: Path, by: list[str]) -> None:
    rng = np.random.default_rng(17)
    rows, right, unit = rng.normal(0, 3, (60, 3)), rng.integers(0, 4, 60), np.repeat([2, 1, 0, 1, 2], 12)
    unit[12:17] = 3  # a unit of five rows, too few for the new one
    new = other(FOUR, SOFTMAX, 4, (7, 3))
    report = two(tmp_path, table(rows, {"unit": unit, "band": right}), FOUR, new, ["band"], by)
    assert report["old"]["answers"] == report["new"]["answers"] == (60 - 6 if not by else 55 - 3 * 6)
    expected = {}
    for on in (FOUR, new):
        for one in dict.fromkeys(unit.tolist()) if by else [None]:
            places = np.flatnonzero(unit == one) if by else np.arange(60)
            if len(places) >= 7:
                y = on.predict_series(rows[places]).argmax(axis=1)
                expected.update({(id(on), int(p) + 1): int(k) for p, k in zip(places[-len(y) :], y, strict=True)})
    at = report["differences"]["at"]
    for row, a, b in zip(at["row"].tolist(), at["old"].tolist(), at["new"].tolist(), strict=True):
        assert (expected[id(FOUR), row], expected[id(new), row]) == (a, b)
    both = [row for one, row in expected if one == id(new)]
    assert at["row"].tolist() == sorted(row for row in both if expected[id(FOUR), row] != expected[id(new), row])
    assert np.array_equal(at["right"], right[at["row"] - 1])
    for key, on in (("old", FOUR), ("new", new)):
        wanted = np.mean([expected[id(on), row] == right[row - 1] for row in both])
        assert report[key]["accuracy"] == pytest.approx(wanted)


def test_two_models_of_values_say_by_how_much_they_differ(tmp_path: Path) -> None:
    rng = np.random.default_rng(18)
    rows, targets = rng.normal(0, 3, (50, 3)), rng.normal(0, 1, (50, 2))
    new = other(VALUES, LINEAR, 2)
    text = table(rows, {"u": targets[:, 0], "v": targets[:, 1]})
    found = two(tmp_path, text, VALUES, new, ["u", "v"])["differences"]
    apart = np.abs(VALUES.predict_series(rows) - new.predict_series(rows)).max(axis=1)
    assert found["largest"] == pytest.approx(apart.max())
    assert found["mean"] == pytest.approx(apart.mean())


def test_two_models_of_steps_say_at_which_they_differ() -> None:
    x, rng = drawn(19)
    right = rng.integers(0, 4, (len(x), 4)).astype(np.float64)
    right[::2, 1] = np.nan  # what is not known is not compared
    layers: list[Operation] = [
        lstm(3, 5, return_sequences=True),
        replace(dense(5, 4, SOFTMAX), kernel=numbers(5, 4, seed=20)),
    ]
    new = model(layers, about=STEPS.about)
    of_each = (labelled.of_arrays(on, x, right) for on in (STEPS, new))
    at = evaluate.compare(STEPS, new, *of_each)["differences"]["at"]
    a, b = (on.predict(x).argmax(axis=-1) for on in (STEPS, new))
    row, step = np.nonzero((a != b) & ~np.isnan(right))
    assert len(row) > 0
    found = (row + 1, step + 1, right[row, step], a[row, step], b[row, step])
    for name, expected in zip(("sequence", "step", "right", "old", "new"), found, strict=True):
        assert at[name].tolist() == expected.tolist()


def test_models_that_answer_different_things_are_refused(tmp_path: Path) -> None:
    text = table(np.ones((9, 3)), {"band": [0] * 9})
    named = About(name="m", classes=("a", "b", "c", "d"), features=FEATURES)
    three = model([lstm(3, 5), dense(5, 3, SOFTMAX)], about=About(name="m", features=FEATURES))
    for new in (three, model([lstm(3, 5), dense(5, 4, SOFTMAX)], about=named)):
        with pytest.raises(SettingsError, match="the models answer different things"):
            two(tmp_path, text, FOUR, new, ["band"])


# As a command.

ROOT = Path(__file__).parents[2]
TURBOFAN = str(ROOT / "models/turbofan.h5")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """The engine's history with the band of each row: it had 10 cycles left after its last."""
    header, *lines = (ROOT / "models/turbofan.example.csv").read_text().splitlines()
    left = [10 + len(lines) - k for k in range(1, len(lines) + 1)]
    bands = np.digitize(left, (30, 60, 90, 125))
    path = tmp_path / "engine.csv"
    path.write_text("\n".join([f"{header},band", *(f"{line},{k}" for line, k in zip(lines, bands, strict=True))]))
    return path


def test_the_command_says_the_figures_and_writes_them(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.json"
    assert main(["evaluate", TURBOFAN, str(engine), "--label", "band", "-o", str(out)]) == 0
    said, report = capsys.readouterr().out, json.loads(out.read_text())
    assert said.startswith("turbofan, version 1: 186 answers\n")
    for key, title in (("accuracy", "accuracy"), ("within_one", "right or next class"), ("ece", "calibration error")):
        assert any(line.endswith(f"{title}  {report[key]:.4f}") or title in line for line in said.splitlines())
    assert f"{report['accuracy']:.4f}" in said
    assert {"accuracy", "macro_f1", "log_loss", "ece", "confusion", "classes"} <= report.keys()
    assert np.sum(report["confusion"]) == 186


def test_the_command_holds_two_models_against_each_other(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.json"
    assert main(["evaluate", TURBOFAN, TURBOFAN, str(engine), "--label", "band", "-o", str(out)]) == 0
    said, report = capsys.readouterr().out, json.loads(out.read_text())
    assert "they differ in 0 answers" in said
    assert report["old"] == report["new"]
    other = tmp_path / "other.h5"
    other.write_bytes((ROOT / "tests/golden/asker/k215_model.h5").read_bytes())
    engine.write_text("\n".join(line.partition(",")[2] for line in engine.read_text().splitlines()))
    argv = ["--label", "band", "-o", str(out)]
    assert main(["evaluate", TURBOFAN, str(other), str(engine), *argv]) == 0
    report = json.loads(out.read_text())
    for key, path in (("old", TURBOFAN), ("new", str(other))):
        assert main(["evaluate", path, str(engine), *argv]) == 0
        assert report[key] == json.loads(out.read_text())
    assert report["old"]["accuracy"] > report["new"]["accuracy"]


def test_the_command_keeps_units_apart(engine: Path, tmp_path: Path) -> None:
    header, *lines = engine.read_text().splitlines()
    lines = [f"{line},{'first' if k < 100 else 'second'}" for k, line in enumerate(lines)]
    engine.write_text("\n".join([f"{header},unit", *lines]))
    out = tmp_path / "report.json"
    assert main(["evaluate", TURBOFAN, str(engine), "--label", "band", "--by", "unit", "-o", str(out)]) == 0
    assert json.loads(out.read_text())["answers"] == 186 - 19


def test_of_two_models_the_one_that_the_file_does_not_fit_is_named(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new.h5"
    new.write_bytes(Path(TURBOFAN).read_bytes())
    assert main(["evaluate", TURBOFAN, str(new), str(engine), "--label", "band"]) == 1
    assert f"\nlstm-serve: {new}: {engine}: has 16 columns besides band" in f"\n{capsys.readouterr().err}"
    lines = [line.partition(",")[2] for line in engine.read_text().splitlines()]
    engine.write_text("\n".join(lines))
    assert main(["evaluate", TURBOFAN, str(new), str(engine), "--label", "band"]) == 0
    told = capsys.readouterr().err.splitlines()
    assert f"lstm-serve: {new}: the model's card does not name its columns, so the 15 columns are taken in" in told[-1]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["-o", "report.txt"], "-o 'report.txt' should end in .json"),
        ([TURBOFAN, "-", "--label", "band"], "standard input and pipes can be read once"),
        ([TURBOFAN, "pipe", "--label", "band"], "standard input and pipes can be read once"),
    ],
)
def test_wrong_usage_of_the_command(
    engine: Path, argv: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(engine.parent)
    os.mkfifo("pipe")
    with pytest.raises(SystemExit):
        main(["evaluate", TURBOFAN, *([str(engine)] if "-o" in argv else []), *argv])
    assert told in capsys.readouterr().err


def test_memory_does_not_grow_with_the_windows() -> None:
    """Two hundred thousand windows of one series; as arrays they were 10 MB of inputs a step."""
    rows = np.random.default_rng(19).normal(0, 3, (200_000, 3))
    text = np.zeros((len(rows), 1))
    sequences = inputs.sequences(csv_table.Table(rows, None, truth=text), FOUR)
    cut = sequences._replace(parts=tuple(labelled._as_answered(part, FOUR) for part in sequences.parts))
    tracemalloc.start()
    try:
        evaluate.judge(FOUR, cut, progress=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
