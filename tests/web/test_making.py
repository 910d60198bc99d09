"""What is made once for all who ask: none of them holds up all others."""

import asyncio
import threading

import pytest
from serving import in_loop

from lstm_serve.web.making import MadeOnce


@in_loop
async def test_it_is_made_once_and_who_has_waited_goes_on_one_in_a_turn() -> None:
    made = list[str]()
    go_on = threading.Event()

    def make() -> str:
        go_on.wait()
        made.append("it")
        return "it"

    one, had = MadeOnce(make), list[str]()

    async def ask() -> None:
        had.append(await one.get())

    async with asyncio.TaskGroup() as asking:
        for _ in range(50):
            asking.create_task(ask())
        await asyncio.sleep(0)
        go_on.set()
        while (before := len(had)) < 50:
            await asyncio.sleep(0)
            assert len(had) <= before + 1
    assert had == ["it"] * 50
    assert made == ["it"]


@in_loop
async def test_what_cannot_be_made_is_tried_again() -> None:
    tries = list[int]()

    def make() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise MemoryError
        return "it"

    one = MadeOnce(make)
    with pytest.raises(MemoryError):
        await one.get()
    assert await one.get() == "it"
