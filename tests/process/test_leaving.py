"""What a connection leaves behind, however it ends: no slot, no bytes, and nothing for the garbage collector."""

import asyncio
import gc
import socket
import struct
import weakref
from collections.abc import Callable

import pytest
import uvicorn
from apps import app_of, state_of
from load import request
from native_requests import GOOD as BODY
from serving import PATIENCE, started
from uvicorn.server import ServerState

from lstm_serve.process.connection import Protocol
from lstm_serve.process.event_loop import new_loop
from lstm_serve.serving.state import ServingState

GOOD = request("/predict", BODY)
Kept = Callable[[ServingState], object]
WAITS: dict[str, tuple[bytes, Kept]] = {
    "for nothing yet": (b"", lambda serving: serving.slots.connections),
    "for headers": (GOOD[:60], lambda serving: serving.budget.bytes),
    "for a body": (GOOD[:-1], lambda serving: serving.budget.bytes),
    "with answers that are not taken": (request("/openapi.json") * 99, lambda serving: serving.budget.bytes > 1 << 14),
    "refused, until it has read why": (b"x: y\r\n" * 9999, lambda serving: serving.lingering),
}


class Nowhere(asyncio.Transport):
    """A transport that goes nowhere."""

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("waits", WAITS)
def test_who_leaves_leaves_nothing_behind(waits: str, *, reset: bool) -> None:
    sent, kept = WAITS[waits]
    app = app_of()
    serving = state_of(app)
    config = uvicorn.Config(app, http=Protocol, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()

    async def come_and_leave() -> None:
        state, lost, there = ServerState(), asyncio.Event(), list[weakref.ref[Protocol]]()

        class Noting(Protocol):
            """Notes when it is over."""

            def __init__(self) -> None:
                super().__init__(config, state, {})
                there.append(weakref.ref(self))

            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                lost.set()

        server = await asyncio.get_running_loop().create_server(Noting, "127.0.0.1", 0)
        try:
            async with started(app), asyncio.timeout(PATIENCE):
                with socket.create_connection(server.sockets[0].getsockname()) as client:
                    await asyncio.to_thread(client.sendall, sent)
                    while not kept(serving):  # noqa: ASYNC110 - nothing sets an event
                        await asyncio.sleep(0)
                    if reset:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                await lost.wait()
                if state.tasks:
                    await asyncio.wait(state.tasks)
                await asyncio.sleep(0)
            assert (serving.slots.connections, serving.lingering, state.connections) == (set(), set(), set())
            budget = serving.budget
            assert (budget.bytes, budget.besides, budget.uploads, budget.kept, budget.queued) == (0, 0, {}, {}, {})
            # A timer has who was refused for two seconds.
            assert waits.startswith("refused") or [each() for each in there] == [None]
        finally:
            server.close()
            for connection in filter(None, (each() for each in there)):
                connection.transport.abort()
            await asyncio.sleep(0)

    gc.disable()
    try:
        with asyncio.Runner(loop_factory=lambda: new_loop(serving)) as runner:
            runner.run(come_and_leave())
    finally:
        gc.enable()


def test_who_leaves_before_its_turn_takes_no_turn() -> None:
    app = app_of()
    config = uvicorn.Config(app, http=Protocol, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()

    class Noting(Protocol):
        """Notes when it is read."""

        read = False

        def take(self) -> bool:
            self.read = True
            return super().take()

    async def come_and_leave() -> list[bool]:
        async with started(app):
            found = []
            for leaves in (True, False):
                connection = Noting(config, ServerState(), {})
                connection.connection_made(Nowhere())
                connection.data_received(GOOD[:60])
                if leaves:
                    connection.connection_lost(ConnectionResetError())
                found.append(connection)
            await asyncio.sleep(0)
            found[-1].connection_lost(ConnectionResetError())
            return [each.read for each in found]

    assert asyncio.run(come_and_leave()) == [False, True]
