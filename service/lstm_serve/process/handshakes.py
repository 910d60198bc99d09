"""A connection until its TLS is set up: it has a slot like any other, and may have to leave it."""

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Any

from lstm_serve.serving.memory_budget import Inflight, Kept
from lstm_serve.serving.slots import ConnectionState, Slots

TLS_BYTES = 40 << 10  # what OpenSSL and the loop keep for a connection at least
HANDSHAKE_BYTES = 60 << 10  # and until its handshake is over


def tls_bytes(most_read: int, most_written: int) -> int:
    """About what they keep for one that has read and written as much at once: OpenSSL's buffers grow by a third more.

    They never shrink (https://docs.openssl.org/3.0/man3/BUF_MEM_new/).
    """
    return TLS_BYTES + (most_read + most_written) * 4 // 3


class Handshake(asyncio.Protocol):
    """What comes with the end of the handshake is handed on to the protocol that is made then."""

    state = ConnectionState.handshake

    def __init__(
        self, make: Callable[[], Any], context: ssl.SSLContext, seconds: float, slots: Slots, inflight: Inflight
    ) -> None:
        """It may take so many seconds."""
        self._make, self._context, self._seconds, self._slots = make, context, seconds, slots
        self._came: list[bytes] = []
        self._kept = Kept(inflight, lambda: slots.end(self))
        self.since = time.monotonic()
        self.transport: asyncio.Transport
        self._tasks: list[asyncio.Task[Any]] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, where there is a slot; who cannot be told why is just closed."""
        self.transport = transport
        if not self._slots.enter(self):
            self.end()
            return
        transport.set_write_buffer_limits(1)
        self._kept.become(HANDSHAKE_BYTES)
        self._tasks.append(asyncio.get_running_loop().create_task(self._shake()))

    def data_received(self, data: bytes) -> None:
        """Keep what comes before the protocol is there."""
        self._came.append(data)

    def connection_lost(self, _: Exception | None) -> None:
        """It is over, before TLS was there to be told: it would wait for ever."""
        self._let_go()
        for task in self._tasks:
            task.cancel()

    def end(self) -> None:
        """Close it, at once."""
        self._let_go()
        self.transport.abort()

    def _let_go(self) -> None:
        self._slots.leave(self)
        self._kept.close()

    def _feed(self) -> None:
        """Hand on what came before TLS was there to take it."""
        tls: Any = self.transport.get_protocol()  # a buffered one
        came, self._came = b"".join(self._came), []
        if came and tls is not self and not self.transport.is_closing():
            tls.get_buffer(len(came))[: len(came)] = came
            tls.buffer_updated(len(came))

    async def _shake(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            shaking = loop.create_task(
                loop.start_tls(
                    self.transport, self, self._context, server_side=True, ssl_handshake_timeout=self._seconds
                )
            )
            self._tasks.append(shaking)
            await asyncio.sleep(0)
            loop.call_soon(self._feed)  # after start_tls has its protocol connected, before more is read
            transport = await shaking
        except (OSError, EOFError):  # a timeout is one, and what is no TLS
            self._slots.end(self)
            return
        self._let_go()
        if transport is None or transport.is_closing():
            return
        protocol = self._make()
        protocol.raw = self.transport
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        for data in self._came:
            protocol.data_received(data)
