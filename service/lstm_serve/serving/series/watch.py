"""Who listens to the series of a model. A row of a series to which nobody listens costs one look into a dict."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lstm_serve.serving.series.store import Key


class Watched:
    """A series that somebody listens to, and the answers to some of its rows: computed once, whoever listens."""

    def __init__(self) -> None:
        """Nothing has changed yet. To be made in the event loop."""
        self.listeners = 0
        self.over = False  # whether the series was forgotten: one that begins under its key is another one
        self.changed = asyncio.get_running_loop().create_future()  # done once it has changed, another in its place
        self.computing: asyncio.Future[None] | None = None  # done once one of who listen has computed what is due
        self.told: OrderedDict[int, Any] = OrderedDict()  # by the rows' numbers
        self.digest = b""  # of the model that answered

    def wake(self) -> None:
        """Let all who listen look again."""
        self.changed.set_result(None)
        self.changed = asyncio.get_running_loop().create_future()


class Watch:
    """The series that somebody listens to, by their keys."""

    def __init__(self) -> None:
        """Nobody listens yet."""
        self._watched: dict[Key, Watched] = {}

    def count(self) -> int:
        """How many listen. It changes nothing: whoever scrapes may ask from another thread."""
        return sum(watched.listeners for watched in [*self._watched.values()])

    @contextmanager
    def listening(self, series: Key) -> Iterator[Watched]:
        """Listen to a series meanwhile."""
        watched = self._watched.get(series)
        if watched is None:
            watched = self._watched[series] = Watched()
        watched.listeners += 1
        try:
            yield watched
        finally:
            watched.listeners -= 1
            if not watched.listeners and self._watched.get(series) is watched:
                del self._watched[series]

    def appended(self, series: Key) -> None:
        """Say that rows of it have come."""
        watched = self._watched.get(series)
        if watched is not None:
            watched.wake()

    def forgotten(self, series: Key) -> None:
        """Say that it is not kept any more."""
        watched = self._watched.pop(series, None)
        if watched is not None:
            watched.over = True
            watched.wake()

    def wake_all(self) -> None:
        """Let all look again: what they are part of comes to its end."""
        for watched in [*self._watched.values()]:
            watched.wake()
