"""One request of a series at a time: who leaves while its turn comes takes nothing with it."""

import asyncio
import time

import pytest
from serving import PATIENCE, in_loop

from lstm_serve.serving.series.locks import SeriesLocks
from lstm_serve.serving.series.store import SeriesKey

SERIES = SeriesKey(b"", "pump-7")


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
