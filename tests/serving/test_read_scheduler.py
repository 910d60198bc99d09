"""In an iteration of the event loop a few of all connections are read, each in its turn."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from serving import in_loop

from lstm_serve.serving.read_scheduler import FEW, LATELY, LONG, MOST, REST, SECONDS, ReadScheduler


class Many:
    """A connection with so many requests."""

    def __init__(self, number: int, requests: int, read: list[int], asks: str | None = "") -> None:
        self.number, self.requests, self.read, self.asks = number, requests, read, asks

    def take(self) -> bool:
        self.read.append(self.number)
        self.requests -= 1
        return self.requests > 0


class Then(Many):
    """A connection that does something with each request that is read."""

    def __init__(self, number: int, read: list[int], then: Callable[[Many], None], asks: str | None = "") -> None:
        super().__init__(number, 3, read, asks)
        self.then = then

    def take(self) -> bool:
        self.then(self)
        return super().take()


def flooded(count: int, requests: int) -> tuple[ReadScheduler, list[int]]:
    """A scheduler for which so many wait with requests to one model, and the list of whose were read."""
    reads, read = ReadScheduler(), list[int]()
    for number in range(count):
        reads.ask(Many(number, requests, read, "flooded"))
    return reads, read


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time, `now`, that goes by when it is told to."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("lstm_serve.serving.read_scheduler.time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.mark.usefixtures("clock")
@in_loop
async def test_each_in_its_turn_and_few_in_an_iteration() -> None:
    reads, read = ReadScheduler(), list[int]()
    for number in range(100):
        reads.ask(Many(number, 3, read))
    done = iterations = 0
    while len(read) < 300:
        assert len(read) - done <= MOST
        done, iterations = len(read), iterations + 1
        counts = Counter(read)
        assert max(counts.values()) - min(counts[number] for number in range(100)) <= 2
        await asyncio.sleep(0)
    assert iterations >= 300 / MOST
    await asyncio.sleep(0)
    assert len(read) == 300


@in_loop
async def test_who_comes_when_nobody_waits_is_read_at_once_and_who_leaves_no_more() -> None:
    reads, read = ReadScheduler(), list[int]()
    reads.ask(Many(0, 1, read))
    assert read == [0]
    leaving = Many(1, 5, read)
    reads.ask(leaving)
    reads.leave(leaving)
    for _ in range(5):
        await asyncio.sleep(0)
    assert read == [0, 1]


@pytest.mark.parametrize("asks", ["other", None])  # None: it has just come, and waits for the next iteration
@pytest.mark.usefixtures("clock")
@in_loop
async def test_who_asks_another_model_does_not_wait_behind_a_flood(asks: str | None) -> None:
    reads, read = flooded(1000, 3)
    reads.ask(Many(-1, 3, read, asks))
    await asyncio.sleep(0)
    assert read[:7] == ([0, 0, -1, 1, -1, 2, -1] if asks is None else [0, -1, 0, -1, 1, -1, 2])
    for _ in range(3003 // MOST + 2):
        await asyncio.sleep(0)
    assert len(read) == 3003


@pytest.mark.usefixtures("clock")
@in_loop
async def test_who_has_just_come_waits_then_with_those_that_ask_the_same() -> None:
    reads, read = flooded(100, 3)
    reads.ask(Then(-1, read, lambda new: setattr(new, "asks", "flooded"), None))
    await asyncio.sleep(0)
    assert read[:7] == [0, 0, -1, 1, 2, 3, 4]


@in_loop
async def test_who_has_just_come_and_leaves_is_not_read() -> None:
    reads, read = ReadScheduler(), list[int]()
    for number in range(100):
        new = Many(number, 1, read, None)
        reads.ask(new)
        if number:
            reads.leave(new)
    assert read == []
    for _ in range(5):
        await asyncio.sleep(0)
    assert read == [0]


@pytest.mark.usefixtures("clock")
@in_loop
async def test_a_flood_reads_few_in_an_iteration_while_another_model_is_asked_and_many_where_both_wait() -> None:
    reads, read = flooded(100, 9)
    await asyncio.sleep(0)
    assert await _read_in_iterations(read, 3) == [MOST] * 3
    reads.note("flooded")
    assert await _read_in_iterations(read, 3) == [MOST] * 3
    reads.note("calm")
    assert await _read_in_iterations(read, 3) == [FEW] * 3
    for number in range(100):
        reads.ask(Many(-number, 9, read, "no longer calm"))
    assert await _read_in_iterations(read, 3) == [MOST] * 3


@pytest.mark.usefixtures("clock")
@in_loop
async def test_beside_a_flood_that_has_read_its_few_another_model_is_read_in_the_same_iteration() -> None:
    reads, read = ReadScheduler(), list[int]()
    for model in ("flooded", "calm"):
        reads.note(model)
    for number in range(100):
        reads.ask(Many(number, 9, read, "flooded"))
    await asyncio.sleep(0)
    assert await _read_in_iterations(read, 1) == [FEW]
    read.clear()
    for _ in range(MOST):
        reads.ask(Many(-1, 1, read, "calm"))
    assert read == [-1] * (MOST - FEW)
    await asyncio.sleep(0)
    assert read.count(-1) == MOST


@in_loop
async def test_a_flood_reads_many_in_an_iteration_again_once_no_other_model_was_asked_lately(
    clock: SimpleNamespace,
) -> None:
    reads, read = ReadScheduler(), list[int]()
    for model in ("calm", "flooded", "flooded", "flooded"):
        reads.note(model)
        clock.now += LATELY
    for number in range(100):
        reads.ask(Many(number, 9, read, "flooded"))
    await asyncio.sleep(0)
    assert await _read_in_iterations(read, 3) == [MOST] * 3
    reads.note("calm")
    assert await _read_in_iterations(read, 3) == [FEW] * 3


@pytest.mark.usefixtures("clock")
@in_loop
async def test_a_flood_rests_until_who_asks_another_model_is_answered_and_is_not_kept_out_by_many_of_them() -> None:
    reads, read = flooded(100, 9)
    reads.note("flooded")
    reads.note("calm")
    await asyncio.sleep(0)
    turns = list[int]()
    for _ in range(3 * (REST + 2)):
        reads.ask(Many(-1, 1, [], "calm"))
        turns += await _read_in_iterations(read, 1)
    assert turns == [*[0] * REST, FEW, FEW] * 3


@in_loop
async def test_no_other_request_is_begun_once_the_time_of_the_iteration_is_used_up(clock: SimpleNamespace) -> None:
    def use_up(_: Many) -> None:
        clock.now += SECONDS

    reads, read = ReadScheduler(), list[int]()
    for number in range(100):
        reads.ask(Then(number, read, use_up))
    assert read == [0]
    assert await _read_in_iterations(read, 5) == [1] * 5


@in_loop
async def test_after_long_iterations_fewer_are_read_in_one_and_at_least_one() -> None:
    reads, read = ReadScheduler(), list[int]()
    for number in range(100):
        reads.ask(Many(number, 9, read))
    iterations = list[int]()
    for _ in range(6):
        time.sleep(LONG)  # noqa: ASYNC251 - it is what the iteration takes
        iterations += await _read_in_iterations(read, 1)
    assert iterations[1:] == [MOST // 4, MOST // 8, 1, 1, 1]


async def _read_in_iterations(read: list[int], iterations: int) -> list[int]:
    """How many are read in each of the next iterations of the loop."""
    counts = list[int]()
    for _ in range(iterations):
        before = len(read)
        await asyncio.sleep(0)
        counts.append(len(read) - before)
    return counts
