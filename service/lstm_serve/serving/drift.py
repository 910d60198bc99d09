"""Whether what comes in is still like the training: rows are counted in windows, and each full window is judged.

A row counts once its answer is out. Windows do not overlap; a feature has drifted where two in turn are over its limit.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.types import Array
from lstm_serve.formats.text import printable
from lstm_serve.model import watched
from lstm_serve.model.model import Model
from lstm_serve.model.profile import BINS, Floats, Profile, Spoken, psi
from lstm_serve.telemetry.metrics import Metrics

Log = logging.LoggerAdapter[logging.Logger]

# As many models are watched, so that there are not too many lines in /metrics: some 22 a feature.
MOST_MODELS = 10
State = Literal["few", "ok", "watch", "drifted"]
STATES: tuple[State, ...] = ("ok", "watch", "drifted")
OK, WATCH, DRIFTED = range(3)
# Of its limit, from where on a feature is watched.
HALF = 0.5
# Answers that are counted together, and how long the first of them waits for that.
TOGETHER = 64
FLUSH_SECONDS = 1.0


class Seen(NamedTuple):
    """Rows that were answered, (n, F), and outputs, where there are any."""

    rows: Array
    outputs: Array | None


def seen(x: Array, y: Array) -> Seen:
    """What counts of sequences, or of rows, and of their outputs: of each the last row, and the last step's answer."""
    return Seen(watched.rows(x).copy(), y if y.ndim < 3 else y[:, -1:].copy())


class Judged(NamedTuple):
    """A full window: of each feature its state, a number of STATES, its figures, and the shares of its bins.

    `over` says which are over their limit in this window; `spoken` counts the answers in it.
    """

    states: npt.NDArray[np.int64]
    over: npt.NDArray[np.bool_]
    psi: Floats
    wasserstein: Floats
    out_of_range: Floats
    shares: Floats
    spoken: Spoken | None


class Drift:
    """The rows of one model, against its profile."""

    def __init__(self, model: Model, profile: Profile, rows: int, metrics: Metrics, log: Log) -> None:
        """Windows are of so many rows. No row has come yet."""
        self._log = log
        self.profile, self.size, self.rows = profile, rows, 0
        self.judged: Judged | None = None  # the last full window
        self._model, self._metrics, self._name = model, metrics, model.about.name
        self._limits = profile.limits(rows)
        self._window = np.empty((rows, len(profile.columns)), model.input_dtype)
        self._total = np.zeros((len(profile.columns), BINS), np.int64)
        self._begin()
        self._waiting: list[Seen] = []
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        names = [column.name for column in profile.columns]
        self._bins = [(self._name, name, str(k)) for name in names for k in range(BINS)]
        expected = zip(self._bins, profile.shares.ravel().tolist(), strict=True)
        metrics.bin_expected.set_each(self._name, dict(expected))
        self._labels = [(self._name, name) for name in names]
        self._tell_bins()

    @property
    def filled(self) -> int:
        """How many rows the window has that is being filled."""
        return self.rows % self.size

    @property
    def state(self) -> State:
        """That of the feature that is farthest off; few, where no window was full yet."""
        return "few" if self.judged is None else STATES[int(self.judged.states.max())]

    def add(self, seen: Sequence[Seen]) -> None:
        """Count rows that were answered, soon. To be called in the event loop's thread alone."""
        if self._ended:
            return
        self._waiting += seen
        if len(self._waiting) >= TOGETHER or sum(len(each.rows) for each in seen) > TOGETHER:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_late)

    def flush(self) -> None:
        """Count what waits for that now."""
        waiting, self._waiting = self._waiting, []
        if not waiting or self._ended:
            return
        rows = np.concatenate([seen.rows for seen in waiting])
        outputs = [seen.outputs for seen in waiting if seen.outputs is not None]
        if outputs:
            self._answer(np.concatenate(outputs))
        while len(rows):
            start, part = self.filled, rows[: self.size - self.filled]
            rows = rows[len(part) :]
            self._window[start : start + len(part)] = part
            self._counts += self.profile.counts(part)
            self.rows += len(part)
            if not self.filled:
                self._total += self._counts
                self._judge()
                self._begin()
        self._tell_bins()

    def end(self) -> None:
        """Count nothing any more: another has its place."""
        self._ended = True

    def _flush_late(self) -> None:
        self._timer = None
        self.flush()

    def _begin(self) -> None:
        self._counts = np.zeros_like(self._total)
        self._spoken: Spoken | None = None

    def _answer(self, outputs: Array) -> None:
        said = watched.spoken(self._model, outputs)
        if said is not None:
            before = self._spoken
            self._spoken = said if before is None else Spoken(*(a + b for a, b in zip(before, said, strict=True)))

    def _judge(self) -> None:
        profile, before = self.profile, self.judged
        of_psi, of_wasserstein = psi(self._counts, profile.shares), profile.wasserstein(self._window)
        out = profile.out_of_range(self._window)
        far = np.maximum(of_psi / self._limits[0], of_wasserstein / self._limits[1])
        over, near = far >= 1, far >= HALF
        drifted = over & (before is not None and before.over)
        states = np.where(drifted, DRIFTED, np.where(near, WATCH, OK))
        self.judged = Judged(states, over, of_psi, of_wasserstein, out, self._counts / self.size, self._spoken)
        new = drifted & (before is None or before.states != DRIFTED)
        if new.any():
            names = ", ".join(printable(profile.columns[k].name) for k in np.flatnonzero(new))
            self._log.warning("drifted from the training: %s", names)
        for gauge, numbers in (
            (self._metrics.drift_psi, of_psi),
            (self._metrics.drift_state, states),
            (self._metrics.out_of_range, out),
        ):
            gauge.set_each(self._name, dict(zip(self._labels, numbers.tolist(), strict=True)))

    def _tell_bins(self) -> None:
        counts = (self._total + self._counts).ravel().tolist()
        self._metrics.bins.counts.update(zip(self._bins, counts, strict=True))
