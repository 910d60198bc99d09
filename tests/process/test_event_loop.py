"""The loop that the service runs in, where many connect at once."""

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from lstm_serve.process.event_loop import AT_ONCE, new_loop
from lstm_serve.serving.state import ServingState
from lstm_serve.settings import Settings
from lstm_serve.telemetry.metrics import Metrics


class Accepted(asyncio.Protocol):
    """Counts what is accepted, and closes it."""

    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        type(self).count += 1
        transport.close()


@pytest.mark.parametrize("again", [False, True])
def test_several_are_accepted_in_a_turn_and_none_once_it_is_closed(*, again: bool) -> None:
    """On a socket of its own, and on one that another process has as well, which goes on listening."""

    async def connect() -> None:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            shared = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            given = {"sock": shared.dup()} if again else {"host": "127.0.0.1", "port": 0}
            server = await loop.create_server(Accepted, **given)
            address = server.sockets[0].getsockname()
            for _ in range(20 * AT_ONCE):
                stack.enter_context(socket.create_connection(address))
            Accepted.count = turns = 0
            while Accepted.count < 20 * AT_ONCE:
                await asyncio.sleep(0)
                turns += 1
            assert turns < 30
            server.close()
            await server.wait_closed()
            if not again:
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(address)
                return
            stack.enter_context(socket.create_connection(address))
            stack.enter_context(shared.accept()[0])

    serving = ServingState(Settings(model=Path("unread.h5")), Metrics())
    with asyncio.Runner(loop_factory=lambda: new_loop(serving)) as runner:
        runner.run(connect())
