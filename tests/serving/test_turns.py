"""The turn of a large body: one after the other, and whoever leaves or comes too late keeps nobody from it."""

import asyncio

import pytest
from serving import PATIENCE, in_loop

from lstm_serve.errors import DeadlinePassed, QueueFull
from lstm_serve.serving.turns import MOST_WAITING, Turn, Turns


@in_loop
async def test_who_has_waited_too_long_or_left_waits_no_more() -> None:
    turns = Turns()
    first, second = Turn(turns, PATIENCE), Turn(turns, PATIENCE)
    await first.begin()
    with pytest.raises(DeadlinePassed):
        await Turn(turns, 0.001).begin()
    leaving = asyncio.create_task(Turn(turns, PATIENCE).begin())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    assert turns.waiting == 0
    first.end()
    await second.begin()
    assert second.begun


@in_loop
async def test_they_are_served_as_they_came_and_few_that_are_compressed_wait() -> None:
    turns, served = Turns(), list[int]()
    first = Turn(turns, PATIENCE)
    await first.begin()

    async def wait_for(number: int) -> None:
        turn = Turn(turns, PATIENCE)
        await turn.begin()
        served.append(number)
        turn.end()

    async with asyncio.TaskGroup() as group:
        for number in range(MOST_WAITING):
            group.create_task(wait_for(number))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            turns.check_room()
        first.end()
        first.end()  # it has ended
    assert served == [*range(MOST_WAITING)]
