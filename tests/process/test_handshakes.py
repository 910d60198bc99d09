"""TLS connections until they are set up: whoever leaves meanwhile leaves nothing behind."""

import asyncio
import contextlib
import socket
import ssl
import struct
from contextlib import closing
from pathlib import Path

import pytest
import uvicorn
from apps import app_of, state_of
from load import request
from native_requests import GOOD
from serving import ASKER, PATIENCE, started
from uvicorn.server import ServerState

from lstm_serve.process.connection import Protocol
from lstm_serve.process.event_loop import new_loop
from lstm_serve.process.handshakes import HANDSHAKE_BYTES
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


@pytest.mark.parametrize("reset", [False, True])
def test_who_leaves_in_the_middle_leaves_no_slot_and_no_bytes(*, reset: bool) -> None:
    serving = ServingState(Settings(model=ASKER / "k215_model.h5"), Metrics())

    async def come_and_leave() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        with closing(server), socket.create_connection(server.sockets[0].getsockname()) as client:
            client.sendall(b"\x16\x03\x01\x02\x00\x01")
            await few_iterations()
            assert (len(serving.slots.connections), serving.budget.bytes) == (1, HANDSHAKE_BYTES)
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            await few_iterations()
            assert (serving.slots.connections, serving.budget.bytes) == (set(), 0)

    async def few_iterations() -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=lambda: new_loop(serving)) as runner:
        runner.run(come_and_leave())


def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(certificate: tuple[Path, Path]) -> None:
    chain, key = certificate
    app = app_of()
    serving = state_of(app)
    config = uvicorn.Config(app, http=Protocol, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(chain, key)
    came, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context(cafile=str(chain)).wrap_bio(came, sent, server_hostname="127.0.0.1")

    async def ask() -> bytes:
        state = ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: Protocol(config, state, {}), "127.0.0.1", 0, ssl=server_side
        )
        async with asyncio.timeout(PATIENCE), started(app):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            with closing(server), closing(writer):
                while True:
                    try:
                        tls.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        writer.write(sent.read())
                        came.write(await reader.read(1 << 16))
                tls.write(request("/predict", GOOD))
                writer.write(sent.read())
                answer = b""
                while not answer:
                    part = await reader.read(1 << 16)
                    assert part
                    came.write(part)
                    with contextlib.suppress(ssl.SSLWantReadError):
                        answer = tls.read()
                assert len(serving.slots.connections) == 1
            while state.connections:  # noqa: ASYNC110 - nothing sets an event
                await asyncio.sleep(0)
            assert (serving.slots.connections, serving.budget.bytes) == (set(), 0)
        return answer

    with asyncio.Runner(loop_factory=lambda: new_loop(serving)) as runner:
        assert runner.run(ask()).startswith(b"HTTP/1.1 200 OK\r\n")
