"""Whether what comes in is still like the training: rows are counted in windows, and each full window is judged.

A row counts once its answer is out. Windows do not overlap; a feature has drifted where two in turn are over its limit.
An answer is of the window of its row, or where it came without one, of that of the row before it.
"""

import asyncio
import logging
from bisect import bisect_right
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.types import Array, Floats, Ints
from lstm_serve.formats.text import printable
from lstm_serve.model import watched
from lstm_serve.model.model import Model
from lstm_serve.model.profile import BINS, Profile, Spoken, psi, single
from lstm_serve.telemetry.metrics import Metrics

Log = logging.LoggerAdapter[logging.Logger]

# As many models are watched, so that there are not too many lines in /metrics: some 22 a feature.
MOST_MODELS = 10
DriftState = Literal["few", "ok", "watch", "drifted"]
STATES: tuple[DriftState, ...] = ("ok", "watch", "drifted")
OK, WATCH, DRIFTED = range(3)
# Of its limit, from where on a feature is watched.
HALF = 0.5
# So many answers are counted together, as alone each would take ten times as long; and the first waits so long for it.
TOGETHER = 256
SOON = 1.0  # seconds
# Of more bytes than these a sequence is not kept until then.
SMALL = 1 << 13


class JudgedWindow(NamedTuple):
    """A full window: of each feature its state, a number of STATES, its figures, and the shares of its bins.

    `over` says which are over their limit in this window; `spoken` counts the answers in it.
    """

    states: Ints
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
        self.judged: JudgedWindow | None = None  # the last full window
        self._model, self._metrics, self._name = model, metrics, model.about.name
        self._limits = profile.limits(rows)
        self._window = np.empty((rows, len(profile.columns)), np.float32)
        self._spoken: Spoken | None = None  # of the window of the last row
        self._waiting: list[tuple[Array | None, Array | None]] = []  # rows, or sequences, and outputs
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        names = [column.name for column in profile.columns]
        self._bins = [(self._name, name, str(k)) for name in names for k in range(BINS)]
        # Another model's counts go on: where a counter falls, Prometheus takes what is left of it for new rows.
        metrics.keep_bins(self._name, self._bins)
        counted = [metrics.bins.counts.get(one, 0) for one in self._bins]
        self._total = np.array(counted, np.int64).reshape(-1, BINS)
        self._counts = np.zeros_like(self._total)
        expected = zip(self._bins, profile.shares.ravel().tolist(), strict=True)
        metrics.bin_expected.set_each(self._name, dict(expected))
        self._labels = [(self._name, name) for name in names]
        self._tell_bins()

    @property
    def filled(self) -> int:
        """How many rows the window has that is being filled."""
        return self.rows % self.size

    @property
    def state(self) -> DriftState:
        """That of the feature that is farthest off; few, where no window was full yet."""
        return "few" if self.judged is None else STATES[int(self.judged.states.max())]

    def see(self, x: Array | None, y: Array | None) -> None:
        """Have what is answered counted, soon: of sequences (n, timesteps, features) the last rows, or rows; outputs.

        Of both there are as many, or one is missing. Of an answer for each step that is the last one. To be called in
        the event loop's thread alone.
        """
        rows = x if x is None or x.nbytes <= SMALL else watched.rows(x).copy()
        self._waiting.append((rows, y if y is None or y.ndim < 3 else watched.last(y).copy()))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SOON, self._on_time)
        elif len(self._waiting) == TOGETHER or (x is not None and len(x) >= TOGETHER):
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(0, self._on_time)

    def flush(self) -> None:
        """Count what waits for that now."""
        waiting, self._waiting = self._waiting, []
        if self._ended or not waiting:
            return
        count, come = 0, list[int]()  # of each answer, how many of the rows had come, its own among them
        for x, y in waiting:
            if y is not None:
                come += [count] * len(y) if x is None else range(count + 1, count + len(x) + 1)
            count += 0 if x is None else len(x)
        xs, ys = [watched.rows(x) for x, _ in waiting if x is not None], [y for _, y in waiting if y is not None]
        rows, outputs = np.concatenate(xs or [self._window[:0]]), np.concatenate(ys) if ys else None
        start = answered = 0
        # To where each window is full, and to the end; before any row there are answers of the one counted before.
        for stop in (0, *range(self.size - self.filled, count, self.size), count):
            self.take(rows[start:stop])
            upto = bisect_right(come, stop)
            if outputs is not None and upto > answered:
                self._answer(outputs[answered:upto])
            start, answered = stop, upto
        self._tell_bins()

    def take(self, rows: Array) -> None:
        """Count rows (n, F) now, as many at most as the window that is being filled has room for; full it is judged."""
        if not len(rows):
            return
        start = self.filled
        if not start:
            self._total += self._counts
            self._counts, self._spoken = np.zeros_like(self._total), None
        rows = single(rows)
        self._window[start : start + len(rows)] = rows
        self._counts += self.profile.counts(rows)
        self.rows += len(rows)
        if not self.filled:
            self._judge()

    def end(self) -> None:
        """Count nothing any more: another has its place."""
        self._ended = True

    def _on_time(self) -> None:
        self._timer = None
        self.flush()

    def _answer(self, outputs: Array) -> None:
        said = watched.spoken(self._model, outputs)
        if said is not None:
            before = self._spoken
            self._spoken = said if before is None else Spoken(*(a + b for a, b in zip(before, said, strict=True)))
        if self.judged is not None and not self.filled:  # the window is full, and no row of the next one has come
            self.judged = self.judged._replace(spoken=self._spoken)

    def _judge(self) -> None:
        profile, before = self.profile, self.judged
        of_psi, of_wasserstein = psi(self._counts, profile.shares), profile.wasserstein(self._window)
        out = profile.out_of_range(self._window)
        far = np.maximum(of_psi / self._limits[0], of_wasserstein / self._limits[1])
        over, near = far >= 1, far >= HALF
        drifted = over & (before is not None and before.over)
        states = np.where(drifted, DRIFTED, np.where(near, WATCH, OK))
        self.judged = JudgedWindow(states, over, of_psi, of_wasserstein, out, self._counts / self.size, self._spoken)
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
