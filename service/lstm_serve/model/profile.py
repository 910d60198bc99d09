"""What the training data were like, feature by feature, and how far other rows are from that.

The population stability index (PSI) is the sum over bins of (p - q) ln(p / q), p being the shares of the bins among the
rows and q those of the training. It is of counts alone, so that those of several processes may be added up before. The
Wasserstein distance is the mean distance of values of the same rank: it sees a shift within bins too.

All of it is of float32, whatever type the rows come in: else 8.1 in float32 would be beyond 8.1 in float64.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.types import FLOAT32_MAX, AnyArray, Floats, Ints

BINS = 10
Singles = npt.NDArray[np.float32]

# The quantiles that are kept beside the edges: what lies between two is taken for even, which far out it is not.
LOW = (0.001, 0.01, 0.025, 0.05)
HIGH = (0.95, 0.975, 0.99, 0.999)
MOST_FEATURES = 64
# A share is taken for no less, or an empty bin would make the PSI infinite.
LEAST_SHARE = 1e-4
ROWS_AT_ONCE = 4096

# A feature has drifted from here on, where its chunks in the training do not reach as far themselves.
PSI_LIMIT = 0.2
WASSERSTEIN_LIMIT = 0.25


class Column(NamedTuple):
    """A feature: its range, its quantiles of LOW and HIGH, and the shares of the bins that `edges` part, at most BINS.

    The first bin holds what is below the first edge, the others what is at their edge or above. A value that is a tenth
    of all has a bin of its own.
    """

    name: str
    least: float
    greatest: float
    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: float
    sd: float
    edges: tuple[float, ...]
    shares: tuple[float, ...]

    @property
    def ranks(self) -> tuple[Floats, Floats]:
        """Values in ascending order, and which share of the training was below each."""
        at_edges = np.cumsum(self.shares)[:-1]
        low = [(value, share) for value, share in zip(self.low, LOW, strict=True) if share < at_edges[0]]
        high = [(value, share) for value, share in zip(self.high, HIGH, strict=True) if share > at_edges[-1]]
        edges = zip(self.edges, at_edges.tolist(), strict=True)
        values, below = map(np.array, zip((self.least, 0.0), *low, *edges, *high, (self.greatest, 1.0), strict=True))
        # Of numbers in steps, 38.81 and 38.82, those of a bin lie half a step lower than evenly: the mean tells.
        evenly = ((values[1:] + values[:-1]) / 2 * np.diff(below)).sum()
        return values + (self.mean - evenly), below


class Spread(NamedTuple):
    """Mean and standard deviation of a statistic over chunks of the training, of each feature: (F,), (F,)."""

    mean: Floats
    sd: Floats

    def limit(self, least: float) -> Floats:
        """What a chunk of the training would hardly reach, and no less than `least`."""
        return np.maximum(least, self.mean + 3 * self.sd)


class Chunks(NamedTuple):
    """How far chunks of so many rows of the training were from the whole of it; the Wasserstein distance in sd."""

    rows: int
    psi: Spread
    wasserstein: Spread


class Spoken(NamedTuple):
    """What was answered: how often each class (C,), and how often each tenth of the entropy (BINS,)."""

    classes: AnyArray
    entropy: AnyArray


@dataclass(frozen=True, eq=False)
class Profile:
    """Of so many rows of training data: features, chunks of ascending sizes, and shares of what the model answered."""

    rows: int
    columns: tuple[Column, ...]
    chunks: tuple[Chunks, ...] = ()
    spoken: Spoken | None = None

    @cached_property
    def shares(self) -> Floats:
        """The shares of the bins, (F, BINS); 0 of those that there are not."""
        return np.array([[*column.shares, *[0.0] * (BINS - len(column.shares))] for column in self.columns])

    @cached_property
    def _edges(self) -> Singles:
        """The first edge of each feature, the second, and so on: (BINS - 1, F)."""
        padded = [[*column.edges, *[np.inf] * (BINS - 1 - len(column.edges))] for column in self.columns]
        return np.ascontiguousarray(np.array(padded, np.float32).T)

    @cached_property
    def _first(self) -> npt.NDArray[np.int16]:
        """Where the bins of each feature begin among those of all."""
        return BINS * np.arange(len(self.columns), dtype=np.int16)

    @cached_property
    def _range(self) -> tuple[Floats, Floats]:
        return np.array([column.least for column in self.columns]), np.array([each.greatest for each in self.columns])

    def limits(self, rows: int) -> tuple[Floats, Floats]:
        """The PSI, and the Wasserstein distance in sd, from which on a feature of a window of so many rows is off."""
        # Of chunks that are no larger than the window: they vary as much as it does, or more.
        fitting = [chunks for chunks in self.chunks if chunks.rows <= rows]
        if not fitting:
            ones = np.ones(len(self.columns))
            return PSI_LIMIT * ones, WASSERSTEIN_LIMIT * ones
        return fitting[-1].psi.limit(PSI_LIMIT), fitting[-1].wasserstein.limit(WASSERSTEIN_LIMIT)

    def counts(self, x: AnyArray) -> Ints:
        """How many of the rows x (n, F) are in each bin of each feature, (F, BINS)."""
        count = len(self.columns)
        found = np.zeros(count * BINS, np.int64)
        for start in range(0, len(x), ROWS_AT_ONCE):
            rows = single(x[start : start + ROWS_AT_ONCE])
            bins = np.zeros(rows.shape, np.int16) + self._first
            for edge in self._edges:
                bins += rows >= edge
            found += np.bincount(bins.ravel(), minlength=len(found))
        return found.reshape(count, BINS)

    def out_of_range(self, x: AnyArray) -> Floats:
        """The share of rows x (n, F) whose value the training never reached, of each feature."""
        (least, greatest), x = self._range, single(x)
        outside: Floats = ((x < least) | (x > greatest)).mean(axis=0)
        return outside

    def wasserstein(self, x: AnyArray) -> Floats:
        """The Wasserstein distance of rows x (n, F), of each feature, in sd; 0 where the training had one value."""
        ranks, x = (np.arange(len(x)) + 0.5) / len(x), single(x)
        found = np.zeros(len(self.columns))
        for k, column in enumerate(self.columns):
            if column.sd:
                values, below = column.ranks
                expected = np.interp(ranks, below, values)
                found[k] = np.abs(np.sort(x[:, k]) - expected).mean() / column.sd
        return found


def single(x: AnyArray) -> Singles:
    """Numbers of any type as float32; those beyond it are its greatest."""
    return x if x.dtype == np.float32 else np.clip(x.astype(np.float64), -FLOAT32_MAX, FLOAT32_MAX).astype(np.float32)


def psi(counts: AnyArray, shares: AnyArray) -> Floats:
    """The PSI of counts (..., bins) against the shares of the training (..., bins)."""
    seen = np.maximum(counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1), LEAST_SHARE)
    expected = np.maximum(shares, LEAST_SHARE)
    found: Floats = ((seen - expected) * np.log(seen / expected)).sum(axis=-1)
    return found


def column(name: str, x: AnyArray) -> Column:
    """The profile of one feature's values x (n,)."""
    x = single(x)
    # Quantiles that are values of the data themselves: of whole numbers no bin begins between two.
    quantiles = np.quantile(x, [*LOW, *(np.arange(1, BINS) / BINS), *HIGH], method="inverted_cdf")
    values, times = np.unique(quantiles[len(LOW) : -len(HIGH)], return_counts=True)
    ended = values[(times > 1) & (values < FLOAT32_MAX)]  # above the greatest is nothing
    edges = np.unique(np.concatenate([values, np.nextafter(ended, np.float32(np.inf))]))
    counts = np.bincount(np.searchsorted(edges, x, side="right"), minlength=len(edges) + 1)
    exact = x.astype(np.float64)
    sd = float(exact.std()) if x.min() < x.max() else 0.0
    return Column(
        name,
        float(x.min()),
        float(x.max()),
        tuple(quantiles[: len(LOW)].tolist()),
        tuple(quantiles[-len(HIGH) :].tolist()),
        float(exact.mean()),
        sd,
        tuple(edges.tolist()),
        tuple((counts / len(x)).tolist()),
    )
