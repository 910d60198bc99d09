"""The store of series in memory, by its interface alone: any other store has to do the same."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from serving import in_loop

from lstm_serve.errors import SeriesBusy, SeriesConflict, SeriesFull, UnknownSeries
from lstm_serve.model.metadata import SeriesRules
from lstm_serve.serving.series.lines import MOST_WAITING, Lines
from lstm_serve.serving.series.memory import MemoryStore
from lstm_serve.serving.series.store import Appended, Key, Sent

T = TypeVar("T")
STEPS = 4
KEY = Key(b"", "s")
REFUSE, RESET, LAST, TIME = (
    SeriesRules(),
    SeriesRules(gap="reset"),
    SeriesRules(gap="last"),
    SeriesRules(seq="time"),
)


def rows(*numbers: float) -> NDArray[np.float32]:
    return np.array(numbers, np.float32)[:, np.newaxis]


def run(made: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(made)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def store(most: int = 3, ttl: float = 10.0, clock: Clock | None = None) -> MemoryStore:
    return MemoryStore(STEPS, most, ttl, clock=clock or Clock())


def append(
    kept: MemoryStore,
    numbers: Sequence[float],
    seqs: Sequence[int] | None,
    rules: SeriesRules = REFUSE,
    name: str = "s",
) -> Appended:
    return run(kept.append(Key(b"", name), Sent(rows(*numbers), seqs), rules))


def windows(done: Appended) -> list[list[float] | None]:
    return [None if end is None or end < STEPS else done.rows[end - STEPS : end, 0].tolist() for end in done.ends]


def test_a_window_ends_with_each_row_once_there_are_enough() -> None:
    kept = store()
    assert windows(append(kept, [0, 1, 2], range(3))) == [None] * 3
    assert windows(append(kept, [3, 4], range(3, 5))) == [[0, 1, 2, 3], [1, 2, 3, 4]]


def test_what_is_there_already_is_skipped_and_answered_again() -> None:
    kept = store()
    append(kept, range(9), range(9))
    again = append(kept, [7, 8], range(7, 9))
    assert (again.fresh, again.seq, windows(again)) == (0, 8, [[4, 5, 6, 7], [5, 6, 7, 8]])
    some = append(kept, [7, 8, 9], range(7, 10))
    assert (some.fresh, some.seq, windows(some)) == (1, 9, [[4, 5, 6, 7], [5, 6, 7, 8], [6, 7, 8, 9]])
    assert windows(append(kept, [0], [0])) == [None]


def test_a_row_of_other_values_is_a_conflict_and_nothing_is_appended() -> None:
    kept = store()
    append(kept, [0, 1, 2], range(3))
    with pytest.raises(SeriesConflict, match="other values"):
        append(kept, [1, 7, 3], range(1, 4))
    assert run(kept.look(Key(b"", "s"))).seq == 2


def test_a_gap_is_refused_or_begins_anew_or_is_filled() -> None:
    for rules in (REFUSE, RESET, LAST):
        kept = store()
        append(kept, range(6), range(6), rules)
        if rules is REFUSE:
            with pytest.raises(SeriesConflict) as refused:
                append(kept, [9], [8], rules)
            assert (refused.value.expected, refused.value.got) == (6, 8)
            continue
        done = append(kept, [8], [8], rules)
        if rules is RESET:
            assert (done.begun, done.kept, windows(done)) == ("gap", 1, [None])
        else:
            assert (done.filled, windows(done)) == (2, [[5, 5, 5, 8]])


def test_a_long_gap_costs_no_more_than_a_window() -> None:
    kept = store()
    append(kept, range(6), range(6), LAST)
    done = append(kept, [1], [1 << 50], LAST)
    assert (len(done.rows) < 5 * STEPS, windows(done)) == (True, [[5, 5, 5, 1]])
    assert done.filled == (1 << 50) - 6


def test_a_row_from_before_the_beginning_is_a_conflict() -> None:
    kept = store()
    append(kept, [5], [5])
    with pytest.raises(SeriesConflict, match="never there"):
        append(kept, [4], [4])


def test_times_have_no_gaps() -> None:
    kept = store()
    append(kept, range(5), [10, 20, 35, 36, 70], TIME)
    assert windows(append(kept, [5], [1000], TIME)) == [[2, 3, 4, 5]]
    assert windows(append(kept, [4, 6], [70, 2000], TIME)) == [[1, 2, 3, 4], [3, 4, 5, 6]]
    with pytest.raises(SeriesConflict, match="never there"):
        append(kept, [9], [40], TIME)


def test_numbers_in_each_request_or_in_none() -> None:
    kept = store()
    append(kept, [0], None)
    assert append(kept, [0], None).fresh == 1
    with pytest.raises(SeriesConflict, match="or in none"):
        append(kept, [1], [1])


def test_each_row_that_is_kept_is_told_apart() -> None:
    numbered, filled, timed, counted = store(), store(), store(), store()
    append(numbered, range(11), range(5, 16))
    append(filled, [0, 1], [0, 1], LAST)
    append(filled, [2], [4], LAST)
    append(timed, range(9), [10 * k * k for k in range(9)], TIME)
    for _ in range(3):
        append(counted, range(3), None)
    found = [list(run(kept.look(KEY)).numbers) for kept in (numbered, filled, timed, counted)]
    assert found == [list(range(8, 16)), list(range(5)), [10 * k * k for k in range(1, 9)], list(range(2, 10))]


def test_a_series_is_its_owners() -> None:
    kept = store()
    mine, yours = Key(b"mine", "s"), Key(b"yours", "s")
    run(kept.append(mine, Sent(rows(1), None), REFUSE))
    with pytest.raises(UnknownSeries):
        run(kept.look(yours))
    assert run(kept.append(yours, Sent(rows(7), [3]), REFUSE)).kept == 1
    assert (run(kept.look(mine)).seq, run(kept.look(yours)).seq, kept.count()) == (None, 3, 2)
    run(kept.forget(mine))
    run(kept.forget(mine))
    with pytest.raises(UnknownSeries):
        run(kept.look(mine))
    assert run(kept.look(yours)).seq == 3


def test_a_living_series_is_never_dropped_and_an_idle_one_makes_room() -> None:
    clock = Clock()
    kept = store(2, 10, clock)
    append(kept, [0], [0], name="a")
    clock.now = 6
    append(kept, [0], [0], name="b")
    with pytest.raises(SeriesFull):
        append(kept, [0], [0], name="c")
    clock.now = 11
    append(kept, [0], [0], name="c")
    assert kept.count() == 2
    clock.now = 100
    kept.expire()
    assert kept.count() == 0


def test_to_count_changes_nothing() -> None:
    """Another thread may: the one that is scraped."""
    clock, expired = Clock(), list[Key]()
    kept = MemoryStore(STEPS, 3, 10.0, expired.append, clock)
    append(kept, [0], [0])
    clock.now = 10
    assert (kept.count(), expired) == (1, [])
    kept.expire()
    assert (kept.count(), expired) == (0, [KEY])


def test_what_is_refused_begins_no_series() -> None:
    kept = store()
    with pytest.raises(UnknownSeries):
        run(kept.look(Key(b"", "s")))
    assert kept.count() == 0


def test_rows_kept_are_no_more_than_two_windows() -> None:
    kept = store()
    append(kept, range(1000), range(1000))
    found = run(kept.look(Key(b"", "s"))).rows
    assert (len(found), found.base) == (2 * STEPS, None)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), max_size=40))
def test_chunks_that_repeat_and_overlap_give_each_window_once(chunks: list[tuple[int, int]]) -> None:
    kept, there = store(), 0
    for start, count in chunks:
        numbers = range(start, start + count)
        if not there or start <= there:
            first = start if not there else None
            if first:
                continue
            done = append(kept, numbers, numbers)
            assert done.fresh == max(0, start + count - there)
            there = max(there, start + count)
            for number, window in zip(numbers, windows(done), strict=True):
                if window is not None:
                    assert window == list(range(number - STEPS + 1, number + 1))
                else:
                    assert number < STEPS - 1 or number <= there - STEPS - 1
        else:
            with pytest.raises(SeriesConflict):
                append(kept, numbers, numbers)


@in_loop
async def test_a_few_wait_in_line_and_no_more() -> None:
    lines, order = Lines(), list[int]()

    async def request(number: int) -> None:
        async with lines.of((KEY,)):
            await asyncio.sleep(0)
            order.append(number)

    tasks = [asyncio.create_task(request(k)) for k in range(MOST_WAITING + 1)]
    await asyncio.sleep(0)
    with pytest.raises(SeriesBusy):
        await request(-1)
    tasks[3].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [k for k in range(MOST_WAITING + 1) if k != 3]
    await request(99)
    await lines.enter(KEY)
    await lines.enter(Key(b"another", "s"))
    lines.leave(KEY)
    assert lines.expect_room(KEY) is None  # type: ignore[func-returns-value]


@in_loop
async def test_whoever_leaves_when_the_turn_has_come_passes_it_on() -> None:
    lines = Lines()
    await lines.enter(KEY)
    second = asyncio.create_task(lines.enter(KEY))
    third = asyncio.create_task(lines.enter(KEY))
    await asyncio.sleep(0)
    lines.leave(KEY)
    second.cancel()
    await third
    lines.leave(KEY)
    await lines.enter(KEY)
