"""The rows that are kept of a series, and which of those that are sent are appended: one rule, wherever they are."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.types import Array
from lstm_serve.errors import SeriesConflict
from lstm_serve.model.metadata import SeriesRules
from lstm_serve.serving.series.store import Appended, Carried, Sent

# Rows over those that are kept, from which on they are copied, so that what is not kept is let go of.
SLACK = 8

Seqs = npt.NDArray[np.int64]


class Series:
    """One series: its last rows, an array that is never written to, and where their numbers are times, those.

    `count` is of all rows that were appended to it; for `life` see `Known`. `carried` is what a stateful model has made
    of them, where it was the one that answered the last.
    """

    __slots__ = ("carried", "count", "first", "last", "life", "rows", "times", "touched")

    def __init__(self, rows: Array, first: int | None, times: Seqs | None) -> None:
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


def append(found: Series, sent: Sent, rules: SeriesRules, keep: int) -> Appended:
    """Append to a series what is not there yet. Raises SeriesConflict, and changes nothing then."""
    rows, seqs = sent
    if len(found.rows) and (seqs is None) != (found.last is None):
        raise SeriesConflict("a series has `seq` in each of its requests, or in none: it began the other way")
    base, times, first, skip = found.rows, found.times, found.first, 0
    ends: list[int | None] = []
    fill, begun, filled = rows[:0], None, 0
    if seqs is not None and found.last is not None:
        while skip < len(rows) and seqs[skip] <= found.last:
            ends.append(_expect_same(found, seqs[skip], rows[skip]))
            skip += 1
        missing = seqs[skip] - found.last - 1 if skip < len(rows) and times is None else 0
        if missing and rules.gap == "refuse":
            raise SeriesConflict(
                f"{missing} {'row is' if missing == 1 else 'rows are'} missing before these", found.last + 1, seqs[skip]
            )
        if missing and rules.gap == "reset":
            base, first, begun, ends = rows[:0], seqs[skip], "gap", [None] * skip
        elif missing:
            filled = missing
            fill = np.repeat(base[-1:], min(missing, keep), axis=0)  # of more none would be kept
    fresh = len(rows) - skip
    if not fresh:
        return Appended(found.last, len(base), base, ends, 0)
    joined = np.concatenate((base, fill, rows[skip:]) if len(fill) else (base, rows[skip:]))
    start = len(joined) - fresh
    ends += range(start + 1, len(joined) + 1)
    kept = joined[-keep:]
    found.rows, found.first = kept if len(joined) <= keep + SLACK else kept.copy(), first
    found.count += fresh
    if seqs is not None:
        found.last = seqs[-1]
        if times is not None:
            found.times = np.concatenate((times, np.array(seqs[skip:], np.int64)))[-keep:]
    return Appended(found.last, len(kept), joined, ends, fresh, begun, filled)


def _expect_same(found: Series, seq: int, row: Array) -> int | None:
    """The end of the window of a row that should be there already; None where it is too old. Raises SeriesConflict."""
    place = found.place(seq)
    expected = None if found.last is None else found.last + 1
    if place is None:
        raise SeriesConflict("a row is older than the last one, and was never there", expected, seq)
    if place < 0:
        return None
    if not np.array_equal(found.rows[place], row):
        raise SeriesConflict("a row is there already, with other values", expected, seq)
    return place + 1
