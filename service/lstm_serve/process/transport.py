"""What uvicorn's protocol works with, each with one thing changed: the transport, the flow and the answer."""

import asyncio
from collections.abc import Callable, Iterable
from http import HTTPStatus

from uvicorn._types import ASGISendEvent, HTTPResponseBodyEvent, HTTPResponseStartEvent
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from lstm_serve.web.errors import STATUSES, error_body

# How long a connection that was refused is kept for its client to read why.
LINGER_SECONDS = 2.0


class Lingering:
    """A transport whose connection is closed for writing only, where it is to be read from a while longer."""

    def __init__(self, transport: asyncio.Transport, lingers: Callable[[], bool]) -> None:
        """Everything but `close` is the transport's own; `lingers` says, at the end, which way to close."""
        self._transport = transport
        self._lingers: Callable[[], bool] | None = lingers
        self._write, self.is_closing, self.abort = transport.write, transport.is_closing, transport.abort
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading
        self.get_write_buffer_size, self.can_write_eof = transport.get_write_buffer_size, transport.can_write_eof
        self.get_extra_info = transport.get_extra_info
        self.written = 0  # bytes of what was written last, all of which is kept until the last of them is out

    def write(self, data: bytes) -> None:
        """Send it."""
        self.written = len(data)
        self._write(data)

    def close(self) -> None:
        """Close, once everything is sent."""
        if self._lingers is not None and self._lingers():
            self._transport.write_eof()
        else:
            self._transport.close()

    def lost(self) -> None:
        """Let go of the protocol: it holds this, and would wait for the garbage collector with all that it has read."""
        self._lingers = None


def _nothing() -> None:
    pass


class PipelinedFlowControl(FlowControl):
    """uvicorn's, where what has come already is taken before more is read."""

    def __init__(self, transport: asyncio.Transport, go_on: Callable[[], None]) -> None:
        """`go_on` is told where what has come is to be taken."""
        super().__init__(transport)
        self._go_on = go_on
        self._reads = True

    def pause_reading(self) -> None:
        """Take no more, of what has come neither."""
        self.read_paused = True
        self.hold()

    def resume_reading(self) -> None:
        """Go on, where nothing was to be taken."""
        if self.read_paused:
            self.go_on()

    def go_on(self) -> None:
        """Take what has come and read on, unless an answer is not taken."""
        if not self.write_paused:
            self.read_paused = False
            self._go_on()

    def hold(self) -> None:
        """Read nothing, until what has come is taken."""
        if self._reads:
            self._reads = False
            self._transport.pause_reading()

    def read(self) -> None:
        """Read on."""
        if not self._reads and not self.read_paused:
            self._reads = True
            self._transport.resume_reading()

    def lost(self) -> None:
        """Let go of the protocol, as the transport does."""
        self._go_on = _nothing


class Cycle(RequestResponseCycle):
    """uvicorn's request and answer; a whole answer is sent with its head: one system call, one packet.

    It takes a fifth of the time that uvicorn's two writes do, which look at each header for what the app never sends.
    """

    _start: HTTPResponseStartEvent | None = None
    _to_the_end = False  # whether the end of the connection is that of the body

    async def send(self, message: ASGISendEvent) -> None:
        """Hold the head back until the body comes. To who has left nothing is sent."""
        if self.flow.write_paused:
            await self.flow.drain()
        if self.transport.is_closing():
            self.disconnected = True
        if message["type"] == "http.response.start" and not self.response_started:
            self._start = message
            return
        start, self._start = self._start, None
        if start is not None:
            if message["type"] == "http.response.body" and self._sent(start, message):
                return
            if self.scope["http_version"] == "1.0" and all(name != b"content-length" for name, _ in start["headers"]):
                self._to_the_end, self.keep_alive = True, False
                self.chunked_encoding = False  # HTTP/1.0 knows no chunks
            await super().send(start)
        if self._to_the_end and message["type"] == "http.response.body":
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)

    def _sent(self, start: HTTPResponseStartEvent, message: HTTPResponseBodyEvent) -> bool:
        """Send both, where that is the usual answer; the others, such as a file's, are left to uvicorn."""
        if message.get("more_body") or not self.keep_alive or self.disconnected or self.scope["method"] == "HEAD":
            return False
        lines = [STATUS_LINE[start["status"]]]
        for name, value in (*self.default_headers, *start["headers"]):
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n")
        head, body = b"".join(lines), message["body"]
        if b"content-length: %d\r\n" % len(body) not in head:
            return False
        self.transport.write(head + body)
        self.response_started = self.response_complete = True
        self.message_event.set()
        self.on_response()
        return True


def body_length(version: str, headers: Iterable[tuple[bytes, bytes]]) -> int:
    """The bytes of the body as it tells them; 0 for none, and for chunks.

    Raises ValueError for what RFC 9112 has refused: proxies may see other requests in it than this one.
    """
    if version not in {"1.0", "1.1"}:
        raise ValueError("Expected HTTP/1.1.")
    hosts = codings = length = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            codings += 1 if version == "1.1" and value.strip().lower() == b"chunked" else 2
    if codings > 1:
        raise ValueError("Expected no Transfer-Encoding but chunked, once, and with HTTP/1.1 alone.")
    if hosts > 1 or (not hosts and version == "1.1"):
        raise ValueError("Expected the header Host once.")
    return length


def refusal(status: int, detail: str, request_id: str, *, plain: bool) -> bytes:
    """An answer from below the app, after which the connection is closed."""
    content_type, body = error_body(STATUSES[status], detail, plain=plain)
    head = [
        b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode()),
        b"content-type: " + content_type[1],
        b"content-length: %d" % len(body),
        b"x-request-id: " + request_id.encode(),
        b"connection: close",
        *([b"retry-after: 1"] if status in {429, 503} else []),
    ]
    return b"\r\n".join([*head, b"", body])
