"""Series in Redis: they outlive this process, and any replica goes on with them."""

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from lstm_serve.engine.types import Array
from lstm_serve.errors import LstmServeError, SeriesConflict, SeriesFull, StoreUnavailable, UnknownSeries
from lstm_serve.model.metadata import SeriesRules
from lstm_serve.model.model import Model
from lstm_serve.serving.series import redis_scripts as scripts
from lstm_serve.serving.series.carried_bytes import carried_of_bytes, carried_to_bytes
from lstm_serve.serving.series.kept import append
from lstm_serve.serving.series.redis_server import RedisServer, ScriptArgument, ScriptCall
from lstm_serve.serving.series.store import Appended, Found, Known, Limits, Sent, Series, SeriesKey, new_life, too_many

log = logging.getLogger(__name__)

MOST_TOLD = 1000


class RowFormat(NamedTuple):
    """Any row of a model's series, and what says at the time what rows and numbers mean: that of `meaning_of`."""

    row: Array
    meaning: Callable[[], str]


class _Asked(NamedTuple):
    """An append that is asked for, with the form that rows have at the time."""

    series: SeriesKey
    sent: Sent
    rules: SeriesRules
    form: str


class RedisStore:
    """Series of the model of a name, rows (timesteps, *features) of a dtype; see `Store`."""

    shared = True

    def __init__(
        self,
        server: RedisServer,
        name: str,
        form: RowFormat,
        limits: Limits,
        expired: Callable[[SeriesKey], None] = lambda _series: None,
    ) -> None:
        """`expired` is told of series that were idle, each in one of the replicas."""
        self._server, self._expired = server, expired
        self._prefix = f"lstmserve:{{{quote(name, safe='')}}}"
        self._row, self._meaning = form
        self.keep, self._limits = limits.rows, limits
        self._count = 0
        self._told = set[SeriesKey]()  # of what is damaged, what the log has
        self._expiring: asyncio.Task[None] | None = None

    @property
    def _form(self) -> str:
        """What the bytes of a series are, and what they mean."""
        return " ".join([self._row.dtype.str, *map(str, self._row.shape), self._meaning()])

    def count(self) -> int:
        """How many series there are, as of the last second; see `Store`."""
        return self._count

    def expire(self) -> None:
        """Let Redis say what has expired, and whether it is there; see `Store`."""
        if self._expiring is None or self._expiring.done():
            self._expiring = asyncio.get_running_loop().create_task(self._expire(), name="expiring series")

    async def append(self, series: SeriesKey, sent: Sent, rules: SeriesRules) -> Appended:
        """Append all rows that are not there yet, or none; see `Store`. Raises StoreUnavailable."""
        (asked,) = self._asked([(series, sent)], rules)
        return self._appended(asked, await self._server.run(scripts.APPEND, *self._call(asked)))

    async def append_each(
        self, several: Sequence[tuple[SeriesKey, Sent]], rules: SeriesRules
    ) -> list[Appended | LstmServeError]:
        """Append to several series, of each all rows or none; see `Store`. Raises StoreUnavailable where it is away."""
        asked, found = self._asked(several, rules), list[Appended | LstmServeError]()
        answers = await self._server.run_each(scripts.APPEND, [*map(self._call, asked)])
        for each, answer in zip(asked, answers, strict=True):
            try:
                found.append(answer if isinstance(answer, StoreUnavailable) else self._appended(each, answer))
            except (SeriesConflict, SeriesFull) as error:
                found.append(error)
        return found

    async def find_each(self, several: Sequence[SeriesKey]) -> list[Found | LstmServeError]:
        """Find several series; see `Store`: that none may begin is said where it would. Raises StoreUnavailable."""
        form = self._form
        answers = await self._server.run_each(scripts.LOOK, [(self._keys(series)[:1],) for series in several])
        return [
            answer if isinstance(answer, StoreUnavailable) else self._found(series, form, *answer[:2])
            for series, answer in zip(several, answers, strict=True)
        ]

    async def replace_each(self, several: Sequence[tuple[SeriesKey, Found, Series]]) -> list[bool | LstmServeError]:
        """Put others in their place; see `Store`. Raises StoreUnavailable."""
        calls = [self._to_write(series, *_fields(before, after)) for series, before, after in several]
        answers = await self._server.run_each(scripts.REPLACE, calls)
        return [
            answer if isinstance(answer, StoreUnavailable) else self._replaced(series, *answer)
            for (series, *_), answer in zip(several, answers, strict=True)
        ]

    def _asked(self, several: Sequence[tuple[SeriesKey, Sent]], rules: SeriesRules) -> list[_Asked]:
        form = self._form
        return [_Asked(series, sent._replace(rows=_with_one_zero(sent.rows)), rules, form) for series, sent in several]

    def _call(self, asked: _Asked) -> ScriptCall:
        series, (rows, numbers), rules, form = asked
        by = "none" if numbers is None else "time" if rules.seq == "time" else "count"
        seqs = b"" if numbers is None else np.array(numbers, "<f8").tobytes()
        return self._to_write(series, form, self._row.nbytes, by, rules.gap, seqs, rows.tobytes(), new_life())

    def _to_write(self, series: SeriesKey, *given: ScriptArgument) -> ScriptCall:
        """What a script is given that writes a series: its keys, its place, and what else it takes."""
        keep, most, ttl_seconds = self._limits
        place: tuple[ScriptArgument, ...] = (_member(series), keep, most, round(ttl_seconds * 1000), *given)
        return self._keys(series), *place

    def _appended(self, asked: _Asked, answer: Any) -> Appended:  # noqa: ANN401 - what the script says
        *_, damaged, had = answer
        found = self._found(asked.series, asked.form, damaged, had)
        self._note(asked.series, *answer[:4])
        before = found.series or Series.begin(asked.sent, asked.rules)
        done = append(before, asked.sent, asked.rules, self.keep)
        return done if found.lost is None else done._replace(begun=found.lost)

    def _replaced(self, series: SeriesKey, verdict: bytes, count: int, expired: int, damaged: int) -> bool | SeriesFull:
        try:
            self._note(series, verdict, count, expired, damaged)
        except SeriesFull as error:
            return error
        return verdict == b"good"

    def _note(self, series: SeriesKey, verdict: bytes, count: int, expired: int, damaged: int) -> None:
        """Take what a script that writes says besides. Raises SeriesFull."""
        self._count = count
        if expired:
            self._expired(series)
        if verdict == b"full":
            raise SeriesFull(too_many(self._limits.series))
        if damaged:
            self._tell(series)
            self._told.discard(series)

    def _found(self, series: SeriesKey, form: str, damaged: int, had: Sequence[bytes]) -> Found:
        """A series as a script has read it, where its rows are of this form."""
        if damaged:
            self._tell(series)
            return Found(None, (form, b""), "damaged")
        if not had:
            return Found(None, (form, b""))
        found = self._series(form, had)
        return Found(found, (form, had[-1]), "model" if found is None else None)

    async def look(self, series: SeriesKey) -> Known:
        """Return what is known of it; see `Store`. Raises StoreUnavailable."""
        form = self._form
        damaged, had, age = await self._server.run(scripts.LOOK, self._keys(series)[:1])
        found = self._found(series, form, damaged, had).series
        if found is None:
            raise UnknownSeries
        return Known(found.last, found.rows, age / 1000, found.numbers, found.life, found.carried)

    async def forget(self, series: SeriesKey) -> None:
        """Forget it; see `Store`. Raises StoreUnavailable."""
        self._count = await self._server.run(scripts.FORGET, self._keys(series), _member(series))

    async def close(self) -> int:
        """Ask nothing more; no series ends."""
        if self._expiring is not None:
            self._expiring.cancel()
            await asyncio.wait([self._expiring])
        return 0

    async def _expire(self) -> None:
        try:
            self._count, gone = await self._server.run(scripts.EXPIRE, [self._prefix], always_writes=True)
        except StoreUnavailable:
            return
        for member in gone:
            series = _key_of(member)
            if series is not None:
                self._expired(series)

    def _keys(self, series: SeriesKey) -> list[str]:
        return [f"{self._prefix}:{_member(series)}", self._prefix]

    def _series(self, expected: str, had: Sequence[bytes]) -> Series | None:
        """A series as a script reads it; None where its rows are not of the form expected."""
        form, by, first, seqs, rows, count, life, _, made, _ = had
        if form != expected.encode():
            return None
        found = Series(np.frombuffer(rows, self._row.dtype).reshape(-1, *self._row.shape), None, None)
        found.count, found.life = int(count), life
        if by != b"none":
            numbers = np.frombuffer(seqs, "<f8").astype(np.int64)
            found.first, found.last = int(first), int(numbers[-1])
            found.times = numbers if by == b"time" else None
        found.carried = carried_of_bytes(made) if made else None
        return found

    def _tell(self, series: SeriesKey) -> None:
        """Log once that what is there is no series."""
        if series in self._told:
            return
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
        self._told.add(series)
        log.warning(
            "in the store, %s is damaged or of somebody else: that series begins anew with its next rows",
            self._keys(series)[0],
        )


def _fields(before: Found, after: Series) -> tuple[ScriptArgument, ...]:
    """What tells what was found, and the fields of what takes its place, as the scripts have them."""
    form, mark = before.mark
    by = "none" if after.last is None else "count" if after.times is None else "time"
    seqs = b"" if after.last is None else np.array(after.numbers, "<f8").tobytes()
    rows, first = _with_one_zero(after.rows).tobytes(), "" if after.first is None else after.first
    made = b"" if after.carried is None else carried_to_bytes(after.carried)
    return mark, form, by, first, seqs, rows, after.count, after.life or new_life(), "", made


def _with_one_zero(rows: Array) -> Array:
    """The same rows, in which -0.0 is 0.0: in the store bytes are compared."""
    same: Array = rows + np.zeros((), rows.dtype)
    return same


def _key_of(member: bytes) -> SeriesKey | None:
    """The series that `_member` calls so; None for what it calls nothing."""
    try:
        name, _, owner = member.decode().partition("@")
        return SeriesKey(bytes.fromhex(owner), name)
    except ValueError:
        return None


def meaning_of(model: Model) -> str:
    """A digest of what the model takes rows and their numbers for: its features in order, ids, and how rows count."""
    features = model.about.features
    names = None if features is None else [feature.name for feature in features]
    told = json.dumps([names, model.id_limit, model.about.series.seq])
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _member(series: SeriesKey) -> str:
    """How a series is called among those of its model; no id has an @."""
    return f"{series.id}@{series.owner.hex()}" if series.owner else series.id
