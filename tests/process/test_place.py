"""A worker's place: when its process counts as ended, and when the next one is tried."""

import asyncio
import os
import socket

import pytest
from serving import in_loop

from lstm_serve.process import place

# Ends at once, and leaves a child with its end of the channel, until the socket is closed that it was given.
LEAVES_A_CHILD = """
import json, os, socket, sys
_, (given,), *_ = json.loads(sys.argv[1])
if os.fork():
    os._exit(7)
socket.socket(fileno=given).recv(1)
"""


@in_loop
async def test_a_process_has_ended_whoever_keeps_its_end_of_the_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "WORKER", LEAVES_A_CHILD)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        how = await place.WorkerPlace(1, [theirs]).live({}, os.environ, theirs.fileno(), greets=False)
    assert how == "with status 7"


def test_the_pause_grows_with_each_that_fails_after_the_first() -> None:
    of, pauses = place.WorkerPlace(1, []), []
    for of.short in (0, 1, 2, 3, 4, 5, 6, 7, 1000):
        pauses.append(of.pause)
    assert pauses == [0, 0, 1, 2, 4, 8, 16, 30, 30]


@in_loop
async def test_who_is_to_be_tried_at_once_is_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "WORKER", "")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        of = place.WorkerPlace(1, [theirs])
        of.short = 1000
        for _ in range(2):
            await of.live({}, os.environ, theirs.fileno(), greets=False)
            waiting = asyncio.create_task(of.wait())
            for _ in range(10):
                await asyncio.sleep(0)
            assert not waiting.done()
            of.again.set()
            await waiting
