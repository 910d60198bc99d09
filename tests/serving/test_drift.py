"""Streams in which nothing drifts raise no alarm, others do; the long form is benchmarks/drift.py."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kinds import NAMES, TAGGER, X, made
from serving import ROOT, in_loop
from streams import KINDS, alarms, drift_of, states, stream

from lstm_serve import load_model
from lstm_serve.model.watched import spoken
from lstm_serve.scoring.profile import of_rows

MODEL = load_model(ROOT / "models" / "turbofan.h5")
PROFILE = of_rows(KINDS, stream(40_000, 1))
WINDOW = 5000


@pytest.mark.parametrize("seed", [2, 3])
def test_without_drift_there_is_no_alarm(seed: int) -> None:
    found = states(MODEL, PROFILE, stream(40_000, seed), WINDOW)
    assert [alarms(found, k) for k in range(len(KINDS))] == [0] * len(KINDS)


@pytest.mark.parametrize("feature", range(len(KINDS) - 1))
@pytest.mark.parametrize("change", ["half a standard deviation up", "and down", "another unit", "stuck"])
def test_what_changes_is_named_after_two_windows(feature: int, change: str) -> None:
    """And nothing else is. The last kind has a season longer than a window: its chunks differ by more than this."""
    x = stream(2 * WINDOW, 4)
    values, sd = x[:, feature], np.float32(PROFILE.columns[feature].sd)
    x[:, feature] = {
        "half a standard deviation up": values + sd / 2,
        "and down": values - sd / 2,
        "another unit": values * np.float32(5 / 9) + 32,
        "stuck": np.full_like(values, values[0]),
    }[change]
    found = states(MODEL, PROFILE, x, WINDOW)
    assert found[0][feature] == "watch"
    assert [k for k, state in enumerate(found[1]) if state == "drifted"] == [feature]


@pytest.mark.parametrize(("first", "then"), [(0.14, "watch"), (0.29, "drifted")])
def test_a_window_that_was_near_the_limit_is_not_one_over_it(first: float, then: str) -> None:
    x = stream(2 * WINDOW, 4)
    x[:WINDOW, 0] += np.float32(first)
    x[WINDOW:, 0] += np.float32(0.5)
    assert [window[0] for window in states(MODEL, PROFILE, x, WINDOW)] == ["watch", then]


def test_what_goes_on_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    x = stream(5 * WINDOW, 4)
    x[:, 0] += np.float32(0.5)
    x[2 * WINDOW :, 1] *= 2
    states(MODEL, PROFILE, x, WINDOW)
    assert caplog.messages == [f"drifted from the training: {kind}" for kind in KINDS[:2]]


def test_of_an_answer_for_each_step_the_last_counts(tmp_path: Path) -> None:
    """In the profile and in the service: it is of the row that counts."""
    model = load_model(made(tmp_path, TAGGER, classes=NAMES))
    y = model.predict(np.random.default_rng(1).normal(size=(50, *X.shape[1:])))
    all_of_it, last = spoken(model, y), spoken(model, y[:, -1:])
    assert all_of_it is not None
    assert last is not None
    assert all_of_it.classes.tolist() == last.classes.tolist()
    assert all_of_it.classes.sum() == 50


# Of a request its rows, whether they are answered, how many answers to other rows follow, and whether all is counted.
REQUEST = st.tuples(st.integers(0, 7), st.booleans(), st.integers(0, 3), st.booleans())


@given(st.lists(REQUEST, min_size=1, max_size=12))
@in_loop
async def test_an_answer_is_of_the_window_of_its_row(requests: list[tuple[int, bool, int, bool]]) -> None:
    """And one without a row of that of the row before it, whenever they are counted."""
    window, classes, rows = 5, len(MODEL.about.classes or ()), 0
    drift, rng = drift_of(MODEL, PROFILE, window), np.random.default_rng(0)
    said: dict[int, list[int]] = {}  # by window
    for count, answered, others, counted in requests:
        of_rows, of_others = rng.integers(classes, size=count), rng.integers(classes, size=others)
        y = np.eye(classes, dtype=np.float32)
        drift.see(stream(count, 5), y[of_rows] if answered else None)
        for k, chosen in enumerate(of_rows.tolist() if answered else ()):
            said.setdefault((rows + k) // window, []).append(chosen)
        rows += count
        drift.see(None, y[of_others])
        said.setdefault((rows - 1) // window, []).extend(of_others.tolist())
        if counted:
            drift.flush()
    drift.flush()
    assert drift.rows == rows
    if rows >= window:
        assert drift.judged is not None
        found = drift.judged.spoken
        expected = np.bincount(said.get(rows // window - 1, []), minlength=classes).tolist()
        assert (found.classes.tolist() if found else [0] * classes) == expected
