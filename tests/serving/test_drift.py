"""Streams in which nothing drifts raise no alarm, others do; the long form is benchmarks/drift.py."""

import numpy as np
import pytest
from serving import ROOT
from streams import KINDS, alarms, states, stream

from lstm_serve import load_model
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
