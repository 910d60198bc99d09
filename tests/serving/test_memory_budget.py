"""The bytes in flight: who makes room, and that each byte that was counted is given back once."""

import asyncio

import pytest
from serving import PATIENCE, in_loop

from lstm_serve.errors import Malformed, QueueFull
from lstm_serve.serving.memory_budget import Inflight, Kept, Upload


def connections(inflight: Inflight, count: int) -> tuple[list[Kept], list[int]]:
    """Some that keep nothing yet, and a list to which each adds its number when it is ended."""
    ended: list[int] = []

    def kept(number: int) -> Kept:
        return Kept(inflight, lambda: ended.append(number))

    return [*map(kept, range(count))], ended


async def read(inflight: Inflight, *sizes: int, error: Exception | None = None) -> None:
    """Read a body in parts of these sizes, and fail then, if there is an error."""
    async with Upload(inflight, PATIENCE) as upload:
        for size in sizes:
            await upload.hold(size, size)
        if error is not None:
            raise error


@in_loop
async def test_a_body_of_which_reading_fails_gives_its_bytes_back() -> None:
    inflight = Inflight(10)
    with pytest.raises(Malformed):
        await read(inflight, 4, 3, error=Malformed())
    assert (inflight.bytes, inflight.uploads) == (0, {})


@in_loop
async def test_what_a_whole_body_holds_is_its_requests() -> None:
    inflight = Inflight(10)
    await read(inflight, 4)
    assert (inflight.bytes, inflight.uploads) == (4, {})


@in_loop
async def test_the_oldest_body_makes_room_and_its_reading_ends() -> None:
    inflight, whole = Inflight(10), list[int]()

    async def waiting(size: int) -> None:
        async with Upload(inflight, PATIENCE) as upload:
            await upload.hold(size, size)
            await asyncio.sleep(PATIENCE)

    reading = [asyncio.create_task(waiting(size)) for size in (3, 4)]
    await asyncio.sleep(0)
    async with Upload(inflight, PATIENCE) as upload:
        await upload.hold(6, 7)
        with pytest.raises(QueueFull):
            await reading[0]
        whole.append(inflight.bytes)
    reading[1].cancel()
    await asyncio.wait(reading)
    assert (whole, inflight.bytes) == ([10], 6)


@in_loop
async def test_a_body_that_is_the_oldest_itself_is_refused_and_keeps_nothing() -> None:
    inflight = Inflight(10)
    with pytest.raises(QueueFull):
        await read(inflight, 6, 5)
    assert (inflight.bytes, inflight.uploads) == (0, {})


@in_loop
async def test_a_body_that_has_made_room_takes_no_part_that_is_there_already() -> None:
    inflight = Inflight(10)

    async def behind_another() -> None:
        async with Upload(inflight, PATIENCE) as upload:
            await upload.hold(6, 7)
            inflight.hold(5)
            await upload.hold(1, 7)

    with pytest.raises(QueueFull):
        await behind_another()
    assert (inflight.bytes, inflight.uploads) == (5, {})


def test_a_connection_that_is_the_oldest_goes_for_its_own_bytes_and_takes_no_other_with_it() -> None:
    inflight = Inflight(10)
    (oldest, other), ended = connections(inflight, 2)
    oldest.become(4)
    other.become(4)
    oldest.become(8)
    assert (ended, inflight.bytes, oldest.size, other.size) == ([0], 4, 0, 4)


def test_a_connection_for_which_there_is_no_room_at_all_goes() -> None:
    inflight = Inflight(10)
    inflight.hold(8)
    (alone,), ended = connections(inflight, 1)
    alone.become(1)
    alone.become(3)
    assert (ended, inflight.bytes, alone.size) == ([0], 8, 0)


def test_who_asks_and_takes_answers_goes_after_who_waits() -> None:
    inflight = Inflight(10)
    (asking, waiting, third), ended = connections(inflight, 3)
    asking.become(5)
    waiting.become(5)
    asking.renew()
    third.become(1)
    assert (ended, inflight.bytes) == ([1], 6)


def test_who_waits_for_the_service_goes_last_until_it_is_looked_at() -> None:
    inflight = Inflight(10)
    (first, second, third, fourth), ended = connections(inflight, 4)
    first.become(4, queued=True)
    second.become(4, queued=True)
    third.become(4)
    assert ended == [2]  # the only one that was looked at
    second.become(5)
    fourth.become(2, queued=True)
    assert (ended, inflight.bytes) == ([2, 1], 6)
    first.close()
    fourth.become(0)
    assert (ended, inflight.bytes, inflight.queued) == ([2, 1], 0, {})


PART = 1 << 16


async def answered(inflight: Inflight, parts: int) -> None:
    """Read a large body part by part, and answer it."""
    async with Upload(inflight, PATIENCE) as upload:
        for _ in range(parts):
            await upload.hold(PART, parts * PART)
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    inflight.release(parts * PART)


@in_loop
async def test_of_more_large_bodies_than_there_is_room_for_each_is_answered() -> None:
    inflight = Inflight(64 * PART)
    await asyncio.gather(*(answered(inflight, 8) for _ in range(20)))
    assert (inflight.bytes, inflight.besides, inflight.uploads) == (0, 0, {})


@in_loop
async def test_a_body_of_more_than_half_of_the_room_waits_until_it_is_alone() -> None:
    inflight = Inflight(64 * PART)
    await asyncio.gather(answered(inflight, 8), answered(inflight, 40), answered(inflight, 8))
    assert (inflight.bytes, inflight.besides) == (0, 0)


@in_loop
async def test_who_stops_in_the_middle_makes_room_for_a_body_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_serve.serving.memory_budget.SLOW", 0.01)
    inflight = Inflight(16 * PART)

    async def stopping() -> None:
        async with Upload(inflight, PATIENCE) as upload:
            for _ in range(2):
                await upload.hold(PART, 10 * PART)
            await asyncio.sleep(PATIENCE)

    stopped = asyncio.create_task(stopping())
    await asyncio.sleep(0)
    await asyncio.gather(answered(inflight, 4), answered(inflight, 4))
    with pytest.raises(QueueFull):
        await stopped
    assert (inflight.bytes, inflight.besides) == (0, 0)


@in_loop
async def test_for_much_nobody_goes_who_is_not_slow_and_for_little_whoever_came_first() -> None:
    inflight = Inflight(4 * PART)
    (first, second, much, little), ended = connections(inflight, 4)
    first.become(2 * PART)
    second.become(PART)
    much.become(2 * PART)
    assert ended == [2]
    inflight.hold(PART)
    little.become(1)
    assert ended == [2, 0]
    with pytest.raises(QueueFull):
        inflight.hold(3 * PART)
    assert inflight.bytes == 2 * PART + 1


@pytest.mark.parametrize("let_in", [False, True])
@in_loop
async def test_who_leaves_while_it_waits_for_room_keeps_nothing(*, let_in: bool) -> None:
    inflight = Inflight(16 * PART)
    inflight.hold(8 * PART)
    waiting = asyncio.create_task(answered(inflight, 4))
    behind = asyncio.create_task(answered(inflight, 4))
    for _ in range(3):
        await asyncio.sleep(0)
    if let_in:
        inflight.release(8 * PART)
    waiting.cancel()
    await asyncio.wait([waiting])
    if not let_in:
        inflight.release(8 * PART)
    await behind
    assert (inflight.bytes, inflight.besides, inflight.uploads) == (0, 0, {})


@in_loop
async def test_room_is_waited_for_as_long_as_an_answer_and_no_longer() -> None:
    inflight = Inflight(16 * PART)
    inflight.hold(8 * PART)
    with pytest.raises(QueueFull):
        async with Upload(inflight, 0.01) as upload:
            await upload.hold(2 * PART, 4 * PART)
    assert (inflight.bytes, inflight.besides, inflight.uploads) == (8 * PART, 0, {})
