"""One request of a series at a time: a few others wait for its lock."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from lstm_serve.errors import DeadlinePassed, SeriesBusy
from lstm_serve.serving.series.store import SeriesKey

MOST_WAITING = 8


class SeriesLocks:
    """A lock for each series that is being answered, first come, first served."""

    def __init__(self) -> None:
        """Nothing is held."""
        self._waiting: dict[SeriesKey, deque[asyncio.Future[None]]] = {}

    def expect_room(self, series: SeriesKey) -> None:
        """Raise SeriesBusy where too many wait already."""
        if len(self._waiting.get(series, ())) >= MOST_WAITING:
            raise SeriesBusy(f"{MOST_WAITING} requests of this series are waiting; at most so many may")

    async def acquire(self, series: SeriesKey, deadline: float) -> None:
        """Wait until it is this request's turn; `release` ends it. Raises SeriesBusy or DeadlinePassed."""
        waiting = self._waiting.get(series)
        if waiting is None:
            self._waiting[series] = deque()
            return
        self.expect_room(series)
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._turn(series, turn)
        except TimeoutError:
            raise DeadlinePassed("the deadline passed while other requests of this series were answered") from None

    async def _turn(self, series: SeriesKey, turn: asyncio.Future[None]) -> None:
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(series)  # it had come already
            else:
                self._waiting[series].remove(turn)
            raise

    def release(self, series: SeriesKey) -> None:
        """Let the next one have it."""
        waiting = self._waiting[series]
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._waiting[series]

    @asynccontextmanager
    async def hold(self, keys: Iterable[SeriesKey], deadline: float) -> AsyncIterator[None]:
        """Hold the locks of several series, taken in an order in which no two requests wait for one another.

        Raises SeriesBusy or DeadlinePassed; `deadline` is in the time of `time.monotonic`.
        """
        held: list[SeriesKey] = []
        try:
            for key in sorted(keys):
                await self.acquire(key, deadline)
                held.append(key)
            expect_time(deadline)
            yield
        finally:
            for key in held:
                self.release(key)


def expect_time(deadline: float) -> None:
    """Raise DeadlinePassed where no time is left to append anything."""
    if time.monotonic() >= deadline:
        raise DeadlinePassed("the deadline passed before this was appended: nothing of it is kept")
