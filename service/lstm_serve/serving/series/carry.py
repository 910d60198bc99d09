"""What a stateful model makes of the rows of a series: from its state, once they are known to follow, and then at once.

    find the series -> append to a copy of it -> compute the new rows from its state -> put the copy in its place

A copy whose series has changed meanwhile, as it was forgotten or another replica has appended to it, is let go of, and
all begins again. So a row, the state after it and the answer to it are kept together or not at all, and a repeat needs
no older state.
"""

from collections.abc import Sequence
from copy import copy
from typing import NamedTuple

import numpy as np

from lstm_serve.engine.types import Array, State
from lstm_serve.errors import SeriesConflict
from lstm_serve.model.carry import Carrying
from lstm_serve.model.metadata import SeriesRules
from lstm_serve.serving.series.kept import append
from lstm_serve.serving.series.store import Appended, Carried, Found, Sent, Series

REPEATS = 64  # of each series so many rows and answers are kept at least


class Plan(NamedTuple):
    """An append that waits for what it takes to compute: rows (k, *row), and the state (1, ...) before them.

    `known` are the outputs of the rows that stay, and `rows_in_state` of how many rows that state is.
    """

    before: Found
    after: Series
    done: Appended
    rows: Array
    state: State
    known: Array | None
    rows_in_state: int


# What takes the place of a series, what was appended, and the output of each row sent, None of those that are not kept.
Replacement = tuple[Series, Appended, list[Array | None]]


def plan(  # noqa: PLR0913, PLR0917 - what an append is of
    found: Found, sent: Sent, rules: SeriesRules, carrying: Carrying, keep: int, most: int
) -> Plan:
    """Return what is to be computed that rows can be appended to a series; missing rows are `most` at most.

    Raises SeriesConflict where the rows do not follow.
    """
    before = found.series
    after = Series.begin(sent, rules) if before is None else copy(before)
    carried = after.carried
    if carried is not None and carried.digest != carrying.digest:
        carried = None
    done = append(after, sent, rules, keep)
    skip = len(sent.rows) - done.fresh
    rows = sent.rows[skip:]
    if before is None and found.lost is not None:
        done = done._replace(begun=found.lost)
    if before is not None and carried is None and done.fresh:
        new = Sent(rows, None if sent.seqs is None else sent.seqs[skip:])
        after = Series.begin(new, rules)
        done = append(after, new, rules, keep)
        done = done._replace(ends=[*[None] * skip, *done.ends], begun="model")
    if done.filled > most:
        raise SeriesConflict(f"{done.filled} rows are missing before these; the last one stands for {most} at most")
    if before is not None and done.filled:
        rows = np.concatenate((np.repeat(before.rows[-1:], done.filled, axis=0), rows))
    if carried is None or done.begun is not None:
        return Plan(found, after, done, rows, carrying.stepper.start(1), None, 0)
    return Plan(found, after, done, rows, carried.state, carried.ys, carried.rows_in_state)


def replacement(planned: Plan, parts: Sequence[Array], state: State, digest: str, keep: int) -> Replacement:
    """Return what takes the place of a series, of what was computed: outputs (k, *output) in parts, the state after.

    `kept` of what was appended says of how many rows the state is.
    """
    done, after, count = planned.done, planned.after, planned.rows_in_state
    known = [] if planned.known is None else [planned.known]
    if parts:
        ys = np.concatenate(parts)
        known.append(ys[max(0, done.filled - keep) :])  # as of the rows
        count += len(ys)
        after.carried = Carried(digest, state, np.concatenate(known)[-len(after.rows) :].copy(), count)
    done = done._replace(kept=count)
    if not known:
        return after, done, [None] * len(done.ends)
    joined = np.concatenate(known)
    return after, done, [None if end is None else joined[end - 1] for end in done.ends]
