from typing import Any

import numpy as np
import pytest
from echo import Echo, model_of
from hypothesis import given, settings
from hypothesis import strategies as st
from kerasfiles import numbers
from serving import GOLDEN

from lstm_serve import load_model
from lstm_serve.engine.activations import LINEAR, SIGMOID, SOFTMAX, TANH, Activation
from lstm_serve.engine.operations.merging import MaskRule, Merge
from lstm_serve.engine.operations.pointwise import Dense, Identity
from lstm_serve.engine.operations.recurrent import LSTM
from lstm_serve.engine.operations.temporal import Embedding
from lstm_serve.engine.operations.windows import Convolution, Window
from lstm_serve.errors import InvalidInput
from lstm_serve.model.graph import INPUT, Node, Source, TensorSpec
from lstm_serve.model.metadata import About, Origin
from lstm_serve.model.model import Model

ORIGIN = Origin(file="m.h5", sha256="0", format="made", keras=None)


def lstm(*, features: int = 3, units: int = 4, **options: Any) -> LSTM:
    return LSTM(
        name="lstm",
        kernel=numbers(features, 4 * units),
        recurrent_kernel=numbers(units, 4 * units),
        bias=numbers(4 * units),
        activation=TANH,
        recurrent_activation=SIGMOID,
        **options,
    )


def dense(units: int = 2, activation: Activation = SOFTMAX) -> Dense:
    return Dense(name="dense", kernel=numbers(4, units), bias=numbers(units), activation=activation)


def model(*layers: Any, shape: tuple[int | None, ...] = (5, 3), dtype: Any = np.float32) -> Model:
    nodes = tuple(Node(layer, (Source(k - 1),)) for k, layer in enumerate(layers))
    return Model(nodes=nodes, inputs=(TensorSpec(None, shape, np.dtype(dtype)),), origin=ORIGIN, about=About(name="m"))


@pytest.mark.parametrize(
    ("layers", "kind"),
    [
        ([lstm(), dense()], "classes"),
        ([lstm(), dense(), Identity(name="d", keras_class="Dropout")], "classes"),
        ([lstm(), dense(1, SIGMOID)], "binary"),
        ([lstm(), dense(2, SIGMOID)], "values"),
        ([lstm(), dense(1, LINEAR)], "values"),
        ([lstm()], "values"),
        ([lstm(return_sequences=True), dense()], "values"),
        ([Identity(name="d", keras_class="Dropout")], "values"),
    ],
)
def test_says_what_its_output_is(layers: Any, kind: str) -> None:
    assert model(*layers).kind == kind


def test_many_rows_are_computed_in_parts_and_come_out_the_same() -> None:
    made = model(lstm(), dense())
    x = numbers(300, 5, 3)
    y = made.predict(x)
    assert y.shape == (300, 2)
    np.testing.assert_allclose(y[[0, 150, 299]], made.predict(x[[0, 150, 299]]), atol=1e-6)
    free = model(lstm(), dense(), shape=(None, 3))
    np.testing.assert_array_equal(free.predict(x), y)


def test_one_layer_called_twice_is_counted_once() -> None:
    shared = Dense(name="d", kernel=numbers(3, 3), bias=None, activation=TANH)
    join = Merge(name="add", join=np.add, mean=False, mask_rule=MaskRule.ALL)
    nodes = (Node(shared, (Source(INPUT),)), Node(shared, (Source(0),)), Node(join, (Source(0), Source(1))))
    made = Model(
        nodes=nodes, inputs=(TensorSpec(None, (3,), np.dtype(np.float32)),), origin=ORIGIN, about=About(name="m")
    )
    assert made.parameters == 9
    x = numbers(2, 3)
    first = np.tanh(x @ shared.kernel)
    np.testing.assert_allclose(made.predict(x), first + np.tanh(first @ shared.kernel), rtol=1e-5, atol=1e-6)
    assert [list(node) for node in made.trace(x)] == [["sums", "output"], ["sums", "output"], ["output"]]


BAD: list[tuple[Any, str]] = [
    (np.zeros((2, 5)), "got an array of shape"),
    (np.zeros((2, 5, 4)), r"got an array of shape \(2, 5, 4\)$"),
    (np.zeros((5, 3)), r"shape \(5, 3\): the batch axis is missing, give x\[np.newaxis\]$"),
    (np.zeros((2, 3, 5)), r"shape \(2, 3, 5\): are its last two axes swapped\?$"),
    (np.zeros((3, 5)), r"shape \(3, 5\): are its last two axes swapped\?$"),
    (np.zeros((0, 5, 3)), "empty"),
    ([[1, 2], [3]], "different lengths"),
    (np.array([["a"]]), "expected numbers"),
    (np.full((1, 5, 3), np.nan), "finite"),
    (np.full((1, 5, 3), 1e39), "finite"),
]


@pytest.mark.parametrize(("x", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_input_that_does_not_fit_is_refused_with_what_was_expected(x: Any, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        model(lstm(), dense()).predict(x)


def ids_model() -> Model:
    table = Embedding(name="e", embeddings=numbers(7, 3), mask_zero=True)
    return model(table, lstm(), shape=(None,), dtype=np.dtype(np.int32))


@pytest.mark.parametrize("bad", [-1, 7, 2.5, 1 << 40])
def test_ids_outside_the_table_are_refused(bad: float) -> None:
    made = ids_model()
    assert made.id_limit == 7
    assert made.expects == "an array of shape (n, any) of integers from 0 to 6"
    with pytest.raises(InvalidInput, match=r"integers from 0 to 6, got .* at \(1, 0\)"):
        made.predict(np.array([[1, 2], [bad, 0]]))


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, 6), min_size=1, max_size=9), as_float=st.booleans())
def test_ids_in_the_table_are_taken_whichever_type_they_have(ids: list[int], *, as_float: bool) -> None:
    y = ids_model().predict(np.array([ids], float if as_float else int))
    assert np.isfinite(y).all()


def test_a_model_without_ids_has_no_limit() -> None:
    assert model(lstm()).id_limit is None


def test_too_few_steps_for_a_window_are_refused() -> None:
    conv = Convolution(name="c", kernel=numbers(3, 3, 4), bias=None, windows=(Window(size=3),), activation=LINEAR)
    made = model(conv, shape=(None, 3))
    assert made.predict(numbers(1, 3, 3)).shape == (1, 1, 4)
    with pytest.raises(InvalidInput, match="too few time steps"):
        made.predict(numbers(1, 2, 3))


@pytest.mark.parametrize("name", ["functional_masks", "stacked_cells", "bidirectional_cells", "nested", "shapes"])
def test_the_trace_of_a_graph_ends_where_the_prediction_does(name: str) -> None:
    made = load_model(GOLDEN / "keras3" / f"{name}.h5")
    x = np.load(GOLDEN / "keras3" / f"{name}.golden.npz")["x"]
    np.testing.assert_array_equal(made.trace(x)[-1]["output"], made.predict(x))


def test_many_rows_are_computed_in_parts_so_that_memory_stays_bounded() -> None:
    layer = Echo()
    x = numbers(600, 2)
    np.testing.assert_array_equal(model_of(layer).predict(x), 2 * x)
    assert layer.rows == [256, 256, 88]
    # Input and output of a row, of 2**22 numbers that may be there at once.
    assert model_of(layer, (1 << 17,)).rows_at_once((1 << 17,)) == 16


def test_ids_that_several_look_up_are_under_the_smallest_of_their_tables() -> None:
    tables = [Embedding(name=f"e{k}", embeddings=numbers(size, 4), mask_zero=False) for k, size in enumerate((7, 5))]
    add = Merge(name="add", join=np.add, mean=False, mask_rule=MaskRule.ALL)
    made = Model(
        nodes=(*(Node(table, (Source(INPUT),)) for table in tables), Node(add, (Source(0), Source(1)))),
        inputs=(TensorSpec(None, (3,), np.dtype(np.int32)),),
        origin=ORIGIN,
        about=About(name="m"),
    )
    assert made.predict([[0, 4, 4]]).shape == (1, 3, 4)
    with pytest.raises(InvalidInput, match="from 0 to 4"):
        made.predict([[0, 4, 5]])


def test_a_series_has_an_answer_for_each_window() -> None:
    made = model(lstm(), dense())
    rows = numbers(9, 3)
    windows = np.stack([rows[k : k + 5] for k in range(5)])
    np.testing.assert_allclose(made.predict_series(rows), made.predict(windows), atol=1e-6)
    np.testing.assert_allclose(made.predict_series(rows.tolist(), stride=3), made.predict(windows[::3]), atol=1e-6)
    units = ["a", "b", "a", "a", "a", "a", "b", "b", "b"]
    expected = made.predict(rows[np.newaxis, [0, 2, 3, 4, 5]])
    np.testing.assert_allclose(made.predict_series(rows[:-1], by=units[:-1]), expected, atol=1e-6)
    assert len(made.predict_series(np.tile(rows, (2, 1)), by=[(unit, 1) for unit in units * 2])) == 6 + 4
    for columns in (np.array([["1", unit] for unit in units]), [[1, unit] for unit in units], np.array(units)):
        np.testing.assert_allclose(made.predict_series(rows[:-1], by=columns[:-1]), expected, atol=1e-6)
    long = np.tile(rows, (60, 1))
    assert made.predict_series(long).shape == (536, 2)
    table = ids_model()
    np.testing.assert_array_equal(table.predict_series([1, 2, 3]), table.predict([[1, 2, 3]]))


@pytest.mark.parametrize(
    ("rows", "options", "reason"),
    [
        (np.zeros((4, 3)), {}, "expected at least 5 rows of a unit, got 4"),
        (np.zeros((9, 3)), {"by": [1, 2, 3] * 3}, "expected at least 5 rows of a unit, got 3"),
        (np.zeros((9, 3)), {"by": [1]}, "expected 9 keys in `by`, one a row, got 1"),
        (np.zeros((9, 3)), {"stride": 0}, "expected a stride from 1 on, got 0"),
        (np.zeros((9, 4)), {}, r"expected the rows of a series, an array of shape \(N, 3\), got an array of shape"),
        (np.zeros((1, 9, 3)), {}, r"got an array of shape \(1, 9, 3\)"),
        (np.full((9, 3), np.nan), {}, r"got another at \(0, 0\)"),
        (np.zeros((0, 3)), {}, "empty"),
    ],
)
def test_what_is_no_series_is_refused(rows: Any, options: Any, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        model(lstm(), dense()).predict_series(rows, **options)


def test_a_series_where_there_is_no_window_is_refused() -> None:
    with pytest.raises(InvalidInput, match="the model has no time axis"):
        model(dense(), shape=(4,)).predict_series(np.zeros((5, 4)))
    steps = model(lstm(return_sequences=True), shape=(None, 3))
    with pytest.raises(InvalidInput, match="expected a stride of 1"):
        steps.predict_series(numbers(6, 3), stride=2)
    with pytest.raises(InvalidInput, match="the units' answers are of different lengths"):
        steps.predict_series(numbers(6, 3), by=[1, 1, 2, 2, 2, 2])
