"""What is computed of the rows that are appended to a series of a stateful model, after a gap too."""

import numpy as np
import pytest
from numpy.typing import NDArray
from serving import GOLDEN

from lstm_serve import load_model
from lstm_serve.errors import SeriesConflict
from lstm_serve.model.carry import Carrying
from lstm_serve.model.metadata import SeriesRules
from lstm_serve.serving.series.carry import Replacement, plan, replacement
from lstm_serve.serving.series.store import Found, Sent, Series

KEEP = 4
MADE = Carrying.of(load_model(GOLDEN / "stateful" / "tf215__last.h5"))
assert MADE is not None
CARRYING: Carrying = MADE
ROWS = np.random.default_rng(4).normal(size=(12, 3)).astype(np.float32)


def appended(before: Series | None, rows: NDArray[np.float32], seqs: list[int], rules: SeriesRules) -> Replacement:
    planned = plan(Found(before), Sent(rows, seqs), rules, CARRYING, KEEP, most=100)
    ys, state = CARRYING.carry_on(planned.rows[np.newaxis], planned.state)
    return replacement(planned, [ys[0]], tuple(state), CARRYING.digest, KEEP)


def expect_answers(found: Replacement, rows: NDArray[np.float32], *ends: int) -> None:
    """Expect the answers to the last rows that end there, each from a state of 0 before `rows`."""
    ys, state = CARRYING.carry_on(rows[np.newaxis], CARRYING.stepper.start(1))
    answers = [answer for answer in found[2] if answer is not None]
    np.testing.assert_allclose(answers, [ys[0, end - 1] for end in ends], atol=1e-6)
    assert found[0].carried is not None
    assert found[0].carried.rows_in_state == found[1].kept == len(rows)
    np.testing.assert_allclose(found[0].carried.ys, ys[0, -len(found[0].rows) :], atol=1e-6)
    for came, expected in zip(found[0].carried.state, state, strict=True):
        np.testing.assert_allclose(came, expected, atol=1e-6)


def test_after_a_gap_that_begins_anew_the_state_does_too() -> None:
    rules = SeriesRules(gap="reset")
    before, *_ = appended(None, ROWS[:3], [0, 1, 2], rules)
    found = appended(before, ROWS[2:5], [2, 8, 9], rules)
    assert found[1].begun == "gap"
    assert [answer is None for answer in found[2]] == [True, False, False]
    expect_answers(found, ROWS[3:5], 1, 2)


def test_as_many_missing_rows_as_there_may_be_are_filled_and_with_one_more_none_is() -> None:
    rules = SeriesRules(gap="last")
    before, *_ = appended(None, ROWS[:1], [0], rules)
    assert appended(before, ROWS[1:2], [101], rules)[1].filled == 100
    with pytest.raises(SeriesConflict, match="101 rows are missing before these; the last one stands for 100 at most"):
        appended(before, ROWS[1:2], [102], rules)


def test_after_a_gap_longer_than_what_is_kept_each_row_has_its_answer() -> None:
    rules = SeriesRules(gap="last")
    before, *_ = appended(None, ROWS[:3], [0, 1, 2], rules)
    found = appended(before, ROWS[3:5], [13, 14], rules)
    assert found[1].filled == 10
    filled = np.concatenate((ROWS[:3], ROWS[2:3].repeat(10, axis=0), ROWS[3:5]))
    expect_answers(found, filled, 14, 15)
    again = appended(found[0], ROWS[4:6], [14, 15], rules)
    expect_answers(again, np.concatenate((filled, ROWS[5:6])), 15, 16)
