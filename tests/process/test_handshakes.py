"""TLS connections until they are set up: whoever leaves meanwhile leaves nothing behind."""

import asyncio
import contextlib
import socket
import ssl
import struct

import pytest
from serving import ASKER, PATIENCE

from lstm_serve.process.event_loop import new_loop
from lstm_serve.serving.state import ServingState
from lstm_serve.settings import Settings
from lstm_serve.telemetry.metrics import Metrics


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n"])
@pytest.mark.parametrize("reset", [False, True])
def test_who_leaves_before_tls_is_there_leaves_no_task(sent: bytes, *, reset: bool) -> None:
    serving = ServingState(Settings(model=ASKER / "k215_model.h5", header_seconds=0.1), Metrics())
    tasks = set[asyncio.Task[None]]()
    wrong = list[dict[str, object]]()

    async def come_and_leave() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: wrong.append(context))
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        for _ in range(20):
            with socket.create_connection(server.sockets[0].getsockname()) as client:
                client.sendall(sent)
                if reset:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        entered = 0
        async with asyncio.timeout(PATIENCE):
            while entered < 20 or serving.slots.connections:
                new = asyncio.all_tasks() - tasks - {asyncio.current_task()}
                entered += sum("Handshake._shake" in repr(task) for task in new)
                tasks.update(new)  # which keeps them
                await asyncio.sleep(0)
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await task
        server.close()

    with asyncio.Runner(loop_factory=lambda: new_loop(serving)) as runner:
        runner.run(come_and_leave())
    assert not wrong
