"""Questions and answers between two processes, of which one may end at any time."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from serving import PATIENCE, in_loop

from lstm_serve.process.channel import Channel, Handlers, message


@asynccontextmanager
async def answered_by(handlers: Handlers) -> AsyncIterator[Channel]:
    """A channel to another, which has these handlers; both run."""
    ours, theirs = socket.socketpair()
    channel, other = Channel({}), Channel(handlers)
    await channel.open(ours)
    await other.open(theirs)
    running = [asyncio.create_task(each.run()) for each in (channel, other)]
    try:
        yield channel
    finally:
        running[1].cancel()
        await asyncio.wait(running)


@in_loop
async def test_a_process_that_ends_in_the_middle_of_a_line() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel({})
    await channel.open(ours)
    running = asyncio.create_task(channel.run())
    asked = asyncio.create_task(channel.ask("report"))
    await asyncio.sleep(0)
    assert theirs.recv(100) == b'["report",0,null]\n'
    theirs.sendall(b'["",0,{"checks":')
    theirs.close()
    await running
    with pytest.raises(ConnectionError):
        await asked
    with pytest.raises(ConnectionError):
        channel.tell("report", None)


@in_loop
async def test_what_is_still_being_answered_ends_with_the_other_end() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(_: object) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    ours, theirs = socket.socketpair()
    channel = Channel({"wait": wait})
    await channel.open(ours)
    running = asyncio.create_task(channel.run())
    theirs.sendall(message("wait"))
    await begun.wait()
    theirs.close()
    await running
    await asyncio.sleep(0)
    assert ended.is_set()


@in_loop
async def test_nothing_is_kept_of_questions_that_are_answered_or_not_waited_for() -> None:
    async def answer(content: object) -> object:
        return content

    def futures() -> int:
        gc.collect()
        return sum(isinstance(each, asyncio.Future) for each in gc.get_objects())

    async with answered_by({"echo": answer}) as channel:
        before = futures()
        for number in range(20):
            assert await channel.ask("echo", number) == number
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(channel.ask("echo"), 0)
        assert await channel.ask("echo", "the last") == "the last"
        assert futures() < before + 10


@in_loop
async def test_a_question_that_fails_is_answered_none_and_told(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_: object) -> None:
        raise ZeroDivisionError

    async with answered_by({"fail": fail}) as channel, asyncio.timeout(PATIENCE):
        assert await channel.ask("fail") is None
        assert await channel.ask("nothing") is None
    assert "'fail' of another process was not answered" in caplog.text


@pytest.mark.parametrize("iterations", range(5))
@in_loop
async def test_an_answer_that_comes_as_nobody_waits_any_more_ends_nothing(iterations: int) -> None:
    ours, theirs = socket.socketpair()
    channel = Channel({})
    await channel.open(ours)
    running = asyncio.create_task(channel.run())
    late = asyncio.create_task(channel.ask("late"))
    await asyncio.sleep(0)
    theirs.sendall(message("", 0, "an answer"))
    for _ in range(iterations):
        await asyncio.sleep(0)
    late.cancel()
    next_one = asyncio.create_task(channel.ask("next"))
    await asyncio.sleep(0)
    theirs.sendall(message("", 1, "its answer"))
    async with asyncio.timeout(PATIENCE):
        assert await next_one == "its answer"
        theirs.close()
        await running
