"""The rows that are kept of a series, and which of those that are sent are appended: one rule, wherever they are."""

import numpy as np

from lstm_serve.engine.types import Array
from lstm_serve.errors import SeriesConflict
from lstm_serve.model.metadata import SeriesRules
from lstm_serve.serving.series.store import Appended, Sent, Series

# Rows over those that are kept, from which on they are copied, so that what is not kept is let go of.
SLACK = 8


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
