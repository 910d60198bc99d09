"""What uvicorn's HTTP protocol leaves open, one connection at a time: limits on headers, on time, and on connections.

uvicorn waits for ever for a request, for its headers and for its body. Here each connection notes since when it waits,
and `sweep`, called about once a second, ends what has waited too long: cheaper than a timer for each request.
"""

import asyncio
import time
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.live import Live
from service.routes import STATUSES, error_body, of_another_dialect

# Names and values, as servers usually bound them.
MAX_HEADER_BYTES = 32 << 10


class JoinedWrites:
    """A transport that sends the head of an answer together with its body: one system call and one packet."""

    def __init__(self, transport: asyncio.Transport) -> None:
        """Everything but writing is the transport's own."""
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._head = b""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the transport has
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send `data`; a head waits for what is written next, until the end of this turn of the loop at most."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.endswith(b"\r\n\r\n") and not data.startswith(b"HTTP/1.1 100"):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        """Close, once everything is sent."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol with limits. Its states: waiting for a request's headers, for its body, or for its answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's own
        """As uvicorn makes it; the limits are the settings of the app's model."""
        super().__init__(*args, **kwargs)
        self.live: Live = self.config.app.state.live  # type: ignore[union-attr]
        self._since = time.monotonic()
        self._in_headers = True
        self._chunk = 0  # the size of what came last
        self._header_bytes = 0  # what has come of headers that are not complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start a connection, or refuse it where there are too many."""
        super().connection_made(JoinedWrites(transport))  # type: ignore[arg-type]
        if len(self.connections) > self.live.settings.max_connections:
            self._refuse(503, "too many connections")

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and count what it has taken of headers that are not complete."""
        self._chunk = len(data)
        # A chunk in which a next request begins is mostly the one before.
        self._header_bytes = self._header_bytes + len(data) if self._in_headers else 0
        super().data_received(data)
        if self._in_headers and self._header_bytes > MAX_HEADER_BYTES:
            self._refuse(431, f"the headers are over {MAX_HEADER_BYTES} bytes")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._since = time.monotonic()
        self._in_headers = True

    def on_headers_complete(self) -> None:
        """Its headers are complete."""
        if self._chunk > MAX_HEADER_BYTES:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > MAX_HEADER_BYTES:
                self._header_bytes = size  # and `data_received` refuses it
                return
        self._in_headers = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        if not self._in_headers:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        if not self._in_headers:
            super().on_message_complete()

    def sweep(self, now: float) -> None:
        """End what has waited too long; `now` in the time of `time.monotonic`."""
        waited, settings = now - self._since, self.live.settings
        if self._in_headers:
            if waited > settings.header_seconds and not self._header_bytes:
                self.transport.close()  # opened and never used
            elif waited > settings.header_seconds:
                self._refuse(408, f"the headers did not come within {settings.header_seconds:g} seconds")
        elif self.cycle is not None and self.cycle.more_body and not self.cycle.response_started:
            if waited > settings.body_seconds:
                self._refuse(408, f"the body did not come within {settings.body_seconds:g} seconds")
        elif self.flow.write_paused and waited > settings.body_seconds:
            self.transport.abort()  # an answer that is not read

    def _refuse(self, status: int, detail: str) -> None:
        """Answer below the app, in the form of the path's dialect, and close."""
        if self.transport.is_closing():
            return
        path = self.scope["path"] if self.scope is not None and "path" in self.scope else "/"
        kind, body = error_body(STATUSES[status], detail, plain=of_another_dialect(path))
        self.live.metrics.rejected.labels(STATUSES[status].slug).inc()
        head = [
            b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode()),
            b"content-type: " + kind[1],
            b"content-length: %d" % len(body),
            b"connection: close",
            *([b"retry-after: 1"] if status == 503 else []),
        ]
        self.transport.write(b"\r\n".join([*head, b"", body]))
        self.transport.close()
