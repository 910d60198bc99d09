"""Who listens to the series of a model. A row of a series to which nobody listens costs one look into a dict."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from lstm_serve.errors import LstmServeError, StoreUnavailable, UnknownSeries
from lstm_serve.serving.series.store import Known, SeriesKey, Store

LOOK_SECONDS = 1.0  # how old what a store has said may be to which others append as well


class Watched:
    """A series that somebody listens to: it is looked up once, and its rows are answered once, whoever listens."""

    def __init__(self, life: bytes) -> None:
        """Nothing has changed yet. To be made in the event loop. Another series of its name has another `life`."""
        self.listeners, self.life = 0, life
        self.over = False  # whether the series was forgotten: one that begins under its key is another one
        self.changed = asyncio.get_running_loop().create_future()  # done once it has changed, another in its place
        self._doing: asyncio.Future[None] | None = None  # done once one of who listen has done what all wait for
        self._found: Known | LstmServeError | None = None  # what the store has said since it changed, and when
        self._looked = 0.0
        self.told: OrderedDict[int, Any] = OrderedDict()  # by the rows' numbers
        self.digest, self.last = b"", 0  # of the model that answered them, and the series' last row then

    def wake(self) -> None:
        """Let all who listen look again."""
        self._found = None
        self.changed.set_result(None)
        self.changed = asyncio.get_running_loop().create_future()

    async def alone(self, do: Callable[[], Awaitable[None]]) -> None:
        """Do it, or wait until another who listens has done what that one does."""
        if self._doing is not None:
            await asyncio.wait({self._doing})
            return
        self._doing = asyncio.get_running_loop().create_future()
        try:
            await do()
        finally:
            self._doing.set_result(None)
            self._doing = None

    async def look(self, store: Store, series: SeriesKey) -> Known:
        """Return what is known of it. Raises as `Store` does: another one that has its name is not it."""
        if store.shared and time.monotonic() - self._looked >= LOOK_SECONDS:
            self._found = None
        while (found := self._found) is None:
            await self.alone(partial(self._look, store, series))
        if isinstance(found, LstmServeError):
            raise found.with_traceback(None)
        if found.life != self.life:
            raise UnknownSeries
        return found

    async def _look(self, store: Store, series: SeriesKey) -> None:
        changed = self.changed
        found: Known | LstmServeError
        try:
            found = await store.look(series)
        except (UnknownSeries, StoreUnavailable) as error:
            found = error
        if changed is self.changed:
            self._found, self._looked = found, time.monotonic()


class Watch:
    """The series that somebody listens to, by their keys."""

    def __init__(self) -> None:
        """Nobody listens yet."""
        self._watched: dict[SeriesKey, Watched] = {}

    def count(self) -> int:
        """How many listen. It changes nothing: whoever scrapes may ask from another thread."""
        return sum(watched.listeners for watched in [*self._watched.values()])

    @contextmanager
    def listening(self, series: SeriesKey, life: bytes) -> Iterator[Watched]:
        """Listen to a series of this life meanwhile: another one that had its name is over for who listens to that."""
        watched = self._watched.get(series)
        if watched is not None and watched.life != life:
            self.forgotten(series)
            watched = None
        if watched is None:
            watched = self._watched[series] = Watched(life)
        watched.listeners += 1
        try:
            yield watched
        finally:
            watched.listeners -= 1
            if not watched.listeners and self._watched.get(series) is watched:
                del self._watched[series]

    def appended(self, series: SeriesKey) -> None:
        """Say that rows of it have come."""
        watched = self._watched.get(series)
        if watched is not None:
            watched.wake()

    def forgotten(self, series: SeriesKey) -> None:
        """Say that it is not kept any more."""
        watched = self._watched.pop(series, None)
        if watched is not None:
            watched.over = True
            watched.wake()

    def wake_all(self) -> None:
        """Let all look again."""
        for watched in [*self._watched.values()]:
            watched.wake()
