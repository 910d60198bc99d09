"""What keeps rows: one small interface, whose `append` is atomic, so that a store may be another process."""

import secrets
from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self

import numpy as np

from lstm_serve.engine.types import Array, Ints, State
from lstm_serve.errors import LstmServeError
from lstm_serve.model.metadata import SeriesRules

AT_ONCE = 64  # series that are read or written together, each with two windows
WINDOWS = 2  # of each series the rows of so many are kept, for repeats


class SeriesKey(NamedTuple):
    """What a series is known by: whose it is, and its id. What of one owner has an id, no other can tell."""

    owner: bytes
    id: str


class Sent(NamedTuple):
    """Rows (k, *features) of one series that came together, and their numbers or times, ascending, if they have any."""

    rows: Array
    seqs: Sequence[int] | None


class Appended(NamedTuple):
    """A series after an append.

    `rows` are enough of it for each answer: the window of the row number k that was sent is the rows before `ends[k]`,
    which is None where that row is too old to be there still. `kept` is how many rows the series has, `fresh` how many
    of those sent are new. `begun` says why it began anew, if it did; `filled` is how many rows were missing where the
    last one stands for them.
    """

    seq: int | None
    kept: int
    rows: Array
    ends: Sequence[int | None]
    fresh: int
    begun: str | None = None
    filled: int = 0


class Carried(NamedTuple):
    """What a stateful model has made of a series: its state after the last row, and what it answered.

    ys (n, *output) are the outputs of the n rows that are kept, `rows_in_state` is how many came since the state was 0,
    and `digest` the model's.
    """

    digest: str
    state: State
    ys: Array
    rows_in_state: int


class Known(NamedTuple):
    """What is known of a series: its last number, its last rows, and how many seconds ago the last one came.

    `numbers` tells the rows apart: each one's number or time, or where rows have none, which one of all it is, from 1.
    `life` tells it from others that have or had its key: random bytes, made when it began.
    `carried` is what a stateful model has made of them.
    """

    seq: int | None
    rows: Array
    age: float
    numbers: Sequence[int]
    life: bytes
    carried: Carried | None = None


class Series:
    """One series: its last rows, an array that is never written to, and where their numbers are times, those.

    `count` is of all rows that were appended to it; for `life` see `Known`. `carried` is what a stateful model has made
    of them, where it was the one that answered the last.
    """

    __slots__ = ("carried", "count", "first", "last", "life", "rows", "times", "touched")

    def __init__(self, rows: Array, first: int | None, times: Ints | None) -> None:
        """It begins with these rows, of which there may be none yet."""
        self.rows, self.first, self.times = rows, first, times
        self.last: int | None = None
        self.touched, self.count, self.life = 0.0, 0, b""
        self.carried: Carried | None = None

    @classmethod
    def begin(cls, sent: Sent, rules: SeriesRules) -> Self:
        """A series of what is sent first, before that is appended."""
        times = np.empty(0, np.int64) if rules.seq == "time" and sent.seqs is not None else None
        return cls(sent.rows[:0], None if sent.seqs is None else sent.seqs[0], times)

    @property
    def numbers(self) -> Sequence[int]:
        """What tells the rows that are kept apart; see `Known`."""
        if self.times is not None:
            numbers: list[int] = self.times.tolist()
            return numbers
        end = 1 + (self.count if self.last is None else self.last)
        return range(end - len(self.rows), end)

    def place(self, seq: int) -> int | None:
        """Where the row of this number is; -1 where it is too old to be kept; None where it never was there."""
        assert self.last is not None  # noqa: S101 - it is asked of series with numbers alone
        assert self.first is not None  # noqa: S101 - the same
        if seq < self.first:
            return None
        if self.times is None:
            return max(-1, len(self.rows) - 1 - (self.last - seq))
        if seq < self.times[0]:
            return -1
        place = int(np.searchsorted(self.times, seq))
        return place if self.times[place] == seq else None


class Found(NamedTuple):
    """A series as it is, None where one may begin.

    `mark` is by what a store tells whether it still is so, and `lost` says why what was there is not gone on with.
    """

    series: Series | None
    mark: tuple[str, bytes] = ("", b"")
    lost: str | None = None


class Limits(NamedTuple):
    """How many of its last rows are kept of a series, how many series, and how long each without a new row."""

    rows: int
    series: int
    ttl_seconds: float


class Store(Protocol):
    """Series by their keys. One that is not in this process raises StoreUnavailable where it does not answer."""

    shared: bool  # whether other processes append to the same series
    keep: int  # how many rows of each are kept

    async def append(self, series: SeriesKey, sent: Sent, rules: SeriesRules) -> Appended:
        """Append all rows that are not there yet, or none.

        Raises SeriesConflict where the rows do not follow, SeriesFull where there is no room for one more series.
        """

    async def append_each(
        self, several: Sequence[tuple[SeriesKey, Sent]], rules: SeriesRules
    ) -> list[Appended | LstmServeError]:
        """Append to several series, in their order: of each what `append` gives, or the error that it raises."""

    async def find_each(self, several: Sequence[SeriesKey]) -> list[Found | LstmServeError]:
        """Find several series, each to be replaced by what becomes of it: of each SeriesFull where none may begin."""

    async def replace_each(self, several: Sequence[tuple[SeriesKey, Found, Series]]) -> list[bool | LstmServeError]:
        """Put others in place of what was found: of each whether it still was so, or SeriesFull."""

    async def look(self, series: SeriesKey) -> Known:
        """Return what is known of it. Raises UnknownSeries."""

    async def forget(self, series: SeriesKey) -> None:
        """Forget it, be it there or not."""

    async def close(self) -> int:
        """End. Returns how many series end with it."""

    def count(self) -> int:
        """How many series are kept. It changes nothing: whoever scrapes may ask from another thread."""

    def expire(self) -> None:
        """Forget the series that were idle for too long. To be called in the event loop's thread alone."""


def too_many(most: int) -> str:
    """What SeriesFull says."""
    return f"{most} series are kept; at most so many are, each until it is idle"


def new_life() -> bytes:
    """What tells a series that begins from each other; see `Known`."""
    return secrets.token_bytes(12)
