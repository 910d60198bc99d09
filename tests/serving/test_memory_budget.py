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
    async with Upload(inflight) as upload:
        for size in sizes:
            upload.hold(size)
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
        async with Upload(inflight) as upload:
            upload.hold(size)
            await asyncio.sleep(PATIENCE)

    reading = [asyncio.create_task(waiting(size)) for size in (3, 4)]
    await asyncio.sleep(0)
    async with Upload(inflight) as upload:
        upload.hold(6)
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
        async with Upload(inflight) as upload:
            upload.hold(6)
            inflight.hold(5)
            upload.hold(1)

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


def test_newcomers_go_last_and_are_none_any_more_once_they_are_looked_at() -> None:
    inflight = Inflight(10)
    (first, second, third, fourth), ended = connections(inflight, 4)
    first.become(4, new=True)
    second.become(4, new=True)
    third.become(4)
    assert ended == [2]  # the only one that was looked at
    second.become(5)
    fourth.become(2, new=True)
    assert (ended, inflight.bytes) == ([2, 1], 6)
    first.close()
    fourth.become(0)
    assert (ended, inflight.bytes, inflight.newcomers) == ([2, 1], 0, {})
