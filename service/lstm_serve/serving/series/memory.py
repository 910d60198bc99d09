"""Series in the memory of this process: they end with it, and each after it was idle for a time."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lstm_serve.errors import LstmServeError, SeriesConflict, SeriesFull, UnknownSeries
from lstm_serve.model.metadata import SeriesRules
from lstm_serve.serving.series.kept import append
from lstm_serve.serving.series.store import Appended, Found, Known, Limits, Sent, Series, SeriesKey, new_life, too_many

T = TypeVar("T")


class MemoryStore:
    """Series of a model; see `Store`."""

    shared = False

    def __init__(
        self,
        limits: Limits,
        expired: Callable[[SeriesKey], None] = lambda _series: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`expired` is told of each series that was idle for too long."""
        self.keep, self._most, self._ttl = limits
        self._expired, self._clock = expired, clock
        self._series: OrderedDict[SeriesKey, Series] = OrderedDict()  # who was idle for longest comes first

    def count(self) -> int:
        """How many series there are, those too that are to expire; see `Store`."""
        return len(self._series)

    def expire(self) -> None:
        """Forget each that was idle for too long; see `Store`."""
        self._expire(self._clock())

    async def append(self, series: SeriesKey, sent: Sent, rules: SeriesRules) -> Appended:
        """Append all rows that are not there yet, or none; see `Store`."""
        return self._append(series, sent, rules)

    async def append_each(
        self, several: Sequence[tuple[SeriesKey, Sent]], rules: SeriesRules
    ) -> list[Appended | LstmServeError]:
        """Append to several series, of each all rows or none; see `Store`."""
        return [_or_refused(self._append, *each, rules) for each in several]

    async def find_each(self, several: Sequence[SeriesKey]) -> list[Found | LstmServeError]:
        """Find several series; see `Store`."""
        return [_or_refused(self._find, series) for series in several]

    async def replace_each(self, several: Sequence[tuple[SeriesKey, Found, Series]]) -> list[bool | LstmServeError]:
        """Put others in their place; see `Store`."""
        return [_or_refused(self._replace, *each) for each in several]

    def _append(self, series: SeriesKey, sent: Sent, rules: SeriesRules) -> Appended:
        found = self._find(series).series or Series.begin(sent, rules)
        done = append(found, sent, rules, self.keep)
        found.carried = None
        self._put(series, found)
        return done

    def _find(self, series: SeriesKey) -> Found:
        """Return it. Raises SeriesFull where it is not there, and may not begin."""
        self._expire(self._clock())
        found = self._series.get(series)
        if found is None and len(self._series) >= self._most:
            raise SeriesFull(too_many(self._most))
        return Found(found)

    def _replace(self, series: SeriesKey, before: Found, after: Series) -> bool:
        if self._find(series).series is not before.series:
            return False
        self._put(series, after)
        return True

    def _put(self, series: SeriesKey, found: Series) -> None:
        found.touched = self._clock()
        found.life = found.life or new_life()
        self._series[series] = found
        self._series.move_to_end(series)

    async def look(self, series: SeriesKey) -> Known:
        """Return what is known of it; see `Store`."""
        self._expire(self._clock())
        found = self._series.get(series)
        if found is None:
            raise UnknownSeries
        known = found.last, found.rows, self._clock() - found.touched, found.numbers, found.life
        return Known(*known, found.carried)

    async def forget(self, series: SeriesKey) -> None:
        """Forget it; see `Store`."""
        self._series.pop(series, None)

    async def close(self) -> int:
        """All end; see `Store`."""
        return len(self._series)

    def _expire(self, now: float) -> None:
        while self._series:
            key, oldest = next(iter(self._series.items()))
            if now - oldest.touched < self._ttl:
                return
            del self._series[key]
            self._expired(key)


def _or_refused(do: Callable[..., T], *given: Any) -> T | LstmServeError:  # noqa: ANN401 - its arguments
    try:
        return do(*given)
    except (SeriesConflict, SeriesFull) as error:
        return error
