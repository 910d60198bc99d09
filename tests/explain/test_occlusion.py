"""Explanations: a planted signal is found, and by occlusion each number is a difference of two answers."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from profiles import profile_of
from serving import ROOT, SMALL
from small_models import classes, dense, lstm, model, numbers

from lstm_serve import load_model
from lstm_serve.cli.main import main
from lstm_serve.engine.activations import SIGMOID, SOFTMAX
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.pointwise import Normalization, Scaling
from lstm_serve.engine.operations.temporal import Embedding
from lstm_serve.errors import InvalidInput
from lstm_serve.explain import text
from lstm_serve.explain.asked import Asked, baseline_of
from lstm_serve.explain.methods import Method
from lstm_serve.explain.why import WAYS, explained
from lstm_serve.model import watched
from lstm_serve.model.metadata import About
from lstm_serve.model.model import Model
from lstm_serve.web.dialects.explain import ExplainOptions

PLANTED = ROOT / "tests/golden/planted"
TURBOFAN = str(ROOT / "models/turbofan.h5")
ENGINE = str(ROOT / "models/turbofan.example.csv")


@pytest.mark.parametrize("method", get_args(Method))
@pytest.mark.parametrize("name", sorted(path.stem for path in PLANTED.glob("*.h5")))
def test_a_planted_signal_is_found_in_the_first_place_in_20_of_20(name: str, method: Method) -> None:
    on = load_model(PLANTED / f"{name}.h5")
    with np.load(PLANTED / f"{name}.npz") as planted:
        x, column, start, stop = (planted[key] for key in ("x", "column", "start", "stop"))
    assert len(x) == 20
    for sequence in x:
        found = explained(on, sequence, Asked(grain="cell", method=method))
        assert found["method"] == method
        assert found["by_feature"].argmax() == column
        assert start <= found["by_step"].argmax() < stop
        step, feature = np.unravel_index(found["attribution"].argmax(), found["attribution"].shape)
        assert (feature, start <= step < stop) == (column, True)


BINARY = model([lstm(3, 5), dense(5, 1, SIGMOID)])
LABELS = model([lstm(3, 5), dense(5, 4, SIGMOID)], about=About(name="m", classes=("a", "b", "c", "d")))
STEPS = model([lstm(3, 5, return_sequences=True), dense(5, 2, SOFTMAX)], about=About(name="m", classes=("a", "b")))
VALUES = model([lstm(3, 5), dense(5, 2)])
FREE = classes((None, 3))
FLAT = model([dense(3, 2, SOFTMAX)], (3,))
WIDE = load_model(SMALL.parent / "features/k3__conv.h5") if (SMALL.parent / "features/k3__conv.h5").exists() else VALUES


def score(on: Model, y: Any, index: int) -> float:
    last = y.reshape(-1, y.shape[-1])[-1].astype(np.float64)
    if on.kind == "binary":
        return float(last[0] if index else 1 - last[0])
    return float(last[index])


@pytest.mark.parametrize("on", [classes(), BINARY, LABELS, STEPS, VALUES, FREE, FLAT, WIDE])
@pytest.mark.parametrize("index", [0, 1, None])
def test_each_number_is_by_how_much_the_score_drops(on: Model, index: int | None) -> None:
    shape = [size or 6 for size in on.input_shape]
    x = numbers(*shape, seed=5)
    cell = len(shape) == 2
    found = explained(
        on,
        x,
        Asked(
            None if index == 1 and on.output_shape[-1] == 1 and on.kind != "binary" else index,
            "cell" if cell else "step",
            0.25,
            "occlusion",
        ),
    )
    (y,) = on.predict(x[np.newaxis])
    k = found["class"]
    whole = score(on, y, k)
    assert found["score"] == whole

    def drop(changed: Any) -> float:
        return whole - score(on, on.predict(changed[np.newaxis])[0], k)

    if on.has_time_axis:
        for step in range(shape[0]):
            changed = x.copy()
            changed[step] = 0.25
            assert found["by_step"][step] == pytest.approx(drop(changed), abs=1e-6)
    else:
        assert found["by_step"] is None
    for feature in range(shape[-1]):
        changed = x.copy()
        changed[..., feature] = 0.25
        assert found["by_feature"][feature] == pytest.approx(drop(changed), abs=1e-6)
    for step, feature in np.ndindex(*shape) if cell else ():
        changed = x.copy()
        changed[step, feature] = 0.25
        assert found["attribution"][step, feature] == pytest.approx(drop(changed), abs=1e-6)


def test_the_class_is_by_default_the_one_that_is_answered() -> None:
    x = numbers(4, 3, seed=6)
    assert explained(classes(), x)["class"] == classes().predict(x[np.newaxis])[0].argmax()
    assert explained(BINARY, x)["class"] == int(BINARY.predict(x[np.newaxis])[0, 0] >= 0.5)
    assert explained(BINARY, x, Asked(0))["by_step"] == pytest.approx(-explained(BINARY, x, Asked(1))["by_step"])
    assert explained(VALUES, x)["class"] == 0
    assert explained(LABELS, x)["label"] == "abcd"[int(LABELS.predict(x[np.newaxis])[0].argmax())]


def test_the_class_of_a_binary_model_is_by_its_own_threshold() -> None:
    x = numbers(4, 3)
    p = float(BINARY.predict(x[np.newaxis])[0, 0])
    for threshold, shift in ((0.4, 0.05), (0.4, -0.05), (0.6, 0.05), (0.6, -0.05)):
        # A bias with which the answer is a little over the threshold, or under it.
        logit = np.log((threshold + shift) / (1 - threshold - shift)) - np.log(p / (1 - p))
        last = BINARY.nodes[-1].operation
        shifted = replace(last, bias=last.bias + np.float32(logit))  # type: ignore[type-var, attr-defined]
        on = model([BINARY.nodes[0].operation, shifted], about=About(name="m", threshold=threshold))
        found = explained(on, x)
        assert found["answer"]["probability"] == pytest.approx(threshold + shift, abs=1e-5)
        assert found["class"] == found["answer"]["predicted_class"] == int(shift > 0)


def test_each_method_is_its_own() -> None:
    on, x, told = classes(), numbers(4, 3), set()
    assert [*WAYS] == [*get_args(Method)]
    for method in get_args(Method):
        found = explained(on, x, Asked(method=method))
        assert found["method"] == method
        told.add(text.text(on, x, found, "row 1", 1).splitlines()[1])
        assert f'"{method}"' in str(ExplainOptions.model_fields["method"].description)
    assert len(told) == len(get_args(Method))
    assert len({way.explaining for way in WAYS.values()}) == len(WAYS)


def test_the_baseline_is_the_training_mean_where_the_model_has_it() -> None:
    mean, variance = np.array([1, 2, 3], np.float32), np.ones(3, np.float32)
    normalization = Normalization(name="n", keras_class="Normalization", mean=mean, variance=variance)
    scaling = Scaling(
        name="scaling", keras_class="Scaling", offset=np.array([10.0, 20, 30]), scale=np.array([2.0, 4, 8])
    )
    layers: list[Operation] = [lstm(3, 5), dense(5, 2, SOFTMAX)]
    cases: list[tuple[list[Operation], list[int], str]] = [
        ([], [0, 0, 0], "zeros"),
        ([normalization], [1, 2, 3], "the training mean, from the layer n"),
        ([scaling], [10, 20, 30], "what the card's scaling makes 0"),
        ([scaling, normalization], [12, 28, 54], "the training mean, from the layer n"),
    ]
    for before, expected, told in cases:
        found = baseline_of(model([*before, *layers]))
        assert (found.values.tolist(), found.origin) == (expected, told)
    profiled = replace(model([scaling, *layers]), profile=profile_of(np.array([[1.0, 2, 3], [2, 4, 7]])))
    found = baseline_of(profiled)
    assert (found.values.tolist(), found.origin) == ([1.5, 3, 5], "the training mean, of the profile")
    for given in ([1.0, 2, 3], [3.4028235e38] * 3):  # which is the largest float32 as it is written, and a little more
        assert baseline_of(classes(), given).values.tolist() == given


def test_each_cell_becomes_its_own_features_baseline() -> None:
    on, base = classes(), [0.1, 0.2, 0.3]
    x = numbers(*(size or 0 for size in on.input_shape), seed=5)
    found = explained(on, x, Asked(0, "cell", base, "occlusion"))
    for step, feature in np.ndindex(*x.shape):
        changed = x.copy()
        changed[step, feature] = base[feature]
        drop = found["score"] - score(on, on.predict(changed[np.newaxis])[0], 0)
        assert found["attribution"][step, feature] == pytest.approx(drop, abs=1e-6)


@pytest.mark.parametrize("mask_zero", [True, False])
def test_of_ids_each_step_becomes_the_padding(*, mask_zero: bool) -> None:
    table = Embedding(name="e", keras_class="Embedding", embeddings=numbers(9, 3, seed=7), mask_zero=mask_zero)
    on = model([table, lstm(3, 5), dense(5, 2, SOFTMAX)], (6,))
    x = np.array([1, 5, 2, 8, 3, 1])
    found = explained(on, x)
    assert (found["by_feature"], found["attribution"], len(found["by_step"])) == (None, None, 6)
    assert found["baseline"]["values"] == 0
    assert ("masks" in found["baseline"]["from"]) == mask_zero
    changed = x.copy()
    changed[3] = 0
    k = found["class"]
    drop = on.predict(x[np.newaxis])[0, k] - on.predict(changed[np.newaxis])[0, k]
    assert found["by_step"][3] == pytest.approx(drop, abs=1e-6)
    with pytest.raises(InvalidInput, match="an integer id from 0 to 8"):
        explained(on, x, Asked(baseline=9))
    with pytest.raises(InvalidInput, match="expected step"):
        explained(on, x, Asked(grain="cell"))


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (Asked(2), "expected an integer from 0 to 1"),
        (Asked(baseline=[1, 2]), "a list of 3, one for each feature"),
        (Asked(baseline=float("inf")), "expected a finite number"),
    ],
)
def test_what_is_asked_wrongly_is_refused(asked: Asked, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        explained(classes(), numbers(4, 3), asked)


def test_the_command_tells_what_spoke_most(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", TURBOFAN, ENGINE]) == 0
    said = capsys.readouterr().out
    assert said.startswith("EXPLANATION of row 205: class 0 (0-29 cycles left), 0.979\n")
    assert "by integrated gradients. The sum misses the difference of the two by" in said
    assert main(["explain", TURBOFAN, ENGINE, "--method", "occlusion"]) == 0
    said += capsys.readouterr().out
    for part in (
        "where a part is replaced by",
        "the training mean, from the layer normalization",
        "Nc [rpm]",
        "  step\n    186 ",
        "    step 205 ",
    ):
        assert part in said


def test_the_command_writes_all_of_it(tmp_path: Path) -> None:
    for name in ("out.json", "out.csv"):
        assert main(["explain", TURBOFAN, ENGINE, "--row", "150", "-o", str(tmp_path / name)]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    on = load_model(TURBOFAN)
    rows = np.loadtxt(ENGINE, delimiter=",", skiprows=1)[130:150, 1:]
    expected = explained(on, rows, Asked(grain="cell"))
    assert np.allclose(found["attribution"], expected["attribution"], atol=1e-6)
    with (tmp_path / "out.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 20 + 15 + 300
    cells = [line for line in lines if line["step"] and line["feature"]]
    assert [float(line["attribution"]) for line in cells] == np.ravel(found["attribution"]).tolist()
    assert (cells[0]["step"], cells[0]["feature"]) == ("131", "T24")
    assert float(cells[0]["value"]) == pytest.approx(rows[0, 0])


def test_columns_without_names_are_called_as_in_the_profile() -> None:
    on, x = classes(), numbers(4, 3, seed=8)
    found = explained(on, x, Asked(grain="cell"))
    called = ["feature 1", "feature 2", "feature 3"]
    assert watched.names(on) == called
    told = text.text(on, x, found, "sequence 1", 1)
    assert set(re.findall(r"feature \d", told)) == set(called)
    assert {line["feature"] for line in csv.DictReader(io.StringIO(text.table(on, x, found, 1)))} == {"", *called}


@pytest.mark.parametrize(
    ("argv", "status", "told"),
    [
        (["--row", "19"], 1, "--row 19: there are answers for rows 20 to 205"),
        (["-o", "out.npy"], 2, "-o 'out.npy' should end in .json, .csv"),
    ],
)
def test_the_command_refuses_what_does_not_do(
    argv: list[str], status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        found = main(["explain", TURBOFAN, ENGINE, *argv])
    except SystemExit as ended:
        found = int(ended.code or 0)
    assert found == status
    assert told in capsys.readouterr().err
