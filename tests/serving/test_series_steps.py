"""The windows that have begun, against whole windows: whatever comes between, what they answer is the same."""

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from serving import ASKER
from small_models import dense, lstm, model, numbers

from lstm_serve import load_model
from lstm_serve.engine.activations import SOFTMAX
from lstm_serve.engine.operations.pointwise import Normalization
from lstm_serve.engine.operations.temporal import Embedding
from lstm_serve.engine.operations.windows import Convolution, Window
from lstm_serve.engine.operations.wrappers import Bidirectional
from lstm_serve.model.model import Model
from lstm_serve.serving.series import steps
from lstm_serve.serving.series.steps import BegunWindows, Costs, measured
from lstm_serve.serving.series.store import SeriesKey

KEY = SeriesKey(b"", "s")
STEPS = 6
CHEAP = Costs(window=3.5, more=0.25, answer=0.5, rest=0.5)
MODELS = {
    "stacked": model([lstm(3, 4, return_sequences=True), lstm(4, 3), dense(3, 2, SOFTMAX)], (STEPS, 3)),
    "convolved": model(
        [
            Normalization(name="n", mean=numbers(3), variance=np.ones(3, np.float32)),
            Convolution(
                name="conv",
                kernel=numbers(3, 3, 4),
                bias=numbers(4),
                windows=(Window(size=3, dilation=1, padding="causal"),),
                activation=SOFTMAX,
            ),
            lstm(4, 3),
        ],
        (STEPS, 3),
    ),
    "ids": model([Embedding(name="e", embeddings=numbers(7, 3), mask_zero=False), lstm(3, 4)], (STEPS,)),
}


def steps_of(made: Model, most: int = 3, costs: Costs = CHEAP, **options: Any) -> BegunWindows:
    stepper = made.stepper()
    assert stepper is not None
    return BegunWindows(stepper, STEPS, most, costs, **options)


def rows_of(made: Model, count: int, seed: int, values: int = 7) -> NDArray[Any]:
    """Random rows, of so few values that some are alike."""
    drawn = np.random.default_rng(seed).integers(0, values, [count, *(size or 1 for size in made.input_shape[1:])])
    return drawn.astype(made.input_dtype)


def answered(kept: BegunWindows, made: Model, series: SeriesKey, window: NDArray[Any]) -> bool:
    """Whether there is a shortcut to a window's answer; it is the right one."""
    shortcut = kept.shortcut(series, window)
    if shortcut is not None:
        np.testing.assert_allclose(shortcut.compute(), made.forward(window[np.newaxis]), rtol=2e-6, atol=2e-6)
    return shortcut is not None


def follow(kept: BegunWindows, series: SeriesKey, rows: NDArray[Any]) -> None:
    """As after an answer, at once."""
    found = kept.follower(series)
    if found is not None:
        found(rows)()


def last(rows: NDArray[Any]) -> NDArray[Any]:
    return rows[-STEPS:]


@pytest.mark.parametrize("name", MODELS)
def test_once_a_window_has_been_seen_whole_each_row_is_a_step(name: str) -> None:
    made, kept = MODELS[name], steps_of(MODELS[name])
    rows = rows_of(made, 4 * STEPS, 1)
    for k in range(1, len(rows)):
        if k >= STEPS:
            assert answered(kept, made, KEY, rows[k - STEPS : k])
        follow(kept, KEY, last(rows[:k]))


happenings = st.lists(
    st.one_of(
        st.tuples(st.just("rows"), st.integers(1, 5)),
        st.tuples(st.just("unseen rows"), st.integers(1, 5)),
        st.tuples(st.just("begin anew"), st.integers(1, 9)),
        st.tuples(st.just("forget"), st.just(0)),
        st.tuples(st.just("late"), st.integers(1, 9)),
    ),
    min_size=5,
    max_size=60,
)


@given(name=st.sampled_from([*MODELS]), happenings=happenings, seed=st.integers(0, 99), values=st.integers(1, 7))
def test_whatever_happens_what_is_answered_is_right(
    name: str, happenings: list[tuple[str, int]], seed: int, values: int
) -> None:
    """Rows that are not seen, a series that is deleted and begun anew, steps that come late or in another order."""
    made, kept = MODELS[name], steps_of(MODELS[name])
    pool = rows_of(made, 400, seed, values)
    rows, at = pool[:0], 0
    for what, count in happenings:
        if what == "begin anew":
            rows = pool[:0]
        if what == "forget":
            kept.forget(KEY)
        elif what == "late":
            if len(rows) > count:
                follow(kept, KEY, last(rows[:-count]))
        else:
            rows = np.concatenate([rows, pool[at : at + count]])
            at += count
            if len(rows) >= STEPS:
                answered(kept, made, KEY, last(rows))
            if what == "rows":
                follow(kept, KEY, last(rows))


@pytest.mark.parametrize("behind", range(1, 5))
def test_rows_that_were_not_seen_are_caught_up_with_in_the_time_of_two_windows(behind: int) -> None:
    costs = Costs(window=3.0, more=0.25, answer=0.25, rest=2.0)
    made, kept = MODELS["stacked"], steps_of(MODELS["stacked"], costs=costs)
    rows = rows_of(made, 3 * STEPS, 2, 100)
    for k in range(1, 2 * STEPS):
        follow(kept, KEY, last(rows[:k]))
    window = last(rows[: 2 * STEPS - 1 + behind])
    assert answered(kept, made, KEY, window) == (behind <= 3)
    shortcut = kept.shortcut(KEY, window)
    assert shortcut is None or shortcut.pays(1) == (behind == 1)
    follow(kept, KEY, window)
    assert answered(kept, made, KEY, last(rows[: 2 * STEPS + behind])) == (behind <= 3)


def test_rows_by_steps_pay_where_few_are_due() -> None:
    assert [due for due in range(1, 9) if CHEAP.pay(1, due)] == [1, 2, 3, 4]
    assert [rows for rows in range(1, 9) if CHEAP.pay(rows, 1)] == [1, 2, 3]
    assert not CHEAP.pay(2, 2)


def test_a_place_is_kept_until_its_series_is_idle() -> None:
    made, now = MODELS["stacked"], 0.0
    kept = steps_of(made, most=2, clock=lambda: now)
    rows = rows_of(made, 2 * STEPS, 3)

    def followed(name: str) -> bool:
        series = SeriesKey(b"", name)
        for k in range(1, STEPS + 1):
            follow(kept, series, last(rows[:k]))
        return answered(kept, made, series, rows[1 : STEPS + 1])

    assert [followed(name) for name in "abc"] == [True, True, False]
    now = 59.0
    assert followed("b")
    now = 60.0
    assert [followed(name) for name in "cab"] == [True, False, True]
    kept.forget(SeriesKey(b"", "b"))
    assert followed("a")


def test_the_place_of_a_series_whose_rows_go_on_is_given_to_no_other() -> None:
    made, now = MODELS["stacked"], 0.0
    kept, rows = steps_of(made, most=2, clock=lambda: now), rows_of(made, 3 * STEPS, 3)
    first, second, third = (SeriesKey(b"", name) for name in "abc")
    for series in (first, second):
        for k in range(1, STEPS + 1):
            follow(kept, series, last(rows[:k]))
    now = 50.0
    follow(kept, first, last(rows[: STEPS + 1]))
    now = 70.0
    follow(kept, third, last(rows[:STEPS]))
    assert answered(kept, made, first, rows[2 : STEPS + 2])
    assert not answered(kept, made, second, rows[1 : STEPS + 1])


@pytest.mark.parametrize("computed", [False, True])
def test_what_is_forgotten_before_it_is_kept_is_not_kept(*, computed: bool) -> None:
    made, kept = MODELS["stacked"], steps_of(MODELS["stacked"])
    rows = rows_of(made, 2, 5)
    late, keep = kept.follower(KEY), None
    assert late is not None
    if computed:
        keep = late(rows[:1])
    kept.forget(KEY)
    follow(kept, KEY, rows)
    kept.forget(KEY)
    (keep or late(rows[:1]))()
    assert kept.count() == 0
    follow(kept, KEY, rows)
    assert kept.count() == 1


def test_what_is_computed_at_once_has_no_more_places_than_there_are() -> None:
    made, kept = MODELS["stacked"], steps_of(MODELS["stacked"], most=1)
    found = [kept.follower(SeriesKey(b"", name)) for name in "ab"]
    for keep in [each(rows_of(made, 1, 5)) for each in found if each is not None]:
        keep()
    assert kept.count() == 1


def test_what_raises_is_let_go_of_and_told(caplog: pytest.LogCaptureFixture) -> None:
    made, kept = MODELS["stacked"], steps_of(MODELS["stacked"])
    rows = rows_of(made, STEPS, 4)
    follow(kept, KEY, rows[:2])
    follow(kept, KEY, rows[:3, :2])  # no rows of this model
    assert "raised" in caplog.text
    follow(kept, KEY, rows)
    assert not answered(kept, made, KEY, rows)


def test_where_steps_are_measured_to_pay() -> None:
    made = load_model(ASKER / "k215_model.h5")
    found = measured(made, 0.0, 10)
    while found is None:  # something else had the processor all the time
        time.sleep(0.01)
        found = measured(made, 0.0, 10)
    assert found.costs.answer + found.costs.rest < found.costs.window
    assert found.costs.more < found.costs.window


@pytest.mark.parametrize(
    "made",
    [
        model([Bidirectional(name="b", forward=lstm(3, 2), backward=lstm(3, 2, go_backwards=True), merge_mode="sum")]),
        model([lstm(3, 4, return_sequences=True)]),
        model([dense(3, 4)], (3,)),
        model([lstm(3, 4)], (1, 3)),
        model([lstm(3, 4)], (None, 3)),
    ],
    ids=["not causal", "an answer for each row", "no time", "one row", "free"],
)
def test_models_without_steps(made: Model) -> None:
    assert measured(made, 0.0, 10) is None


def test_states_beyond_the_bound_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made = load_model(ASKER / "k215_model.h5")
    monkeypatch.setattr(steps, "MOST_BYTES", 15_000)  # of one series they are 15,352
    assert measured(made, 0.0, 10) is None


def test_a_window_that_takes_long_is_not_measured() -> None:
    assert measured(load_model(ASKER / "k215_model.h5"), 1.0, 10) is None
