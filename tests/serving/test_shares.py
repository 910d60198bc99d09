"""Of a turn of the event loop all connections together take a little, each in its turn."""

import asyncio
from collections import Counter

import pytest
from serving import in_loop

from lstm_serve.serving.shares import MOST, ReadingShares


class Many:
    """A connection with so many requests."""

    def __init__(self, number: int, requests: int, read: list[int], asks: str | None = "") -> None:
        self.number, self.requests, self.read, self.asks = number, requests, read, asks

    def take(self) -> bool:
        self.read.append(self.number)
        self.requests -= 1
        return self.requests > 0


@in_loop
async def test_each_in_its_turn_and_few_in_a_turn() -> None:
    shares, read = ReadingShares(), list[int]()
    for number in range(100):
        shares.ask(Many(number, 3, read))
    done = turns = 0
    while len(read) < 300:
        assert len(read) - done <= MOST
        done, turns = len(read), turns + 1
        counts = Counter(read)
        assert max(counts.values()) - min(counts[number] for number in range(100)) <= 2
        await asyncio.sleep(0)
    assert turns >= 300 / MOST
    await asyncio.sleep(0)
    assert len(read) == 300


@in_loop
async def test_who_comes_when_nobody_waits_is_read_at_once_and_who_leaves_no_more() -> None:
    shares, read = ReadingShares(), list[int]()
    shares.ask(Many(0, 1, read))
    assert read == [0]
    leaving = Many(1, 5, read)
    shares.ask(leaving)
    shares.leave(leaving)
    for _ in range(5):
        await asyncio.sleep(0)
    assert read == [0, 1]


@pytest.mark.parametrize("asks", ["other", None])  # None: it has just come
@in_loop
async def test_who_asks_another_model_does_not_wait_behind_a_flood(asks: str | None) -> None:
    shares, read = ReadingShares(), list[int]()
    for number in range(1000):
        shares.ask(Many(number, 3, read, "flooded"))
    shares.ask(Many(-1, 3, read, asks))
    await asyncio.sleep(0)
    assert read[:7] == [0, 0, -1, 1, -1, 2, -1]
    for _ in range(3003 // MOST + 2):
        await asyncio.sleep(0)
    assert len(read) == 3003


@in_loop
async def test_who_has_just_come_and_leaves_is_not_read() -> None:
    shares, read = ReadingShares(), list[int]()
    for number in range(100):
        new = Many(number, 1, read, None)
        shares.ask(new)
        if number:
            shares.leave(new)
    assert read == []
    for _ in range(5):
        await asyncio.sleep(0)
    assert read == [0]
