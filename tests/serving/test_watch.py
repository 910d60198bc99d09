"""Who listens to a series: what the store has said of it is shared, and never older than its last change."""

import asyncio

import numpy as np
from serving import in_loop

from lstm_serve.model.metadata import SeriesRules
from lstm_serve.serving.series.memory import MemoryStore
from lstm_serve.serving.series.store import Known, Limits, Sent, SeriesKey
from lstm_serve.serving.series.watch import Watch

KEY = SeriesKey(b"", "s")


class SlowStore(MemoryStore):
    """Says what it has found once it is told to."""

    def __init__(self) -> None:
        super().__init__(Limits(9, 9, 9.0))
        self.found, self.say, self.looks = asyncio.Event(), asyncio.Event(), 0

    async def look(self, series: SeriesKey) -> Known:
        known = await super().look(series)
        self.looks += 1
        self.found.set()
        await self.say.wait()
        return known


@in_loop
async def test_what_was_found_before_a_row_came_is_not_told_after_it() -> None:
    store, watch, row = SlowStore(), Watch(), Sent(np.zeros((1, 2), np.float32), None)
    await store.append(KEY, row, SeriesRules())
    life = (await MemoryStore.look(store, KEY)).life
    with watch.listening(KEY, life) as watched:
        looking = [asyncio.create_task(watched.look(store, KEY)) for _ in range(3)]
        await store.found.wait()
        await store.append(KEY, row, SeriesRules())
        watch.appended(KEY)
        store.say.set()
        assert [len((await each).rows) for each in looking] == [2, 2, 2]
        assert store.looks == 2  # of all three together


@in_loop
async def test_nothing_stays_of_a_series_that_nobody_listens_to_any_more() -> None:
    watch = Watch()
    with watch.listening(KEY, b"life") as first, watch.listening(KEY, b"life") as second:
        assert (second is first, watch.count()) == (True, 2)
    with watch.listening(KEY, b"life") as third:
        assert (third is first, watch.count()) == (False, 1)
