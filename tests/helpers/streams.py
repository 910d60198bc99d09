"""Streams of rows without drift, and what is said of them window by window."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstm_serve.model.model import Model
from lstm_serve.model.profile import Profile
from lstm_serve.serving.drift import STATES, Drift
from lstm_serve.telemetry.metrics import Metrics

Rows = NDArray[Any]
KINDS = ("independent", "skewed", "few values", "AR(1) 0.95", "a season of 1,440 rows", "a season of 12,000 rows")


def stream(rows: int, seed: int) -> Rows:
    """Rows (N, len(KINDS)), float32, of which nothing ever changes but what always did."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(rows, 6))
    correlated = np.empty(rows)
    last = rng.normal()
    for k, step in enumerate(np.sqrt(1 - 0.95**2) * noise[:, 3]):
        last = correlated[k] = 0.95 * last + step
    phase = 2 * np.pi * (np.arange(rows) + rng.integers(12_000))
    found = [
        noise[:, 0],
        np.exp(noise[:, 1]),
        rng.choice([0.0, 1.0, 5.0], rows, p=[0.05, 0.9, 0.05]),
        correlated,
        np.sin(phase / 1440) + 0.3 * noise[:, 4],
        np.sin(phase / 12_000) + 0.3 * noise[:, 5],
    ]
    return np.stack(found, axis=1).astype(np.float32)


def drift_of(model: Model, profile: Profile, window: int) -> Drift:
    """Of windows of so many rows; no row has come yet."""
    return Drift(model, profile, window, Metrics(), logging.LoggerAdapter(logging.getLogger(__name__), {}))


def states(model: Model, profile: Profile, x: Rows, window: int) -> list[list[str]]:
    """Of each full window the state of each feature."""
    drift = drift_of(model, profile, window)
    found: list[list[str]] = []
    for start in range(0, len(x) - window + 1, window):
        drift.take(x[start : start + window])
        assert drift.judged is not None
        found.append([STATES[int(state)] for state in drift.judged.states])
    return found


def alarms(found: Sequence[Sequence[str]], feature: int) -> int:
    """In how many windows a feature has drifted."""
    return sum(window[feature] == "drifted" for window in found)
