"""One request of a series at a time: a few others wait for its lock."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager

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
            if not turn.cancelled():
                self.release(series)  # it had come already
            elif turn in (waiting := self._waiting.get(series, deque())):  # else `release` has passed it over
                waiting.remove(turn)
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

    def hold(self, keys: Iterable[SeriesKey], deadline: float) -> AbstractAsyncContextManager[None]:
        """Hold the locks of several series, taken in an order in which no two requests wait for one another.

        Raises SeriesBusy or DeadlinePassed; `deadline` is in the time of `time.monotonic`.
        """
        return _Hold(self, keys, deadline)


class _Hold(AbstractAsyncContextManager[None]):
    """The locks that one request takes. As a generator it would take three times as long, with each row."""

    __slots__ = ("_deadline", "_held", "_keys", "_locks")

    def __init__(self, locks: SeriesLocks, keys: Iterable[SeriesKey], deadline: float) -> None:
        self._locks, self._keys, self._deadline = locks, sorted(keys), deadline
        self._held: list[SeriesKey] = []

    async def __aenter__(self) -> None:
        try:
            for key in self._keys:
                await self._locks.acquire(key, self._deadline)
                self._held.append(key)
            expect_time(self._deadline)
        except BaseException:
            self._release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        for key in self._held:
            self._locks.release(key)


def expect_time(deadline: float) -> None:
    """Raise DeadlinePassed where no time is left to append anything."""
    if time.monotonic() >= deadline:
        raise DeadlinePassed("the deadline passed before this was appended: nothing of it is kept")
