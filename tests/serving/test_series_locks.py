"""One request of a series at a time: who leaves while its turn comes takes nothing with it."""

import asyncio
import time

import pytest
from serving import PATIENCE, in_loop

from lstm_serve.errors import DeadlinePassed, SeriesBusy
from lstm_serve.serving.series.locks import MOST_WAITING, SeriesLocks
from lstm_serve.serving.series.store import SeriesKey

SERIES, OTHER = SeriesKey(b"", "pump-7"), SeriesKey(b"", "pump-8")


@in_loop
@pytest.mark.parametrize("others", [0, 1])
async def test_a_deadline_that_passes_as_the_lock_is_released_is_told_as_such(others: int) -> None:
    locks, deadline = SeriesLocks(), time.monotonic() + PATIENCE
    await locks.acquire(SERIES, deadline)
    first, *rest = [asyncio.create_task(locks.acquire(SERIES, deadline)) for _ in range(1 + others)]
    for _ in range(2):
        await asyncio.sleep(0)  # until they wait
    first.cancel()  # as its timeout does, an iteration of the loop before the task sees it
    locks.release(SERIES)
    with pytest.raises(asyncio.CancelledError):
        await first
    for task in rest:
        await task
        locks.release(SERIES)
    await locks.acquire(SERIES, deadline)


@in_loop
async def test_who_waits_in_vain_for_one_of_several_gives_back_those_that_it_has() -> None:
    locks = SeriesLocks()
    await locks.acquire(OTHER, time.monotonic() + PATIENCE)
    with pytest.raises(DeadlinePassed):
        async with locks.hold((SERIES, OTHER), time.monotonic() + 0.01):
            raise AssertionError
    await free(locks, SERIES)


@in_loop
async def test_who_leaves_as_its_turn_has_come_passes_it_on() -> None:
    locks = SeriesLocks()
    await locks.acquire(SERIES, time.monotonic() + PATIENCE)
    waits = asyncio.create_task(locks.acquire(SERIES, time.monotonic() + PATIENCE))
    await asyncio.sleep(0)
    locks.release(SERIES)
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    await free(locks, SERIES)


@in_loop
async def test_who_has_left_takes_no_room_of_those_who_wait() -> None:
    locks = SeriesLocks()
    await locks.acquire(SERIES, time.monotonic() + PATIENCE)
    waiting = [asyncio.create_task(locks.acquire(SERIES, time.monotonic() + PATIENCE)) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(SeriesBusy):
        locks.expect_room(SERIES)
    waiting[3].cancel()
    await asyncio.wait([waiting[3]])
    locks.expect_room(SERIES)
    for each in waiting:
        each.cancel()
    await asyncio.wait(waiting)


async def free(locks: SeriesLocks, key: SeriesKey) -> None:
    """Take a lock that nobody has: who would have to wait is refused, as its time is over already."""
    await locks.acquire(key, 0.0)
