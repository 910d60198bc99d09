"""The stores of series, by their interface alone: all do the same."""

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from copy import copy
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from redis_process import STORES, RedisProcess, needs_redis
from serving import PATIENCE, in_loop

from lstm_serve.errors import (
    DeadlinePassed,
    LstmServeError,
    SeriesBusy,
    SeriesConflict,
    SeriesFull,
    StoreUnavailable,
    UnknownSeries,
)
from lstm_serve.model.metadata import SeriesRules
from lstm_serve.serving.series.kept import append as kept_append
from lstm_serve.serving.series.locks import MOST_WAITING, SeriesLocks
from lstm_serve.serving.series.memory import MemoryStore
from lstm_serve.serving.series.redis_server import RedisServer
from lstm_serve.serving.series.redis_store import RedisStore, RowFormat
from lstm_serve.serving.series.store import Appended, Carried, Found, Limits, Sent, Series, SeriesKey, Store

T = TypeVar("T")
STEPS = 4
KEY = SeriesKey(b"", "s")
REFUSE, RESET, LAST, TIME = (
    SeriesRules(),
    SeriesRules(gap="reset"),
    SeriesRules(gap="last"),
    SeriesRules(seq="time"),
)


def rows(*numbers: float) -> NDArray[np.float32]:
    return np.array(numbers, np.float32)[:, np.newaxis]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


LOOP = asyncio.Runner()


def run(made: Coroutine[Any, Any, T]) -> T:
    return LOOP.run(made)


class InMemory:
    """Makes stores whose time goes by when it is told to."""

    def __init__(self) -> None:
        self.clock = Clock()

    def __call__(
        self, most: int = 3, ttl: float = 10.0, expired: Callable[[SeriesKey], None] = lambda _: None
    ) -> Store:
        return MemoryStore(Limits(2 * STEPS, most, ttl), expired, self.clock)

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    def expire(self, kept: Store) -> None:
        kept.expire()


class InRedis:
    """The same in a real Redis, where series are made to expire sooner; a second is long, so that no others do."""

    second = 1000.0

    def __init__(self, process: RedisProcess) -> None:
        self.server, self.client, self.names = RedisServer(process.url), process.client, itertools.count()

    def __call__(
        self, most: int = 3, ttl: float = 10.0, expired: Callable[[SeriesKey], None] = lambda _: None
    ) -> Store:
        limits = Limits(2 * STEPS, most, ttl * self.second)
        name = f"{next(self.names)}/é"
        self.prefix = f"lstmserve:{{{quote(name, safe='')}}}:".encode()
        return RedisStore(self.server, name, RowFormat(rows(0)[0], str), limits, expired)

    def wait(self, seconds: float) -> None:
        sooner = round(seconds * self.second * 1000)
        for key in self.client.scan_iter():
            if b":" not in key.removeprefix(b"lstmserve:"):
                for member, _ in self.client.zscan_iter(key):
                    self.client.zincrby(key, -sooner, member)
            else:
                self.client.pexpire(key, max(0, self.client.pttl(key) - sooner))

    def expire(self, kept: Store) -> None:
        async def expired() -> None:
            kept.expire()
            await next(task for task in asyncio.all_tasks() if task.get_name() == "expiring series")

        run(expired())


Stores = InMemory | InRedis


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InRedis]:
    with RedisProcess(tmp_path_factory.mktemp("redis")) as process:
        stores = InRedis(process)
        yield stores
        run(stores.server.close())


@pytest.fixture(params=STORES)
def stores(request: pytest.FixtureRequest) -> Stores:
    return InMemory() if request.param == "memory" else request.getfixturevalue("redis")


def append(
    kept: Store,
    numbers: Sequence[float],
    seqs: Sequence[int] | None,
    rules: SeriesRules = REFUSE,
    name: str = "s",
) -> Appended:
    return run(kept.append(SeriesKey(b"", name), Sent(rows(*numbers), seqs), rules))


def windows(done: Appended) -> list[list[float] | None]:
    return [None if end is None or end < STEPS else done.rows[end - STEPS : end, 0].tolist() for end in done.ends]


def test_a_window_ends_with_each_row_once_there_are_enough(stores: Stores) -> None:
    kept = stores()
    assert windows(append(kept, [0, 1, 2], range(3))) == [None] * 3
    assert windows(append(kept, [3, 4], range(3, 5))) == [[0, 1, 2, 3], [1, 2, 3, 4]]


def test_to_several_at_once_as_to_each_alone(stores: Stores) -> None:
    kept, sent = stores(), [("a", 0), ("a", 1), ("b", 9), ("a", 7), ("c", 0), ("d", 0), ("a", 2), ("b", 9)]
    found = run(kept.append_each([(SeriesKey(b"", name), Sent(rows(seq), [seq])) for name, seq in sent], REFUSE))
    told = [str(each) if isinstance(each, LstmServeError) else (each.seq, each.kept, each.fresh) for each in found]
    assert told[:3] + told[4:5] + told[6:] == [(0, 1, 1), (1, 2, 1), (9, 1, 1), (0, 1, 1), (2, 3, 1), (9, 1, 0)]
    assert (told[3], told[5]) == (
        "5 rows are missing before these",
        "3 series are kept; at most so many are, each until it is idle",
    )
    assert run(kept.append_each([], REFUSE)) == []


@needs_redis
def test_several_are_one_round_trip_and_each_has_its_own_fault(redis: InRedis) -> None:
    kept = redis(most=99)
    several = [(SeriesKey(b"", f"r{k}"), Sent(rows(0), [0])) for k in range(64)]
    redis.client.script_flush()
    before = redis.client.info("stats")["total_reads_processed"]
    assert all(isinstance(each, Appended) for each in run(kept.append_each(several, REFUSE)))
    assert redis.client.info("stats")["total_reads_processed"] - before < 20
    found = run(
        redis.server.run_each(
            "return redis.call('HGET', KEYS[1], 'form')",
            [([key.decode()],) for key in (redis.prefix + b"r1", redis.prefix[:-1], redis.prefix + b"r2")],
        )
    )
    assert (found[0], type(found[1]), found[2]) == (found[0], StoreUnavailable, found[0])
    assert redis.server.away is False


def test_what_is_there_already_is_skipped_and_answered_again(stores: Stores) -> None:
    kept = stores()
    append(kept, range(9), range(9))
    again = append(kept, [7, 8], range(7, 9))
    assert (again.fresh, again.seq, windows(again)) == (0, 8, [[4, 5, 6, 7], [5, 6, 7, 8]])
    some = append(kept, [7, 8, 9], range(7, 10))
    assert (some.fresh, some.seq, windows(some)) == (1, 9, [[4, 5, 6, 7], [5, 6, 7, 8], [6, 7, 8, 9]])
    assert windows(append(kept, [0], [0])) == [None]


def test_a_zero_is_the_same_whatever_its_sign(stores: Stores) -> None:
    kept = stores()
    append(kept, [0.0, -0.0, 3], range(3))
    assert append(kept, [-0.0, 0.0, 3, 4], range(4)).fresh == 1
    assert windows(append(kept, [5], [4])) == [[0, 3, 4, 5]]


def test_a_row_of_other_values_is_a_conflict_and_nothing_is_appended(stores: Stores) -> None:
    kept = stores()
    append(kept, [0, 1, 2], range(3))
    with pytest.raises(SeriesConflict, match="other values"):
        append(kept, [1, 7, 3], range(1, 4))
    assert run(kept.look(SeriesKey(b"", "s"))).seq == 2


def test_a_gap_is_refused_or_begins_anew_or_is_filled(stores: Stores) -> None:
    for rules in (REFUSE, RESET, LAST):
        kept = stores()
        append(kept, range(6), range(6), rules)
        if rules is REFUSE:
            with pytest.raises(SeriesConflict) as refused:
                append(kept, [9], [8], rules)
            assert (refused.value.expected, refused.value.got) == (6, 8)
            continue
        done = append(kept, [5, 8], [5, 8], rules)
        if rules is RESET:
            assert (done.begun, done.kept, windows(done)) == ("gap", 1, [None, None])
            done = append(kept, [8, 20, 21, 22, 23], [8, 20, 21, 22, 23], rules)
            assert (done.begun, windows(done)) == ("gap", [None] * 4 + [[20, 21, 22, 23]])
        else:
            assert (done.filled, windows(done)) == (2, [[2, 3, 4, 5], [5, 5, 5, 8]])


def test_a_long_gap_costs_no_more_than_a_window(stores: Stores) -> None:
    kept = stores()
    append(kept, range(6), range(6), LAST)
    done = append(kept, [1], [1 << 50], LAST)
    assert (len(done.rows) < 5 * STEPS, windows(done)) == (True, [[5, 5, 5, 1]])
    assert done.filled == (1 << 50) - 6


def test_a_row_from_before_the_beginning_is_a_conflict(stores: Stores) -> None:
    kept = stores()
    append(kept, [5], [5])
    with pytest.raises(SeriesConflict, match="never there"):
        append(kept, [4], [4])
    append(kept, [8], [8], RESET)
    with pytest.raises(SeriesConflict, match="never there"):  # it has begun with the 8
        append(kept, [5], [5], RESET)


def test_times_have_no_gaps(stores: Stores) -> None:
    kept = stores()
    append(kept, range(5), [10, 20, 35, 36, 70], TIME)
    assert windows(append(kept, [5], [1000], TIME)) == [[2, 3, 4, 5]]
    assert windows(append(kept, [4, 6], [70, 2000], TIME)) == [[1, 2, 3, 4], [3, 4, 5, 6]]
    with pytest.raises(SeriesConflict, match="never there"):
        append(kept, [9], [40], TIME)


def test_numbers_in_each_request_or_in_none(stores: Stores) -> None:
    kept = stores()
    append(kept, [0], None)
    assert append(kept, [0], None).fresh == 1
    with pytest.raises(SeriesConflict, match="or in none"):
        append(kept, [1], [1])


def test_each_row_that_is_kept_is_told_apart(stores: Stores) -> None:
    numbered, filled, timed, counted = stores(), stores(), stores(), stores()
    append(numbered, range(11), range(5, 16))
    append(filled, [0, 1], [0, 1], LAST)
    append(filled, [2], [4], LAST)
    append(timed, range(9), [10 * k * k for k in range(9)], TIME)
    for _ in range(3):
        append(counted, range(3), None)
    found = [list(run(kept.look(KEY)).numbers) for kept in (numbered, filled, timed, counted)]
    assert found == [list(range(8, 16)), list(range(5)), [10 * k * k for k in range(1, 9)], list(range(2, 10))]


def test_a_series_is_its_owners(stores: Stores) -> None:
    kept = stores()
    mine, yours = SeriesKey(b"mine", "s"), SeriesKey(b"yours", "s")
    run(kept.append(mine, Sent(rows(1), None), REFUSE))
    with pytest.raises(UnknownSeries):
        run(kept.look(yours))
    assert run(kept.append(yours, Sent(rows(7), [3]), REFUSE)).kept == 1
    assert (run(kept.look(mine)).seq, run(kept.look(yours)).seq, kept.count()) == (None, 3, 2)
    run(kept.forget(mine))
    run(kept.forget(mine))
    with pytest.raises(UnknownSeries):
        run(kept.look(mine))
    assert run(kept.look(yours)).seq == 3


def test_what_was_found_is_replaced_only_while_it_is_so(stores: Stores) -> None:
    kept = stores(most=1)

    def find(name: str = "s") -> Found:
        (found,) = run(kept.find_each([SeriesKey(b"", name)]))
        assert isinstance(found, Found)
        return found

    def replace(before: Found, after: Series) -> object:
        return run(kept.replace_each([(KEY, before, after)]))[0]

    def a_row_more(found: Found) -> Series:
        sent, after = Sent(rows(1), None), copy(found.series) or Series.begin(Sent(rows(1), None), REFUSE)
        kept_append(after, sent, REFUSE, 2 * STEPS)
        ys = np.arange(2 * after.count, dtype=np.float32).reshape(after.count, 2)
        after.carried = Carried("digest", (rows(*range(7)).T, rows(-0.0)), ys, after.count)
        return after

    first, late = find(), find()
    assert replace(first, a_row_more(first)) is True
    assert replace(late, a_row_more(late)) is False
    second = find()
    assert second.series is not None
    assert replace(second, a_row_more(second)) is True
    known = run(kept.look(KEY))
    assert known.carried is not None
    assert (len(known.rows), known.carried.digest, known.carried.rows_in_state) == (2, "digest", 2)
    found = [array.tobytes() for array in (*known.carried.state, known.carried.ys)]
    wanted = a_row_more(second).carried
    assert wanted is not None
    assert found == [array.tobytes() for array in (*wanted.state, wanted.ys)]
    append(kept, [1], None)  # by what carries nothing: the state is not that after the last row any more
    assert run(kept.look(KEY)).carried is None
    before = find()
    run(kept.forget(KEY))
    assert replace(before, a_row_more(before)) is False
    assert kept.count() == 0
    begins = find()
    append(kept, [0], None, name="other")
    assert isinstance(replace(begins, a_row_more(begins)), SeriesFull)


def test_a_living_series_is_never_dropped_and_an_idle_one_makes_room(stores: Stores) -> None:
    gone = list[SeriesKey]()
    kept = stores(2, 10, gone.append)
    append(kept, [0], [0], name="a")
    stores.wait(6)
    append(kept, [0], [0], name="b")
    with pytest.raises(SeriesFull):
        append(kept, [0], [0], name="c")
    stores.wait(5)
    append(kept, [0], [0], name="c")
    stores.expire(kept)
    assert (kept.count(), gone) == (2, [SeriesKey(b"", "a")])
    stores.wait(100)
    stores.expire(kept)
    assert kept.count() == 0
    assert sorted(gone) == [SeriesKey(b"", "a"), SeriesKey(b"", "b"), SeriesKey(b"", "c")]


def test_a_row_keeps_its_series_from_expiring_and_no_other(stores: Stores) -> None:
    gone = list[SeriesKey]()
    kept = stores(3, 10, gone.append)
    for number, name in enumerate("aba"):
        append(kept, [number], None, name=name)
        stores.wait(4)
    stores.wait(3)  # of a the last row came 7 seconds ago, of b 11
    stores.expire(kept)
    assert (kept.count(), gone) == (1, [SeriesKey(b"", "b")])


def test_a_series_is_as_old_as_its_last_row() -> None:
    stores = InMemory()
    kept = stores()
    for number in range(2):
        append(kept, [number], None)
        stores.wait(3)
        assert run(kept.look(KEY)).age == 3


def test_one_that_expired_and_is_there_again_before_that_was_seen(stores: Stores) -> None:
    gone = list[SeriesKey]()
    kept = stores(1, 10, gone.append)
    append(kept, [0], [0])
    stores.wait(11)
    assert append(kept, [7], [7]).kept == 1
    stores.expire(kept)
    assert (kept.count(), gone) == (1, [KEY])


def test_a_series_that_begins_anew_is_told_from_the_one_before(stores: Stores) -> None:
    kept = stores()

    def life(rules: SeriesRules, seq: int) -> bytes:
        append(kept, [seq], [seq], rules)
        return run(kept.look(KEY)).life

    first = life(REFUSE, 0)
    assert {life(REFUSE, 1), life(RESET, 9), life(LAST, 12)} == {first}
    run(kept.forget(KEY))
    assert life(REFUSE, 1) not in {first, b""}


def test_to_count_changes_nothing(stores: Stores) -> None:
    """Another thread may: the one that is scraped."""
    expired = list[SeriesKey]()
    kept = stores(3, 10, expired.append)
    append(kept, [0], [0])
    stores.wait(11)
    assert (kept.count(), expired) == (1, [])
    stores.expire(kept)
    assert (kept.count(), expired) == (0, [KEY])


def test_what_is_refused_begins_no_series(stores: Stores) -> None:
    kept = stores()
    with pytest.raises(UnknownSeries):
        run(kept.look(SeriesKey(b"", "s")))
    assert kept.count() == 0


def test_rows_kept_are_no_more_than_two_windows(stores: Stores) -> None:
    kept = stores()
    append(kept, range(1000), range(1000))
    found = run(kept.look(SeriesKey(b"", "s"))).rows
    assert len(found) == 2 * STEPS
    assert isinstance(stores, InRedis) or found.base is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), max_size=40))
def test_chunks_that_repeat_and_overlap_give_each_window_once(stores: Stores, chunks: list[tuple[int, int]]) -> None:
    kept, there = stores(), 0
    for start, count in chunks:
        numbers = range(start, start + count)
        if not there or start <= there:
            first = start if not there else None
            if first:
                continue
            done = append(kept, numbers, numbers)
            assert done.fresh == max(0, start + count - there)
            there = max(there, start + count)
            for number, window in zip(numbers, windows(done), strict=True):
                if window is not None:
                    assert window == list(range(number - STEPS + 1, number + 1))
                else:
                    assert number < STEPS - 1 or number <= there - STEPS - 1
        else:
            with pytest.raises(SeriesConflict):
                append(kept, numbers, numbers)


steps = st.lists(
    st.tuples(
        st.sampled_from([REFUSE, RESET, LAST]),
        st.lists(st.integers(1, 7).map(lambda n: n if n > 2 else 1), min_size=1, max_size=12),  # to the next number
        st.integers(-14, 3),  # from the last number on
        st.booleans(),  # with numbers
        st.integers(0, 9).map(lambda n: n == 0),  # with another value
    ),
    max_size=12,
)


def outcome(kept: Store, sent: Sent, rules: SeriesRules) -> object:
    try:
        done = run(kept.append(KEY, sent, rules))
    except SeriesConflict as error:
        return str(error), error.expected, error.got
    known = run(kept.look(KEY))
    return done._replace(rows=done.rows.tolist(), ends=[*done.ends]), known.seq, known.rows.tolist(), [*known.numbers]


@needs_redis
@given(steps, st.sampled_from([None, TIME]))
def test_both_stores_do_the_same(redis: InRedis, steps: list[Any], times: SeriesRules | None) -> None:
    stores, last = (InMemory()(), redis()), 0
    for rules, distances, start, numbered, other in steps:
        numbers = [max(0, last + start)]
        for distance in distances:
            numbers.append(numbers[-1] + (distance if times else 1))
        if not numbered and not last:
            continue
        sent = Sent(
            rows(*(-0.0 if number == 0 else number + other for number in numbers)), numbers if numbered else None
        )
        found, same = [outcome(kept, sent, times or rules) for kept in stores]
        assert found == same
        last = max(last, numbers[-1])


DAMAGE: dict[str, Any] = {
    "form": lambda client, key: client.hdel(key, "form"),
    "by": lambda client, key: client.hset(key, "by", "none"),
    "first": lambda client, key: client.hset(key, "first", "x"),
    "count": lambda client, key: client.hset(key, "count", ""),
    "touched": lambda client, key: client.hset(key, "touched", "x"),
    "short rows": lambda client, key: client.hset(key, "rows", b"abc"),
    "rows of NaN": lambda client, key: client.hset(key, "rows", b"\xff" * 8),
    "no rows": lambda client, key: client.hset(key, mapping={"rows": b"", "seqs": b""}),
    "seqs": lambda client, key: client.hset(key, "seqs", np.full(2, np.nan).tobytes()),
    "one seq": lambda client, key: client.hset(key, "seqs", np.ones(1).tobytes()),
    "another hash": lambda client, key: (client.delete(key), client.hset(key, "a", "b")),
    "a text": lambda client, key: client.set(key, "x"),
    "a set": lambda client, key: (client.delete(key), client.zadd(key, {"a": 1})),
}


@needs_redis
@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_damaged_is_no_series_and_begins_anew(
    redis: InRedis, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept = redis()
    append(kept, [0, 1], range(2))
    key = next(key for key in redis.client.scan_iter() if key.startswith(redis.prefix) and key.endswith(b":s"))
    DAMAGE[what](redis.client, key)
    for _ in range(2):
        with pytest.raises(UnknownSeries):
            run(kept.look(KEY))
    done = append(kept, [2], [2])
    assert (done.begun, done.kept, done.fresh, kept.count()) == ("damaged", 1, 1, 1)
    assert append(kept, [3], [3]).kept == 2
    assert run(kept.look(KEY)).rows[:, 0].tolist() == [2, 3]
    assert caplog.text.count(key.decode()) == 1


@needs_redis
def test_what_is_no_index_of_series_stops_nothing(redis: InRedis) -> None:
    gone = list[SeriesKey]()
    kept = redis(expired=gone.append)
    append(kept, [0], [0])
    for member in (b"a@zz", b"\xff@", b"q@@", b"", b"\xc3"):
        redis.client.zadd(redis.prefix[:-1], {member: 1})
    redis.wait(11)
    redis.expire(kept)
    assert (kept.count(), KEY in gone) == (0, True)
    redis.client.set(redis.prefix[:-1], "x")
    assert append(kept, [0], [0]).kept == 1
    redis.expire(kept)
    assert (kept.count(), redis.server.away) == (1, False)


@needs_redis
def test_a_fault_of_a_script_is_not_that_the_store_is_away(redis: InRedis, caplog: pytest.LogCaptureFixture) -> None:
    redis.client.set("text", "x")
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="log of the service"):
            run(redis.server.run("return redis.call('HGET', KEYS[1], 'a')", ["text"]))
    run(redis.server.run("return 1", []))
    assert (redis.server.away, len(caplog.records)) == (False, 1)


@in_loop
async def test_a_few_wait_for_a_lock_and_no_more() -> None:
    locks, order = SeriesLocks(), list[int]()

    async def request(number: int) -> None:
        async with locks.hold((KEY,), time.monotonic() + PATIENCE):
            await asyncio.sleep(0)
            order.append(number)

    tasks = [asyncio.create_task(request(k)) for k in range(MOST_WAITING + 1)]
    await asyncio.sleep(0)
    with pytest.raises(SeriesBusy):
        await request(-1)
    tasks[3].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [k for k in range(MOST_WAITING + 1) if k != 3]
    await request(99)
    await locks.acquire(KEY, math.inf)
    await locks.acquire(SeriesKey(b"another", "s"), math.inf)
    locks.release(KEY)
    assert locks.expect_room(KEY) is None  # type: ignore[func-returns-value]


@in_loop
async def test_two_that_hold_the_same_locks_do_not_wait_for_one_another() -> None:
    locks, keys, order = SeriesLocks(), [SeriesKey(b"", name) for name in "ab"], list[int]()

    async def request(number: int, keys: Sequence[SeriesKey]) -> None:
        async with locks.hold(keys, time.monotonic() + PATIENCE):
            order.append(number)

    for key in keys:
        await locks.acquire(key, math.inf)
    tasks = [asyncio.create_task(request(1, keys)), asyncio.create_task(request(2, keys[::-1]))]
    await asyncio.sleep(0)
    for key in keys:
        locks.release(key)
    for _ in range(9):
        await asyncio.sleep(0)
    assert order == [1, 2]
    await asyncio.gather(*tasks)


@in_loop
async def test_whoever_leaves_when_the_turn_has_come_passes_it_on() -> None:
    locks = SeriesLocks()
    await locks.acquire(KEY, math.inf)
    second = asyncio.create_task(locks.acquire(KEY, math.inf))
    third = asyncio.create_task(locks.acquire(KEY, math.inf))
    await asyncio.sleep(0)
    locks.release(KEY)
    second.cancel()
    await third
    locks.release(KEY)
    await locks.acquire(KEY, math.inf)


@in_loop
async def test_whoever_waits_does_so_until_the_deadline_at_most() -> None:
    locks = SeriesLocks()
    await locks.acquire(KEY, math.inf)
    for seconds in (-1, 0.01):
        with pytest.raises(DeadlinePassed):
            await locks.acquire(KEY, time.monotonic() + seconds)
    locks.release(KEY)
    with pytest.raises(DeadlinePassed):
        async with locks.hold((KEY,), time.monotonic()):
            pass
    async with locks.hold((KEY,), time.monotonic() + PATIENCE):
        pass
