"""In an iteration of the event loop a few of all connections are read, each in its turn."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from echo import Echo, model_of
from serving import in_loop

from lstm_serve.serving.batching import Batcher
from lstm_serve.serving.read_scheduler import FEW, LATELY, LONG, MOST, READING, ROUND, SECONDS, ReadScheduler

IN_A_ROUND = [FEW] * READING + [0] * (ROUND - READING)  # of a flood, while another model is asked


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
async def test_a_flood_is_read_in_rounds_while_another_model_is_asked_and_many_at_once_where_both_wait() -> None:
    reads, read = flooded(100, 9)
    await asyncio.sleep(0)
    assert await _read_in_iterations(read, 3) == [MOST] * 3
    reads.note("flooded")
    assert await _read_in_iterations(read, 3) == [MOST] * 3
    reads.note("calm")
    assert _rounds(await _read_in_iterations(read, 4 * ROUND)) == [IN_A_ROUND] * 3
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
    while await _read_in_iterations(read, 1) != [FEW]:
        pass
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
    assert _rounds(await _read_in_iterations(read, 4 * ROUND)) == [IN_A_ROUND] * 3


@pytest.mark.usefixtures("clock")
@in_loop
async def test_who_asks_another_model_is_read_at_once_in_every_iteration_and_keeps_no_round_from_a_flood() -> None:
    reads, read = flooded(100, 9)
    reads.note("flooded")
    reads.note("calm")
    await asyncio.sleep(0)
    counts, calm = list[int](), list[int]()
    for number in range(4 * ROUND):
        reads.ask(Many(number, 1, calm, "calm"))
        assert calm[-1] == number
        counts += await _read_in_iterations(read, 1)
    assert _rounds(counts) == [IN_A_ROUND] * 3


@pytest.mark.usefixtures("clock")
@in_loop
async def test_what_a_flood_was_read_in_a_round_is_a_batch_and_answered_before_the_next_round_begins() -> None:
    reads, events, over = ReadScheduler(), list[str](), asyncio.Event()
    queue = Batcher(max_batch_rows=64, max_queue_rows=1000, observe=lambda rows, _: events.append(f"computed {rows}"))
    queue.start()
    model, tasks = model_of(Echo()), list[asyncio.Task[None]]()

    class Client(Many):
        """A connection that asks again when it is answered."""

        def take(self) -> bool:
            events.append("read")
            tasks.append(asyncio.create_task(self.answer()))
            return False

        async def answer(self) -> None:
            await queue.submit(model, np.ones((1, 2), np.float32), math.inf).future
            events.append("answered")
            self.requests -= 1
            if self.requests:
                reads.ask(self)
            if len(tasks) >= 2 * 64:
                reads.note("calm")
            if len(tasks) == 10 * 64 and all(task.done() for task in tasks[:-1]):
                over.set()

    reads.note("flooded")
    for number in range(64):
        reads.ask(Client(number, 10, [], "flooded"))
    await over.wait()
    await queue.close()
    size = FEW * READING
    a_round = ["read"] * size + [f"computed {size}"] + ["answered"] * size
    end = max(at for at, pair in enumerate(pairwise(events), 1) if pair == ("answered", "read"))
    assert events[end - 10 * len(a_round) : end] == a_round * 10


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


def _rounds(counts: list[int]) -> list[list[int]]:
    """How many are read in the iterations of each round, by what is read in each iteration."""
    begin = next(at for at in range(1, len(counts)) if counts[at] and not counts[at - 1])
    return [counts[at : at + ROUND] for at in range(begin, len(counts) - ROUND + 1, ROUND)]
