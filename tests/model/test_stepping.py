"""A model one time step at a time, against the same model on whole windows."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from golden_models import golden_models, groups
from hypothesis import given
from hypothesis import strategies as st
from small_models import dense, lstm, model, numbers

from lstm_serve.engine.activations import RELU, SOFTMAX
from lstm_serve.engine.functions import FUNCTIONS
from lstm_serve.engine.operations.base import BaseOperation, Operation
from lstm_serve.engine.operations.merging import Concatenate, MaskRule
from lstm_serve.engine.operations.pointwise import Activate, Scaling, Unscaling
from lstm_serve.engine.operations.temporal import Embedding, GlobalPooling1D, RepeatVector
from lstm_serve.engine.operations.windows import Convolution, Window
from lstm_serve.engine.operations.wrappers import Bidirectional
from lstm_serve.engine.types import Array, State
from lstm_serve.model.graph import INPUT, Node, Source, TensorSpec
from lstm_serve.model.metadata import About
from lstm_serve.model.model import Model
from lstm_serve.model.stepping import Stepper


def stepper(made: Model) -> Stepper:
    found = made.stepper()
    assert found is not None
    return found


def walked(made: Model, x: npt.NDArray[Any]) -> Array:
    """The answer at the last row, by steps; the window's last one where the model answers each row."""
    steps = stepper(made)
    state = steps.start(len(x))
    for t in range(x.shape[1]):
        y, state = steps.step(x[:, t], state)
    return y


def at_the_end(made: Model, x: npt.NDArray[Any]) -> Array:
    """What `forward` gives at the last row."""
    y = made.forward(x)
    return y[:, -1] if stepper(made).answers_each_row else y


def apart(came: Array, expected: Array) -> float:
    assert came.shape == expected.shape
    assert came.dtype == expected.dtype == np.float32
    return float(np.max(np.abs(came - expected) / np.maximum(1, np.abs(expected))))


# How many of each group are causal at least: the others mask, look ahead, or take a sequence as a whole.
CAUSAL = {
    "asker": 5,
    "each_step/tf215": 2,
    "features/k122": 8,
    "features/k224": 21,
    "features/k3": 44,
    "features/tf215": 52,
    "nested/tf215": 6,
    "savedmodel/k3.15": 1,
    "savedmodel/tf2.0": 1,
    "savedmodel/tf2.15": 1,
    "savedmodel/tf2.4": 2,
    "savedmodel/tf2.5": 1,
    "savedmodel/tf21": 1,
    "savedmodel/tf215": 1,
}


@pytest.mark.long
@pytest.mark.parametrize("group", groups())
def test_steps_of_every_golden_model_that_is_causal_end_where_the_window_does(group: str) -> None:
    causal = 0
    for name, made, golden in golden_models(group=group):
        if made.stepper() is not None:
            causal += 1
            x = made.checked(golden.xs[0])
            assert apart(walked(made, x), at_the_end(made, x)) <= 1e-6, name
    assert causal >= CAUSAL.get(group, 0)


def test_many_golden_models_are_causal() -> None:
    assert CAUSAL.keys() <= {*groups()}
    assert sum(CAUSAL.values()) >= 144


def branches() -> Model:
    """Two branches over time, one of them with a convolution, and the card's scaling before and after."""
    names = {"name": "scaling", "keras_class": "Scaling"}
    conv = Convolution(
        name="conv", kernel=numbers(3, 3, 2), bias=numbers(2), windows=(WINDOW,), activation=RELU, keras_class="Conv1D"
    )
    nodes = (
        Node(Scaling(offset=np.array([1.0, 2, 3]), scale=np.array([2.0, 4, 8]), **names), (Source(INPUT),)),
        Node(lstm(3, 4, return_sequences=True), (Source(0),)),
        Node(conv, (Source(0),)),
        Node(Concatenate(name="both", axis=2, mask_rule=MaskRule.ALL), (Source(1), Source(2))),
        Node(lstm(6, 3), (Source(3),)),
        Node(RepeatVector(name="again", n=3), (Source(4),)),
        Node(lstm(3, 2), (Source(5),)),
        Node(Unscaling(offset=np.array([5.0]), scale=np.array([3.0]), **names), (Source(6),)),
    )
    made = model([dense(1, 1)], (7, 3), About(name="m"))
    return replace(made, nodes=nodes, inputs=(TensorSpec(None, (7, 3), np.dtype(np.float64)),))


WINDOW = Window(size=3, dilation=2, padding="causal")


def test_branches_scalings_and_what_follows_the_last_state() -> None:
    made = branches()
    x = made.checked(numbers(3, 7, 3) * 10)
    assert apart(walked(made, x), made.forward(x)) <= 1e-6


def test_ids() -> None:
    table = Embedding(name="e", embeddings=numbers(7, 3), mask_zero=False)
    made = model([table, lstm(3, 4), dense(4, 2, SOFTMAX)], (None,))
    x = made.checked(np.array([[1, 2, 3, 0, 6], [0, 0, 5, 4, 1]]))
    assert apart(walked(made, x), made.forward(x)) <= 1e-6
    assert made.input_dtype == np.int32


def test_each_step_answers_the_rows_so_far() -> None:
    made = model([lstm(3, 4), dense(4, 2)], (None, 3))
    steps, x = stepper(made), numbers(2, 6, 3)
    state = steps.start(2)
    assert not steps.answers_each_row
    for t in range(6):
        y, state = steps.step(x[:, t], state)
        assert apart(y, made.forward(x[:, : t + 1])) <= 1e-6


def test_a_model_that_answers_each_row() -> None:
    made = model([lstm(3, 4, return_sequences=True), dense(4, 2)], (None, 3))
    x = numbers(2, 6, 3)
    assert stepper(made).answers_each_row
    assert apart(walked(made, x), made.forward(x)[:, -1]) <= 1e-6


@given(data=st.data())
def test_states_are_taken_apart_and_joined_wherever_they_are_in_their_windows(data: st.DataObject) -> None:
    """T windows of one series, each begun a row later: all are stepped as one batch, the oldest is answered first."""
    made = branches()
    steps, timesteps = stepper(made), 7
    length = data.draw(st.integers(timesteps, 2 * timesteps))
    rows: Any = numbers(length, 3, seed=length).astype(np.float64)
    states = steps.start(0)
    for t, row in enumerate(rows):
        states = joined(states, steps.start(1))
        kept = [array.copy() for array in states]
        y = None
        if len(states[0]) == timesteps:
            y, _ = steps.step(row[np.newaxis], tuple(array[:1] for array in states))
            states = tuple(array[1:] for array in states)
            assert apart(y, made.forward(rows[np.newaxis, t - timesteps + 1 : t + 1])) <= 1e-6
        before, states = states, steps.advance(row[np.newaxis], states)
        for was, array in zip(kept, before, strict=True):
            np.testing.assert_array_equal(was[-len(array) :], array)


def joined(*states: State) -> State:
    return tuple(np.concatenate(arrays) for arrays in zip(*states, strict=True))


def test_the_state_alone_is_that_of_a_step() -> None:
    steps = stepper(branches())
    x: Any = numbers(2, 3).astype(np.float64)
    state = steps.start(2)
    for came, expected in zip(steps.advance(x, state), steps.step(x, state)[1], strict=True):
        np.testing.assert_array_equal(came, expected)


def test_one_row_is_that_of_all_series_where_it_meets_what_was_computed_of_it() -> None:
    nodes = (
        Node(lstm(3, 4, return_sequences=True), (Source(INPUT),)),
        Node(Concatenate(name="both", axis=2, mask_rule=MaskRule.ALL), (Source(INPUT), Source(0))),
        Node(lstm(7, 2), (Source(1),)),
    )
    steps, rows = stepper(replace(model([dense(1, 1)], (5, 3)), nodes=nodes)), numbers(3, 3)
    state = steps.advance(rows, steps.start(3))
    for came, expected in zip(steps.advance(rows[:1], state), steps.advance(rows[[0] * 3], state), strict=True):
        np.testing.assert_allclose(came, expected, rtol=0, atol=1e-6)


def test_a_step_that_overflows_is_infinite_and_warns_of_nothing() -> None:
    made = model([Activate(name="square", activation=FUNCTIONS["square"]), lstm(3, 4), dense(4, 2)], (5, 3))
    steps, row = stepper(made), np.full((1, 3), 3e38, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, _ = steps.step(row, steps.start(1))
        steps.advance(row, steps.start(1))
    assert y.shape == (1, 2)


@pytest.mark.parametrize(
    "layers",
    [
        [GlobalPooling1D(name="mean", average=True, keepdims=False)],
        [lstm(3, 4, go_backwards=True)],
        [Bidirectional(name="bi", forward=lstm(3, 2), backward=lstm(3, 2, go_backwards=True), merge_mode="sum")],
        [BaseOperation(name="stranger")],
    ],
    ids=lambda layers: type(layers[0]).__name__,
)
def test_what_sees_a_sequence_as_a_whole_has_no_stepper(layers: list[Operation]) -> None:
    assert model(layers, (6, 3)).stepper() is None


def test_a_row_has_no_steps() -> None:
    assert model([dense(4, 2)], (4,)).stepper() is None


def test_ids_are_a_row_to_all_but_a_look_up() -> None:
    """A Dense layer on the ids of a sequence sees them all at once."""
    assert model([dense(5, 2)], (5,)).stepper() is None


def test_a_sequence_does_not_meet_what_was_computed_of_one() -> None:
    add = Concatenate(name="both", axis=2, mask_rule=MaskRule.ALL)
    nodes = (
        Node(lstm(3, 4), (Source(INPUT),)),
        Node(RepeatVector(name="again", n=6), (Source(0),)),
        Node(add, (Source(1), Source(INPUT))),
    )
    assert replace(model([dense(1, 1)], (6, 3)), nodes=nodes).stepper() is None
