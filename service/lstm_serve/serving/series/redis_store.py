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
from lstm_serve.serving.series.kept import Series, append
from lstm_serve.serving.series.redis_server import Call, RedisServer
from lstm_serve.serving.series.store import Appended, Key, Known, Limits, Sent, new_life, too_many

log = logging.getLogger(__name__)

MOST_TOLD = 1000


class Form(NamedTuple):
    """Any row of a model's series, and what says at the time what rows and numbers mean: that of `meaning_of`."""

    row: Array
    meaning: Callable[[], str]


class _Asked(NamedTuple):
    """An append that is asked for, with the form that rows have at the time."""

    series: Key
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
        form: Form,
        limits: Limits,
        expired: Callable[[Key], None] = lambda _series: None,
    ) -> None:
        """`expired` is told of series that were idle, each in one of the replicas."""
        self._server, self._expired = server, expired
        self._prefix = f"lstmserve:{{{quote(name, safe='')}}}"
        self._row, self._meaning = form
        self._limits = limits
        self._count = 0
        self._told = set[str]()  # the keys of what is damaged of which the log has it
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

    async def append(self, series: Key, sent: Sent, rules: SeriesRules) -> Appended:
        """Append all rows that are not there yet, or none; see `Store`. Raises StoreUnavailable."""
        asked = _Asked(series, _with_one_zero(sent), rules, self._form)
        return self._appended(asked, await self._server.run(scripts.APPEND, *self._call(asked)))

    async def append_each(
        self, several: Sequence[tuple[Key, Sent]], rules: SeriesRules
    ) -> list[Appended | LstmServeError]:
        """Append to several series, of each all rows or none; see `Store`. Raises StoreUnavailable where it is away."""
        asked = [_Asked(series, _with_one_zero(sent), rules, self._form) for series, sent in several]
        found: list[Appended | LstmServeError] = []
        for each, answer in zip(
            asked, await self._server.run_each(scripts.APPEND, map(self._call, asked)), strict=True
        ):
            try:
                found.append(answer if isinstance(answer, StoreUnavailable) else self._appended(each, answer))
            except (SeriesConflict, SeriesFull) as error:
                found.append(error)
        return found

    def _call(self, asked: _Asked) -> Call:
        series, (rows, numbers), rules, form = asked
        by = "none" if numbers is None else "time" if rules.seq == "time" else "count"
        seqs = b"" if numbers is None else np.array(numbers, "<f8").tobytes()
        return (
            self._keys(series),
            _member(series),
            *(*self._limits[:2], round(self._limits.ttl_seconds * 1000)),
            *(form, self._row.nbytes, by, rules.gap, seqs, rows.tobytes(), new_life()),
        )

    def _appended(self, asked: _Asked, answer: Any) -> Appended:  # noqa: ANN401 - what the script says
        verdict, self._count, expired, damaged, had = answer
        if expired:
            self._expired(asked.series)
        if verdict == b"full":
            raise SeriesFull(too_many(self._limits.series))
        if damaged:
            key = self._keys(asked.series)[0]
            self._tell(key)
            self._told.discard(key)
        before = self._series(had, asked.form)
        done = append(before or Series.begin(asked.sent, asked.rules), asked.sent, asked.rules, self._limits.rows)
        if before is None and (damaged or had):
            return done._replace(begun="damaged" if damaged else "model")
        return done

    async def look(self, series: Key) -> Known:
        """Return what is known of it; see `Store`. Raises StoreUnavailable."""
        (key, _), form = self._keys(series), self._form
        damaged, had, age = await self._server.run(scripts.LOOK, [key])
        if damaged:
            self._tell(key)
        found = self._series(had, form)
        if found is None:
            raise UnknownSeries
        return Known(found.last, found.rows, age / 1000, found.numbers, found.life)

    async def forget(self, series: Key) -> None:
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
            self._count, gone = await self._server.run(scripts.EXPIRE, [self._prefix])
        except StoreUnavailable:
            return
        for member in gone:
            series = _key_of(member)
            if series is not None:
                self._expired(series)

    def _keys(self, series: Key) -> list[str]:
        return [f"{self._prefix}:{_member(series)}", self._prefix]

    def _series(self, had: Sequence[bytes], expected: str) -> Series | None:
        """A series as a script reads it; None where there is none, or of rows that are not of the form expected."""
        if not had or had[0] != expected.encode():
            return None
        _, by, first, seqs, rows, count, life, *_ = had
        found = Series(np.frombuffer(rows, self._row.dtype).reshape(-1, *self._row.shape), None, None)
        found.count, found.life = int(count), life
        if by != b"none":
            numbers = np.frombuffer(seqs, "<f8").astype(np.int64)
            found.first, found.last = int(first), int(numbers[-1])
            found.times = numbers if by == b"time" else None
        return found

    def _tell(self, key: str) -> None:
        """Log once that what is there is no series."""
        if key in self._told:
            return
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
        self._told.add(key)
        log.warning("in the store, %s is damaged or of somebody else: that series begins anew with its next rows", key)


def _with_one_zero(sent: Sent) -> Sent:
    """The same rows, in which -0.0 is 0.0: in the store bytes are compared."""
    return sent._replace(rows=sent.rows + np.zeros((), sent.rows.dtype))


def _key_of(member: bytes) -> Key | None:
    """The series that `_member` calls so; None for what it calls nothing."""
    try:
        name, _, owner = member.decode().partition("@")
        return Key(bytes.fromhex(owner), name)
    except ValueError:
        return None


def meaning_of(model: Model) -> str:
    """A digest of what the model takes rows and their numbers for: its features in order, ids, and how rows count."""
    features = model.about.features
    names = None if features is None else [feature.name for feature in features]
    told = json.dumps([names, model.id_limit, model.about.series.seq])
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _member(series: Key) -> str:
    """How a series is called among those of its model; no id has an @."""
    return f"{series.id}@{series.owner.hex()}" if series.owner else series.id
