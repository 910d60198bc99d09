"""Integrated gradients: what all cells add is the difference of two answers, and gradients are those of TensorFlow."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from serving import ROOT
from small_models import classes, dense, lstm, model, numbers

from lstm_serve import load_model
from lstm_serve.engine.activations import ACTIVATIONS, SIGMOID, SOFTMAX, TANH
from lstm_serve.engine.functions import FUNCTIONS
from lstm_serve.engine.operations.pointwise import Activate
from lstm_serve.engine.operations.temporal import Embedding, Masking, Reshape
from lstm_serve.engine.operations.wrappers import TimeDistributed
from lstm_serve.errors import InvalidInput, NotFinite
from lstm_serve.explain import integrated
from lstm_serve.explain.asked import Asked, Explained
from lstm_serve.explain.gradients import path
from lstm_serve.explain.gradients.tape import in_one
from lstm_serve.explain.methods import Method
from lstm_serve.explain.why import explained
from lstm_serve.model.metadata import About
from lstm_serve.model.model import Model

TURBOFAN = load_model(ROOT / "models/turbofan.h5")
X = np.load(ROOT / "models/turbofan.golden.npz")["x"]

BINARY = model([lstm(3, 5), dense(5, 1, SIGMOID)])
LABELS = model([lstm(3, 5), dense(5, 4, SIGMOID)], about=About(name="m", classes=("a", "b", "c", "d")))
STEPS = model([lstm(3, 5, return_sequences=True), dense(5, 2, SOFTMAX)], about=About(name="m", classes=("a", "b")))
VALUES = model([lstm(3, 5), dense(5, 2)])
FREE = classes((None, 3))
FLAT = model([dense(3, 2, SOFTMAX)], (3,))
DEEP = model([Reshape(name="r", target=(4, 6)), lstm(6, 5), dense(5, 2, SOFTMAX)], (4, 2, 3))


def score(on: Model, x: Any, index: int) -> float:
    last = on.predict(x[np.newaxis])[0].reshape(-1, on.output_shape[-1])[-1].astype(np.float64)
    if on.kind == "binary":
        return float(last[0] if index else 1 - last[0])
    return float(last[index])


def test_the_gradients_of_the_default_model_are_those_of_tensorflow() -> None:
    with np.load(ROOT / "tests/golden/gradients.npz") as golden:
        expected, index = golden["by_x"], golden["index"]
    y, tape = in_one(path.recorded(TURBOFAN, TURBOFAN.checked(X), {}))
    assert np.array_equal(y.argmax(axis=1), index)
    found = in_one(path.back(TURBOFAN, tape, np.eye(5, dtype=np.float32)[index]))
    assert len(expected) == 32
    assert (np.abs(found - expected) <= 1e-5 * np.maximum(1, np.abs(expected))).all()


def test_of_the_default_model_all_cells_add_the_whole_difference() -> None:
    for x in X:
        found = explained(TURBOFAN, x)
        base = np.broadcast_to(found["baseline"]["values"], x.shape)
        difference = score(TURBOFAN, x, found["class"]) - score(TURBOFAN, base, found["class"])
        assert found["attribution"].sum() == pytest.approx(difference, abs=1e-3)
        assert found["completeness_error"] <= 1e-3


@pytest.mark.parametrize("on", [classes(), BINARY, LABELS, STEPS, VALUES, FREE, FLAT, DEEP])
@pytest.mark.parametrize("index", [0, 1, None])
def test_of_each_kind_all_cells_add_the_whole_difference(on: Model, index: int | None) -> None:
    shape = [size or 6 for size in on.input_shape]
    x = numbers(*shape, seed=5)
    found = explained(on, x, Asked(index, baseline=0.25))
    k = found["class"]
    assert (found["method"], found["grain"]) == ("integrated-gradients", "cell")
    difference = score(on, x, k) - score(on, np.full_like(x, 0.25), k)
    assert found["by_feature"].sum() == pytest.approx(difference, abs=1e-3)
    assert found["completeness_error"] == pytest.approx(abs(found["by_feature"].sum() - difference), abs=1e-6)
    assert (found["attribution"] is None) == (len(shape) != 2)
    if found["attribution"] is not None:
        assert found["attribution"].shape == x.shape
        assert np.allclose(found["by_step"], found["attribution"].sum(axis=1), rtol=0, atol=1e-12)
        assert np.allclose(found["by_feature"], found["attribution"].sum(axis=0), rtol=0, atol=1e-12)
    assert (found["by_step"] is None) == (on is FLAT)


def test_of_a_linear_model_each_cell_adds_its_weight_times_its_way() -> None:
    layer = dense(3, 2)
    x = numbers(3, seed=8)
    found = explained(model([layer], (3,)), x, Asked(1, baseline=[1, 0, 2]))
    assert found["by_feature"] == pytest.approx(layer.kernel[:, 1] * (x - [1, 0, 2]), abs=1e-6)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_masked_step_stays_masked_on_the_way_and_adds_nothing(value: float) -> None:
    on = model(
        [Masking(name="m", mask_value=value), lstm(3, 5, return_sequences=True), lstm(5, 5), dense(5, 2, SOFTMAX)]
    )
    x = numbers(4, 3, seed=9)
    x[:2] = value
    found = explained(on, x)  # the baseline is 0: where that is the mask's value, all of it would be masked
    assert np.array_equal(found["attribution"][:2], np.zeros((2, 3)))
    assert np.abs(found["attribution"][2:]).min() > 0
    assert found["completeness_error"] <= 1e-3
    # As if the masked steps were not there.
    without = model([node.operation for node in on.nodes[1:]], (2, 3))
    assert np.allclose(explained(without, x[2:])["attribution"], found["attribution"][2:], rtol=0, atol=1e-6)


def rounds(on: Model, x: Any) -> tuple[int, dict[str, Any]]:
    """How many points are taken, and the explanation."""
    given = on.checked(x[np.newaxis])
    work = integrated.IntegratedGradients(Explained.of(on, given[0], Asked(), on.forward(given)[0]))
    at = 0
    while at < work.count:
        stop = min(at + 7, work.count)
        list(work.compute(at, stop))
        at = stop
    return work.count, work.found(np.zeros(0))


def test_more_points_are_taken_until_it_is_exact_enough() -> None:
    def steep(by: float) -> Model:
        first = dense(3, 1, TANH, bias=False)
        first.kernel[:] = by
        return model([first, dense(1, 1, ACTIVATIONS["linear"], bias=False)], (3,))

    x = np.ones(3, np.float32)
    assert rounds(steep(0.5), x)[0] == 9
    count, found = rounds(steep(60), x)
    assert count in {39, 79, 159}
    assert found["completeness_error"] <= 1e-3
    # A jump is on no line of points: said, not hidden.
    jump = model([Activate(name="a", activation=ACTIVATIONS["hard_shrink"])], (3,))
    count, found = rounds(jump, x)
    assert count == 319
    assert found["completeness_error"] > 0.4


def test_what_is_missed_is_told_in_units_of_the_score() -> None:
    last = dense(3, 1, bias=False)
    last.kernel[:] = 10
    on = model([Activate(name="a", activation=ACTIVATIONS["hard_shrink"]), last], (3,))
    x = np.ones(3, np.float32)
    found = explained(on, x)
    missed = abs(found["by_feature"].sum() - score(on, x, 0))  # the baseline's score is 0
    assert missed > 10
    assert found["completeness_error"] == pytest.approx(missed, rel=1e-6)


def test_the_same_in_slices_of_any_size() -> None:
    _, found = rounds(TURBOFAN, X[0])
    assert np.allclose(found["attribution"], explained(TURBOFAN, X[0])["attribution"], rtol=0, atol=1e-6)


def test_of_ids_and_of_long_sequences_there_is_occlusion() -> None:
    table = Embedding(name="words", keras_class="Embedding", embeddings=numbers(9, 3, seed=7), mask_zero=False)
    on = model([table, lstm(3, 5), dense(5, 2, SOFTMAX)], (6,))
    x: Any = np.array([1, 5, 2, 8, 3, 1])
    found = explained(on, x)
    assert (found["method"], found["completeness_error"]) == ("occlusion", None)
    told = r"expected occlusion: the layer words \(Embedding\) has no gradient: between two ids there is nothing"
    with pytest.raises(InvalidInput, match=told):
        explained(on, x, Asked(method="integrated-gradients"))
    assert path.why_not(FREE, (100, 3)) is None
    assert "too long" in str(path.why_not(FREE, (1_000_000, 3)))


@pytest.mark.parametrize(
    "on",
    [
        model([lstm(3, 40), dense(40, 2, SOFTMAX)], (300, 3)),
        model([lstm(3, 40, return_sequences=True), lstm(40, 20), dense(20, 2)], (300, 3)),
        model([TimeDistributed.of(lstm(3, 20), name="t"), lstm(20, 5)], (30, 30, 3)),
        model([dense(300, 300, name=f"d{k}") for k in range(20)], (20, 300)),
    ],
)
def test_what_a_row_keeps_is_about_what_is_reckoned(on: Model) -> None:
    x = numbers(1, *[size or 1 for size in on.input_shape])
    on.forward(x)
    tracemalloc.start()
    y, tape = in_one(path.recorded(on, x, {}))
    in_one(path.back(on, tape, np.ones_like(y)))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most <= 4 * path.kept_floats(on, x.shape[1:])


def test_gradients_that_are_not_finite_are_refused_with_what_to_ask_for() -> None:
    on = model([Activate(name="root", activation=FUNCTIONS["sqrt"]), dense(3, 2)], (3,))
    with pytest.raises(InvalidInput, match='not finite along the way: ask with "occlusion"'):
        explained(on, np.array([0, 1, 1], np.float32))
    assert np.isfinite(explained(on, np.array([0, 1, 1], np.float32), Asked(method="occlusion"))["by_feature"]).all()


@pytest.mark.parametrize("method", ["integrated-gradients", "occlusion"])
def test_where_the_model_overflows_no_other_method_is_named(method: Method) -> None:
    on = model([Activate(name="square", activation=FUNCTIONS["square"]), dense(3, 2)], (3,))
    with pytest.raises(NotFinite, match="the answer is not finite"):
        explained(on, np.full(3, 3e38), Asked(method=method))
    for baseline in (3e38, [0, 3e38, 0]):  # all answers overflow, or only those with one part replaced
        with pytest.raises(InvalidInput, match="expected values with which the model's answers are finite"):
            explained(on, np.zeros(3), Asked(method=method, baseline=baseline))


@pytest.mark.parametrize("method", ["integrated-gradients", "occlusion"])
def test_of_a_thousand_layers(method: Method) -> None:
    layers = [dense(3, 3, TANH, name=f"d{k}") for k in range(1000)]
    found = explained(model([*layers, dense(3, 2, SOFTMAX)], (3,)), numbers(3), Asked(method=method))
    assert np.isfinite(found["by_feature"]).all()
