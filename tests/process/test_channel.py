"""Questions and answers between two processes, of which one may end at any time."""

import asyncio
import socket

import pytest
from serving import in_loop

from lstm_serve.process.channel import Channel


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
