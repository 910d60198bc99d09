"""One request of a series at a time: the others wait in line, a few of them."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from lstm_serve.errors import DeadlinePassed, SeriesBusy
from lstm_serve.serving.series.store import Key

MOST_WAITING = 8


class Lines:
    """The lines in front of the series; only one that is being answered has any."""

    def __init__(self) -> None:
        """Nobody is here."""
        self._lines: dict[Key, deque[asyncio.Future[None]]] = {}

    def expect_room(self, series: Key) -> None:
        """Raise SeriesBusy where too many wait already."""
        if len(self._lines.get(series, ())) >= MOST_WAITING:
            raise SeriesBusy(f"{MOST_WAITING} requests of this series are waiting; at most so many may")

    async def enter(self, series: Key, deadline: float) -> None:
        """Wait until it is this request's turn; `leave` ends it. Raises SeriesBusy or DeadlinePassed."""
        line = self._lines.get(series)
        if line is None:
            self._lines[series] = deque()
            return
        self.expect_room(series)
        turn = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._turn(series, turn)
        except TimeoutError:
            raise DeadlinePassed("the deadline passed while other requests of this series were answered") from None

    async def _turn(self, series: Key, turn: asyncio.Future[None]) -> None:
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(series)  # it had come already
            else:
                self._lines[series].remove(turn)
            raise

    def leave(self, series: Key) -> None:
        """Let the next one have it."""
        line = self._lines[series]
        while line:
            turn = line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._lines[series]

    @asynccontextmanager
    async def of(self, keys: Iterable[Key], deadline: float) -> AsyncIterator[None]:
        """Enter the lines of several series, in an order in which no two requests wait for one another.

        Raises SeriesBusy or DeadlinePassed; `deadline` is in the time of `time.monotonic`.
        """
        entered: list[Key] = []
        try:
            for key in sorted(keys):
                await self.enter(key, deadline)
                entered.append(key)
            expect_time(deadline)
            yield
        finally:
            for key in entered:
                self.leave(key)


def expect_time(deadline: float) -> None:
    """Raise DeadlinePassed where no time is left to append anything."""
    if time.monotonic() >= deadline:
        raise DeadlinePassed("the deadline passed before all rows were appended; those that were are kept")
