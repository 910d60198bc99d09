"""What may hang is waited for off the event loop, and not for ever."""

import asyncio
import threading
import time

import pytest
from serving import PATIENCE, in_loop

from lstm_serve.serving.aside import Aside


@in_loop
async def test_what_a_function_gives_and_raises() -> None:
    aside = Aside()
    assert await aside.run(60, divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await aside.run(60, divmod, 7, 0)
    assert await aside.run(60, threading.current_thread) is not threading.current_thread()


@in_loop
async def test_one_that_hangs_is_left_behind_and_no_other_begun_beside_it() -> None:
    aside, going_on, begun = Aside(), threading.Event(), list[int]()
    with pytest.raises(TimeoutError):
        await aside.run(0.01, going_on.wait)
    with pytest.raises(TimeoutError):
        await aside.run(60, begun.append, 1)
    assert begun == []
    going_on.set()
    while aside.busy:  # noqa: ASYNC110 - an attribute, set by a thread
        await asyncio.sleep(0.001)
    await aside.run(60, begun.append, 2)
    assert begun == [2]


@in_loop
async def test_where_no_thread_can_be_started_a_later_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is full may refuse one: who watches for changes has to ask again, and may."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    aside = Aside()
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        with pytest.raises(TimeoutError):
            await aside.run(60, divmod, 7, 2)
    assert await aside.run(60, divmod, 7, 2) == (3, 1)


@in_loop
async def test_who_is_cancelled_as_the_function_ends_is_cancelled() -> None:
    """The service would never stop, whose watch over its files went on."""
    go_on, threads = threading.Event(), threading.active_count()
    waiting = asyncio.create_task(Aside().run(PATIENCE, go_on.wait))
    await asyncio.sleep(0)
    go_on.set()
    while threading.active_count() > threads:
        time.sleep(0.001)  # noqa: ASYNC251 - what it has found is not looked at before
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
